"""Recovery: what a process that died in mid-work has left is settled by the next one that opens.

A crash leaves, beyond what was acknowledged: instances whose bytes are durable and whose record is not
(adopted: they are whole), tombstones whose record still stands (the deletion or replacement is finished),
and torn bytes (removed). Only the traces of dead writers are touched, from their last mark onwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from pacs_core.archive.heirs import heirs_of, read_instance
from pacs_core.archive.ingest import now_us
from pacs_core.errors import CorruptError, NotFoundError, UnparsableError
from pacs_core.index import Entry, Index, Outcome
from pacs_core.index import Mark as Accounted
from pacs_core.logs import get_logger
from pacs_core.store import SEQUENCE_LIMIT, Kept, Locator, Mark, Reason, State, Store, Tombstone

log = get_logger("archive.recover")


@dataclass(slots=True)
class Recovered:
    """What was settled, in instances."""

    writers: int = 0
    adopted: int = 0
    finished: int = 0
    discarded: int = 0
    damaged: int = 0


def recover(store: Store, index: Index) -> Recovered:
    """Settle the traces of all dead writers. Call it with the archive's recovery lock held."""
    done = Recovered()
    dead = store.dead_writers()
    if not dead:
        return done
    _finish_tombstones(store, index, done)
    marks = index.marks()
    for writer in dead:
        with store.recovering(writer):
            done.writers += 1
            since = {writer: Mark(*marks[writer])} if writer in marks else {}
            for kept in store.walk(since, writers=[writer], check=True):
                if kept.state is State.DAMAGED and since:
                    # Behind the last mark: torn as it was written, and never acknowledged.
                    store.remove([kept.locator])
                    done.damaged += 1
                else:
                    settle(store, index, kept, done)
            index.commit([], mark=all_of(writer))
    if done.adopted or done.finished or done.discarded or done.damaged:
        log.warning(
            "settled what a crash had left",
            adopted=done.adopted,
            finished=done.finished,
            discarded=done.discarded,
            damaged=done.damaged,
        )
    return done


def settle(store: Store, index: Index, kept: Kept, done: Recovered) -> None:
    """Give one instance found in the store its place: its record, adoption, or removal."""
    try:
        uid, entry = read_instance(store, kept.locator, check=True)
    except (CorruptError, NotFoundError, UnparsableError) as exc:
        # Never acknowledged, or a loss that `verify` reports by its record; there may be something to save.
        log.error("bytes that do not check stay where they are", where=str(kept.locator), why=str(exc))
        done.damaged += 1
        return
    with index.exclusive():
        if store.tombstone_of(kept.locator) is not None:
            return  # deleted or replaced since it was found
        [result] = index.commit([entry])
        if result.outcome is Outcome.INSERTED:
            done.adopted += 1
            return
        if Locator.unpack(result.previous or b"") == kept.locator:
            return
        store.tombstone([Tombstone(kept.locator, None, Reason.DUPLICATE, uid, now_us())])
    store.remove([kept.locator])
    done.discarded += 1


def all_of(writer: int) -> Accounted:
    """The mark of a writer that is gone and whose every trace is accounted for."""
    return Accounted(writer, SEQUENCE_LIMIT, SEQUENCE_LIMIT, 0)


def _finish_tombstones(store: Store, index: Index, done: Recovered) -> None:
    """Deletions and replacements that were decided and not carried out.

    A replacement whose bytes are not there (a copy of the archive was made in between, or they were damaged)
    is taken back: what is held stays.
    """
    for tombstone in store.tombstones():
        if not stands(index, tombstone):
            continue
        with index.exclusive():
            # A living process may have been between its decision and its record: now it is done.
            if not stands(index, tombstone):
                continue
            if tombstone.reason is Reason.DELETED:
                index.remove([tombstone.uid], heirs=heirs_of(index, store, [tombstone.uid]))
            elif (entry := _successor(store, tombstone)) is not None:
                heirs = heirs_of(index, store, [tombstone.uid])
                index.commit([entry], replace=True, heirs=heirs)
            else:
                store.retract([tombstone])
                continue
        store.remove([tombstone.locator])
        done.finished += 1


def _successor(store: Store, tombstone: Tombstone) -> Entry | None:
    """The entry of the replacement, if it can be read."""
    if tombstone.successor is None:
        return None
    try:
        return read_instance(store, tombstone.successor, check=True).entry
    except (CorruptError, NotFoundError, UnparsableError) as exc:
        log.error("a replacement can't be read: what it was to replace stays", why=str(exc))
        return None


def stands(index: Index, tombstone: Tombstone) -> bool:
    """Whether the index still holds what the tombstone buries."""
    located = index.locate(tombstone.uid)
    return located is not None and Locator.unpack(located.locator) == tombstone.locator
