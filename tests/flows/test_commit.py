"""Our SCU of Storage Commitment: pynetdicom, our own server and Orthanc are asked to keep instances.

CONFORMANCE 35, from the other side: results on the same association, and on one that the peer makes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs_core import Client
from pacs_core.archive import Archive
from pacs_core.config import PeerFile
from pacs_core.errors import AssociationError, RefusedError
from tests import make
from tests.committing import Provider
from tests.interop.orthanc_node import orthanc as running_orthanc
from tests.interop.test_query_peers import free_ports
from tests.make import CT, instance, uid
from tests.scripted import Caller, scripted
from tests.serving import Serving, pacs_core, serving, until

PAIRS = [(CT, uid(1, 1, number)) for number in range(1, 6)]


def client(port: int, aet: str = "CT1", aec: str = "ANY-SCP") -> Client:
    return Client("127.0.0.1", port, aet=aet, aec=aec)


def files(folder: Path, count: int = 5) -> list[Path]:
    folder.mkdir()
    return [make.file(folder, instance(number)) for number in range(1, count + 1)]


@pytest.mark.parametrize("where", ["same", "other"])
def test_results_are_outcomes(where: str, tmp_path: Path, free_port: int) -> None:
    files(tmp_path / "files")
    (tmp_path / "files" / "notes.txt").write_text("hello")
    reasons = {uid(1, 1, 2): 0x0112, uid(1, 1, 4): 0x0110}
    with Provider(reasons.get, where, port=free_port) as provider:
        seen: list[int] = []
        outcomes = client(provider.server_port).commit(
            [tmp_path / "files", (CT, "1.2.3"), make.part10(instance(7))],
            listen=free_port if where == "other" else None,
            timeout=20,
            progress=lambda _, known: seen.append(known),
        )
    assert provider.answers == [0x0000]
    by_uid = {one.sop_instance_uid: one for one in outcomes}
    assert by_uid.keys() == {*(one for _, one in PAIRS), "1.2.3", uid(1, 1, 7)}
    assert {one.sop_instance_uid: one.reason for one in outcomes if not one.committed} == reasons
    assert "no such object instance" in str(by_uid[uid(1, 1, 2)].error)
    assert by_uid[uid(1, 1, 1)].path == tmp_path / "files" / f"{uid(1, 1, 1)}.dcm"
    assert seen == [7] * 7


def test_many_are_asked_for_in_several_requests() -> None:
    pairs = [(CT, f"1.2.{n}") for n in range(10_001)]
    with Provider() as provider:
        outcomes = client(provider.server_port).commit(pairs, timeout=60)
    assert [len(request.ReferencedSOPSequence) for request in provider.requests] == [10_000, 1]
    assert all(one.committed for one in outcomes)
    assert [one.sop_instance_uid for one in outcomes] == [one for _, one in pairs]


def test_without_a_result_nothing_is_committed() -> None:
    with Provider(where="never") as provider:
        outcomes = client(provider.server_port).commit(PAIRS, timeout=0.3)
    assert len(outcomes) == 5
    assert all("no result from" in str(one.error) for one in outcomes)


def test_a_refused_request() -> None:
    with Provider(status=0x0110) as provider:
        outcomes = client(provider.server_port).commit(PAIRS)
    assert all(isinstance(one.error, RefusedError) and "0110H" in str(one.error) for one in outcomes)


def test_nobody_there(free_port: int) -> None:
    outcomes = client(free_port).commit(PAIRS)
    assert all(isinstance(one.error, AssociationError) for one in outcomes)


def test_a_peer_that_does_not_take_it() -> None:
    with scripted(Caller.serve) as peer:
        outcomes = client(peer.port).commit(PAIRS, timeout=5)
    assert len(outcomes) == 5
    assert not any(one.committed for one in outcomes)


def test_a_port_that_is_taken_is_said_at_once() -> None:
    with Provider() as provider, pytest.raises(AssociationError, match="can't listen on port"):
        client(provider.server_port).commit(PAIRS, listen=provider.server_port)


def test_a_file_that_cannot_be_read_is_not_committed(tmp_path: Path) -> None:
    (good,) = files(tmp_path / "files", 1)
    with Provider() as provider:
        outcomes = client(provider.server_port).commit([tmp_path / "none.dcm", good])
    assert [one.committed for one in outcomes] == [False, True]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("commit") / "archive"
    with Archive.open(folder) as archive:
        for number in range(1, 4):
            archive.store(make.part10(instance(number)))
    with serving(folder, "--set", "commitment.retry_first=0.3") as running:
        yield running


def test_our_own_server(server: Serving) -> None:
    outcomes = client(server.port).commit(PAIRS, timeout=20)
    assert [one.reason for one in outcomes] == [None, None, None, 0x0112, 0x0112]


def test_a_result_that_nobody_waits_for_any_more(server: Serving, free_port: int) -> None:
    """It is not taken for another one, and not taken at all: somebody else may be waiting for it."""
    PeerFile(server.archive).add("BACK", host="127.0.0.1", port=free_port)
    assert client(server.port, "BACK").commit(PAIRS, timeout=0.01)[0].error is not None
    assert until(lambda: server.said("commitment not reported yet"))
    outcomes = client(server.port, "BACK").commit(PAIRS[:3], listen=free_port, timeout=20)
    assert all(one.committed for one in outcomes)
    with Archive.open(server.archive) as archive:
        stages = [one.stage for one in archive.commitments if one.calling == "BACK"]
    assert sorted(stages) == ["delivered", "verified"]


def test_commands(server: Serving, tmp_path: Path) -> None:
    paths = [str(path) for path in files(tmp_path / "files", 5)]
    where = ["127.0.0.1", str(server.port), "--aet", "CMD"]
    done = pacs_core("commit", *where, *paths[:3])
    assert "3 committed, 0 not" in done.stdout
    done = pacs_core("commit", *where, "--json", *paths, "--uid", f"{CT}:1.2.3", check=1)
    told = json.loads(done.stdout)
    assert (told["committed"], told["failed"]) == (3, 3)
    assert {one["reason"] for one in told["failures"]} == {0x0112}
    archive = ["--archive", str(server.archive)]
    assert "1 committed" in pacs_core("commit", *where, *archive, "--uid", uid(1, 1, 1)).stdout
    assert "not held here" in pacs_core("commit", *where, *archive, "--uid", "1.2.3", check=1).stderr
    pacs_core("commit", *where, check=2)


def test_store_counts_what_is_committed(tmp_path: Path, server: Serving) -> None:
    files(tmp_path / "files", 3)
    words = ["store", "--commit", str(tmp_path / "files"), "--timeout", "20"]
    done = pacs_core(*words[:1], "127.0.0.1", str(server.port), *words[1:])
    assert "3 committed, 0 failed" in done.stdout
    with Provider({uid(1, 1, 2): 0x0110}.get) as provider:
        done = pacs_core(*words[:1], "127.0.0.1", str(provider.server_port), *words[1:], "--json", check=1)
        told = json.loads(done.stdout)
        assert (told["stored"], told["failed"], told["uncommitted"]) == (2, 1, 0)
        assert told["failures"][0]["sop_instance_uid"] == uid(1, 1, 2)
        assert "not committed: processing failure" in told["failures"][0]["error"]
    with Provider(where="never") as provider:
        words[-1] = "0.3"
        done = pacs_core(*words[:1], "127.0.0.1", str(provider.server_port), *words[1:], check=1)
        assert "0 committed, 3 failed" in done.stdout
    with Provider() as provider:
        port = str(provider.server_port)
        taken = ["--listen", str(server.port)]
        done = pacs_core(*words[:1], "127.0.0.1", port, *words[1:], *taken, "--json", check=1)
        assert json.loads(done.stdout)["failed"] == 3


def test_the_queue_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with serving(folder, "--set", "commitment.give_up_after=0") as server:
        assert client(server.port).commit(PAIRS, timeout=0.01)[0].error is not None
        archive = ["--archive", str(folder)]

        def listed(*more: str) -> list[dict[str, object]]:
            found = pacs_core("commitments", "list", *archive, "--json", *more).stdout
            return json.loads(found)  # type: ignore[no-any-return]

        assert until(lambda: [one for one in server.lines if "given up" in str(one["event"])])
        [one] = listed()
        assert (one["number"], one["stage"], one["aet"], one["failed"]) == (1, "given up", "CT1", 5)
        assert "known to listen" in str(one["error"])
        shown = pacs_core("commitments", "list", *archive).stdout
        assert shown.split()[:4] == ["1", "given", "up", "CT1"]
        assert "1 retried" in pacs_core("commitments", "retry", "1", *archive).stdout
        assert until(lambda: len([one for one in server.lines if "given up" in str(one["event"])]) == 2)
        assert "1 forgotten" in pacs_core("commitments", "forget", "1", *archive).stdout
        assert listed("--all") == []
        assert "none" in pacs_core("commitments", "list", *archive).stdout
        pacs_core("commitments", "retry", "1", *archive, check=1)


def test_orthanc(tmp_path: Path, orthanc: Path) -> None:
    http_port, dicom_port, our_port = free_ports(3)
    paths = files(tmp_path / "files", 3)
    with running_orthanc(orthanc, tmp_path / "orthanc", http_port, our_port, dicom_port=dicom_port):
        peer = client(dicom_port, "PACSCORE", "ORTHANC")
        assert all(sent.stored for sent in peer.store(paths))
        outcomes = peer.commit([*paths, (CT, "1.2.3")], listen=our_port, timeout=30)
    assert [one.committed for one in outcomes] == [True, True, True, False]
    assert outcomes[3].reason == 0x0112
