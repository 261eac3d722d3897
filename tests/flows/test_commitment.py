"""Storage Commitment with a real server: pynetdicom asks and is told, however it comes and goes.

CONFORMANCE 35: the N-ACTION, the N-EVENT-REPORT, on which association, and until when. 36: the stored bytes.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE

from pacs_core._ext import pdu
from pacs_core.archive import Archive
from pacs_core.client import Remote
from pacs_core.client.association import Association
from pacs_core.client.exchange import SYNTAXES
from pacs_core.client.operations import perform
from pacs_core.config import PeerFile, Right
from pacs_core.dicom.commitment import Reference, Request
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Operation
from pacs_core.errors import RefusedError
from tests.committing import (
    COMMITMENT,
    WELL_KNOWN,
    Told,
    ask,
    asked,
    associated,
    committed,
    failed,
    listening,
)
from tests.make import CT, instance, part10, uid
from tests.serving import Serving, serving, until

MR = "1.2.840.10008.5.1.4.1.1.4"
HELD = [(CT, uid(1, 1, number)) for number in range(1, 6)]
DAMAGED = uid(1, 1, 6)
QUICK = [
    *("--set", "commitment.retry_first=0.3", "--set", "commitment.retry_factor=1"),
    *("--set", "wire.artim_timeout=1", "--set", "wire.dimse_timeout=1"),
]


def fill(path: Path) -> None:
    """Six instances, the last of them with a byte that changed since."""
    with Archive.open(path) as archive:
        for number in range(1, 7):
            archive.store(part10(instance(number)))
        with archive.open_instance(DAMAGED) as opened:
            file = Path(f"/proc/self/fd/{opened.fd}").readlink()
            at = opened.offset + opened.length - 3
    with file.open("r+b") as damaged:
        damaged.seek(at)
        damaged.write(b"\xff")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("commitment") / "archive"
    fill(folder)
    with serving(folder, *QUICK) as running:
        yield running
        assert running.stop() == 0


def know(server: Serving, aet: str, port: int, **changes: object) -> None:
    """Let the server know a peer; it follows within a second, and retries sooner."""
    PeerFile(server.archive).add(aet, host="127.0.0.1", port=port, **changes)
    time.sleep(1.1)


def reported(server: Serving, transaction: str, seconds: float = 15) -> bool:
    """Whether the peer's answer is recorded in time."""
    return until(
        lambda: any(line["transaction"] == transaction for line in server.said("commitment reported")),
        seconds,
    )


def test_the_result_comes_on_the_same_association(server: Serving) -> None:
    told = Told()
    with associated(server.port, told, "SAME") as assoc:
        good = ask(assoc, HELD)
        assert reported(server, good)
        [(event, result)] = told.reports
        assert (event, str(result.TransactionUID), failed(result)) == (1, good, {})
        assert committed(result) == {one for _, one in HELD}
        bad = ask(assoc, [*HELD[1:], (CT, DAMAGED), (CT, "1.2.3"), (MR, HELD[0][1]), ("1.2.3", "1.2.4")])
        assert reported(server, bad)
    event, result = told.reports[1]
    assert (event, committed(result)) == (2, {one for _, one in HELD[1:]})
    assert failed(result) == {DAMAGED: 0x0110, "1.2.3": 0x0112, HELD[0][1]: 0x0119, "1.2.4": 0x0122}
    assert told.roles == [True, True]


def test_a_transaction_uid_in_use(server: Serving) -> None:
    told = Told()
    with associated(server.port, told, "TWICE") as assoc:
        first = ask(assoc, HELD)
        assert ask(assoc, HELD, first) == first  # asked again: one transaction, one result
        ask(assoc, HELD[:2], first)
        assert until(lambda: len(server.said("commitment reported")) and told.wait_for(2))
        time.sleep(0.5)
    assert sorted(told.transactions) == [first, first]
    results = dict(told.reports)
    assert committed(results[1]) == {one for _, one in HELD}
    assert failed(results[2]) == {one: 0x0131 for _, one in HELD[:2]}


@pytest.mark.parametrize(
    ("instance_uid", "action", "pairs", "status"),
    [
        (WELL_KNOWN, 2, HELD, 0x0123),
        ("1.2.3", 1, HELD, 0x0112),
        (WELL_KNOWN, 1, [], 0x0115),
    ],
)
def test_requests_that_are_none(
    server: Serving, instance_uid: str, action: int, pairs: list[tuple[str, str]], status: int
) -> None:
    told = Told()
    with associated(server.port, told, "WRONG") as assoc:
        answer, _ = assoc.send_n_action(asked("1.2.3.4", pairs), action, COMMITMENT, instance_uid)
        assert answer.Status == status
        time.sleep(0.4)
    assert told.reports == []


def test_other_operations_are_not_recognized(server: Serving) -> None:
    with associated(server.port) as assoc:
        status, _ = assoc.send_n_get([0x00080018], COMMITMENT, WELL_KNOWN)
        assert status.Status == 0x0211


def test_who_may_not(server: Serving) -> None:
    PeerFile(server.archive).add("STRANGER", may=[Right.ECHO, Right.STORE])
    time.sleep(1.1)
    with associated(server.port, aet="STRANGER") as assoc:
        status, _ = assoc.send_n_action(asked("1.2.3.4", HELD), 1, COMMITMENT, WELL_KNOWN)
        assert status.Status == 0x0124


def test_a_request_of_65_535_instances(server: Serving) -> None:
    many = [Reference(CT, f"1.2.{n:05}".ljust(64, "7")) for n in range(65_536)]
    with Association(Remote("127.0.0.1", server.port, aet="MANY"), [(COMMITMENT, SYNTAXES)]) as association:

        def act(references: list[Reference]) -> int:
            request = Request("1.2.3.5", references).to_dataset()
            done = perform(
                association, Operation.N_ACTION, COMMITMENT, WELL_KNOWN, request, name="it", type_id=1
            )
            return done.answer.status

        with pytest.raises(RefusedError, match="0213H"):
            act(many)
        assert act(many[1:]) == 0
        event = association.receive(30)
        pieces = [event]
        while pieces[-1].kind != pdu.MESSAGE:
            pieces.append(association.receive(30))
        command = event.command
        assert command is not None
        assert (command.command_field, command.event_type_id) == (0x0100, 2)
        assert sum(len(piece.data or b"") for piece in pieces) > 8_000_000


def test_a_peer_that_has_gone_is_called(server: Serving, free_port: int) -> None:
    told = Told()
    know(server, "GONE", free_port)
    with listening(told, free_port, "GONE"):
        with associated(server.port, aet="GONE") as assoc:
            transaction = ask(assoc, HELD)
        assert reported(server, transaction)
    assert told.transactions == [transaction]
    assert told.roles == [False]
    assert told.callers == [("ANY-SCP", "GONE")]  # as it called us


def test_a_peer_that_is_down_is_called_until_it_is_back(server: Serving, free_port: int) -> None:
    know(server, "DOWN", free_port)
    with associated(server.port, aet="DOWN") as assoc:
        transactions = {ask(assoc, HELD), ask(assoc, HELD[:1])}
    assert until(
        lambda: [w for w in server.said("commitment not reported yet") if "refused" in str(w["why"])]
    )
    told = Told()
    with listening(told, free_port, "DOWN"):
        assert all(reported(server, transaction) for transaction in transactions)
    assert sorted(told.transactions) == sorted(transactions)


def test_a_peer_that_answers_failure_is_told_again(server: Serving, free_port: int) -> None:
    told = Told(status=0x0110)
    know(server, "FAILS", free_port)
    with listening(told, free_port, "FAILS"):
        with associated(server.port, aet="FAILS") as assoc:
            transaction = ask(assoc, HELD)
        assert told.wait_for(2)
        told.status = 0
        assert reported(server, transaction)
        heard = len(told.reports)
        time.sleep(0.8)
        assert len(told.reports) == heard


def test_a_peer_that_rejects_or_hangs_is_called_again(server: Serving, free_port: int) -> None:
    know(server, "HANGS", free_port)
    with associated(server.port, aet="HANGS") as assoc:
        transaction = ask(assoc, HELD)
    with socket.create_server(("127.0.0.1", free_port)) as silent:
        silent.settimeout(10)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(10)
            assert connection.recv(1)
            assert until(
                lambda: [
                    w for w in server.said("commitment not reported yet") if "1 seconds" in str(w["why"])
                ]
            )
    picky = AE("HANGS")
    picky.require_calling_aet = ["NOBODY"]
    picky.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    rejecting = picky.start_server(("127.0.0.1", free_port), block=False)
    assert until(
        lambda: [w for w in server.said("commitment not reported yet") if "rejected" in str(w["why"])]
    )
    rejecting.shutdown()
    told = Told()
    with listening(told, free_port, "HANGS"):
        assert reported(server, transaction)
    assert told.transactions == [transaction]


def test_a_peer_that_does_not_answer_on_its_association_is_called(server: Serving, free_port: int) -> None:
    slow = Told(wait=2.5)
    told = Told()
    know(server, "SLOW", free_port)
    with listening(told, free_port, "SLOW"), associated(server.port, slow, "SLOW") as assoc:
        transaction = ask(assoc, HELD)
        assert reported(server, transaction)
        assert told.transactions == slow.transactions == [transaction]


def test_a_peer_that_nobody_knows_is_told_when_it_calls_again(server: Serving) -> None:
    with associated(server.port, aet="UNKNOWN") as assoc:
        transaction = ask(assoc, HELD)
    assert until(lambda: [w for w in server.said("commitment not reported yet") if "known" in str(w["why"])])
    told = Told()
    with associated(server.port, told, "UNKNOWN"):
        assert reported(server, transaction)
    assert told.transactions == [transaction]
    assert told.roles == [True]


def test_many_at_a_time_each_get_their_own(server: Serving) -> None:
    wrong: list[str] = []

    def modality(number: int) -> None:
        told = Told()
        with associated(server.port, told, f"MANY{number}") as assoc:
            transactions = [ask(assoc, HELD) for _ in range(5)]
            if not all(reported(server, transaction, 30) for transaction in transactions):
                wrong.append(f"{number}: not all reported")
        if sorted(told.transactions) != sorted(transactions):
            wrong.append(f"{number}: {told.transactions}")

    threads = [threading.Thread(target=modality, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_what_was_not_told_is_told_after_a_restart_and_what_was_is_not(
    tmp_path: Path, free_port: int
) -> None:
    folder = tmp_path / "archive"
    fill(folder)
    PeerFile(folder).add("CT1", host="127.0.0.1", port=free_port)
    told = Told()
    with serving(folder, *QUICK) as server:
        with listening(told, free_port):
            with associated(server.port) as assoc:
                first = ask(assoc, HELD)
            assert reported(server, first)
        with associated(server.port) as assoc:
            second = ask(assoc, HELD)
            assert until(lambda: len(server.said("commitment verified")) == 2)
        assert server.stop() == 0
    with serving(folder, *QUICK) as server, listening(told, free_port):
        assert reported(server, second)
        time.sleep(0.5)
    assert told.transactions == [first, second]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_a_process_that_dies_had_in_hand_is_gone_on_with(tmp_path: Path, free_port: int) -> None:
    folder = tmp_path / "archive"
    fill(folder)
    PeerFile(folder).add("CT1", host="127.0.0.1", port=free_port)
    with serving(folder, "--set", "pool.acceptors=2") as server:
        with socket.create_server(("127.0.0.1", free_port)) as silent:
            with associated(server.port) as assoc:
                transaction = ask(assoc, HELD)
            silent.settimeout(10)
            connection, _ = silent.accept()  # one of the two calls, and waits for an answer
            for acceptor in children(server.process.pid):
                os.kill(acceptor, signal.SIGKILL)
            connection.close()
        told = Told()
        with listening(told, free_port):
            assert reported(server, transaction, 40)
        assert told.transactions == [transaction]


def test_a_result_that_cannot_be_told_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    fill(folder)
    with serving(folder, *QUICK, "--set", "commitment.give_up_after=0.5") as server:
        with associated(server.port) as assoc:
            transaction = ask(assoc, HELD)
        assert until(
            lambda: [
                line for line in server.lines if str(line.get("event")).startswith("commitment given up")
            ]
        )
        told = Told()
        with associated(server.port, told):
            time.sleep(1.5)  # it is looked after, and there is nothing for it
            assert told.reports == []
            with Archive.open(folder) as archive:
                [one] = archive.commitments
                assert (one.uid, one.stage) == (transaction, "given up")
                assert archive.commitments.retry([one.number]) == 1
            assert reported(server, transaction)


def test_an_empty_data_set_is_no_request(server: Serving) -> None:
    with (
        Association(Remote("127.0.0.1", server.port), [(COMMITMENT, SYNTAXES)]) as association,
        pytest.raises(RefusedError, match="0115H"),
    ):
        perform(association, Operation.N_ACTION, COMMITMENT, WELL_KNOWN, Dataset(), name="it", type_id=1)
