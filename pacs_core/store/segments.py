"""Small instances: frames appended to segment files, one sync for a batch.

A segment `wNNNNNNNN/seg-SSSSSSSS.seg` begins with a head of 64 bytes: magic, version, writer, sequence,
checksum of these, and at 24 the `Tally` of what was removed. Frames follow, each at a multiple of 8 (little
endian, offsets from the frame's start)::

     0  4s   magic: "PcFr", or "PcDd" once removed (written in place, outside the checksum)
     4  u32  CRC-32C of bytes 8 to 48
     8  u32  writer      \\
    12  u32  sequence     > where the frame is: bytes of another place are never taken for a frame
    16  u64  offset      /
    24  u64  stamp
    32  u32  length of the Part 10 bytes
    36  u32  length of the fields blob
    40  u32  CRC-32C of the Part 10 bytes
    44  u32  CRC-32C of the fields blob
    48       Part 10 bytes, fields blob, zeros up to a multiple of 8

A locator names the Part 10 bytes; the header is the 48 bytes before them. Since a header proves itself and
its place, what a torn or rotten header hides can be stepped over: the scan looks for the next header that
checks. A tail in which none does was never acknowledged.

The space ahead is made ready a step at a time. A sync of bytes inside the file needs no commit of the file
system's journal if they were written before: for small frames zeros are written (ext4, frames of 3 KB: 93 us
a sync, 137 after fallocate, 150 for appending), for large ones, where that would cost the disk as much again,
the space is only allocated.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pacs_core.errors import CorruptError, OutOfResourcesError, PacsError
from pacs_core.store.base import SEQUENCE_LIMIT, Kept, Locator, State, crc32c
from pacs_core.store.files import sync_folder
from pacs_core.store.syscalls import SyncError, Syscalls, is_no_room, step, write_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION = 1
HEAD_SIZE = 64
HEADER_SIZE = 48
ALIGNMENT = 8
LIVE = b"PcFr"
DEAD = b"PcDd"

_HEAD = struct.Struct("<4sIIII")  # magic, version, writer, sequence, checksum of the four
_HEAD_MAGIC = b"PcSg"
_TALLY = struct.Struct("<QQ")
_TALLY_AT = 24
_HEADER = struct.Struct("<4sI")  # magic, checksum of the body
_BODY = struct.Struct("<IIQQIIII")
_PAGE = 4096
_ZEROS = 1 << 20
_AHEAD = (1 << 20, 64 << 20)  # allocated: as many bytes as there are already, between these
_WINDOW = 1 << 20


def segment_path(writer: str, sequence: int) -> str:
    """The path of a segment, `writer` being the path of its writer's folder."""
    return f"{writer}/seg-{sequence:08x}.seg"


def segment_sequence(name: str) -> int | None:
    """The sequence in the name of a segment; None if it is not one."""
    if len(name) == 16 and name.startswith("seg-") and name.endswith(".seg"):
        with contextlib.suppress(ValueError):
            return int(name[4:12], 16)
    return None


def segment_sequences(writer: str) -> list[int]:
    """The sequences of a writer's segments, ascending."""
    names = os.listdir(writer)  # noqa: PTH208 - names, not paths
    return sorted(found for name in names if (found := segment_sequence(name)) is not None)


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


class StagedFrame:
    """A small instance, remembered until it is published. The buffers stay the caller's."""

    __slots__ = ("buffers", "checksums", "fields", "length", "stamp", "used")

    def __init__(self, meta: bytes, data: Buffer, fields: bytes, stamp: int) -> None:
        self.buffers = (meta, data)
        self.fields = fields
        self.stamp = stamp
        self.length = len(meta) + memoryview(data).nbytes
        self.checksums = (crc32c(data, crc32c(meta)), crc32c(fields))
        self.used = False

    def discard(self) -> None:
        """Let go of the buffers."""
        self.used = True
        self.buffers = (b"", b"")


class Frame(NamedTuple):
    """A header that checks."""

    writer: int
    sequence: int
    offset: int
    stamp: int
    part10_length: int
    fields_length: int
    part10_checksum: int
    fields_checksum: int
    dead: bool

    @property
    def size(self) -> int:
        return _aligned(HEADER_SIZE + self.part10_length + self.fields_length)

    @property
    def locator(self) -> Locator:
        return Locator.in_segment(self.writer, self.sequence, self.offset + HEADER_SIZE, self.part10_length)

    @property
    def content(self) -> tuple[int, int]:
        """Offset and length of all behind the header."""
        return self.offset + HEADER_SIZE, self.size - HEADER_SIZE

    @property
    def pages(self) -> int:
        """Bytes of the whole pages in the content: what the disk can have back."""
        start, length = self.content
        first = -(-start // _PAGE) * _PAGE
        return max(0, (start + length) // _PAGE * _PAGE - first)


class Tally(NamedTuple):
    """What was removed from a segment, in bytes: its frames, and of those what was given back to the disk.

    About so: it may be behind the frames after a crash, or ahead of them after a power cut.
    """

    dead: int
    holes: int

    @classmethod
    def read(cls, fd: int) -> Tally:
        return cls._make(_TALLY.unpack(os.pread(fd, _TALLY.size, _TALLY_AT).ljust(_TALLY.size, b"\0")))

    def write(self, syscalls: Syscalls, fd: int) -> None:
        syscalls.pwrite(fd, _TALLY.pack(*self), _TALLY_AT)


def encode_header(
    writer: int, sequence: int, offset: int, stamp: int, lengths: tuple[int, int], checksums: tuple[int, int]
) -> bytes:
    """A live frame's header; `lengths` and `checksums` are of the Part 10 bytes and of the fields blob."""
    body = _BODY.pack(writer, sequence, offset, stamp, *lengths, *checksums)
    return _HEADER.pack(LIVE, crc32c(body)) + body


def decode_header(raw: Buffer, writer: int, sequence: int, offset: int) -> Frame | None:
    """The frame whose header `raw` begins with; None if it does not check, or belongs elsewhere."""
    view = memoryview(raw)
    if view.nbytes < HEADER_SIZE:
        return None
    magic, checksum = _HEADER.unpack_from(view)
    if magic not in (LIVE, DEAD) or crc32c(view[8:HEADER_SIZE]) != checksum:
        return None
    body = _BODY.unpack_from(view, 8)
    if body[:3] != (writer, sequence, offset):
        return None
    return Frame._make((*body, magic == DEAD))


class SegmentArea:
    """The segments of one writer, appended to by one thread at a time."""

    def __init__(self, syscalls: Syscalls, folder: str, writer: int, size: int) -> None:
        self._syscalls = syscalls
        self._folder = folder
        self._writer = writer
        self._size = size
        self._fd = -1
        self._prepared = self._allocated = 0  # up to where zeros were written, or space was allocated
        self.sequence = 0
        """The segment that is open, or the next to be made."""
        self.tail = 0
        """Where its next frame goes; 0 before it is made."""

    def publish(self, batch: Sequence[StagedFrame]) -> list[Locator | PacsError]:
        """Append all frames with one write and one sync: all of them are durable, or none is."""
        if not batch:
            return []
        try:
            if self._fd >= 0 and self.tail >= self._size:
                self._seal()
            if self._fd < 0:
                self._create()
            return list(self._append(batch))
        except PacsError as exc:
            return [exc] * len(batch)
        finally:
            for frame in batch:
                frame.discard()

    def _append(self, batch: Sequence[StagedFrame]) -> list[Locator]:
        buffers: list[Buffer] = []
        locators = []
        position = self.tail
        for frame in batch:
            lengths = (frame.length, len(frame.fields))
            header = encode_header(
                self._writer, self.sequence, position, frame.stamp, lengths, frame.checksums
            )
            end = HEADER_SIZE + frame.length + len(frame.fields)
            buffers += (header, *frame.buffers, frame.fields, bytes(-end % ALIGNMENT))
            locators.append(
                Locator.in_segment(self._writer, self.sequence, position + HEADER_SIZE, frame.length)
            )
            position += _aligned(end)
        path = segment_path(self._folder, self.sequence)
        if position - self.tail < _ZEROS // 4:
            if position > self._prepared:
                buffers.append(bytes(_ZEROS))
        elif position > self._allocated:
            ahead = min(max(_AHEAD[0], self.tail), _AHEAD[1])
            with contextlib.suppress(OSError):  # not every file system can, and a full one says so below
                self._syscalls.allocate(self._fd, self.tail, position + ahead - self.tail)
                self._allocated = position + ahead
        try:
            with step("append to", path):
                written = self._syscalls.append(self._fd, buffers, self.tail)
        except PacsError as exc:
            # After a failed sync it is not synced again and believed.
            self._take_back(condemn=isinstance(exc.__cause__, SyncError) or not is_no_room(exc))
            raise
        self._prepared = max(self._prepared, self.tail + written)
        self.tail = position
        return locators

    def _take_back(self, *, condemn: bool) -> None:
        """Cut off what was not acknowledged; go on in a new segment if told to, or if that fails."""
        try:
            self._syscalls.ftruncate(self._fd, self.tail)
        except OSError:
            condemn = True
        self._prepared = self._allocated = self.tail
        if condemn:
            self._leave()

    def _create(self) -> None:
        if self.sequence >= SEQUENCE_LIMIT:
            raise OutOfResourcesError(f"writer {self._writer} has used all its segments; open the store anew")
        path = segment_path(self._folder, self.sequence)
        with step("create", path):
            self._fd = self._syscalls.create(path)
        head = _HEAD.pack(_HEAD_MAGIC, VERSION, self._writer, self.sequence, 0)
        head = head[:16] + struct.pack("<I", crc32c(head[:16]))
        try:
            with step("write", path):
                write_all(self._syscalls, self._fd, (head.ljust(HEAD_SIZE, b"\0"),), 0)
            with step("sync", path):
                self._syscalls.fdatasync(self._fd)
            with step("sync", self._folder):
                sync_folder(self._syscalls, self._folder)
        except PacsError:
            with contextlib.suppress(OSError):
                self._syscalls.unlink(path)
            self._leave()
            raise
        self.tail = self._prepared = self._allocated = HEAD_SIZE

    def _seal(self) -> None:
        """Close a full segment; what is allocated ahead of its tail goes, if it can."""
        with contextlib.suppress(OSError):
            self._syscalls.ftruncate(self._fd, self.tail)
        self._leave()

    def _leave(self) -> None:
        fd, self._fd = self._fd, -1
        self.sequence += 1
        self.tail = self._prepared = self._allocated = 0
        with contextlib.suppress(OSError):
            self._syscalls.close(fd)

    def close(self) -> None:
        if self._fd >= 0:
            self._seal()


class _Window:
    """A file read forwards through a buffer."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size
        self._start = 0
        self._bytes = b""

    def get(self, offset: int, length: int) -> memoryview:
        """Bytes from `offset`; fewer than `length` at the end of the file."""
        if offset < self._start or offset + length > self._start + len(self._bytes):
            self._start = offset
            self._bytes = os.pread(self._fd, max(length, _WINDOW), offset)
        return memoryview(self._bytes)[offset - self._start :][:length]

    def find_next(self, offset: int, writer: int, sequence: int) -> Frame | None:
        """The first frame at or after `offset` whose header checks."""
        while offset < self.size:
            chunk = bytes(self.get(offset, _WINDOW))
            if not chunk:
                break
            candidates = []
            for magic in (LIVE, DEAD):
                at = chunk.find(magic)
                while at >= 0:
                    candidates.append(at)
                    at = chunk.find(magic, at + 1)
            for at in sorted(candidates):
                if (offset + at) % ALIGNMENT == 0:
                    raw = self.get(offset + at, HEADER_SIZE)
                    frame = decode_header(raw, writer, sequence, offset + at)
                    if frame is not None:
                        return frame
            offset += max(ALIGNMENT, (len(chunk) - HEADER_SIZE) // ALIGNMENT * ALIGNMENT)
        return None


def refuse_newer(fd: int, writer: int, sequence: int) -> None:
    """Raises CorruptError for a segment of a version that we do not know.

    A head that does not check says nothing, and hides nothing: frames prove themselves.
    """
    raw = os.pread(fd, _HEAD.size, 0)
    if len(raw) == _HEAD.size:
        magic, version, *place, checksum = _HEAD.unpack(raw)
        ours = magic == _HEAD_MAGIC and crc32c(raw[:16]) == checksum and place == [writer, sequence]
        if ours and version != VERSION:
            raise CorruptError(f"segment {sequence:08x} of writer {writer:08x} has version {version}")


def scan(fd: int, writer: int, sequence: int, start: int, *, check: bool) -> Iterator[tuple[Kept, bool]]:
    """What a segment holds from `start` on, in order: what was kept, and whether it was marked as removed.

    With `check` the Part 10 bytes are read and checked too. Bytes that no header accounts for, but that a
    later frame follows, come as one DAMAGED piece; a tail without any frame as nothing.
    """
    window = _Window(fd, os.fstat(fd).st_size)
    refuse_newer(fd, writer, sequence)
    position = max(start, HEAD_SIZE)
    while position < window.size:
        frame = decode_header(window.get(position, HEADER_SIZE), writer, sequence, position)
        if frame is None:
            frame = window.find_next(position, writer, sequence)
            if frame is None:
                return
            gap = Locator.in_segment(writer, sequence, position, frame.offset - position)
            yield Kept(gap, None, None, State.DAMAGED), False
        yield _examine(window, frame, check), frame.dead
        position = frame.offset + frame.size


def _examine(window: _Window, frame: Frame, check: bool) -> Kept:
    if frame.dead:
        return Kept(frame.locator, frame.stamp, None, State.LISTED)
    part10 = frame.offset + HEADER_SIZE
    end = part10 + frame.part10_length + frame.fields_length
    if end > window.size:
        return Kept(frame.locator, frame.stamp, None, State.DAMAGED)
    if check and crc32c(window.get(part10, frame.part10_length)) != frame.part10_checksum:
        return Kept(frame.locator, frame.stamp, None, State.DAMAGED)
    fields = bytes(window.get(part10 + frame.part10_length, frame.fields_length))
    if crc32c(fields) != frame.fields_checksum:
        return Kept(frame.locator, frame.stamp, None, State.DAMAGED)
    return Kept(frame.locator, frame.stamp, fields, State.CHECKED if check else State.LISTED)
