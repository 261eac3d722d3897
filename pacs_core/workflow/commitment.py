"""Storage commitment: what was asked for, what was found, who is yet to be told (PS3.4 J.3).

A transaction is requested, then verified, then delivered, or given up when its peer could not be told for
long. Each step is durable before anything follows from it. Whoever works on a transaction owns it; what has
no owner waits in the outbox until it is due. An owner that dies loses what it had: `recover` puts that back.

The same request again, while its result is not delivered, is the same transaction. Another request with a
Transaction UID that is in use, or was lately, is a transaction of its own, all of which fails with 0131.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pacs_core.dicom.commitment import Reference, Request, Result
from pacs_core.errors import CorruptError
from pacs_core.workflow.owner import Owner, bury, is_alive
from pacs_core.workflow.state import COMMITMENT, OUTBOX, Change, State
from pacs_core.workflow.transactions import (
    FINISHED,
    NUMBER,
    OWNED,
    PAIR,
    TRANSACTION,
    Stage,
    Transaction,
    add,
    counters_of,
    decoded,
    find,
    find_named,
    finish,
    forget,
    microseconds,
    move,
    pack_failures,
    pack_references,
    put_counters,
    reopen,
    transaction_keys,
    unpack_failures,
    unpack_references,
    waiting,
)

_BATCH = 1000  # transactions that are claimed at a time


class Patience(NamedTuple):
    """How often something is tried again: after `first` seconds, then each time `factor` times as long, at
    most `longest`; not any more once `limit` seconds have gone since the transaction is in its stage."""

    first: float = 10.0
    factor: float = 2.0
    longest: float = 3600.0
    limit: float = 3 * 86400.0

    def after(self, attempts: int) -> float:
        """Seconds to wait after so many attempts, at least one."""
        wait = self.first
        for _ in range(attempts - 1):
            wait *= self.factor
            if wait >= self.longest:
                break
        return min(wait, self.longest)


class Commitments:
    """The transactions of one archive. Any thread, any process.

    What changes something raises OutOfResourcesError and StorageError as `State.change`.

    Parameters
    ----------
    owners
        The folder of the marks of those who work on transactions.

    Attributes
    ----------
    unreadable : set of int
        Transactions whose record was found to be none. They stay as they are, and hold up no other.
    """

    def __init__(self, state: State, owners: Path, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._owners = owners
        self._clock = clock
        self.unreadable: set[int] = set()

    # -- who works ---------------------------------------------------------------------------------------

    def owner(self) -> Owner:
        """Somebody who may own transactions, until closed."""

        def decide(change: Change) -> int:
            counters = counters_of(change)
            counters.owners += 1
            put_counters(change, counters)
            return counters.owners

        bury(self._owners)
        return Owner(self._owners, self._state.change(decide))

    def recover(self) -> int:
        """Take from owners that are dead what they had; how many transactions that were."""
        owned = [PAIR.unpack(key[1:]) for key, _ in self._state.scan(COMMITMENT, OWNED)]
        dead = {owner for owner in {owner for owner, _ in owned} if not is_alive(self._owners, owner)}

        def decide(change: Change) -> int:
            lost = [one for one in self._known(change, (number for _, number in owned)) if one.owner in dead]
            for one in lost:
                move(change, one, owner=0, due=self._clock())
            return len(lost)

        return self._state.change(decide) if dead else 0

    # -- steps -------------------------------------------------------------------------------------------

    def request(
        self, request: Request, owner: Owner, calling: str, called: str, address: str
    ) -> tuple[Transaction, bool]:
        """Note a request; the transaction, and whether it is in the owner's hands only now.

        Raises
        ------
        OutOfResourcesError
            More is pending than may be, or there is no room.
        StorageError
            It could not be made durable.
        """
        packed = pack_references(request.references)
        digest = hashlib.sha256(packed).digest()

        def decide(change: Change) -> tuple[Transaction, bool]:
            now = self._clock()
            before = find_named(change, calling, request.transaction_uid)
            if before is not None and before.digest == digest and before.stage is not Stage.DELIVERED:
                if before.stage is Stage.GIVEN_UP:
                    return reopen(change, before, now, owner.number), True
                if before.owner:
                    return before, False
                return move(change, before, owner=owner.number), True
            counters = counters_of(change)
            counters.transactions += 1
            put_counters(change, counters)
            transaction = Transaction(
                number=counters.transactions,
                uid=request.transaction_uid,
                calling=calling,
                called=called,
                address=address,
                digest=digest,
                instances=len(request.references),
                requested=now,
                due=now,
                duplicate=before is not None,
                owner=owner.number,
            )
            add(change, transaction, packed)
            return transaction, True

        return self._state.change(decide)

    def verified(self, number: int, failures: Mapping[int, int]) -> Transaction | None:
        """Note what was found: the places in the request of those that failed, and why.

        None if the transaction is finished or forgotten; so for the other steps.
        """

        def decide(change: Change, one: Transaction) -> Transaction:
            if one.stage is Stage.VERIFIED:
                return one
            change.put(COMMITMENT, transaction_keys(number)[2], pack_failures(failures.items()))
            found = {"stage": Stage.VERIFIED, "verified": self._clock(), "failed": len(failures)}
            return move(change, one, **found, attempts=0, trouble="")

        return self._step(number, decide)

    def delivered(self, number: int) -> Transaction | None:
        """Note that the peer has answered the report: it is never told again."""
        return self._step(number, lambda change, one: finish(change, one, Stage.DELIVERED, self._clock()))

    def release(self, number: int) -> Transaction | None:
        """Let whoever comes first go on with it."""
        return self._step(number, lambda change, one: move(change, one, owner=0, due=self._clock()))

    def postpone(self, number: int, why: str, patience: Patience) -> Transaction | None:
        """Note that an attempt failed: the next one is later, or the transaction is given up."""

        def decide(change: Change, one: Transaction) -> Transaction:
            now, attempts = self._clock(), one.attempts + 1
            if now - (one.verified or one.requested) >= patience.limit:
                told = move(change, one, attempts=attempts, trouble=why)
                return finish(change, told, Stage.GIVEN_UP, now)
            due = now + patience.after(attempts)
            return move(change, one, owner=0, attempts=attempts, trouble=why, due=due)

        return self._step(number, decide)

    def _step(self, number: int, decide: Callable[[Change, Transaction], Transaction]) -> Transaction | None:
        def of_it(change: Change) -> Transaction | None:
            one = find(change, number)
            return None if one is None or one.is_finished else decide(change, one)

        return self._state.change(of_it)

    # -- what to do next ---------------------------------------------------------------------------------

    def claim(self, owner: Owner, *, busy: Container[str] = ()) -> list[Transaction]:
        """Some of one peer that are due, the owner's from now on; none of peers that are `busy`."""
        peer: bytes | None = None
        due: list[int] = []
        for key, calling in self._state.scan(OUTBOX, stop=NUMBER.pack(microseconds(self._clock()) + 1)):
            number = PAIR.unpack(key)[1]
            if number in self.unreadable:
                continue
            if calling == peer or (peer is None and calling.decode() not in busy):
                peer = calling
                due.append(number)
                if len(due) == _BATCH:
                    break
        return self._claim(owner, due)

    def claim_of(self, owner: Owner, calling: str) -> list[Transaction]:
        """Some of a peer's that nobody works on, due or not, the owner's from now on."""
        prefix = waiting(calling)
        numbers = [NUMBER.unpack(key[len(prefix) :])[0] for key, _ in self._state.scan(COMMITMENT, prefix)]
        return self._claim(owner, numbers[:_BATCH])

    def _claim(self, owner: Owner, numbers: Sequence[int]) -> list[Transaction]:
        def decide(change: Change) -> list[Transaction]:
            free = [one for one in self._known(change, numbers) if not one.owner and not one.is_finished]
            return [move(change, one, owner=owner.number) for one in free]

        return self._state.change(decide) if numbers else []

    # -- what there is -----------------------------------------------------------------------------------

    def get(self, number: int) -> Transaction | None:
        """A transaction by its number."""
        packed = self._state.get(COMMITMENT, transaction_keys(number)[0])
        return None if packed is None else decoded(packed)

    def references(self, number: int) -> list[Reference]:
        """The instances that a transaction is about; none of one that is delivered or forgotten."""
        packed = self._state.get(COMMITMENT, transaction_keys(number)[1])
        return [] if packed is None else unpack_references(packed)

    def result(self, number: int) -> Result | None:
        """What is to be told; None of what is not verified, or was delivered."""
        packed, references, failures = self._state.get_many(COMMITMENT, transaction_keys(number))
        if packed is None or references is None or failures is None:
            return None
        everything, reasons = unpack_references(references), unpack_failures(failures)
        return Result(
            decoded(packed).uid,
            [one for at, one in enumerate(everything) if at not in reasons],
            [(everything[at], reason) for at, reason in reasons.items()],
        )

    def __iter__(self) -> Iterator[Transaction]:
        """All that are known and can be read, in the order of the requests."""
        for key, packed in self._state.scan(COMMITMENT, TRANSACTION):
            with self._noting(NUMBER.unpack(key[1:])[0]):
                yield decoded(packed)

    def waiting(self) -> int:
        """How many nobody works on, due or not."""
        return self._state.entries(OUTBOX)

    # -- by hand -----------------------------------------------------------------------------------------

    def retry(self, numbers: Iterable[int]) -> int:
        """Have these worked on now, those given up too; of how many that is so."""

        def decide(change: Change) -> int:
            tried = [one for one in self._known(change, numbers) if one.stage is not Stage.DELIVERED]
            for one in tried:
                if one.stage is Stage.GIVEN_UP:
                    reopen(change, one, self._clock())
                elif not one.owner:
                    move(change, one, due=self._clock())
            return len(tried)

        return self._state.change(decide)

    def forget(self, numbers: Iterable[int]) -> int:
        """Keep nothing of these, whoever waits for them; how many there were."""

        def decide(change: Change) -> int:
            found = self._known(change, numbers)
            for one in found:
                forget(change, one)
            return len(found)

        return self._state.change(decide)

    def purge(self, seconds: float) -> int:
        """Forget what was finished so long ago; how many there were."""
        stop = FINISHED + NUMBER.pack(microseconds(self._clock() - seconds))
        old = [PAIR.unpack(key[1:])[1] for key, _ in self._state.scan(COMMITMENT, FINISHED, stop=stop)]
        return self.forget(old) if old else 0

    # -- what can't be read ------------------------------------------------------------------------------

    def _known(self, change: Change, numbers: Iterable[int]) -> list[Transaction]:
        """Those of these numbers that there are and can be read, each once."""
        found = []
        for number in dict.fromkeys(numbers):
            with self._noting(number):
                if (one := find(change, number)) is not None:
                    found.append(one)
        return found

    @contextmanager
    def _noting(self, number: int) -> Iterator[None]:
        try:
            yield
        except CorruptError:
            self.unreadable.add(number)
