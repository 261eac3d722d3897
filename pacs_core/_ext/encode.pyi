"""Data sets to bytes, in any transfer syntax that is not compressed (PS3.5 section 7, Annex A)."""

from collections.abc import Callable
from typing import final

from pacs_core._ext.tree import Tree

@final
class Encoder:
    """Writes one data set; `encode` is its use."""

    def __init__(
        self, implicit: bool, little: bool, meta: bool, encode_text: Callable[[str, bytes, bool], bytes]
    ) -> None: ...

def encode(
    tree: Tree,
    encode_text: Callable[[str, bytes, bool], bytes],
    *,
    implicit: bool = False,
    little: bool = True,
    meta: bool = False,
) -> list[bytes | memoryview]:
    """The data set as bytes, in pieces: bytes, and views of bulk data.

    If `meta`, it is file meta information; otherwise nothing of groups 0000 and 0002 is written.

    Raises
    ------
    InvalidValueError
        If text can't be written in the data set's character set; for more than 256 sequences in each other;
        for a value or a sequence of defined length over 4 GiB.
    """
