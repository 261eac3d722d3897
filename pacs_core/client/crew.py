"""Many tasks with one peer: over several associations, a lost one made again, an outcome for each.

A task whose association is lost is tried once more on the next one. When that is lost again, and nothing came
of the task in between, the task is to blame, and the rest goes on without it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from pacs_core.client.association import Association
from pacs_core.client.remote import Remote
from pacs_core.errors import AssociationError, PacsError

T = TypeVar("T")
R = TypeVar("R")

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0
_GRACE = 2.0  # seconds that what is under way may still take when everything is to stop


@dataclass(slots=True)
class Contact:
    """What is known of the peer, from one crew to the next.

    Attributes
    ----------
    reached : bool
        It was there a moment ago.
    dead : AssociationError | None
        Why it was given up; nobody asks it for anything any more.
    """

    remote: Remote
    reached: bool = False
    dead: AssociationError | None = None


@dataclass(slots=True)
class _Turn(Generic[T]):
    task: T
    losses: int = 0


class Crew(ABC, Generic[T, R]):
    """Tasks of type T, that come to outcomes of type R, in threads that have an association each.

    Parameters
    ----------
    associations
        At a time.
    retries
        How often in a row an association may be lost, or not come about, before a thread gives up. One that
        the peer rejects for good, or the first of all if there is nobody to talk to, is not asked for again.
    """

    def __init__(self, contact: Contact, tasks: Sequence[T], *, associations: int, retries: int) -> None:
        self.contact = contact
        self._todo = deque(_Turn(task) for task in tasks)
        self._threads = max(1, min(associations, len(tasks)))
        self._retries = retries
        self.error: AssociationError | None = None
        """Why some were given up; None if every one had its turn."""
        self._done: SimpleQueue[R | BaseException | None] = SimpleQueue()
        self._stop = threading.Event()
        self._stopped = False
        self._ended = threading.Event()  # a thread is done: there is something to see
        self._live: dict[threading.Thread, Association | None] = {}

    @abstractmethod
    def _associate(self) -> Association:
        """A new association for any of the tasks. Raises AssociationError."""

    @abstractmethod
    def _do(self, association: Association, task: T) -> Iterator[R]:
        """Do a task, or what is left of it. A PacsError but for AssociationError is the task's own fault."""

    @abstractmethod
    def _failed(self, task: T, error: PacsError) -> Iterable[R]:
        """The outcomes of what is left of a task that is given up."""

    def __iter__(self) -> Iterator[R]:
        """Work; outcomes as they come. Breaking off ends the associations."""
        return (outcome for outcome in self.watched(None) if outcome is not None)

    def watched(self, seconds: float | None) -> Iterator[R | None]:
        """As `__iter__`, but looking every so many seconds, with a None after what came meanwhile.

        Whoever can wait so long spares the threads, which would have to let it in after each outcome.
        """
        if self.contact.dead is not None:
            yield from self._given_up(self.contact.dead)
            return
        for _ in range(self._threads):
            thread = threading.Thread(target=self._run, name=f"pacs-core {type(self).__name__}", daemon=True)
            self._live[thread] = None
        running = len(self._live)
        try:
            for thread in self._live:
                thread.start()
            while running:
                try:
                    done = self._done.get(block=seconds is None)
                except Empty:
                    if self._stopped:  # whoever is still at it does not even have an association
                        return
                    yield None
                    self._ended.wait(seconds)
                    self._ended.clear()
                    continue
                if done is None:
                    running -= 1
                elif isinstance(done, BaseException):
                    raise done
                else:
                    yield done
        finally:
            self._end()
        error, self.error = self.error, None
        if self._todo and not self._stopped:
            self.error = error or AssociationError(f"no association with {self.contact.remote}")
            if self.error.rejection is None:
                self.contact.dead = self.error
            yield from self._given_up(self.error)

    def stop(self) -> None:
        """Begin nothing more. Outcomes of what is on its way still come, for a moment."""
        self._stopped = True
        self._end()

    def _given_up(self, error: PacsError) -> Iterator[R]:
        for turn in self._todo:
            yield from self._failed(turn.task, error)

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
            self._work()
        except BaseException as exc:  # noqa: BLE001  raised again where the outcomes are read
            self._done.put(exc)
        finally:
            self._done.put(None)
            self._ended.set()

    def _work(self) -> None:
        """One thread's part: take what is next, over one association after another."""
        failures = 0
        while self._todo and not self._stop.is_set():
            try:
                association = self._associate()
            except AssociationError as exc:
                failures += 1
                if not self._worth_another(exc, failures):
                    self.error = exc
                    return
                self._pause(failures)
                continue
            self.contact.reached = True
            self._live[threading.current_thread()] = association
            try:
                lost, outcomes = self._work_over(association)
            except BaseException:
                association.abort()
                raise
            finally:
                self._live[threading.current_thread()] = None
            association.release()
            if lost is not None:
                failures = 1 if outcomes else failures + 1
                if failures > self._retries:
                    self.error = lost
                    return
                self._pause(failures)

    def _work_over(self, association: Association) -> tuple[AssociationError | None, int]:
        """Work over one association until nothing is left or it is over.

        Why it was lost, None if it was not, and how many outcomes there were before.
        """
        outcomes = 0
        while not self._stop.is_set():
            try:
                turn = self._todo.popleft()
            except IndexError:
                break
            before = outcomes
            try:
                for outcome in self._do(association, turn.task):
                    outcomes += 1
                    self._done.put(outcome)
            except AssociationError as exc:
                if association.is_open:  # no context for this one
                    self._give_up(turn, exc)
                    continue
                turn.losses = 1 if outcomes > before else turn.losses + 1
                if turn.losses > 1 or self._stop.is_set():
                    self._give_up(turn, exc)
                else:
                    self._todo.appendleft(turn)
                return exc, outcomes
            except PacsError as exc:  # the task's own fault
                self._give_up(turn, exc)
                if not association.is_open:
                    break
        return None, outcomes

    def _give_up(self, turn: _Turn[T], error: PacsError) -> None:
        for outcome in self._failed(turn.task, error):
            self._done.put(outcome)

    def _worth_another(self, exc: AssociationError, failures: int) -> bool:
        if failures > self._retries or self._stop.is_set():
            return False
        if exc.rejection is not None:
            return exc.rejection[0] == 2  # transient
        return self.contact.reached

    def _pause(self, failures: int) -> None:
        deadline = time.monotonic() + min(_FIRST_WAIT * 2 ** (failures - 1), _LONGEST_WAIT)
        while self._todo and (left := deadline - time.monotonic()) > 0:
            if self._stop.wait(min(left, 0.1)):
                break
