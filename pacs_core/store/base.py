"""The values that the store and its callers exchange: where bytes are, what is kept, what was decided."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from pacs_core._ext.checksum import crc32c

__all__ = [
    "NONE_COVERED",
    "SEGMENT_BIT",
    "Kept",
    "Locator",
    "Mark",
    "Reason",
    "State",
    "Tombstone",
    "crc32c",
]

SEGMENT_BIT = 1 << 63
WRITER_LIMIT = 1 << 31
SEQUENCE_LIMIT = 1 << 32

_LOCATOR = struct.Struct("<QQQ")


class Locator(NamedTuple):
    """Where the Part 10 bytes of an instance are.

    Attributes
    ----------
    container : int
        Bit 63: 0 a file, 1 a segment; then 31 bits of writer number and 32 of that writer's sequence.
    offset, length : int
        The Part 10 bytes inside the container; in a file 0 and its size.
    """

    container: int
    offset: int
    length: int

    @classmethod
    def of_file(cls, writer: int, sequence: int, length: int) -> Locator:
        return cls(writer << 32 | sequence, 0, length)

    @classmethod
    def in_segment(cls, writer: int, sequence: int, offset: int, length: int) -> Locator:
        return cls(SEGMENT_BIT | writer << 32 | sequence, offset, length)

    @property
    def is_segment(self) -> bool:
        return bool(self.container & SEGMENT_BIT)

    @property
    def writer(self) -> int:
        return self.container >> 32 & 0x7FFFFFFF

    @property
    def sequence(self) -> int:
        return self.container & 0xFFFFFFFF

    def pack(self) -> bytes:
        """24 bytes: the three numbers, little endian; the form that the index keeps."""
        return _LOCATOR.pack(*self)

    @classmethod
    def unpack(cls, packed: bytes) -> Locator:
        return cls(*_LOCATOR.unpack(packed))

    def __str__(self) -> str:
        kind = "seg" if self.is_segment else "file"
        return f"w{self.writer:08x}/{kind}-{self.sequence:08x}+{self.offset}:{self.length}"


class Mark(NamedTuple):
    """Everything of a writer before these positions (exclusive) is accounted for.

    Attributes
    ----------
    writer : int
    file : int
        The first file sequence not covered.
    segment, offset : int
        The first byte of frames not covered: a segment sequence and an offset in it.
    """

    writer: int
    file: int
    segment: int
    offset: int


NONE_COVERED = Mark(0, 0, 0, 0)


class State(IntEnum):
    """How whole something found on disk is, as far as it was looked at.

    A file's own checksum is in its file meta (PS3.10 7.1), which the store does not read: a file is never
    more than LISTED here.
    """

    LISTED = 0
    """There, of the right length; a frame's header and fields check. The Part 10 bytes were not read."""
    CHECKED = 1
    """A frame whose every byte checks."""
    DAMAGED = 2
    """Not whole: a torn write that was never acknowledged, or a loss."""


class Kept(NamedTuple):
    """Something on disk, as `Store.walk` finds it.

    `stamp` and `fields` are those of a segment frame; None for a file (they can be had from its bytes), and
    for a damaged frame. `tombstone` is set when the walk was asked to show what is dead as well.
    """

    locator: Locator
    stamp: int | None
    fields: bytes | None
    state: State
    tombstone: Tombstone | None = None


class Reason(IntEnum):
    """Why the bytes at a locator no longer count."""

    DELETED = 1
    SUPERSEDED = 2
    DUPLICATE = 3
    RETRACTED = 255
    """In the journal only: an earlier entry of the same writer for this locator did not come about."""


class Tombstone(NamedTuple):
    """A durable decision about the bytes at `locator`.

    Attributes
    ----------
    successor : Locator | None
        The bytes that stand in their place: the replacement, or the first copy of a duplicate.
    uid : str
        The SOP Instance UID.
    time : int
        Microseconds since the epoch.
    """

    locator: Locator
    successor: Locator | None
    reason: Reason
    uid: str
    time: int
