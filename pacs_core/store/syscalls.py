"""The one door through which the write path reaches the operating system.

Tests subclass `Syscalls` to fail, to stop or to kill at any step; everything else uses it as it is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from pacs_core._ext.appending import SyncError as SyncError
from pacs_core._ext.appending import append
from pacs_core.errors import PacsError, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

FILE_MODE = 0o640
FOLDER_MODE = 0o750

_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
_MOST_BUFFERS = 1024  # IOV_MAX


class Syscalls:
    """One method per step of the write path; each raises `OSError` as the system call does."""

    def open_tmpfile(self, folder: str) -> int:
        """A new file without a name, on the file system of `folder`."""
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)

    def create(self, path: str) -> int:
        """A new file that was not there before, for reading and writing."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)

    def open_write(self, path: str) -> int:
        """An existing file, for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_folder(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def append(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write all of `buffers` from `offset` and sync them; raises SyncError if that is what failed."""
        return append(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync_dir(self, fd: int) -> None:
        os.fsync(fd)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        """Have blocks for a range; where it is behind the end, the file grows with zeros."""
        os.posix_fallocate(fd, offset, length)

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        """Give the blocks of a range back; it reads as zeros from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def link(self, fd: int, name: str, folder_fd: int) -> None:
        """Give an open file without a name the name `name`: linkat(2) through /proc."""
        # With dst_dir_fd Python calls linkat with AT_SYMLINK_FOLLOW; without, it links the symlink itself.
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder_fd, follow_symlinks=True)

    def rename(self, path: str, name: str, folder_fd: int) -> None:
        os.rename(path, name, dst_dir_fd=folder_fd)

    def unlink(self, path: str, folder_fd: int | None = None) -> None:
        os.unlink(path, dir_fd=folder_fd)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, FOLDER_MODE)  # noqa: PTH102 - every call of this class is the bare system call

    def flock(self, fd: int, operation: int) -> None:
        fcntl.flock(fd, operation)


def is_no_room(exc: PacsError) -> bool:
    """Whether `exc` came of a full disk: the bytes did not fit, nothing is known to be broken."""
    return isinstance(exc.__cause__, OSError) and exc.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


class step:
    """Turns the `OSError` of a step into the leaf it means, naming the step: ``with step("sync", path):``."""

    __slots__ = ("_doing", "_what")

    def __init__(self, doing: str, what: str) -> None:
        self._doing = doing
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, OSError):
            raise from_os_error(exc, f"{self._doing} {self._what}") from exc


def write_all(syscalls: Syscalls, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
    """Write all of `buffers` one after the other from `offset`, whatever the system takes at a time.

    Returns the number of bytes. Raises `OSError`; what was written until then is unknown.
    """
    written = 0
    for first in range(0, len(buffers), _MOST_BUFFERS):
        views = [memoryview(buffer) for buffer in buffers[first : first + _MOST_BUFFERS]]
        pending = [view.cast("B") for view in views if view.nbytes]
        while pending:
            taken = syscalls.pwritev(fd, pending, offset + written)
            if taken <= 0:
                raise OSError(errno.EIO, "the system took no bytes")
            written += taken
            passed = 0
            while passed < len(pending) and taken >= pending[passed].nbytes:
                taken -= pending[passed].nbytes
                passed += 1
            del pending[:passed]
            if taken:
                pending[0] = pending[0][taken:]
    return written
