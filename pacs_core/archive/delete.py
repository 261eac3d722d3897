"""Deletion of studies, series and instances: a batch at a time, so that nobody waits long for a large one.

A batch is decided (its tombstones, one sync), then leaves the index with its share of every counter (one
transaction), then gives its bytes back: `Ingest.remove`. So an instance is held and whole, or gone, at every
moment, and after every crash: from the tombstone on, whoever opens the archive next, or is to say that such
an instance is held, carries the decision out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pacs_core.archive.ingest import Ingest
from pacs_core.dicom.attributes import Level
from pacs_core.errors import NotFoundError
from pacs_core.index import Index

BATCH = 256
"""Most instances that leave the index while other writers wait."""


class Deleted(NamedTuple):
    """What is gone: instances, and their bytes as they were kept."""

    instances: int
    bytes: int


def delete(index: Index, ingest: Ingest, level: Level, uid: str, progress: Callable[[int], None]) -> Deleted:
    """Remove what is held at `level` under `uid`; see `Archive.delete`."""
    # The last first: attributes of a study come from the first, and need no new supplier until the end.
    members = index.members(level, uid) if uid else []
    if not members:
        raise NotFoundError("not held", uid=uid)
    instances = size = 0
    for at in range(0, len(members), BATCH):
        going = index.located(members[at : at + BATCH])
        gone = ingest.remove([one.sop_instance_uid for one in going])
        instances += len(gone)
        size += sum(locator.length for locator in gone)
        progress(len(gone))
    return Deleted(instances, size)
