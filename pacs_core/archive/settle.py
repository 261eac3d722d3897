"""Settling: an instance found in the store gets its place in the index, or goes.

Needed where the index is behind the bytes: after a crash, and where it had to go back to a checkpoint.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pacs_core.archive.heirs import read_instance
from pacs_core.errors import CorruptError, NotFoundError, UnparsableError
from pacs_core.index import Index, Outcome
from pacs_core.index import Mark as Accounted
from pacs_core.logs import get_logger
from pacs_core.store import SEQUENCE_LIMIT, Kept, Locator, Mark, Reason, State, Store, Tombstone

log = get_logger("archive.settle")


@dataclass(slots=True)
class Recovered:
    """What was settled, in instances."""

    writers: int = 0
    adopted: int = 0
    finished: int = 0
    discarded: int = 0
    damaged: int = 0


def settle_all(store: Store, index: Index, writer: int, done: Recovered) -> None:
    """Settle what a writer kept since its last mark. It may not be publishing meanwhile."""
    mark = index.marks().get(writer)
    since = {} if mark is None else {writer: Mark(*mark)}
    for kept in store.walk(since, writers=[writer], check=True):
        if kept.state is State.DAMAGED and since:
            # Behind the last mark: torn as it was written, and never acknowledged.
            store.remove([kept.locator])
            done.damaged += 1
        else:
            settle(store, index, kept, done)


def settle(store: Store, index: Index, kept: Kept, done: Recovered) -> None:
    """Give one instance found in the store its place: its record, adoption, or removal."""
    try:
        uid, entry = read_instance(store, kept.locator, index.reading, check=True)
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


def now_us() -> int:
    """Microseconds since the epoch, for tombstones."""
    return time.time_ns() // 1000
