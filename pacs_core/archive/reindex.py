"""Reindex: an index made anew from the kept bytes alone.

The result equals the one it replaces in UIDs, attributes, counters and duplicate outcomes: attributes
follow the order of reception, which the file meta keeps, and what lost has a tombstone.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pacs_core.archive.fill import asked_for
from pacs_core.archive.heirs import KeptInstance, read_instance
from pacs_core.archive.place import Place, swap_in
from pacs_core.archive.settle import all_of, now_us
from pacs_core.errors import CorruptError, NotFoundError, UnparsableError, from_os_error
from pacs_core.index import Index, Outcome, Reading
from pacs_core.logs import get_logger
from pacs_core.store import SEQUENCE_LIMIT, Kept, Locator, Mark, Reason, Store, Tombstone

log = get_logger("archive.reindex")

BATCH = 512


@dataclass(slots=True)
class Reindexed:
    """How a rebuild went, in instances."""

    indexed: int = 0
    duplicates: int = 0
    unreadable: int = 0


def reindex(
    place: Place,
    *,
    map_size: int = 1 << 40,
    small: int = 1 << 20,
    attributes: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Reindexed:
    """Replace the index by one rebuilt from `objects` and `journal`; nobody may have the archive open.

    `progress` is told, batch by batch, how many more instances were looked at. Until the last step the old
    index, and whatever it names, stays as it was. The new index has its own attributes and `attributes` (see
    `Archive.open`); what the old one had besides is forgotten.

    Raises
    ------
    ConfigError
        An entry of `attributes` is none that an index can hold.
    ArchiveError
        The archive is in use.
    """
    fresh = place.root / "index.new"
    done = Reindexed()
    added = asked_for(attributes)
    with place.server_lock(), place.alone(), place.recovery_lock():
        shutil.rmtree(fresh, ignore_errors=True)
        store = Store.open(place.root, small=small)
        index = Index.open(fresh, map_size=map_size)
        losers: list[Tombstone] = []
        try:
            index.add(added)
            _take_back(store, index.reading)
            instances = _instances(store, index.reading, done)
            while batch := list(islice(instances, BATCH)):
                for (uid, entry), result in zip(
                    batch, index.commit([one.entry for one in batch]), strict=True
                ):
                    if result.outcome is Outcome.INSERTED:
                        done.indexed += 1
                    else:
                        losers.append(
                            Tombstone(Locator.unpack(entry.locator), None, Reason.DUPLICATE, uid, now_us())
                        )
                progress(len(batch))
            done.duplicates = len(losers)
            for writer in store.writers():
                index.commit([], mark=all_of(writer))
            index.sync()
            index.close()
            try:
                swap_in(fresh, place.index)
            except OSError as exc:
                raise from_os_error(exc, f"putting the new index of {place.root} in its place") from exc
            if losers:
                store.tombstone(losers)
                store.remove([loser.locator for loser in losers])
            for writer in store.dead_writers():
                with store.recovering(writer):
                    pass  # all that it left has been accounted for
        finally:
            index.close()
            store.close()
    return done


def _take_back(store: Store, reading: Reading) -> None:
    """Undo replacements whose bytes are nowhere, as recovery would: what they were to replace counts."""
    told = {tombstone.locator: tombstone for tombstone in store.tombstones()}

    def is_readable(locator: Locator) -> bool:
        try:
            read_instance(store, locator, reading, check=True)
        except (CorruptError, NotFoundError, UnparsableError):
            return False
        return True

    def lands(tombstone: Tombstone) -> bool:
        """Whether what came after it, and after that, is there, or was deleted in its turn."""
        while tombstone.reason is Reason.SUPERSEDED and tombstone.successor is not None:
            later = told.get(tombstone.successor)
            if later is None:
                return is_readable(tombstone.successor)
            tombstone = later
        return True

    # The last replacement first: with it undone, those before it have a successor again.
    for tombstone in sorted(told.values(), key=lambda tombstone: tombstone.time, reverse=True):
        if (
            tombstone.reason is not Reason.SUPERSEDED
            or lands(tombstone)
            or not is_readable(tombstone.locator)
        ):
            continue
        log.error("a replacement can't be read: what it was to replace counts", uid=tombstone.uid)
        store.retract([tombstone])
        del told[tombstone.locator]


def _instances(store: Store, reading: Reading, done: Reindexed) -> Iterator[KeptInstance]:
    # Each writer's files, and its frames, come in its own order of reception; merged, in the archive's.
    runs = []
    for writer in store.writers():
        runs.append(store.walk({writer: Mark(writer, 0, SEQUENCE_LIMIT, 0)}, writers=[writer]))
        runs.append(store.walk({writer: Mark(writer, SEQUENCE_LIMIT, 0, 0)}, writers=[writer], check=True))
    yield from heapq.merge(
        *(_read(store, reading, run, done) for run in runs), key=lambda found: found.entry.stamp
    )


def _read(store: Store, reading: Reading, run: Iterator[Kept], done: Reindexed) -> Iterator[KeptInstance]:
    for kept in run:
        try:
            yield read_instance(store, kept.locator, reading)
        except (CorruptError, NotFoundError, UnparsableError) as exc:
            log.error("left out", where=str(kept.locator), why=str(exc))
            done.unreadable += 1
