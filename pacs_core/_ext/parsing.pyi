"""Bytes to data sets of a class made of `Tree`."""

from typing import TypeVar

from typing_extensions import Buffer

from pacs_core._ext.findings import Finding
from pacs_core._ext.tree import Tree

_T = TypeVar("_T", bound=Tree)

def parse(
    made: type[_T],
    data: Buffer,
    *,
    implicit: bool = False,
    little: bool = True,
    start: int = 0,
    meta: object = None,
    character_set: bytes = b"",
    signed: bool = False,
    found: tuple[Finding, ...] = (),
    cut: tuple[int, int] | None = None,
) -> _T:
    """The data set of class `made` that begins at `start` of a buffer.

    Parameters
    ----------
    character_set, signed
        Specific Character Set and Pixel Representation of what it is in, if that is something.
    found, cut
        Findings that were made before, and what is missing of what the data set was in; None if nothing.

    Raises UnparsableError for more than 256 sequences in each other or 33 million elements, and nothing else:
    what is wrong is among the findings.
    """

def open_file(made: type[_T], data: Buffer, encodings: dict[str, tuple[bool, bool]]) -> _T | None:
    """The data set of a file that begins as PS3.10 7.1 has it, in a transfer syntax that needs no inflating.

    `encodings`: (implicit, little endian) by transfer syntax UID. None for any other file: `dicom.reading`
    looks closer at it.
    """

def parse_meta(made: type[_T], data: Buffer, start: int) -> tuple[_T, int]:
    """The file meta information from `start` of a buffer on, and where it ends (PS3.10 7.1)."""
