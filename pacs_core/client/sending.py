"""Many data sets to one peer: over several associations, a lost one made again, an outcome for each.

A file whose association is lost is tried once more on the next one: to store an instance twice does no harm.
When it is lost again the file is to blame, and the rest goes on without it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from pacs_core.client.association import Answer, Association, Remote
from pacs_core.client.sources import Part
from pacs_core.errors import AssociationError, PacsError, RefusedError

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0
_GRACE = 2.0  # seconds that files on their way may still take when everything is to stop

# PS3.4 B.2.3, PS3.7 Annex C
_STATUS_WORDS = {
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0119: "class-instance conflict",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one object.

    Attributes
    ----------
    number : int
        Its place among those that were to be sent.
    path : Path | None
        Its file; None for bytes.
    sop_instance_uid : str
        '' when it could not be read so far.
    status : int | None
        The peer's answer; None when there was none.
    error : PacsError | None
        Why it was not stored.
    bytes : int
        Length of the data set that was sent; 0 when none was.
    comment : str
        What the peer said about it.
    skipped : bool
        It was found in a folder and is nothing to be sent; `error` says what it is instead.
    """

    number: int
    path: Path | None
    sop_instance_uid: str = ""
    status: int | None = None
    error: PacsError | None = None
    bytes: int = 0
    comment: str = ""
    skipped: bool = False

    @property
    def stored(self) -> bool:
        """The peer has it: success, or success with a warning."""
        return self.error is None

    @property
    def warning(self) -> bool:
        """The peer has it and had something to say (PS3.4 B.2.3: B000, B006, B007…)."""
        return self.error is None and self.status != 0

    @property
    def failed(self) -> bool:
        """It should have been stored and was not."""
        return self.error is not None and not self.skipped


T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)


class Shipment(Protocol[Item]):
    """How items of one kind are sent."""

    @property
    def contexts(self) -> Sequence[tuple[str, Sequence[str]]]:
        """The presentation contexts that they need, 128 at most."""

    def send(self, association: Association, number: int, item: Item) -> Sent:
        """Send one and wait for the answer. Raises as `Association.store`."""

    def failed(self, number: int, item: Item, error: PacsError) -> Sent:
        """The outcome of one that was not sent."""


class Parts:
    """Parts as a shipment."""

    def __init__(self, remote: Remote, parts: Sequence[tuple[int, Part]], priority: int) -> None:
        self.remote = remote
        self.priority = priority
        wanted = dict.fromkeys((part.sop_class_uid, part.transfer_syntax_uid) for _, part in parts)
        self.contexts = [(sop_class, (syntax,)) for sop_class, syntax in wanted]

    def send(self, association: Association, number: int, item: Part) -> Sent:
        """See `Shipment`."""
        answer = association.store(item, priority=self.priority)
        return outcome_of(number, item, answer, self.remote)

    def failed(self, number: int, item: Part, error: PacsError) -> Sent:
        """See `Shipment`."""
        return Sent(number, item.path, item.sop_instance_uid, error=error)


@dataclass(slots=True)
class _Task(Generic[T]):
    number: int
    item: T
    losses: int = 0


class Delivery(Generic[T]):
    """A shipment on its way over several associations.

    Parameters
    ----------
    retries
        How often in a row an association may be lost, or not come about, before a thread gives up. One that
        the peer rejects for good, or the first of all if there is nobody to talk to, is not asked for again.
    reached
        The peer was there a moment ago.
    """

    def __init__(
        self,
        remote: Remote,
        shipment: Shipment[T],
        items: Sequence[tuple[int, T]],
        *,
        associations: int,
        retries: int,
        reached: bool,
    ) -> None:
        self.remote = remote
        self.reached = reached
        self.error: AssociationError | None = None
        """Why some were given up; None if every one had its turn."""
        self._shipment = shipment
        self._todo = deque(_Task(number, item) for number, item in items)
        self._threads = max(1, min(associations, len(items)))
        self._retries = retries
        self._done: SimpleQueue[Sent | BaseException | None] = SimpleQueue()
        self._stop = threading.Event()
        self._stopped = False
        self._ended = threading.Event()  # a thread is done: there is something to see
        self._live: dict[threading.Thread, Association | None] = {}

    def __iter__(self) -> Iterator[Sent]:
        """Send; outcomes as they come. Breaking off ends the associations."""
        return (sent for sent in self.watched(None) if sent is not None)

    def watched(self, seconds: float | None) -> Iterator[Sent | None]:
        """As `__iter__`, but looking every so many seconds, with a None after what came meanwhile.

        Whoever can wait so long spares the senders, which would have to let it in after each outcome.
        """
        for _ in range(self._threads):
            thread = threading.Thread(target=self._run, name="pacs-core store", daemon=True)
            self._live[thread] = None
        running = len(self._live)
        try:
            for thread in self._live:
                thread.start()
            while running:
                try:
                    sent = self._done.get(block=seconds is None)
                except Empty:
                    if self._stopped:  # whoever is still at it does not even have an association
                        return
                    yield None
                    self._ended.wait(seconds)
                    self._ended.clear()
                    continue
                if sent is None:
                    running -= 1
                elif isinstance(sent, BaseException):
                    raise sent
                else:
                    yield sent
        finally:
            self._end()
        error, self.error = self.error, None
        if self._todo and not self._stopped:
            self.error = error or AssociationError(f"no association with {self.remote}")
            for task in self._todo:
                yield self._failed(task, self.error)

    def stop(self) -> None:
        """Begin nothing more. Outcomes of what is on its way still come, for a moment."""
        self._stopped = True
        self._end()

    def _end(self) -> None:
        """What is on its way has a moment; then waits are interrupted, then connections are cut."""
        self._stop.set()
        if self._join(_GRACE):
            return
        for association in self._associations():
            association.interrupt()
        if self._join(1):
            return
        for association in self._associations():
            association.sever()
        self._join(1)

    def _associations(self) -> list[Association]:
        return [a for thread, a in list(self._live.items()) if a is not None and thread.is_alive()]

    def _join(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for thread in self._live:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._live)

    def _run(self) -> None:
        try:
            self._send()
        except BaseException as exc:  # noqa: BLE001  raised again where the outcomes are read
            self._done.put(exc)
        finally:
            self._done.put(None)
            self._ended.set()

    def _send(self) -> None:
        """One thread's part: take what is next, over one association after another."""
        failures = 0
        while self._todo and not self._stop.is_set():
            try:
                association = Association(self.remote, self._shipment.contexts)
            except AssociationError as exc:
                failures += 1
                if not self._worth_another(exc, failures):
                    self.error = exc
                    return
                self._pause(failures)
                continue
            self.reached = True
            self._live[threading.current_thread()] = association
            try:
                lost, stored = self._send_over(association)
            except BaseException:
                association.abort()
                raise
            finally:
                self._live[threading.current_thread()] = None
            association.release()
            if lost is not None:
                failures = 1 if stored else failures + 1
                if failures > self._retries:
                    self.error = lost
                    return
                self._pause(failures)

    def _send_over(self, association: Association) -> tuple[AssociationError | None, int]:
        """Send over one association until nothing is left or it is over.

        Why it was lost, None if it was not, and how many were answered before.
        """
        answered = 0
        while not self._stop.is_set():
            try:
                task = self._todo.popleft()
            except IndexError:
                break
            try:
                sent = self._shipment.send(association, task.number, task.item)
            except AssociationError as exc:
                if association.is_open:  # no context for this one
                    self._done.put(self._failed(task, exc))
                    continue
                task.losses += 1
                if task.losses > 1 or self._stop.is_set():
                    self._done.put(self._failed(task, exc))
                else:
                    self._todo.appendleft(task)
                return exc, answered
            except PacsError as exc:  # the file's own fault
                self._done.put(self._failed(task, exc))
                if not association.is_open:
                    break
            else:
                answered += 1
                self._done.put(sent)
        return None, answered

    def _worth_another(self, exc: AssociationError, failures: int) -> bool:
        if failures > self._retries or self._stop.is_set():
            return False
        if exc.rejection is not None:
            return exc.rejection[0] == 2  # transient
        return self.reached

    def _pause(self, failures: int) -> None:
        deadline = time.monotonic() + min(_FIRST_WAIT * 2 ** (failures - 1), _LONGEST_WAIT)
        while self._todo and (left := deadline - time.monotonic()) > 0:
            if self._stop.wait(min(left, 0.1)):
                break

    def _failed(self, task: _Task[T], error: PacsError) -> Sent:
        return self._shipment.failed(task.number, task.item, error)


def outcome_of(number: int, part: Part, answer: Answer, remote: Remote) -> Sent:
    """The outcome that a response means."""
    status = answer.status
    error: PacsError | None = None
    if status != 0 and not 0xB000 <= status <= 0xBFFF:
        said = f": {answer.comment}" if answer.comment else ""
        error = RefusedError(f"{remote} answered {status:04X}H, {status_words(status)}{said}")
    return Sent(number, part.path, part.sop_instance_uid, status, error, part.length, answer.comment)


def status_words(status: int) -> str:
    """A status of C-STORE in words (PS3.4 B.2.3, PS3.7 Annex C)."""
    if status >> 8 == 0xA7:
        return "out of resources"
    if status >> 8 == 0xA9:
        return "data set does not match SOP class"
    if status >> 12 == 0xC:
        return "cannot understand"
    return _STATUS_WORDS.get(status, "an unknown status")
