"""Group commit: instances of many associations made durable and findable together.

Whoever comes first leads; those who come while a batch is on its way form the next one. Nobody waits for
a batch to fill: under load batches grow by themselves, alone an instance goes at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pacs_core.errors import ArchiveError

T = TypeVar("T")


class _Ticket(Generic[T]):
    """One caller's place in the queue; `gate` opens when it is done or has to lead."""

    __slots__ = ("chosen", "defect", "done", "gate", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.chosen = False
        self.done = False
        self.defect: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit(Generic[T]):
    """Runs `work` on batches, one batch at a time, in the threads of the callers.

    Parameters
    ----------
    work : callable
        Handles a batch of 1 to `limit` items. It notes each item's result or error on the item itself;
        what it raises is a defect and reaches every caller of that batch.
    limit : int
        Most items in one batch.
    """

    def __init__(self, work: Callable[[Sequence[T]], None], *, limit: int = 256) -> None:
        self._work = work
        self._limit = limit
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Ticket[T]] = []
        self._led = False
        self._closed = False

    def run(self, item: T) -> None:
        """Return when a batch that holds `item` has been worked on.

        Raises
        ------
        ArchiveError
            After `close`.
        """
        ticket = _Ticket(item)
        with self._lock:
            if self._closed:
                raise ArchiveError("the archive is closed")
            self._queue.append(ticket)
            follow = self._led
            self._led = True
        if follow:
            try:
                ticket.gate.acquire()
            except BaseException:  # Ctrl-C in the main thread: nobody may be left waiting for it to lead
                self._leave(ticket)
                raise
        if not ticket.done:
            self._lead()
        if ticket.defect is not None:
            raise ticket.defect

    def close(self) -> None:
        """Take nothing more, and return when nothing is under way."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._led)

    def _lead(self) -> None:
        # The leader's own ticket is the oldest in the queue, so it is in the first batch.
        with self._lock:
            batch = self._queue[: self._limit]
            del self._queue[: self._limit]
        defect: BaseException | None = None
        try:
            self._work([ticket.item for ticket in batch])
        except BaseException as exc:  # noqa: BLE001 - handed to every caller of the batch, raised there
            defect = exc
        with self._lock:
            self._choose()
        for ticket in batch:
            ticket.defect = defect
            ticket.done = True
            ticket.gate.release()

    def _choose(self) -> None:
        """Let the oldest in the queue lead; with the lock held."""
        self._led = bool(self._queue)
        if self._queue:
            self._queue[0].chosen = True
            self._queue[0].gate.release()
        else:
            self._idle.notify_all()

    def _leave(self, ticket: _Ticket[T]) -> None:
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
                if ticket.chosen:
                    self._choose()
