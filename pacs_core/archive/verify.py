"""Verify: every record has its bytes, every byte its record, and both are what was received.

Each instance's data set is read in full and checked against the checksum taken when it arrived. `mend`
settles what a crash can leave (instances without a record are adopted) and takes records out whose bytes
are gone; bytes that do not check are reported and left for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pacs_core.archive.archive import Archive
from pacs_core.archive.examine import Fault, Finding, examine
from pacs_core.archive.heirs import heirs_of
from pacs_core.archive.settle import Recovered, settle
from pacs_core.dicom.part10 import split
from pacs_core.errors import NotFoundError, PacsError
from pacs_core.index import Located
from pacs_core.store import Kept, State

BATCH = 256


@dataclass(slots=True)
class Verified:
    """The outcome of a verification; `bytes` are those of the data sets that were read."""

    instances: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing is wrong, or all that was has been mended."""
        return all(finding.mended for finding in self.findings)


def verify(
    archive: Archive,
    *,
    mend: bool = False,
    threads: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Check an archive, also while it is served. `progress` is told how many more instances were checked."""
    done = Verified()
    places = bytearray()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        instances = archive.instances()
        while batch := list(islice(instances, BATCH)):
            places += b"".join(located.locator[:16] for located in batch)
            outcomes = pool.map(lambda located: examine(archive, located), batch)
            for located, outcome in zip(batch, outcomes, strict=True):
                done.instances += 1
                if isinstance(outcome, int):
                    done.bytes += outcome
                elif outcome is not None:
                    done.findings.append(_mend_record(archive, located, outcome) if mend else outcome)
            progress(len(batch))
    done.findings += (Finding(Fault.INDEX, "index", problem) for problem in archive.index.check())
    done.findings += _orphans(archive, _sorted(places), mend)
    if mend:
        archive.sweep()
    return done


def _mend_record(archive: Archive, located: Located, finding: Finding) -> Finding:
    if finding.fault is not Fault.MISSING:
        return finding
    uid = located.sop_instance_uid
    with archive.index.exclusive():
        now = archive.index.locate(uid)
        if now is not None and now.locator == located.locator:
            archive.index.remove([uid], heirs=heirs_of(archive.index, archive.objects, [uid]))
    return Finding(finding.fault, uid, f"{finding.detail}; its record was removed", mended=True)


def _sorted(places: bytearray) -> NDArray[np.void]:
    """Places (container and offset, 16 bytes each) in an order that can be searched."""
    found = np.frombuffer(places, dtype="V16")
    found.sort()
    return found


def _orphans(archive: Archive, places: NDArray[np.void], mend: bool) -> Iterator[Finding]:
    """Bytes that no record names, of writers that are gone: those that live are at work on theirs."""
    store = archive.objects
    for kept in store.walk(writers=store.idle_writers(), check=True):
        if _among(places, kept) or _recorded_since(archive, kept):
            continue
        done = Recovered()
        if mend:
            settle(store, archive.index, kept, done)
        yield Finding(
            Fault.DAMAGED if kept.state is State.DAMAGED or done.damaged else Fault.ORPHAN,
            str(kept.locator),
            "adopted" if done.adopted else "removed: a duplicate" if done.discarded else "",
            mended=bool(done.adopted or done.discarded),
        )


def _among(places: NDArray[np.void], kept: Kept) -> bool:
    wanted = np.frombuffer(kept.locator.pack()[:16], dtype="V16")
    at = int(np.searchsorted(places, wanted)[0])
    return at < len(places) and places[at] == wanted[0]


def _recorded_since(archive: Archive, kept: Kept) -> bool:
    """Whether the index names these bytes now: they may have come after it was read."""
    try:
        meta, _ = split(archive.objects.read(kept.locator))
    except NotFoundError:
        return True  # removed meanwhile
    except PacsError:
        return False
    located = archive.index.locate(meta.sop_instance_uid)
    return located is not None and located.locator == kept.locator.pack()
