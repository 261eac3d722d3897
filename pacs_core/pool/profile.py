"""How many of what, for each workload, from the number of cores this process may use."""

import os
from dataclasses import dataclass
from enum import StrEnum


class Workload(StrEnum):
    """What processes are for."""

    INGEST = "ingest"
    QUERY = "query"
    TRANSCODE = "transcode"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes for one workload.

    Attributes
    ----------
    processes
        Processes side by side.
    threads
        Threads in each that work at a time; more of them wait.
    queue
        Tasks accepted and not begun, over all processes; whoever offers more waits.
    batch
        Items in one task or one commit, at most.
    """

    processes: int
    threads: int
    queue: int
    batch: int


def cores() -> int:
    """Cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def profile(workload: Workload, *, available: int | None = None, processes: int = 0) -> Profile:
    """The sizes for a workload.

    Parameters
    ----------
    available
        Cores to reckon with; by default those of this process.
    processes
        So many processes instead of what the cores suggest; 0: as they suggest.
    """
    n = cores() if available is None else max(1, available)
    match workload:
        case Workload.INGEST:
            # Reception runs without the GIL and waits for the disk: associations of one process share
            # syncs, those of two do not. Four associations on 2 cores, 512 KB each: 0.6 commits an
            # instance in one process, 1.0 in two. Threads are the associations that receive at a time.
            return Profile(processes or min(max(1, n // 2), 4), threads=64, queue=256, batch=64)
        case Workload.QUERY:
            return Profile(processes or min(n, 8), threads=8, queue=64, batch=256)
        case Workload.TRANSCODE:
            # Some codecs hold the GIL, and one of them must not run twice in a process.
            return Profile(processes or n, threads=1, queue=2 * n, batch=1)
        case Workload.IMPORT:
            return Profile(processes or min(n, 8), threads=1, queue=4 * n, batch=64)
