"""Giving space back. Whether something counts is the journal's to say; this only frees what no longer does.

Removers take turns (`objects/remove.lock`) and try `objects/hold.lock`, which a backup holds shared for as
long as it copies: then they leave everything where it is, and `sweep` frees it later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from pacs_core.errors import PacsError
from pacs_core.store.base import Locator, Tombstone
from pacs_core.store.journal import Journal
from pacs_core.store.reading import Reader, container_path, read_frame
from pacs_core.store.segments import DEAD, HEAD_SIZE, Frame, Tally, scan, segment_path, segment_sequences
from pacs_core.store.syscalls import Syscalls, step, write_all
from pacs_core.store.writer import REGISTER, is_alive, locked, writer_folder, writer_numbers

_HOLD = "hold.lock"
_REMOVE = "remove.lock"


@contextlib.contextmanager
def hold(syscalls: Syscalls, objects: str) -> Iterator[None]:
    """A shared lease: `remove` and `sweep` of every process leave bytes in place while it lasts."""
    with contextlib.ExitStack() as stack:
        with step("hold", objects):
            stack.enter_context(locked(syscalls, f"{objects}/{_HOLD}", fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def _turn(syscalls: Syscalls, objects: str) -> Iterator[bool]:
    """This remover's turn; False if bytes must stay where they are."""
    with contextlib.ExitStack() as stack:
        with step("lock", objects):
            stack.enter_context(locked(syscalls, f"{objects}/{_REMOVE}"))
            try:
                stack.enter_context(locked(syscalls, f"{objects}/{_HOLD}", fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                free = False
            else:
                free = True
        yield free


def remove(syscalls: Syscalls, objects: str, reader: Reader, locators: Iterable[Locator]) -> list[Locator]:
    """Free the bytes at `locators`; returns those still there: held, or the system would not."""
    with _turn(syscalls, objects) as free:
        if not free:
            return list(locators)
        freed, left = _erase(syscalls, objects, locators)
        for segment in _segments(freed):
            with contextlib.suppress(PacsError):  # the sweep tries again
                if _seems_dead(container_path(objects, segment)):
                    _drop_if_dead(syscalls, objects, reader, segment)
    return left


def _erase(
    syscalls: Syscalls, objects: str, locators: Iterable[Locator]
) -> tuple[list[Locator], list[Locator]]:
    """Returns what was there and is freed, and what is still there."""
    freed: list[Locator] = []
    left: list[Locator] = []
    for _, group in itertools.groupby(sorted(locators), key=lambda locator: locator.container):
        members = list(group)
        path = container_path(objects, members[0])
        try:
            with step("remove", path):
                if members[0].is_segment:
                    _kill_frames(syscalls, path, members, freed)
                else:
                    syscalls.unlink(path)
                    freed += members
        except PacsError as exc:
            if not isinstance(exc.__cause__, FileNotFoundError):
                left += [locator for locator in members if locator not in freed]
    return freed, left


def _kill_frames(syscalls: Syscalls, path: str, locators: list[Locator], freed: list[Locator]) -> None:
    """Mark frames as removed, then let their content be zeros; the headers stay, to step over."""
    fd = syscalls.open_write(path)
    try:
        dead, holes = Tally.read(fd)
        for locator in locators:
            frame = read_frame(fd, locator)
            if frame is None or frame.dead:
                continue
            syscalls.pwrite(fd, DEAD, frame.offset)
            freed.append(locator)
            dead += frame.size
            holes += _clear(syscalls, fd, frame)
        Tally(dead, holes).write(syscalls, fd)
    finally:
        syscalls.close(fd)


def _clear(syscalls: Syscalls, fd: int, frame: Frame) -> int:
    """Leave nothing to be read of a frame; how many bytes the disk has back."""
    offset, length = frame.content
    try:
        syscalls.punch_hole(fd, offset, length)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        write_all(syscalls, fd, [bytes(length)], offset)
        return 0
    return frame.pages


def sweep(
    syscalls: Syscalls, objects: str, journal: Journal, reader: Reader, counts: Callable[[Tombstone], bool]
) -> int:
    """Free what tombstones bury and a lease kept, and segments in which nothing lives.

    `counts` says that what a tombstone buries counts as yet: a decision that is not carried out. Returns how
    many instances and segments went.
    """
    journal.refresh()
    buried = [tombstone.locator for tombstone in journal.standing() if not counts(tombstone)]
    with _turn(syscalls, objects) as free:
        if not free:
            return 0
        gone = len(_erase(syscalls, objects, buried)[0])
        return gone + sum(_drop_if_dead(syscalls, objects, reader, segment) for segment in _segments(buried))


def _segments(locators: Iterable[Locator]) -> Iterable[Locator]:
    """One locator of each segment that they name."""
    return {locator.container: locator for locator in locators if locator.is_segment}.values()


def _seems_dead(path: str) -> bool:
    """Whether the tally says that nothing in a segment lives."""
    with step("read", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Tally.read(fd).dead >= os.fstat(fd).st_size - HEAD_SIZE
        finally:
            os.close(fd)


def _drop_if_dead(syscalls: Syscalls, objects: str, reader: Reader, segment: Locator) -> bool:
    """Remove a segment in which nothing lives and to which nothing will be appended; whether it was one."""
    path = container_path(objects, segment)
    with step("drop", path), contextlib.suppress(FileNotFoundError):
        fd = syscalls.open_write(path)
        try:
            if not (_is_sealed(syscalls, objects, segment) and _is_dead(fd, segment)):
                return False
            syscalls.unlink(path)
            syscalls.ftruncate(fd, 0)  # other processes may have it open for long
        finally:
            syscalls.close(fd)
        reader.forget(segment.container)
        return True
    return False


def dead_bytes(objects: str) -> int:
    """Bytes that removed frames take up yet, in segments in which others live."""
    total = 0
    for folder in (writer_folder(objects, number) for number in writer_numbers(objects)):
        for sequence in segment_sequences(folder):
            path = segment_path(folder, sequence)
            with step("read", path), contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    dead, holes = Tally.read(fd)
                finally:
                    os.close(fd)
                total += dead - holes
    return total


def _is_sealed(syscalls: Syscalls, objects: str, locator: Locator) -> bool:
    """Whether nothing will be appended: its writer is gone, or has begun a later segment."""
    with locked(syscalls, f"{objects}/{REGISTER}"):
        if not is_alive(objects, locator.writer):
            return True
    return segment_sequences(writer_folder(objects, locator.writer))[-1:] > [locator.sequence]


def _is_dead(fd: int, segment: Locator) -> bool:
    return all(dead for _, dead in scan(fd, segment.writer, segment.sequence, 0, check=False))
