"""Checkpoints: the last state of the index that is certain to be on disk, and the way back to it.

Commits are not synced: what an instance's record says is in the instance's own bytes, which are durable
before it is acknowledged, so the newest records can be made again from them. What a power cut must not do is
mix pages of different commits. LMDB never writes over a page that some reader may read, and begins to use a
commit by writing one of the two meta pages at the head of its file. A checkpoint therefore is: all pages
synced, then the meta pages copied to the file `checkpoint` and synced there, then a reader that stays
(`Environment.pin`), so that no page of this state is written over until the next checkpoint is on disk.

Whoever opens the index while nobody else has it open puts the copied meta pages back, and so has exactly that
state, whatever else the disk holds: after a power cut, and after a SIGKILL as well, since the two can't be
told apart. If the last one to close made a checkpoint, nothing changes by it. Who opens while somebody lives
who has it open finds the page cache right, and leaves everything as it is. Not so once a sync has failed:
the system says that to those who had the file open, and forgets it. They note it in the file `doubted`, which
need not be durable, and nobody else opens the index until somebody who is alone has gone back.

The file has two slots, written in turns, each of a page and the meta pages::

     0  8s   magic
     8  u64  sequence
    16  u32  length of the meta pages
    20  u32  CRC-32C of bytes 0 to 20 and of the meta pages

and the meta pages from byte 4,096 on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from pacs_core._ext.checksum import crc32c
from pacs_core.errors import IndexSharedError, StorageError, from_os_error

_MAGIC: Final = b"PcCheck1"
_HEAD: Final = struct.Struct("<8sQI")
_CHECKSUM: Final = struct.Struct("<I")
_HEAD_ROOM: Final = 4096
_LARGEST_PAGE: Final = 65536
_SLOT: Final = _HEAD_ROOM + 2 * _LARGEST_PAGE


def sync_path(path: Path) -> None:
    """Make the names in a folder, or the bytes of a file, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _State(NamedTuple):
    """What a slot holds."""

    sequence: int
    metas: bytes


class Checkpoint:
    """The file `checkpoint` of an index folder; `open.lock` and `doubted`: who has it open, and who may.

    Make it, write it and `restore` under the commit lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data.mdb"
        self._lock_file = folder / "lock.mdb"
        self._files: list[int] = []
        try:
            for name in ("checkpoint", "open.lock", "doubted"):
                self._files.append(os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
        except OSError as exc:
            self.close()
            raise from_os_error(exc, f"open {folder / name}") from exc
        self._fd, self._presence, self._doubt = self._files

    def restore(self) -> None:
        """Go back to the last checkpoint if nobody has the index open, and be one who has it open.

        Raises
        ------
        OSError
            The system failed to; nobody is told that the index is open here.
        StorageError
            Somebody has it open since before a sync failed.
        """
        state = self._last()
        if self._is_alone():
            if state is not None:
                self._put_back(state)
            if self._is_doubted():
                os.pwrite(self._doubt, b"0", 0)
        else:
            self.trust()
        fcntl.flock(self._presence, fcntl.LOCK_SH)

    def restore_after_failure(self) -> None:
        """As `restore`, for one who has it open and whose sync failed.

        What others have open can't be changed under them: they have to let go of it.

        Raises
        ------
        IndexSharedError
            Others have the index open.
        """
        if not self._is_alone():
            fcntl.flock(self._presence, fcntl.LOCK_SH)  # a lock that can't be made stronger may be lost
            raise IndexSharedError(f"{self._data} failed, and other processes have it open")
        self.doubt()  # until it is done: the meta pages may get mixed up
        try:
            self.restore()
        finally:  # or the next to open it would wait here for us, and we for the commit lock
            fcntl.flock(self._presence, fcntl.LOCK_SH)

    def doubt(self) -> None:
        """A sync failed: what the page cache shows may never get to disk."""
        with contextlib.suppress(OSError):
            os.pwrite(self._doubt, b"1", 0)

    def trust(self) -> None:
        """Raise StorageError if somebody could not sync what the page cache shows."""
        if self._is_doubted():
            raise StorageError(f"{self._data} failed, and those who have it open did not go back yet")

    def _is_doubted(self) -> bool:
        return os.pread(self._doubt, 1, 0) == b"1"

    def _is_alone(self) -> bool:
        """Whether nobody else has the index open; nobody can open it then until `restore` is done."""
        try:
            fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _put_back(self, state: _State) -> None:
        fd = os.open(self._data, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.pread(fd, len(state.metas), 0) == state.metas:
                return
            os.pwrite(fd, state.metas, 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        # It tells of commits that are gone; some foreign reader may keep LMDB from making it anew.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._lock_file)  # noqa: PTH108

    def metas(self, page_size: int) -> bytes:
        """The meta pages as they are in the index now."""
        fd = os.open(self._data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, 2 * page_size, 0)
        finally:
            os.close(fd)

    def write(self, metas: bytes) -> None:
        """Make a state, all of whose pages are synced, the last checkpoint. Raises OSError."""
        last = self._last()
        sequence = last.sequence + 1 if last else 1
        head = _HEAD.pack(_MAGIC, sequence, len(metas))
        head += _CHECKSUM.pack(crc32c(metas, crc32c(head)))
        slot = head.ljust(_HEAD_ROOM, b"\0") + metas
        if last is None:  # or the file may be gone after a power cut
            sync_path(self._folder)
        at = sequence % 2 * _SLOT
        try:
            if os.pwrite(self._fd, slot, at) != len(slot):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._fd)
        except OSError:
            # It reads as if it were there. Taken for the last, it would have the next one written over the
            # only one that is on disk for certain.
            os.pwrite(self._fd, bytes(_HEAD_ROOM), at)
            raise

    def _last(self) -> _State | None:
        states = [state for slot in (0, 1) if (state := self._read(slot)) is not None]
        return max(states, default=None)

    def _read(self, slot: int) -> _State | None:
        raw = os.pread(self._fd, _SLOT, slot * _SLOT)
        if len(raw) < _HEAD_ROOM:
            return None
        magic, sequence, length = _HEAD.unpack_from(raw)
        (checksum,) = _CHECKSUM.unpack_from(raw, _HEAD.size)
        metas = raw[_HEAD_ROOM : _HEAD_ROOM + length]
        checks = magic == _MAGIC and crc32c(metas, crc32c(raw[: _HEAD.size])) == checksum
        return _State(sequence, metas) if checks else None

    def close(self) -> None:
        """Have the index open no more."""
        for fd in self._files:
            os.close(fd)
