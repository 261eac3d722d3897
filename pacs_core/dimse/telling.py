"""Identifiers of responses on their way out: from what is made natively to what the peer reads.

They are made in little endian and UTF-8. They leave in the transfer syntax of the request, and in the
character set of its identifier if it names one that has what they say; otherwise in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator

from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.recoding import CHARACTER_SET
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import InvalidValueError

_UNIVERSAL = frozenset({b"", b"ISO_IR 6", b"ISO_IR 192"})
_TO_CHARACTER_SET = {
    IMPLICIT_VR_LITTLE_ENDIAN: b"\x08\0\x05\0\x0a\0\0\0",
    EXPLICIT_VR_LITTLE_ENDIAN: b"\x08\0\x05\0CS\x0a\0",
}


def native_syntax(wanted: str) -> str:
    """The transfer syntax that responses are made in: the wanted one, if it is made natively."""
    return wanted if wanted in _TO_CHARACTER_SET else EXPLICIT_VR_LITTLE_ENDIAN


def told_in(
    chunks: Iterator[list[bytes]], native: str, wanted: str, character_set: bytes
) -> Iterator[list[bytes]]:
    """Responses in a transfer syntax; those that are not ASCII in a character set, if it has all they say."""
    if character_set in _UNIVERSAL and native == wanted:
        return chunks
    return _converted(chunks, native, wanted, character_set)


def _converted(chunks: Iterator[list[bytes]], native: str, wanted: str, sets: bytes) -> Iterator[list[bytes]]:
    """Responses in another transfer syntax; those that are not ASCII in the character set, if it has all."""
    foreign = _TO_CHARACTER_SET[native]
    for chunk in chunks:
        yield [
            _in_sets(response, native, wanted, sets if response.startswith(foreign) else b"")
            if native != wanted or response.startswith(foreign)
            else response
            for response in chunk
        ]


def _in_sets(response: bytes, native: str, wanted: str, sets: bytes) -> bytes:
    dataset = read_dataset(response, native)
    if sets not in _UNIVERSAL:
        other = dataset.copy()
        other.set(CHARACTER_SET, sets.decode("ascii", "replace"), "CS")
        try:
            return other.to_bytes(wanted)
        except InvalidValueError:  # it does not have all: UTF-8, then
            pass
    return dataset.to_bytes(wanted)
