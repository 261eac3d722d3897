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
from pacs_core.index import Index, Outcome
from pacs_core.logs import get_logger
from pacs_core.store import Kept, Locator, Mark, Reason, State, Store, Tombstone

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
    [result] = index.commit([entry])
    if result.outcome is Outcome.INSERTED:
        done.adopted += 1
    elif Locator.unpack(result.previous or b"") != kept.locator:
        store.tombstone([Tombstone(kept.locator, None, Reason.DUPLICATE, uid, now_us())])
        store.remove([kept.locator])
        done.discarded += 1


def _finish_tombstones(store: Store, index: Index, done: Recovered) -> None:
    """Deletions and replacements that were decided and not carried out."""
    for tombstone in store.tombstones():
        if not _stands(index, tombstone):
            continue
        with index.exclusive():
            # A living process may have been between its decision and its record: now it is done.
            if not _stands(index, tombstone):
                continue
            heirs = heirs_of(index, store, [tombstone.uid])
            if tombstone.successor is not None:
                index.commit([read_instance(store, tombstone.successor).entry], replace=True, heirs=heirs)
            else:
                index.remove([tombstone.uid], heirs=heirs)
        store.remove([tombstone.locator])
        done.finished += 1


def _stands(index: Index, tombstone: Tombstone) -> bool:
    """Whether the index still holds what the tombstone buries."""
    located = index.locate(tombstone.uid)
    return located is not None and Locator.unpack(located.locator) == tombstone.locator
