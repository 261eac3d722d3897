"""Peers that are told of commitments one after the other: what one result does to the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pacs_core.archive import Archive
from pacs_core.dicom.commitment import Reference, Request, Result
from pacs_core.dimse import reporting
from pacs_core.dimse.reporting import Reporting
from pacs_core.errors import AssociationError
from pacs_core.workflow import Patience
from pacs_core.workflow.state import COMMITMENT
from pacs_core.workflow.transactions import TRANSACTION, transaction_keys
from tests.make import CT
from tests.serving import until

Made = Callable[[], AbstractContextManager[Callable[[Result], None]]]


class Peer:
    """It is told over the telephone, and hangs up at what it does not like."""

    def __init__(self, *disliked: str) -> None:
        self.disliked = disliked
        self.told: list[str] = []

    def _hear(self, result: Result) -> None:
        if result.transaction_uid in self.disliked:
            raise AssociationError("aborted")
        self.told.append(result.transaction_uid)

    @contextmanager
    def _call(self) -> Iterator[Callable[[Result], None]]:
        yield self._hear

    def calls(self, calling: str, called: str) -> Made:  # noqa: ARG002
        return self._call


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setattr(reporting, "_TICK", 0.4)  # longer than all of `Patience`: all are due at each
    with Archive.open(tmp_path / "archive") as archive:
        yield archive


def wait(archive: Archive, *transactions: str, calling: str = "CT1") -> list[int]:
    """The numbers of transactions that are verified, and wait to be told."""
    commitments, numbers = archive.commitments, []
    owner = commitments.owner()
    for uid in transactions:
        asked, _ = commitments.request(Request(uid, [Reference(CT, "1.2")]), owner, calling, "PACSCORE", "")
        commitments.verified(asked.number, {})
        commitments.release(asked.number)
        numbers.append(asked.number)
    owner.close()
    return numbers


@contextmanager
def telling(archive: Archive, peer: Peer) -> Iterator[Reporting]:
    patience = Patience(first=0.15, longest=0.15)
    working = Reporting(archive, frozenset({CT}), peer.calls, patience, keep=60)
    working.start()
    try:
        yield working
    finally:
        working.stop()


def test_a_result_at_which_a_peer_hangs_up_keeps_no_other_from_it(archive: Archive) -> None:
    wait(archive, "1.1", "1.2", "1.3", "1.4", "1.5")
    peer = Peer("1.1", "1.3")
    with telling(archive, peer):
        assert until(lambda: sorted(peer.told) == ["1.2", "1.4", "1.5"])
        peer.disliked = ()
        assert until(lambda: sorted(peer.told) == ["1.1", "1.2", "1.3", "1.4", "1.5"])


def test_what_was_found_and_can_not_be_read_keeps_no_other_result_from_the_peer(archive: Archive) -> None:
    first, _ = wait(archive, "1.1", "1.2")
    archive.state.change(lambda change: change.put(COMMITMENT, transaction_keys(first)[1], b"nothing"))
    peer = Peer()
    with telling(archive, peer):
        assert until(lambda: peer.told == ["1.2"])


def test_a_transaction_that_can_not_be_read_holds_nobody_up_and_is_told_of(archive: Archive) -> None:
    first, _ = wait(archive, "1.1", "1.2")
    wait(archive, "1.3", calling="CT2")
    archive.state.change(
        lambda change: change.put(COMMITMENT, TRANSACTION + first.to_bytes(8, "big"), b"\xffnothing")
    )
    peer = Peer()
    with telling(archive, peer) as working:
        assert until(lambda: sorted(peer.told) == ["1.2", "1.3"])
        assert working.health() == (False, "1 transactions can't be read")
    assert [one.uid for one in archive.commitments] == ["1.2", "1.3"]


def test_one_that_is_drained_is_well(archive: Archive) -> None:
    """Its threads have ended, as they should: nobody is called at night for a server that was stopped."""
    with telling(archive, Peer()) as working:
        assert working.health().well
        working.drain(time.monotonic() + 10)
        assert working.health().well
