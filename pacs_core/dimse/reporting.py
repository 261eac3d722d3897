"""After a storage commitment request: its instances are read and checked, and its peer is told (PS3.4 J.3.3).

The report goes out on the association of the request if that still stands, on another one of the same peer
that takes it, or on one that we request of the known peer of that AE title, as the SCP; again and again, ever
later, until it is answered. An answer is recorded before anything else happens, and then the report is never
sent again. Only a crash between the answer and its record, or an association that is lost between report and
answer, lets a peer hear the same result twice.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pacs_core.archive import Archive
from pacs_core.archive.vouch import vouch
from pacs_core.dicom.commitment import Reason, Result
from pacs_core.dimse.event_report import report
from pacs_core.dimse.status import SUCCESS
from pacs_core.errors import PacsError, RefusedError
from pacs_core.lifecycle import WELL, Health
from pacs_core.logs import get_logger
from pacs_core.workflow import Owner, Patience, Stage, Transaction

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association

log = get_logger("commitment")

Call = Callable[[], AbstractContextManager[Callable[[Result], None]]]
"""Makes an association with a peer, and gives what reports results on it: that raises RefusedError for an
answer that is a failure, and other PacsErrors when there is none. So does the making."""

_TICK = 1.0  # seconds from one look at what is due to the next
_SWEEP = 5.0  # seconds from one look at what the dead have left to the next
_QUIET = 1.0  # seconds that a new association is left alone: a simple peer expects but its own answer
_GRACE = 0.25  # seconds after a request: many peers release at once, and not all can hear a report meanwhile
_MOST_CALLS = 4  # peers that are called at a time


class Reporting:
    """Works on transactions, those of this process and those that nobody works on, until it is stopped.

    Parameters
    ----------
    known
        The SOP classes that are stored here.
    calls
        What calls a peer (its AE title, and ours as it knows us); None if nobody knows where it listens.
    patience
        How often a peer is called that could not be told.
    keep
        Seconds that finished transactions are remembered.
    """

    owner: Owner

    def __init__(
        self,
        archive: Archive,
        known: Container[str],
        calls: Callable[[str, str], Call | None],
        patience: Patience,
        keep: float,
    ) -> None:
        self._archive = archive
        self._commitments = archive.commitments
        self._known = known
        self._calls = calls
        self._patience = patience
        self._keep = keep
        self._to_verify: SimpleQueue[int | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._asked_over: dict[int, tuple[Association, float]] = {}  # until when it is left alone
        self._present: dict[str, dict[Association, float]] = {}  # since when, until they were looked after: 0
        self._busy: set[str] = set()  # AE titles that are being called
        self._unkept: deque[Callable[[], object]] = deque()  # what could not be recorded
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._stopped = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._look, "commitments"), (self._verify, "commitments verified"))
        ]

    # -- life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what is due, and with what the dead have left."""
        self.owner = self._commitments.owner()
        for thread in self._threads:
            thread.start()

    def health(self) -> Health:
        """Whether it works, and how many transactions wait."""
        if not self._ending.is_set() and not all(thread.is_alive() for thread in self._threads):
            return Health(False, "a thread has ended")
        if self._unkept:
            return Health(False, f"{len(self._unkept)} results can't be recorded")
        if self._commitments.unreadable:
            return Health(False, f"{len(self._commitments.unreadable)} transactions can't be read")
        waiting = self._commitments.waiting()
        return Health(words=f"{waiting} wait") if waiting else WELL

    def drain(self, deadline: float) -> None:
        """Begin nothing more, and finish what was begun, until `deadline`."""
        self._ending.set()
        self._wake.set()
        self._to_verify.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        with self._idle:
            self._idle.wait_for(lambda: not self._busy, max(0.0, deadline - time.monotonic()))
        self._stopped.set()

    def stop(self) -> None:
        """Stop; whatever is not finished belongs to nobody from now on."""
        self._stopped.set()
        self.drain(time.monotonic() + _TICK)
        self.owner.close()

    # -- what associations say ---------------------------------------------------------------------------

    def requested(self, transaction: Transaction, association: Association, *, begin: bool) -> None:
        """A request was answered on this association. `begin`: nobody works on it yet."""
        with self._lock:
            self._asked_over[transaction.number] = association, time.monotonic() + _GRACE
        association.expected_until = time.monotonic() + 2 * _SWEEP
        if begin:
            self._dispatch([transaction])

    def established(self, association: Association) -> None:
        """A peer has made an association on which it can be told what waits for it."""
        with self._lock:
            calling = association.calling_ae_title.strip()
            self._present.setdefault(calling, {})[association] = time.monotonic()

    # -- the look at what is due -------------------------------------------------------------------------

    def _look(self) -> None:
        swept = 0.0
        while not self._ending.is_set():
            try:
                for _ in range(len(self._unkept)):
                    self._record(self._unkept.popleft())
                if time.monotonic() - swept >= _SWEEP:
                    swept = time.monotonic()
                    self._sweep()
                self._greet()
                while len(self._busy) < _MOST_CALLS and not self._ending.is_set():
                    batch = self._commitments.claim(self.owner, busy=self._busy)
                    if not batch:
                        break
                    self._dispatch(batch, call=True)
            except PacsError as exc:
                log.error("commitments have to wait", why=str(exc))
            except Exception as exc:
                log.error("commitments have to wait", exc_info=exc)
            self._wake.wait(_TICK)
            self._wake.clear()

    def _sweep(self) -> None:
        lost = self._commitments.recover()
        if lost:
            log.info("commitments of a process that died are gone on with", number=lost)
        self._commitments.purge(self._keep)
        with self._lock:
            asked_over = list(self._asked_over.items())
        for number, (association, _) in asked_over:
            transaction = self._commitments.get(number)
            if not association.is_established or transaction is None or transaction.is_finished:
                with self._lock:
                    self._asked_over.pop(number, None)
            elif transaction.stage is Stage.REQUESTED:  # its peer waits for no one but us
                association.expected_until = time.monotonic() + 2 * _SWEEP
        with self._lock:
            for calling, associations in list(self._present.items()):
                standing = {one: since for one, since in associations.items() if one.is_established}
                if standing:
                    self._present[calling] = standing
                else:
                    del self._present[calling]

    def _greet(self) -> None:
        """Tell peers that have called what waits for them, whenever it would have been due."""
        until = time.monotonic() - _QUIET
        with self._lock:
            new = [
                (calling, one)
                for calling, associations in self._present.items()
                for one, since in associations.items()
                if 0 < since <= until
            ]
            for calling, one in new:
                self._present[calling][one] = 0.0
        for calling, one in new:
            if one.is_established and (batch := self._commitments.claim_of(self.owner, calling)):
                self._dispatch(_in_turn(batch), one)

    def _dispatch(
        self, batch: Sequence[Transaction], over: Association | None = None, *, call: bool = False
    ) -> None:
        """Go on with transactions of one peer that are ours.

        `call`: the peer may be called now; else those that it has to be called for wait for their turn.
        """
        verified: list[Transaction] = []
        for one in batch:
            if one.stage is Stage.REQUESTED:
                self._to_verify.put(one.number)
                continue
            with self._lock:
                asked_over, quiet = self._asked_over.pop(one.number, (None, 0.0))
                association = asked_over or over or self._standing(one.calling)
            if association is None:
                verified.append(one)
            else:
                self._post(association, one, quiet)
        if verified and call:
            self._begin_call(verified)
        elif verified:
            self._release([one.number for one in verified])

    def _begin_call(self, batch: list[Transaction]) -> None:
        calling = batch[0].calling
        with self._lock:
            self._busy.add(calling)
        try:
            threading.Thread(target=self._call, args=(calling, batch), name="report", daemon=True).start()
        except RuntimeError:  # no thread is left
            self._postpone([one.number for one in batch], "no thread is left")
            with self._lock:
                self._busy.discard(calling)

    def _standing(self, calling: str) -> Association | None:
        """An association of the peer that stands, and has been looked after."""
        associations = self._present.get(calling, {})
        return next((one for one, since in associations.items() if not since and one.is_established), None)

    # -- verifying ---------------------------------------------------------------------------------------

    def _verify(self) -> None:
        while (number := self._to_verify.get()) is not None and not self._ending.is_set():
            try:
                self._verify_one(number)
            except PacsError as exc:
                self._postpone([number], str(exc))
            except Exception as exc:
                log.error("a commitment can't be verified", exc_info=exc)
                self._postpone([number], type(exc).__name__)

    def _verify_one(self, number: int) -> None:
        transaction = self._commitments.get(number)
        if transaction is None or transaction.owner != self.owner.number:
            return
        if transaction.stage is Stage.REQUESTED:
            references = self._commitments.references(number)
            begun = time.monotonic()
            failures: dict[int, Reason] | None = dict.fromkeys(
                range(len(references)), Reason.DUPLICATE_TRANSACTION
            )
            if not transaction.duplicate:
                failures = vouch(self._archive, references, known=self._known, stopped=self._stopped.is_set)
            if failures is None:
                return
            transaction = self._commitments.verified(number, failures)
            if transaction is None:
                return
            log.info(
                "commitment verified",
                calling_ae_title=transaction.calling,
                transaction=transaction.uid,
                instances=len(references),
                failed=len(failures),
                seconds=round(time.monotonic() - begun, 3),
            )
        self._dispatch([transaction])

    # -- telling -----------------------------------------------------------------------------------------

    def _post(self, association: Association, transaction: Transaction, quiet: float) -> None:
        association.post(
            lambda: self._tell(association, transaction, quiet), lambda: self._unmet(association, transaction)
        )

    def _tell(self, association: Association, transaction: Transaction, quiet: float) -> None:
        """In the association's thread; not before `quiet`, and not before what the peer says until then."""
        number = transaction.number
        if time.monotonic() < quiet and association.dul.pump(deadline=quiet):
            self._post(association, transaction, quiet)
            return
        try:
            result = self._commitments.result(number)
            status = SUCCESS if result is None else report(association, result)
        except Exception as exc:  # noqa: BLE001 - it is not the association's fault
            self._postpone([number], f"{type(exc).__name__}: {exc}")
            return
        if status is None:
            self._unmet(association, transaction)
        elif _is_done(status):
            self._delivered(transaction)
        else:
            self._postpone([number], f"the peer answered {status:04X}H")

    def _unmet(self, association: Association, transaction: Transaction) -> None:
        """The association is of no use any more."""
        with self._lock:
            self._present.get(transaction.calling, {}).pop(association, None)
        self._release([transaction.number])

    def _call(self, calling: str, batch: list[Transaction]) -> None:
        try:
            batch.sort(key=attrgetter("called", "number"))
            for called, group in itertools.groupby(batch, attrgetter("called")):
                self._call_as(calling, called, _in_turn(group))
        finally:
            with self._idle:
                self._busy.discard(calling)
                self._idle.notify_all()
            self._wake.set()

    def _call_as(self, calling: str, called: str, left: deque[Transaction]) -> None:
        """Tell a peer, on an association of its own, as the AE title that it knows us by."""
        call = self._calls(calling, called)
        if call is None:
            self._postpone([one.number for one in left], "no peer of that AE title is known to listen")
            return
        try:
            with call() as tell:
                while left and not self._ending.is_set():
                    try:
                        result = self._commitments.result(left[0].number)
                    except Exception as exc:  # noqa: BLE001 - the others can be told
                        self._postpone([left.popleft().number], f"{type(exc).__name__}: {exc}")
                        continue
                    if result is None:
                        left.popleft()
                        continue
                    try:
                        tell(result)
                    except RefusedError as exc:
                        self._postpone([left.popleft().number], str(exc))
                        continue
                    self._delivered(left.popleft())
        except Exception as exc:
            if not isinstance(exc, PacsError):
                log.error("a peer can't be told of commitments", calling_ae_title=calling, exc_info=exc)
            self._postpone([one.number for one in left], str(exc) or type(exc).__name__)
        else:
            self._release([one.number for one in left])

    # -- recording ---------------------------------------------------------------------------------------

    def _record(self, step: Callable[[], object]) -> None:
        """Do a step now, or as soon as it can be done. Raises nothing: it is no association's fault."""
        try:
            step()
        except Exception as exc:
            if not self._stopped.is_set():
                log.error("the state of a commitment can't be kept for now", exc_info=exc)
                self._unkept.append(step)

    def _delivered(self, transaction: Transaction) -> None:
        self._record(lambda: self._commitments.delivered(transaction.number))
        log.info(
            "commitment reported",
            calling_ae_title=transaction.calling,
            transaction=transaction.uid,
            instances=transaction.instances,
            failed=transaction.failed,
        )

    def _release(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._record(lambda number=number: self._commitments.release(number))  # type: ignore[misc]
        self._wake.set()

    def _postpone(self, numbers: Sequence[int], why: str) -> None:
        for number in numbers:
            self._record(lambda number=number: self._postpone_one(number, why))  # type: ignore[misc]

    def _postpone_one(self, number: int, why: str) -> None:
        one = self._commitments.postpone(number, why, self._patience)
        if one is None:
            return
        told = {"calling_ae_title": one.calling, "transaction": one.uid, "attempts": one.attempts, "why": why}
        if one.stage is Stage.GIVEN_UP:
            log.error("commitment given up: pacs-core commitments retry tries it again", **told)
        else:
            log.warning("commitment not reported yet", **told)


def _in_turn(batch: Iterable[Transaction]) -> deque[Transaction]:
    """Those of one peer, begun with another one after each attempt: if there is one that ends the association
    whenever it is told, the others are told all the same."""
    turn = deque(batch)
    turn.rotate(-max(one.attempts for one in turn))
    return turn


def _is_done(status: int) -> bool:
    """Success, or a warning (PS3.7 Annex C)."""
    return status == SUCCESS or status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)
