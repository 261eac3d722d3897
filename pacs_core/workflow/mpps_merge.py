"""What an N-SET makes of what is kept of a step: attributes and character sets (PS3.4 F.7.2.2.3).

Attributes are replaced as they are encoded, whole sequences at a time. Text is converted only where the
character set of the request is another one than that of the step.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.recoding import CHARACTER_SET, UNICODE, converted, obeys, of_bytes
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import InvalidValueError


def pieces(data: bytes, dataset: Dataset) -> dict[int, bytes]:
    """The bytes of each element, by its tag; `dataset` is `of_bytes(data)`."""
    found, start = {}, 0
    for element in dataset:
        assert element.offset is not None
        assert element.length is not None
        end = element.offset + element.length + (8 if element.undefined else 0)
        found[element.tag] = data[start:end]
        start = end
    return found


def merged(data: bytes, changes: Dataset) -> bytes:
    """What is kept, `data`, with what is set.

    The character set stays what it was if it has all of the text. Otherwise it becomes that of the request,
    if this has all, or else UTF-8.

    Raises
    ------
    InvalidValueError
        Text would have to be converted, and is not what its character set says.
    """
    kept, new = of_bytes(data), changes
    if _needs_conversion(kept, new):
        kept, new = _in_one_set(kept, new)
    whole = pieces(*_written(kept)) | {
        tag: piece for tag, piece in pieces(*_written(new)).items() if tag != CHARACTER_SET
    }
    return b"".join(whole[tag] for tag in sorted(whole))


def select(data: bytes, tags: Iterable[int]) -> bytes:
    """Of what is kept, these attributes, and the character set that they are in."""
    found = pieces(data, of_bytes(data))
    return b"".join(found[tag] for tag in sorted({CHARACTER_SET, *tags} & found.keys()))


def _written(dataset: Dataset) -> tuple[bytes, Dataset]:
    data = dataset.to_bytes(EXPLICIT_VR_LITTLE_ENDIAN)
    return data, of_bytes(data)


def _needs_conversion(kept: Dataset, new: Dataset) -> bool:
    ours, theirs = kept.character_set.strip(), new.character_set.strip()
    # A request is in the character set of the step (F.7.2.2.1): it need not say so again.
    return ours != theirs and (theirs != b"" or not obeys(new, ours))


def _in_one_set(kept: Dataset, new: Dataset) -> tuple[Dataset, Dataset]:
    for dataset in (kept, new):
        if not obeys(dataset, None):
            raise InvalidValueError("text that is not in its Specific Character Set", tag=CHARACTER_SET)
    for sets in (kept.character_set, new.character_set):
        with suppress(InvalidValueError):
            return converted(kept, sets), converted(new, sets)
    return converted(kept, UNICODE), converted(new, UNICODE)
