"""Who may write, over all processes, and what is opened once in each of them."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from pacs_core.errors import ArchiveError, from_os_error

T = TypeVar("T")

_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class CommitLock:
    """The file `path`: one writer at a time over all processes, re-entrant within a thread.

    The operating system lets go of it when the process dies.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise from_os_error(exc, f"open {path}") from exc
        self._path = path
        self._forks = _forks
        self._threads = threading.RLock()
        self._depth = 0

    @property
    def forked(self) -> bool:
        """Whether it was opened in a parent of this process, which it is of no use in."""
        return self._forks != _forks

    @contextmanager
    def queue(self) -> Iterator[int]:
        """Keep other threads out; give the descriptor that a native call is to lock, -1 if it is locked."""
        if self.forked:
            raise ArchiveError(f"{self._path} was opened before a fork: open it again in the child")
        with self._threads:
            yield -1 if self._depth else self._fd

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock."""
        with self.queue() as fd:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if fd >= 0:
                    fcntl.flock(fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


class OncePerProcess(Generic[T]):
    """What is opened for a folder, shared with all in this process who have it open.

    After a fork the child has none of it: what is the parent's stays untouched, and unusable there.
    """

    def __init__(self) -> None:
        self._users: dict[int, int] = {}  # by id()
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[tuple[int, int], T] = {}

    def acquire(self, path: Path, opening: Callable[[], T]) -> T:
        """What is open for `path`, opened if it is not."""
        with self._lock:
            identity = _identity(path)
            opened = self._opened.get(identity) if identity is not None else None
            if opened is None:
                opened = opening()
                status = path.stat()
                self._opened[status.st_dev, status.st_ino] = opened
            self._users[id(opened)] = self._users.get(id(opened), 0) + 1
            return opened

    def give_back(self, opened: T, close: Callable[[], None]) -> None:
        """Close it when nobody in this process uses it any more."""
        with self._lock:
            self._users[id(opened)] -= 1
            if self._users[id(opened)]:
                return
            del self._users[id(opened)]
            for identity in [key for key, value in self._opened.items() if value is opened]:
                del self._opened[identity]
            close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
