"""Storage commitment transactions as they are kept: stages, owners, the outbox, and what a crash leaves.

CONFORMANCE 35: noted before the answer, told until it is answered; 0131 for a Transaction UID in use.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_core.dicom.commitment import Reason, Reference, Request, Result
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import InvalidArgumentError, OutOfResourcesError
from pacs_core.workflow import Commitments, Owner, Patience, Stage, State, transactions
from pacs_core.workflow.state import COMMITMENT
from tests.make import CT

REFERENCES = [Reference(CT, f"1.2.{n}") for n in range(1, 4)]
REQUEST = Request("1.9.1", REFERENCES)
IMPLICIT = "1.2.840.10008.1.2"


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """Transactions with a clock, and how to open them again."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self._path = path
        self._open()

    def _open(self) -> None:
        self.state = State.open(self._path / "state")
        self.commitments = Commitments(self.state, self._path / "state" / "owners", self.clock)
        self.owner = self.commitments.owner()

    def again(self) -> None:
        """As after the death of the process: nobody said goodbye."""
        self.owner.close()
        self.state.close()
        self._open()

    def request(self, request: Request = REQUEST, owner: Owner | None = None, calling: str = "CT1") -> int:
        transaction, _ = self.commitments.request(
            request, owner or self.owner, calling, "PACSCORE", "127.0.0.1"
        )
        return transaction.number

    def close(self) -> None:
        self.owner.close()
        self.state.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def stage(place: Place, number: int) -> Stage:
    transaction = place.commitments.get(number)
    assert transaction is not None
    return transaction.stage


def test_what_is_asked_and_told_survives_the_wire() -> None:
    asked = read_dataset(REQUEST.to_dataset().to_bytes(IMPLICIT), IMPLICIT)
    assert Request.of(asked) == REQUEST
    result = Result("1.9.1", REFERENCES[:2], [(REFERENCES[2], Reason.NO_SUCH_INSTANCE)])
    assert result.event_type == 2
    told = Result.of(read_dataset(result.to_dataset().to_bytes(IMPLICIT), IMPLICIT))
    assert told == result
    assert Result("1.9.1", REFERENCES, []).event_type == 1
    assert "FailedSOPSequence" not in Result("1.9.1", REFERENCES, []).to_dataset()
    assert "ReferencedSOPSequence" not in Result("1.9.1", [], [(REFERENCES[0], 0x0110)]).to_dataset()


@pytest.mark.parametrize(
    "asked",
    [
        Dataset(ReferencedSOPSequence=[{"ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": "1.2"}]),
        Dataset(TransactionUID="1.9.1"),
        Dataset(TransactionUID="1.9.1", ReferencedSOPSequence=[]),
        Dataset(TransactionUID="1.9.1", ReferencedSOPSequence=[{"ReferencedSOPClassUID": CT}]),
        Dataset(
            TransactionUID="1.9.1",
            ReferencedSOPSequence=[{"ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": "1" * 65}],
        ),
        Dataset(
            TransactionUID="1.9.1",
            ReferencedSOPSequence=[{"ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": "1.2\\1.3"}],
        ),
    ],
)
def test_a_request_that_asks_for_nothing_is_refused(asked: Dataset) -> None:
    """CONFORMANCE 35: 0115."""
    with pytest.raises(InvalidArgumentError):
        Request.of(asked)


def test_a_request_that_is_cut_off_is_refused() -> None:
    """Its last UID may be the beginning of another one: nothing may be promised about that."""
    whole = Request("1.9.1", [Reference(CT, "1.2.3456")]).to_dataset().to_bytes(IMPLICIT)
    with pytest.raises(InvalidArgumentError):
        Request.of(read_dataset(whole[:-2], IMPLICIT))


def test_requested_verified_delivered(place: Place) -> None:
    number = place.request()
    place.again()
    assert stage(place, number) is Stage.REQUESTED
    assert place.commitments.references(number) == REFERENCES
    assert place.commitments.result(number) is None
    place.commitments.verified(number, {1: Reason.NO_SUCH_INSTANCE})
    place.again()
    assert place.commitments.result(number) == Result(
        "1.9.1", [REFERENCES[0], REFERENCES[2]], [(REFERENCES[1], 0x0112)]
    )
    place.commitments.delivered(number)
    place.again()
    assert stage(place, number) is Stage.DELIVERED
    assert place.commitments.recover() == 0
    assert place.commitments.claim(place.owner) == []
    assert place.commitments.claim_of(place.owner, "CT1") == []


def test_what_is_delivered_stays_so_whatever_is_noted_later(place: Place) -> None:
    number = place.request()
    place.commitments.verified(number, {})
    place.commitments.delivered(number)
    assert place.commitments.release(number) is None
    assert place.commitments.postpone(number, "no", Patience()) is None
    assert place.commitments.verified(number, {0: Reason.PROCESSING_FAILURE}) is None
    assert place.commitments.retry([number]) == 0
    assert place.commitments.waiting() == 0
    assert stage(place, number) is Stage.DELIVERED


def test_what_the_dead_had_is_gone_on_with(place: Place) -> None:
    other = place.commitments.owner()
    verified = place.request(Request("1.9.2", REFERENCES), other)
    place.commitments.verified(verified, {})
    mine, theirs = place.request(), place.request(Request("1.9.3", REFERENCES), other)
    assert place.commitments.recover() == 0
    assert place.commitments.claim(place.owner) == []
    other.close()
    assert place.commitments.recover() == 2
    claimed = place.commitments.claim(place.owner)
    assert [(one.number, one.stage) for one in claimed] == [
        (verified, Stage.VERIFIED),
        (theirs, Stage.REQUESTED),
    ]
    assert place.commitments.claim(place.owner) == []
    assert mine not in [one.number for one in claimed]


def test_other_files_beside_the_marks_are_left_alone(place: Place, tmp_path: Path) -> None:
    owners = tmp_path / "state" / "owners"
    (owners / ".nfs0000000012345678").touch()
    (owners / "lost+found").mkdir()
    place.again()
    assert {".nfs0000000012345678", "lost+found"} < {path.name for path in owners.iterdir()}


def _die_owning(path: Path) -> None:
    state = State.open(path / "state")
    commitments = Commitments(state, path / "state" / "owners")
    commitments.request(REQUEST, commitments.owner(), "CT1", "PACSCORE", "127.0.0.1")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_owns_nothing(place: Place, tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_die_owning, args=(tmp_path,))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert place.commitments.recover() == 1
    assert [one.uid for one in place.commitments.claim(place.owner)] == ["1.9.1"]
    assert len(list((tmp_path / "state" / "owners").iterdir())) == 1


def test_it_waits_longer_after_each_attempt_and_gives_up_at_last(place: Place) -> None:
    patience = Patience(first=10, factor=2, longest=60, limit=1000)
    assert [patience.after(n) for n in range(1, 6)] == [10, 20, 40, 60, 60]
    assert Patience(factor=1).after(10**6) == 10
    number = place.request()
    place.commitments.verified(number, {})
    waits = []
    for _ in range(100):
        moved = place.commitments.postpone(number, "nobody there", patience)
        assert moved is not None
        if moved.stage is Stage.GIVEN_UP:
            break
        waits.append(moved.due - place.clock.now)
        assert place.commitments.claim(place.owner) == []
        place.clock.now = moved.due - 0.01
        assert place.commitments.claim(place.owner) == []
        place.clock.now = moved.due
        assert [one.number for one in place.commitments.claim(place.owner)] == [number]
    assert waits[:5] == [10, 20, 40, 60, 60]
    assert sum(waits) >= 1000 > sum(waits[:-1])
    assert place.commitments.claim_of(place.owner, "CT1") == []
    given_up = place.commitments.get(number)
    assert given_up is not None
    assert (given_up.stage, given_up.trouble) == (Stage.GIVEN_UP, "nobody there")
    assert place.commitments.retry([number, 99]) == 1
    [claimed] = place.commitments.claim(place.owner)
    assert (claimed.number, claimed.stage, claimed.attempts) == (number, Stage.VERIFIED, 0)
    again = place.commitments.postpone(number, "nobody there", patience)
    assert again is not None
    assert again.stage is Stage.VERIFIED
    assert place.commitments.result(number) is not None


def test_a_peer_that_calls_is_told_before_it_is_due(place: Place) -> None:
    number, elsewhere = place.request(), place.request(Request("1.9.2", REFERENCES), calling="CT10")
    for one in (number, elsewhere):
        place.commitments.verified(one, {})
        place.commitments.postpone(one, "nobody there", Patience())
    assert [one.number for one in place.commitments.claim_of(place.owner, "CT1")] == [number]
    assert place.commitments.claim_of(place.owner, "CT1") == []


def test_those_of_one_peer_are_claimed_together_and_of_a_busy_one_none(place: Place) -> None:
    for n, calling in enumerate(["CT1", "MR1", "CT1"]):
        place.commitments.release(place.request(Request(f"1.9.{n}", REFERENCES), calling=calling))
    claimed = place.commitments.claim(place.owner, busy={"MR1"})
    assert [one.uid for one in claimed] == ["1.9.0", "1.9.2"]
    assert place.commitments.claim(place.owner, busy={"MR1"}) == []
    assert [one.uid for one in place.commitments.claim(place.owner)] == ["1.9.1"]


def test_the_same_request_again_is_the_same_transaction(place: Place) -> None:
    number = place.request()
    transaction, ours = place.commitments.request(REQUEST, place.owner, "CT1", "PACSCORE", "127.0.0.1")
    assert (transaction.number, ours) == (number, False)
    place.commitments.verified(number, {})
    place.commitments.postpone(number, "nobody there", Patience())
    transaction, ours = place.commitments.request(REQUEST, place.owner, "CT1", "PACSCORE", "127.0.0.1")
    assert (transaction.number, transaction.stage, ours) == (number, Stage.VERIFIED, True)
    place.commitments.postpone(number, "nobody there", Patience(limit=0))
    assert stage(place, number) is Stage.GIVEN_UP
    assert place.request() == number
    assert stage(place, number) is Stage.VERIFIED


def test_a_transaction_uid_in_use_is_a_duplicate(place: Place) -> None:
    """CONFORMANCE 35: 0131, for another request, and for one that was answered already."""
    first = place.request()
    second = place.request(Request("1.9.1", REFERENCES[:1]))
    transaction = place.commitments.get(second)
    assert second != first
    assert transaction is not None
    assert transaction.duplicate
    assert place.request(calling="MR1") not in (first, second)
    place.commitments.verified(first, {})
    place.commitments.delivered(first)
    third = place.commitments.get(place.request())
    assert third is not None
    assert third.duplicate


def test_finished_transactions_are_forgotten_after_a_while(place: Place) -> None:
    number, pending = place.request(), place.request(Request("1.9.2", REFERENCES))
    place.commitments.verified(number, {})
    place.commitments.delivered(number)
    place.clock.now += 100
    assert place.commitments.purge(101) == 0
    assert place.commitments.purge(99) == 1
    assert [one.number for one in place.commitments] == [pending]
    transaction = place.commitments.get(place.request())
    assert transaction is not None
    assert not transaction.duplicate


def test_nothing_is_left_of_what_is_forgotten(place: Place) -> None:
    place.again()
    empty = dict(place.state.scan(COMMITMENT))
    given_up = place.request(Request("1.9.7", REFERENCES))
    place.commitments.postpone(given_up, "no", Patience(limit=0))
    waiting = place.request(Request("1.9.8", REFERENCES))
    place.commitments.release(waiting)
    numbers = [given_up, waiting, place.request()]
    assert place.commitments.forget([*numbers, 99]) == 3
    assert place.commitments.waiting() == 0
    assert place.commitments.verified(numbers[2], {}) is None
    left = dict(place.state.scan(COMMITMENT))
    assert left.keys() == empty.keys()  # the counters


def test_what_peers_may_have_us_keep_is_limited(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MOST_PENDING", 5)
    number = place.request()
    with pytest.raises(OutOfResourcesError):
        place.request(Request("1.9.2", REFERENCES))
    place.commitments.verified(number, {})
    place.commitments.delivered(number)
    assert place.request(Request("1.9.2", REFERENCES))


def test_ten_thousand_references_take_little_room(place: Place) -> None:
    many = [Reference(CT, f"1.2.840.113619.2.55.3.604688.{n}") for n in range(10_000)]
    number = place.request(Request("1.9.1", many))
    assert place.commitments.references(number) == many
    packed = place.state.get(COMMITMENT, transactions.transaction_keys(number)[1])
    assert packed is not None
    assert len(packed) < 100_000
