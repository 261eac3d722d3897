"""Whether the archive can vouch for instances: they are held, and their bytes are what was received.

For storage commitment (PS3.4 J.3): an answer from the index alone would promise bytes that nobody looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pacs_core.archive.archive import Archive
from pacs_core.archive.examine import Fault, Finding, examine
from pacs_core.dicom.commitment import Reason, Reference
from pacs_core.errors import OutOfResourcesError
from pacs_core.index import Located
from pacs_core.logs import get_logger
from pacs_core.store import Locator

log = get_logger("commitment")

_WINDOW = 4096  # references that are looked up, and then read in the order of their places, at a time
_TASK = 8  # instances that a thread takes at a time
_TURN = 4e-4
"""Seconds between two tasks of small instances in which whoever receives meanwhile gets Python's lock. A
thread that gives it up for a read of some microseconds has it back before others have noticed."""
_SMALL = 1 << 16
"""Bytes under which reading an instance is mostly Python: threads would only wait for each other."""


class _Wanted(NamedTuple):
    at: int
    located: Located
    locator: Locator


def vouch(
    archive: Archive,
    references: Sequence[Reference],
    *,
    known: Container[str],
    threads: int = 2,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[int, Reason] | None:
    """The references, by their place, that can't be vouched for, and why; None if it was stopped.

    Parameters
    ----------
    known
        The SOP classes that are stored here: an instance that is not held is told from one that can't be.
    stopped
        Asked now and then.
    """
    failures: dict[int, Reason] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="vouch") as pool:
        for begin in range(0, len(references), _WINDOW):
            wanted: list[_Wanted] = []
            for at, reference in enumerate(references[begin : begin + _WINDOW], begin):
                located = archive.index.locate(reference.sop_instance_uid)
                reason = _of_the_index(reference, located, known)
                if reason is not None:
                    failures[at] = reason
                elif located is not None:
                    wanted.append(_Wanted(at, located, Locator.unpack(located.locator)))
            wanted.sort(key=lambda one: one.locator)
            small = [one for one in wanted if one.locator.length < _SMALL]
            large = [one for one in wanted if one.locator.length >= _SMALL]

            def look(task: Sequence[_Wanted]) -> list[tuple[int, Reason]] | None:
                if task[0].locator.length < _SMALL:
                    time.sleep(_TURN)
                return None if stopped() else list(_examined(archive, task))

            for found in (*map(look, _tasks(small)), *pool.map(look, _tasks(large))):
                if found is None:
                    return None
                failures.update(found)
    return failures


def _tasks(wanted: Sequence[_Wanted]) -> list[Sequence[_Wanted]]:
    return [wanted[n : n + _TASK] for n in range(0, len(wanted), _TASK)]


def _of_the_index(reference: Reference, located: Located | None, known: Container[str]) -> Reason | None:
    if located is None:
        return Reason.NO_SUCH_INSTANCE if reference.sop_class_uid in known else Reason.CLASS_NOT_SUPPORTED
    return None if located.sop_class_uid == reference.sop_class_uid else Reason.CLASS_INSTANCE_CONFLICT


def _examined(archive: Archive, task: Sequence[_Wanted]) -> Iterator[tuple[int, Reason]]:
    for at, located, _ in task:
        outcome = examine(archive, located)
        if outcome is None:
            yield at, Reason.NO_SUCH_INSTANCE
        elif isinstance(outcome, Finding):
            log.error("a commitment fails", uid=located.sop_instance_uid, why=outcome.detail)
            yield at, _reason(outcome)


def _reason(finding: Finding) -> Reason:
    if finding.fault is Fault.MISSING:
        return Reason.NO_SUCH_INSTANCE
    if isinstance(finding.error, OutOfResourcesError):
        return Reason.RESOURCE_LIMITATION
    return Reason.PROCESSING_FAILURE
