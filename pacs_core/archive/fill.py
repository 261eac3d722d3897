"""Filling in: the instances that were held before the index learned of an attribute are asked for it.

Whoever opens the archive with `attributes` makes the index learn of them, durably and for every process: from
then on each instance is recorded with them, also by processes that were at work before. Those held already
are read again, batch by batch: each takes part in the merging once more, by its order of reception, so what
the index comes to hold is what a rebuild would give. How far that has come is in the index itself: it goes on
after a crash. What was replaced or deleted since it was read is passed over; what comes meanwhile is whole.

Until all of them were read the attribute counts as not held: a C-FIND says that it is not supported (PS3.4
C.4.1.1.3.2), at image level it is read from the instances. An answer is never made of a part.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from pacs_core.archive.heirs import read_instance
from pacs_core.dicom.added import Asked, asked
from pacs_core.dicom.attributes import Level
from pacs_core.errors import (
    ArchiveError,
    ConfigError,
    CorruptError,
    NotFoundError,
    PacsError,
    StorageError,
    UnparsableError,
)
from pacs_core.index import Entry, Index, Located
from pacs_core.lifecycle import Health, Service
from pacs_core.logs import get_logger
from pacs_core.store import Locator, Store

if TYPE_CHECKING:
    from pacs_core.archive.archive import Archive

log = get_logger("archive.fill")

_BATCH: Final = 256
_SMALL_BATCH: Final = 32  # in the background: nobody waits long for it
_IDLE_SECONDS: Final = 5.0
_BUSY_SECONDS: Final = 1.0
_SHARE: Final = 4  # of the time, in the background: one part in five
_SHARE_BESIDE_OTHERS: Final = 19


@dataclass(slots=True)
class Filled:
    """How it went, in instances: those that were read, and those whose bytes could not be."""

    instances: int = 0
    unreadable: int = 0


def asked_for(attributes: Iterable[str]) -> list[Asked]:
    """The attributes that entries mean (see `dicom.added`). Raises ConfigError for one that can't be held."""
    try:
        return [asked(text) for text in attributes]
    except ValueError as exc:
        raise ConfigError(f"archive.attributes: {exc}") from None


def reread(store: Store, index: Index) -> Callable[[Entry], bytes]:
    """What makes the fields of an entry anew from its bytes."""
    return lambda entry: read_instance(store, Locator.unpack(entry.locator), index.reading).entry.fields


def remaining(index: Index) -> int:
    """How many instances are still to be asked."""
    filling = index.filling()
    if filling is None:
        return 0
    ids = (one for chunk in index.all_of(Level.IMAGE, filling.after) for one in chunk)
    return sum(1 for _ in takewhile(lambda one: one < filling.until, ids))


def fill(archive: Archive, *, progress: Callable[[int], None] = lambda _: None) -> Filled:
    """Ask all that are left, at full speed; others may use the archive meanwhile. `progress` is told how many
    more were asked.

    Raises
    ------
    OutOfResourcesError, StorageError
        The index can't be written; what was filled in stays so.
    """
    done = Filled()
    with archive.place.fill_lock(wait=True):
        while (count := _step(archive.index, archive.objects, done, _BATCH)) is not None:
            progress(count)
    return done


def _step(index: Index, store: Store, done: Filled, most: int) -> int | None:
    """Ask one batch, of `most`; how many that were, None if there was nothing to ask for."""
    filling = index.filling()
    if filling is None:
        return None
    ids = next(index.all_of(Level.IMAGE, filling.after), [])[:most]
    wanted = [one for one in ids if one < filling.until]
    heirs = []
    for located in index.located(wanted):
        try:
            heirs.append(read_instance(store, Locator.unpack(located.locator), index.reading).entry)
        except (CorruptError, NotFoundError, StorageError, UnparsableError) as exc:
            if _is_held(index, located):
                log.error("an instance can't be asked for attributes", why=str(exc))
                done.unreadable += 1
    after = wanted[-1] if len(wanted) == most else filling.until
    if index.fill(filling, heirs, after):
        done.instances += len(heirs)
        if after >= filling.until:
            log.info(
                "attributes are held of all instances", tags=[f"{tag:08X}" for tag in sorted(filling.tags)]
            )
    return len(wanted)


def _is_held(index: Index, located: Located) -> bool:
    now = index.locate(located.sop_instance_uid)
    return now is not None and now.locator == located.locator


class Filling(Service):
    """Fills in at a low pace while a process serves.

    Of several processes one is at it at a time; another goes on should it die. It takes a fifth of a
    processor at most, and a twentieth while others commit.
    """

    name = "attributes"

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._commits = 0
        self._trouble = ""

    def start(self) -> None:
        """Begin, if there is something to fill in."""
        self._thread = threading.Thread(target=self._run, name="fill", daemon=True)
        self._thread.start()

    def health(self) -> Health:
        """What keeps it from going on."""
        return Health(not self._trouble, self._trouble)

    def drain(self, deadline: float) -> None:
        """After the batch in hand."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """End; it goes on with the next start."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        done = Filled()
        pause = 0.0
        while not self._over.wait(pause):
            try:
                pause = self._turn(done)
                self._trouble = ""
            except ArchiveError:  # another process is at it
                pause = _BUSY_SECONDS
            except PacsError as exc:
                log.error("attributes are not filled in for now", why=str(exc))
                self._trouble = str(exc)
                pause = _IDLE_SECONDS

    def _turn(self, done: Filled) -> float:
        """One batch; how many seconds to wait until the next."""
        index = self._archive.index
        if index.filling() is None:
            return _IDLE_SECONDS
        begun = time.monotonic()
        before = index.stats().commits
        others = before != self._commits
        with self._archive.place.fill_lock(wait=False):
            _step(index, self._archive.objects, done, _SMALL_BATCH)
        self._commits = before + (index.stats().commits != before)
        return (time.monotonic() - begun) * (_SHARE_BESIDE_OTHERS if others else _SHARE)
