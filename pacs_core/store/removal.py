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
from pacs_core.store.base import Locator, State, Tombstone
from pacs_core.store.journal import Journal
from pacs_core.store.reading import Reader, container_path, read_frame
from pacs_core.store.segments import DEAD, scan, segment_sequence
from pacs_core.store.syscalls import Syscalls, step
from pacs_core.store.writer import REGISTER, is_alive, locked, writer_folder

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


def remove(syscalls: Syscalls, objects: str, locators: Iterable[Locator]) -> list[Locator]:
    """Free the bytes at `locators`; returns those still there: held, or the system would not."""
    with _turn(syscalls, objects) as free:
        if not free:
            return list(locators)
        return _erase(syscalls, objects, locators)[1]


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
    """Mark frames as removed, then give their whole pages back; the headers stay, to step over."""
    fd = syscalls.open_write(path)
    try:
        for locator in locators:
            frame = read_frame(fd, locator)
            if frame is None or frame.dead:
                continue
            syscalls.pwrite(fd, DEAD, frame.offset)
            freed.append(locator)
            offset, length = frame.hole()
            if length:
                try:
                    syscalls.punch_hole(fd, offset, length)
                except OSError as exc:
                    if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
    finally:
        syscalls.close(fd)


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
        for locator in {locator.container: locator for locator in buried if locator.is_segment}.values():
            path = container_path(objects, locator)
            with step("sweep", path), contextlib.suppress(FileNotFoundError):
                if _is_sealed(syscalls, objects, locator) and _is_dead(path, locator, journal):
                    syscalls.unlink(path)
                    reader.forget(locator.container)
                    gone += 1
    return gone


def _is_sealed(syscalls: Syscalls, objects: str, locator: Locator) -> bool:
    """Whether nothing will be appended: its writer is gone, or has begun a later segment."""
    with locked(syscalls, f"{objects}/{REGISTER}"):
        if not is_alive(objects, locator.writer):
            return True
    names = os.listdir(writer_folder(objects, locator.writer))  # noqa: PTH208
    return any((segment_sequence(name) or 0) > locator.sequence for name in names)


def _is_dead(path: str, locator: Locator, journal: Journal) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return all(
            dead or (kept.state is not State.DAMAGED and journal.find(kept.locator) is not None)
            for kept, dead in scan(fd, locator.writer, locator.sequence, 0, check=False)
        )
    finally:
        os.close(fd)
