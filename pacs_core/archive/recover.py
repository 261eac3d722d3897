"""Recovery: what a process that died in mid-work has left is settled by the next one that opens.

A crash leaves, beyond what was acknowledged: instances whose bytes are durable and whose record is not
(adopted: they are whole), tombstones whose record still stands (the deletion or replacement is finished),
and torn bytes (removed). Only the traces of dead writers are touched, from their last mark onwards.
"""

from __future__ import annotations

from pacs_core.archive.heirs import heirs_of, read_instance
from pacs_core.archive.settle import Recovered, all_of, settle_all
from pacs_core.errors import CorruptError, NotFoundError, UnparsableError
from pacs_core.index import Entry, Index
from pacs_core.logs import get_logger
from pacs_core.store import Locator, Reason, Store, Tombstone

log = get_logger("archive.recover")


def recover(store: Store, index: Index) -> Recovered:
    """Settle the traces of all dead writers. Call it with the archive's recovery lock held."""
    done = Recovered()
    dead = store.dead_writers()
    if not dead:
        return done
    finish_tombstones(store, index, done)
    for writer in dead:
        with store.recovering(writer):
            done.writers += 1
            settle_all(store, index, writer, done)
            index.commit([], mark=all_of(writer))
            index.sync()
    if done.adopted or done.finished or done.discarded or done.damaged:
        log.warning(
            "settled what a crash had left",
            adopted=done.adopted,
            finished=done.finished,
            discarded=done.discarded,
            damaged=done.damaged,
        )
    return done


def catch_up(store: Store, index: Index, writer: int) -> None:
    """Bring an index that went back to a checkpoint up to what this living writer has kept since.

    It may not be publishing meanwhile.
    """
    done = Recovered()
    finish_tombstones(store, index, done)
    settle_all(store, index, writer, done)
    log.warning("entered again what the index had lost", adopted=done.adopted, finished=done.finished)


def finish_tombstones(store: Store, index: Index, done: Recovered) -> None:
    """Deletions and replacements that were decided, and are not carried out or forgotten by the index.

    A replacement whose bytes are not there (a copy of the archive was made in between, or they were damaged)
    is taken back: what is held stays.
    """
    told = {tombstone.locator: tombstone for tombstone in store.tombstones()}
    for tombstone in told.values():
        if not stands(index, tombstone):
            continue
        last = tombstone
        while last.successor is not None and last.successor in told:
            last = told[last.successor]
        with index.exclusive():
            # A living process may have been between its decision and its record: now it is done.
            if not stands(index, tombstone):
                continue
            if last.reason is Reason.DELETED or (last.successor is None and last is not tombstone):
                index.remove([tombstone.uid], heirs=heirs_of(index, store, [tombstone.uid]))
            elif last.successor is not None and (entry := _successor(store, index, last.successor)):
                heirs = heirs_of(index, store, [tombstone.uid])
                index.commit([entry], replace=True, heirs=heirs)
            else:
                store.retract([tombstone])
                continue
        store.remove([tombstone.locator])
        done.finished += 1


def _successor(store: Store, index: Index, locator: Locator) -> Entry | None:
    """The entry of a replacement, if it can be read."""
    try:
        return read_instance(store, locator, index.reading, check=True).entry
    except (CorruptError, NotFoundError, UnparsableError) as exc:
        log.error("a replacement can't be read: what it was to replace stays", why=str(exc))
        return None


def stands(index: Index, tombstone: Tombstone) -> bool:
    """Whether the index still holds what the tombstone buries."""
    located = index.locate(tombstone.uid)
    return located is not None and Locator.unpack(located.locator) == tombstone.locator
