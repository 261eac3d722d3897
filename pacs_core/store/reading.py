"""Giving bytes back: descriptors of files and segments, checked against what the locator says."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pacs_core.errors import CorruptError, NotFoundError
from pacs_core.store.base import Locator
from pacs_core.store.files import file_path
from pacs_core.store.segments import HEADER_SIZE, Frame, decode_header, segment_path
from pacs_core.store.syscalls import step
from pacs_core.store.writer import writer_folder

_MAP_FROM = 1 << 20


class Opened:
    """Part 10 bytes to be read: `length` bytes at `offset` of `fd`, until closed. Use positioned reads.

    A file stays readable if its instance is removed meanwhile. A frame of a segment may then turn to zeros,
    or end: `Reader.read` notices that; whoever reads `fd` itself asks `is_current` when done.
    """

    __slots__ = ("_release", "fd", "length", "locator", "offset")

    def __init__(self, locator: Locator, fd: int, release: Callable[[], None]) -> None:
        self.locator = locator
        self.fd = fd
        self.offset = locator.offset
        self.length = locator.length
        self._release: Callable[[], None] | None = release

    def is_current(self) -> bool:
        """Whether the bytes read until now are the instance's: True unless a frame was removed."""
        if not self.locator.is_segment:
            return True
        frame = read_frame(self.fd, self.locator)
        return frame is not None and not frame.dead

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def read_frame(fd: int, locator: Locator) -> Frame | None:
    """The frame that a locator names; None if there is none of that place and length."""
    offset = locator.offset - HEADER_SIZE
    if offset < 0:
        return None
    frame = decode_header(os.pread(fd, HEADER_SIZE, offset), locator.writer, locator.sequence, offset)
    return frame if frame is not None and frame.part10_length == locator.length else None


def container_path(objects: str, locator: Locator) -> str:
    """The file or segment that a locator names."""
    folder = writer_folder(objects, locator.writer)
    return (segment_path if locator.is_segment else file_path)(folder, locator.sequence)


class _Shared:
    """A segment's descriptor and how many are using it."""

    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0


class Reader:
    """Opens instances; keeps the descriptors of up to `limit` segments. Any thread."""

    def __init__(self, objects: str, limit: int = 64) -> None:
        self._objects = objects
        self._limit = limit
        self._lock = threading.Lock()
        self._shared: OrderedDict[int, _Shared] = OrderedDict()

    def open(self, locator: Locator) -> Opened:
        """Raises NotFoundError if it is not (or no longer) there, CorruptError if it is not as located."""
        if locator.is_segment:
            return self._open_frame(locator)
        fd = self._open_path(locator)
        size = os.fstat(fd).st_size
        if locator.offset or size != locator.length:
            os.close(fd)
            raise CorruptError(
                f"{container_path(self._objects, locator)} has {size} bytes; {locator} says otherwise"
            )
        return Opened(locator, fd, lambda: os.close(fd))

    def _open_path(self, locator: Locator) -> int:
        path = container_path(self._objects, locator)
        try:
            with step("open", path):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except Exception as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise NotFoundError(f"nothing is kept at {locator}") from exc
            raise

    def _open_frame(self, locator: Locator) -> Opened:
        shared = self._borrow(locator)
        opened = Opened(locator, shared.fd, lambda: self._give_back(locator.container, shared))
        try:
            with step("read", str(locator)):
                frame = read_frame(shared.fd, locator)
            if frame is None:
                if not os.fstat(shared.fd).st_nlink:
                    raise NotFoundError(f"what was kept at {locator} was removed")
                raise CorruptError(f"there is no frame at {locator}")
            end = locator.offset + frame.part10_length + frame.fields_length
            if not frame.dead and end > os.fstat(shared.fd).st_size:
                raise CorruptError(f"the segment ends inside {locator}")
            if frame.dead:
                raise NotFoundError(f"what was kept at {locator} was removed")
        except BaseException:
            opened.close()
            raise
        return opened

    def _borrow(self, locator: Locator) -> _Shared:
        with self._lock:
            shared = self._shared.get(locator.container)
            if shared is None:
                shared = self._shared[locator.container] = _Shared(self._open_path(locator))
            self._shared.move_to_end(locator.container)
            shared.users += 1
            while len(self._shared) > self._limit:
                _, oldest = self._shared.popitem(last=False)
                if not oldest.users:
                    os.close(oldest.fd)
            return shared

    def _give_back(self, container: int, shared: _Shared) -> None:
        with self._lock:
            shared.users -= 1
            if not shared.users and self._shared.get(container) is not shared:
                os.close(shared.fd)

    def forget(self, container: int) -> None:
        """Let go of the descriptor of a segment that is no more."""
        with self._lock:
            shared = self._shared.pop(container, None)
            if shared is not None and not shared.users:
                os.close(shared.fd)

    def read(self, locator: Locator) -> bytes | mmap.mmap:
        """All its bytes: a copy, or from 1 MiB a read-only map of the file, which is the caller's."""
        with self.open(locator) as opened, step("read", str(locator)):
            if not locator.is_segment and locator.length >= _MAP_FROM:
                return mmap.mmap(opened.fd, locator.length, prot=mmap.PROT_READ)
            parts = []
            position = 0
            while position < locator.length:
                part = os.pread(opened.fd, locator.length - position, locator.offset + position)
                if not part:
                    break
                parts.append(part)
                position += len(part)
            if not opened.is_current():
                raise NotFoundError(f"what was kept at {locator} was removed")
            if position < locator.length:
                raise CorruptError(f"the bytes end inside {locator}")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        for container in list(self._shared):
            self.forget(container)
