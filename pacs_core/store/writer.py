"""Writers: each process that keeps something has a number, a folder and a lock of its own.

`objects/wNNNNNNNN/` is made under `objects/register.lock` with the next number that no folder has. Its file
`lock` is held with flock(2) while the writer lives, so that others can tell: a writer whose lock can be had
died, unless it left the file `clean` behind. Its random content tells writers of the same number apart, of
archives that were copied from each other. Folders of writers are never removed, so numbers never recur.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pacs_core.errors import ArchiveError, OutOfResourcesError
from pacs_core.store.base import WRITER_LIMIT, Mark
from pacs_core.store.files import TEMPORARY_PREFIX, FileArea, sync_folder
from pacs_core.store.journal import JournalLog
from pacs_core.store.segments import SegmentArea, segment_sequence
from pacs_core.store.syscalls import Syscalls, step

LOCK = "lock"
CLEAN = "clean"
REGISTER = "register.lock"
_IDENTITY = 16


def writer_folder(objects: str, number: int) -> str:
    """Where a writer keeps its files."""
    return f"{objects}/w{number:08x}"


def writer_numbers(objects: str) -> list[int]:
    """Every writer that there ever was, ascending."""
    return [n for n in _taken_numbers(objects) if os.path.isdir(writer_folder(objects, n))]  # noqa: PTH112


def _taken_numbers(objects: str) -> list[int]:
    """Numbers that no new writer can have: there is a folder, or something else, of that name."""
    numbers = []
    with step("list", objects):
        try:
            names = os.listdir(objects)  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []
    for name in names:
        if len(name) == 9 and name[0] == "w":
            with contextlib.suppress(ValueError):
                numbers.append(int(name[1:], 16))
    return sorted(numbers)


def open_lock(path: str, *, make: bool) -> int:
    """The descriptor of a lock file; it holds nothing, so it needs no sync."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o640)


@contextlib.contextmanager
def locked(syscalls: Syscalls, path: str, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock file `path`, which is made if need be. Raises BlockingIOError with LOCK_NB."""
    fd = open_lock(path, make=True)
    try:
        syscalls.flock(fd, operation)
        yield
    finally:
        syscalls.close(fd)


class Writer:
    """A registered writer of this process."""

    def __init__(self, syscalls: Syscalls, objects: str, journal: str, number: int, lock_fd: int, size: int):
        self._syscalls = syscalls
        self._lock_fd = lock_fd
        self.number = number
        self.folder = writer_folder(objects, number)
        self.files = FileArea(syscalls, self.folder, number)
        self.segments = SegmentArea(syscalls, self.folder, number, size)
        self.journal = JournalLog(syscalls, journal, number)

    @classmethod
    def register(cls, syscalls: Syscalls, objects: str, journal: str, segment_size: int) -> Writer:
        """A new writer, durable. Raises OutOfResourcesError, StorageError."""
        with step("register a writer in", objects), locked(syscalls, f"{objects}/{REGISTER}"):
            numbers = _taken_numbers(objects)
            number = numbers[-1] + 1 if numbers else 1
            if number >= WRITER_LIMIT:
                raise OutOfResourcesError(f"{objects} has no writer numbers left")
            folder = writer_folder(objects, number)
            syscalls.mkdir(folder)
            lock_fd = syscalls.create(f"{folder}/{LOCK}")
            try:
                syscalls.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                syscalls.pwrite(lock_fd, os.urandom(_IDENTITY), 0)
                sync_folder(syscalls, folder)
                sync_folder(syscalls, objects)
            except BaseException:
                syscalls.close(lock_fd)
                raise
        return cls(syscalls, objects, journal, number, lock_fd, segment_size)

    def mark(self) -> Mark:
        return Mark(self.number, self.files.next_sequence, self.segments.sequence, self.segments.tail)

    def close(self, *, clean: bool) -> None:
        """Let go of everything; with `clean`, nobody need look at this writer again."""
        self.files.close()
        self.segments.close()
        self.journal.close()
        if clean:
            with contextlib.suppress(OSError):  # then it is looked at, once, for nothing
                leave_clean(self._syscalls, self.folder)
        self._syscalls.close(self._lock_fd)


def leave_clean(syscalls: Syscalls, folder: str) -> None:
    """Note, durably, that a writer is accounted for."""
    with contextlib.suppress(FileExistsError):
        syscalls.close(syscalls.create(f"{folder}/{CLEAN}"))
    sync_folder(syscalls, folder)


def is_alive(objects: str, number: int) -> bool:
    """Whether the process of a writer lives and may still write. False for one that closed in order.

    To be asked under the register lock.
    """
    try:
        fd = open_lock(f"{writer_folder(objects, number)}/{LOCK}", make=False)
    except FileNotFoundError:
        return False  # it died while it registered: the register lock is held until the file is there
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def idle_writers(syscalls: Syscalls, objects: str) -> list[int]:
    """Writers that do not live, ascending."""
    if not writer_numbers(objects):
        return []
    with step("look for writers in", objects), locked(syscalls, f"{objects}/{REGISTER}"):
        return [number for number in writer_numbers(objects) if not is_alive(objects, number)]


def dead_writers(syscalls: Syscalls, objects: str) -> list[int]:
    """Writers that neither live nor closed in order, ascending."""
    return [
        number
        for number in idle_writers(syscalls, objects)
        if not os.path.exists(f"{writer_folder(objects, number)}/{CLEAN}")  # noqa: PTH110
    ]


@contextlib.contextmanager
def recovering(syscalls: Syscalls, objects: str, number: int) -> Iterator[None]:
    """Take a dead writer over: its temporary files go, and it is marked clean if the block ends well.

    Raises ArchiveError if it lives, or another process is at it.
    """
    folder = writer_folder(objects, number)
    with contextlib.ExitStack() as stack:
        try:
            with locked(syscalls, f"{objects}/{REGISTER}"):  # else somebody's `is_alive` may hold it
                stack.enter_context(locked(syscalls, f"{folder}/{LOCK}", fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError as exc:
            raise ArchiveError(
                f"writer {number:08x} is alive, or being recovered by another process"
            ) from exc
        with step("clear", folder):
            for name in os.listdir(folder):  # noqa: PTH208
                if name.startswith(TEMPORARY_PREFIX):
                    syscalls.unlink(f"{folder}/{name}")
        yield
        with step("close", folder):
            for name in os.listdir(folder):  # noqa: PTH208
                if segment_sequence(name) is not None:
                    _sync_file(syscalls, f"{folder}/{name}")
            leave_clean(syscalls, folder)


def _sync_file(syscalls: Syscalls, path: str) -> None:
    """What the recovery marked as removed must not come back once nobody looks at this writer again."""
    fd = syscalls.open_write(path)
    try:
        syscalls.fdatasync(fd)
    finally:
        syscalls.close(fd)
