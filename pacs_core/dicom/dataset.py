"""Data sets: DICOM objects as Python objects, read lazily, changed in place (PS3.5 section 7).

    ds = pacs_core.read("ct.dcm")
    ds.PatientName.family_name
    ds["RequestAttributesSequence.0.ScheduledProcedureStepID"]
    ds.PatientID = "X"
    ds.save("other.dcm")

Keys are keywords, tags, tags as text, paths and private elements (`keys`). A value is converted when it is
asked for: text and names by the character set, dates, times and decimal strings to the types of `values`,
numbers, sequences to lists of data sets, bulk data to views of the bytes that were read. Several values are a
tuple.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from pacs_core._ext.encode import encode
from pacs_core._ext.jsonmodel import to_json
from pacs_core._ext.parsing import parse
from pacs_core._ext.tree import Element, Sequence, Tree
from pacs_core._ext.values import Types
from pacs_core.dicom import charset, dictionary, values, writing
from pacs_core.dicom.dump import dump
from pacs_core.dicom.foreign import from_pydicom, to_pydicom
from pacs_core.dicom.jsonmodel import from_json
from pacs_core.dicom.keys import item_at, resolve
from pacs_core.dicom.packing import TEXT, packed
from pacs_core.errors import InvalidValueError

if TYPE_CHECKING:
    import pydicom

__all__ = ["Dataset", "Element", "Sequence"]

_CHARACTER_SET = 0x0008_0005
_PIXEL_DATA = 0x7FE0_0010


class Dataset(Tree):
    """The elements of a data set, an item of a sequence, or file meta information.

    Parameters
    ----------
    elements : mapping of key to value
        What to set.
    keywords
        The same by keyword.

    `meta` is the file meta information (a Dataset of group 0002) of what was read from a file, else None.
    """

    __slots__ = ()
    types = Types(
        charset.decode,
        values.PersonName,
        {
            "DA": values.date,
            "DS": values.decimal_string,
            "DT": values.date_time,
            "IS": values.integer_string,
            "TM": values.time,
        },
        integer_string=values.IntegerString,
        date=values.Date,
        time=values.Time,
        date_time=values.DateTime,
    )

    def __init__(self, elements: Mapping[Any, object] | None = None, /, **keywords: object) -> None:
        for key, value in (*(elements or {}).items(), *keywords.items()):
            self[key] = value

    def _resolve(self, key: object) -> tuple[Tree, int]:
        return resolve(self, key)

    def _item(self, key: object) -> Tree | None:
        return item_at(self, key)

    def _private_vr(self, tag: int) -> str:
        found = dictionary.private_entry(self.creator_of(tag), tag)
        return "UN" if found is None else found.vr

    def set(self, key: object, value: object, vr: str | None = None) -> None:
        """Set an element of which the VR is known: by `vr`, or else as the element has it now, or by the
        dictionaries. What is set is a copy, but for bulk data and the data sets of a sequence.

        Raises
        ------
        KeyError
            If the key means no element.
        InvalidValueError
            If the VR does not allow the value, or the character set of the data set does not have a character
            of it; if there is no VR.
        """
        tree, tag = resolve(self, key, reserve=True)
        assert isinstance(tree, Dataset)
        tree._set(tag, value, vr)

    def _set(self, tag: int, value: object, vr: str | None) -> None:
        if not 0 <= tag <= 0xFFFF_FFFF or tag >> 16 == 0xFFFE:
            raise KeyError(f"{tag:#010x} is no tag of an element")
        vr = vr or self._vr_for(tag, value)
        try:
            data: Any = _sequence(value) if vr == "SQ" else packed(vr, value)
            if vr in TEXT and not data.isascii():
                self._check_text(data, vr)
        except InvalidValueError as exc:
            exc.tag = tag
            raise
        self._put(tag, vr, data)

    def _check_text(self, data: bytes, vr: str) -> None:
        """That the character set has all characters; where none is named, it is UTF-8 from now on."""
        text = data.decode()
        named = bytes(self.element(_CHARACTER_SET).raw) if _CHARACTER_SET in self else self.character_set
        if sets := named.strip(b" \0"):
            charset.encode(text, sets, vr == "PN")
        else:
            self._put(_CHARACTER_SET, "CS", b"ISO_IR 192")

    def _vr_for(self, tag: int, value: object) -> str:
        if tag == _PIXEL_DATA and isinstance(value, list | tuple):
            return "OB"  # encapsulated, whatever it was (PS3.5 A.4)
        if tag in self:
            found = self.element(tag).vr
            if found != "UN":
                return found
        entry = dictionary.entry(tag)
        if entry is not None and entry.vrs:
            return self._choice(entry.vrs)
        private = dictionary.private_entry(self.creator_of(tag), tag)
        if private is not None:
            return private.vr
        if isinstance(value, bytes | bytearray | memoryview):
            return "UN"
        raise InvalidValueError("no dictionary has its VR: give it, as in set(key, value, 'LO')", tag=tag)

    def _choice(self, vrs: tuple[str, ...]) -> str:
        """One of the VRs of which the data set decides (PS3.5 Annex A, PS3.3 C.7.6.3.1)."""
        if len(vrs) == 1:
            return vrs[0]
        if "OW" in vrs:
            return "OW"
        return "SS" if self.get("PixelRepresentation", int(self.signed)) == 1 else "US"

    def to_bytes(self, transfer_syntax_uid: str | None = None) -> bytes:
        """The data set as bytes, without file meta information: in its own transfer syntax, or another one.

        Raises
        ------
        InvalidValueError
            If Pixel Data would have to be compressed or decompressed, or a value can't be written: its
            character is not in the character set, it is longer than 4 GiB.
        """
        return b"".join(writing.encoded(self, transfer_syntax_uid))

    def to_file(self, transfer_syntax_uid: str | None = None) -> bytes:
        """A whole DICOM file as bytes. Raises as `to_bytes`; also without SOP Class or Instance UID."""
        return b"".join(writing.file_of(self, transfer_syntax_uid))

    def save(self, path: str | os.PathLike[str], transfer_syntax_uid: str | None = None) -> None:
        """Write a DICOM file (PS3.10 section 7), whole and synced; until then what was there before stays.

        What was not changed is written byte for byte as it was read, but for the preamble, which is zeros.

        Raises
        ------
        InvalidValueError
            As `to_file`.
        OSError
            If it can't be written.
        """
        writing.save(self, path, transfer_syntax_uid)

    def to_json(
        self, bulk_uri: Callable[[Element], str | None] | None = None, *, bulk_over: int = 1024
    ) -> str:
        """The DICOM JSON Model object of the data set, without file meta information (PS3.18 F.2).

        Parameters
        ----------
        bulk_uri : callable (Element) -> str or None
            The BulkDataURI of a value of more than `bulk_over` bytes, where F.2.2 allows one; None for a
            value that is to be inline, as all are without it.
        """
        return to_json(self, bulk_uri, bulk_over).decode()

    @classmethod
    def from_json(
        cls, source: str | bytes | Mapping[str, Any], fetch: Callable[[str], bytes] | None = None
    ) -> Self:
        """The data set of a DICOM JSON Model object: as text, or as `json.loads` makes it.

        `fetch` gives the bytes of a BulkDataURI: as in explicit VR little endian, text in UTF-8.

        Raises
        ------
        UnparsableError
            For what is not JSON, or not the model.
        InvalidValueError
            For a value that its VR does not allow; for a BulkDataURI, without `fetch`.
        """
        return from_json(cls, source, fetch)

    def dump(self, *, width: int = 120, depth: int | None = None) -> str:
        """The elements as lines for people to read: tag, VR, value, length, keyword; as dcmdump does.

        `width`: characters of a line, in which values are cut. `depth`: how many sequences deep.
        """
        return dump(self, width, depth)

    def __str__(self) -> str:
        return self.dump()

    def __repr__(self) -> str:
        name = self.get("SOPInstanceUID") or self.get("PatientName") or ""
        return f"<Dataset of {len(self)} elements{f', {name}' if name else ''}>"

    def to_pydicom(self) -> pydicom.Dataset:
        """The same as pydicom has it; a FileDataset of what was read from a file. It shares nothing."""
        return to_pydicom(self)

    @classmethod
    def from_pydicom(cls, dataset: pydicom.Dataset) -> Self:
        """Of a data set of pydicom's, which is written and read for it: it shares nothing."""
        return from_pydicom(cls, dataset)

    def __reduce__(self) -> tuple[object, ...]:
        implicit, little = self.encoding
        data = b"".join(encode(self, charset.encode, implicit=implicit, little=little, meta=True))
        return _unpickled, (type(self), data, implicit, little, self.meta, self.character_set, self.signed)

    def __setitem__(self, key: object, value: object) -> None:
        self.set(key, value)

    def __delitem__(self, key: object) -> None:
        tree, tag = resolve(self, key)
        tree._remove(tag)

    def __setattr__(self, name: str, value: object) -> None:
        try:
            tag = dictionary.tag_of(name)
        except KeyError as exc:
            raise AttributeError(exc.args[0]) from None
        self._set(tag, value, None)

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError as exc:
            raise AttributeError(exc.args[0]) from None

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(element.keyword for element in self if element.keyword)]

    __hash__ = None  # type: ignore[assignment]  # it changes


def _sequence(value: object) -> Sequence:
    if isinstance(value, Sequence):
        return value
    if value is None:
        return Sequence()
    if isinstance(value, Tree | Mapping | str) or not isinstance(value, Iterable):
        raise InvalidValueError("a sequence is a list of data sets")
    return Sequence(Dataset(item) if isinstance(item, Mapping) else item for item in value)


def _unpickled(
    made: type[Dataset], data: bytes, implicit: bool, little: bool, meta: object, sets: bytes, signed: bool
) -> Dataset:
    return parse(made, data, implicit=implicit, little=little, meta=meta, character_set=sets, signed=signed)
