"""Tombstones: what was deleted, superseded, or recognised as a duplicate, durable before anything acts on it.

Each writer appends to logs of its own, `journal/wNNNNNNNN-SSSSSSSS.log`: a head of 16 bytes (magic, version,
writer, checksum), then frames (little endian)::

     0  4s   magic "PcTb"
     4  u32  CRC-32C of all that follows in the frame
     8  24s  locator
    32  24s  successor, all bits set where there is none
    56  u64  time, microseconds since the epoch
    64  u8   reason
    65  u8   0
    66  u16  length of the UID
    68       SOP Instance UID, ASCII

A call's tombstones are one write and one sync. If that fails, the log is cut back and never used again, and
the next one begins with a retraction of each: half-made decisions that reached the disk all the same must not
bury, at the next reindex, an instance that is still held.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator, Sequence

from pacs_core.errors import CorruptError, PacsError
from pacs_core.store.base import Locator, Reason, Tombstone, crc32c
from pacs_core.store.files import sync_folder
from pacs_core.store.syscalls import FILE_MODE, Syscalls, is_no_room, step, write_all

VERSION = 1

_HEAD = struct.Struct("<4sIII")
_HEAD_MAGIC = b"PcJl"
_FRAME = struct.Struct("<4sI24s24sQBBH")
_MAGIC = b"PcTb"
_NO_SUCCESSOR = b"\xff" * 24
_REASONS = frozenset(Reason)
_ROLL_AT = 64 << 20


def encode(tombstone: Tombstone) -> bytes:
    """One frame. Raises ValueError for a UID that can't be one (over 65,535 bytes)."""
    uid = tombstone.uid.encode("utf-8", "surrogateescape")
    if len(uid) > 0xFFFF:
        raise ValueError(f"a UID of {len(uid)} bytes")
    successor = _NO_SUCCESSOR if tombstone.successor is None else tombstone.successor.pack()
    frame = _FRAME.pack(
        _MAGIC, 0, tombstone.locator.pack(), successor, tombstone.time, tombstone.reason, 0, len(uid)
    )
    checksum = crc32c(uid, crc32c(memoryview(frame)[8:]))
    return frame[:4] + struct.pack("<I", checksum) + frame[8:] + uid


def decode(raw: bytes, position: int) -> tuple[Tombstone, int] | None:
    """The tombstone at `position` and where the next one begins; None if there is no whole one."""
    if len(raw) - position < _FRAME.size:
        return None
    magic, checksum, locator, successor, time, reason, _, length = _FRAME.unpack_from(raw, position)
    end = position + _FRAME.size + length
    if magic != _MAGIC or reason not in _REASONS or end > len(raw):
        return None
    if crc32c(memoryview(raw)[position + 8 : end]) != checksum:
        return None
    uid = raw[position + _FRAME.size : end].decode("utf-8", "surrogateescape")
    heir = None if successor == _NO_SUCCESSOR else Locator.unpack(successor)
    return Tombstone(Locator.unpack(locator), heir, Reason(reason), uid, time), end


def _decode_all(raw: bytes) -> Iterator[tuple[Tombstone, int]]:
    """Every tombstone in `raw` and its end; damaged bytes are stepped over, a torn tail is left alone."""
    position = 0
    while position >= 0:
        if (decoded := decode(raw, position)) is not None:
            position = decoded[1]
            yield decoded
        else:
            position = raw.find(_MAGIC, position + 1)


def _log_path(folder: str, writer: int, sequence: int) -> str:
    return f"{folder}/w{writer:08x}-{sequence:08x}.log"


class JournalLog:
    """Where one writer notes its decisions, one call at a time."""

    def __init__(self, syscalls: Syscalls, folder: str, writer: int) -> None:
        self._syscalls = syscalls
        self._folder = folder
        self._writer = writer
        self._fd = -1
        self._sequence = 0
        self._tail = 0
        self._doubtful: list[Tombstone] = []

    def append(self, tombstones: Sequence[Tombstone]) -> None:
        """Make them durable, all or none. Raises StorageError or OutOfResourcesError: then none counts."""
        retractions = [entry._replace(reason=Reason.RETRACTED) for entry in self._doubtful]
        frames = b"".join(map(encode, (*retractions, *tombstones)))
        if self._fd >= 0 and self._tail >= _ROLL_AT:
            self._leave()
        if self._fd < 0:
            self._create()
        path = _log_path(self._folder, self._writer, self._sequence)
        try:
            with step("write", path):
                write_all(self._syscalls, self._fd, (frames,), self._tail)
        except PacsError as exc:
            self._take_back(tombstones, condemn=not is_no_room(exc))
            raise
        try:
            with step("sync", path):
                self._syscalls.fdatasync(self._fd)
        except PacsError:
            self._take_back(tombstones, condemn=True)
            raise
        self._tail += len(frames)
        self._doubtful.clear()

    def _take_back(self, tombstones: Sequence[Tombstone], *, condemn: bool) -> None:
        self._doubtful += tombstones
        try:
            self._syscalls.ftruncate(self._fd, self._tail)
        except OSError:
            condemn = True
        if condemn:
            self._leave()

    def _create(self) -> None:
        path = _log_path(self._folder, self._writer, self._sequence)
        head = _HEAD.pack(_HEAD_MAGIC, VERSION, self._writer, 0)[:12]
        head += struct.pack("<I", crc32c(head))
        with step("create", path):
            self._fd = self._syscalls.create(path)
        try:
            with step("write", path):
                write_all(self._syscalls, self._fd, (head,), 0)
            with step("sync", self._folder):
                sync_folder(self._syscalls, self._folder)
        except PacsError:
            with contextlib.suppress(OSError):
                self._syscalls.unlink(path)
            self._leave()
            raise
        self._tail = _HEAD.size

    def _leave(self) -> None:
        fd, self._fd = self._fd, -1
        self._sequence += 1
        self._tail = 0
        with contextlib.suppress(OSError):
            self._syscalls.close(fd)

    def close(self) -> None:
        """Note what is still to be retracted, if it can be, and close."""
        if self._doubtful:
            with contextlib.suppress(PacsError):
                self.append(())
        if self._fd >= 0:
            self._leave()


class Unfinished:
    """`journal/unfinished`, a byte that all processes see: 1 while decisions may not be carried out yet.

    Whoever dies over one leaves it so. It need not be durable: after a power cut all writers are dead ones,
    and every decision is looked at.
    """

    def __init__(self, syscalls: Syscalls, path: str) -> None:
        self._syscalls = syscalls
        self._path = path

    def __bool__(self) -> bool:
        with step("read", self._path), contextlib.suppress(FileNotFoundError):
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(fd, 1, 0) == b"1"
            finally:
                os.close(fd)
        return False

    def set(self, value: bool) -> None:
        """Say so, or that all is done. Raises StorageError, OutOfResourcesError."""
        with step("write", self._path):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                self._syscalls.pwrite(fd, b"1" if value else b"0", 0)
            finally:
                os.close(fd)


class Journal:
    """What all writers of an archive decided. Reads only what was added since it last looked. Any thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._positions: dict[str, int] = {}
        self._standing: dict[tuple[int, int], tuple[Tombstone, ...]] = {}
        self._retracted: dict[tuple[int, int, int], str] = {}

    def refresh(self) -> None:
        """Read what was added. Raises StorageError, or CorruptError for a version that we do not know."""
        with self._lock, step("read", self._folder):
            try:
                entries = sorted(os.scandir(self._folder), key=lambda entry: entry.name)
            except FileNotFoundError:
                return
            for entry in entries:
                start = self._positions.get(entry.name, _HEAD.size)
                if entry.name.endswith(".log") and entry.stat().st_size > start:
                    self._read(entry.name, entry.path, start)

    def _read(self, name: str, path: str, start: int) -> None:
        with open(path, "rb") as log:  # noqa: PTH123
            if start == _HEAD.size:
                _check_head(log.read(_HEAD.size), path)
            log.seek(start)
            raw = log.read()
        for tombstone, end in _decode_all(raw):
            self._take(tombstone, name[:9])
            self._positions[name] = start + end

    def _take(self, told: Tombstone, writer: str) -> None:
        """Count one entry of a writer's log.

        A retraction names locator and time of what it undoes. In the logs of one writer the order counts
        (what was retracted may be decided again); between writers the retraction wins.
        """
        key = told.locator[:2]
        if told.reason is Reason.RETRACTED:
            self._retracted[(*key, told.time)] = writer
            left = tuple(other for other in self._standing.get(key, ()) if other.time != told.time)
            if left:
                self._standing[key] = left
            else:
                self._standing.pop(key, None)
        elif self._retracted.get((*key, told.time), writer) == writer:
            self._standing[key] = (*self._standing.get(key, ()), told)

    def find(self, locator: Locator) -> Tombstone | None:
        """The standing decision about a locator (its length does not matter), as of the last refresh."""
        told = self._standing.get(locator[:2])
        return told[-1] if told else None

    def standing(self) -> list[Tombstone]:
        """Every standing decision as of the last refresh, the newest of each locator."""
        with self._lock:
            return [told[-1] for told in self._standing.values()]


def _check_head(head: bytes, path: str) -> None:
    magic, version, _, checksum = _HEAD.unpack(head)
    if magic == _HEAD_MAGIC and crc32c(head[:12]) == checksum and version != VERSION:
        raise CorruptError(f"{path} has version {version}, not {VERSION}")
