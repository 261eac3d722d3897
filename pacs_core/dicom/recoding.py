"""Small data sets in the one form that they are kept in, and in one character set or another."""

from __future__ import annotations

from pacs_core.dicom import charset
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.packing import TEXT
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import InvalidValueError

CHARACTER_SET = 0x0008_0005
UNICODE = b"ISO_IR 192"
"""The Specific Character Set that has all characters: UTF-8."""


def plain(dataset: Dataset) -> Dataset:
    """The same in the form that is kept: explicit VR little endian.

    Raises
    ------
    InvalidValueError
        A value that can't be written; a data set that ends in the middle of something.
    """
    if dataset.truncated:
        raise InvalidValueError("the data set ends in the middle of something")
    return of_bytes(dataset.to_bytes(EXPLICIT_VR_LITTLE_ENDIAN))


def of_bytes(data: bytes) -> Dataset:
    """A data set that is kept."""
    return read_dataset(data, EXPLICIT_VR_LITTLE_ENDIAN)


def converted(dataset: Dataset, sets: bytes) -> Dataset:
    """The same in another Specific Character Set, b'' for none. InvalidValueError if that lacks something."""
    other = dataset.copy()
    if sets:
        other.set(CHARACTER_SET, sets.decode("ascii", "replace"), "CS")
    elif CHARACTER_SET in other:
        del other[CHARACTER_SET]
    return plain(other)


def obeys(dataset: Dataset, sets: bytes | None) -> bool:
    """Whether all text is in a character set: that of the data set, if none is given."""
    for element in dataset.walk():
        if element.vr in TEXT:
            raw = bytes(element.raw)
            own = element.dataset.character_set if sets is None else sets
            if (not raw.isascii() or b"\x1b" in raw) and not charset.decode(raw, own, element.vr == "PN")[1]:
                return False
    return True
