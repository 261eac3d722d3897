"""The header of a received data set: its index fields, in one native pass.

What a `Finding` can say (`kind`), with the tag and offset of the first of its kind, and how many there were:

`mislabelled syntax`      the data set is not encoded as its transfer syntax says (byte order, VR, deflate)
`implicit element`        an element without VR in explicit VR
`explicit element`        an element with VR in implicit VR
`unknown vr`              a VR that is none
`two-byte length`         a VR of the long header form, written with the short one
`odd length`              (PS3.5 7.1.1)
`out of order`            tags that do not ascend (PS3.5 7.1)
`duplicate`               the last one counts
`wrong vr`                an indexed attribute of a VR that changes its meaning: read by the one it has
`misplaced delimiter`     item and sequence delimiters missing, or where none belongs
`deep nesting`            more than 128 sequences in each other
`trailing bytes`          after the last element
`bad deflate stream`      broken, or with a zlib header
`unknown character set`   a term of (0008,0005) that is not in the standard, or misspelt
`bad characters`          bytes that their character set does not have; `charset` says how they are read
`cut value`               an indexed value of more than 8,192 bytes
`bad length`              of a binary number: the rest is dropped

Offsets count from the start of the data set (as inflated, if it is deflated); those of the last four kinds
are 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacs_core._ext.dataset import Header, Scan, Scanner
from pacs_core._ext.findings import KINDS, Finding
from pacs_core.dicom.attributes import ATTRIBUTES, ITEMS
from pacs_core.dicom.charset import decode, parse
from pacs_core.dicom.uids import TRANSFER_SYNTAXES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KINDS", "Finding", "Header", "HeaderScan", "Scanner", "scan", "scanner"]


def scanner(wanted: Iterable[tuple[int, str]], *, inflate_limit: int = 1 << 30) -> Scanner:
    """A scanner for any attributes, (tag, VR) each; `scan` is that of `attributes.ATTRIBUTES`.

    Of sequences those of `attributes.ITEMS` can be wanted.
    `inflate_limit`: bytes that a deflated data set may inflate to.
    """
    attributes = tuple(wanted)
    return Scanner(
        attributes,
        {uid: (s.implicit, s.little_endian, s.deflated) for uid, s in TRANSFER_SYNTAXES.items()},
        decode,
        lambda character_set: parse(character_set).known,
        items=[one for tag, vr in attributes if vr == "SQ" for one in ITEMS.get(tag, ())],
        inflate_limit=inflate_limit,
    )


_SCANNER = scanner((attribute.tag, attribute.vr) for attribute in ATTRIBUTES)

scan = _SCANNER.scan
"""scan(data, transfer_syntax_uid) -> Header: of a whole data set in memory, without file meta information."""


class HeaderScan(Scan):
    """The scan of one data set that arrives in chunks: `feed` each, then `finish` for the header.

    Gives what `scan` gives for the whole, in whatever chunks; memory is bounded whatever lengths claim.
    """

    def __init__(self, transfer_syntax_uid: str, scanner: Scanner = _SCANNER) -> None:
        super().__init__(scanner, transfer_syntax_uid)
