"""Storing in bulk: an outcome for each object, whatever the peer does; lost associations come back."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import JPEGBaseline8Bit
from pynetdicom import AE, evt

from pacs_core import Client
from pacs_core._ext import associate, pdu
from pacs_core.client import Sent, Timeouts, crew, part_of_file
from pacs_core.errors import AssociationError, RefusedError, StorageError, UnparsableError
from tests import make
from tests.scripted import Caller, Scripted, scripted

QUICK = Timeouts(connect=2, acse=2, dimse=2, write=2, artim=0.5)


def client(port: int, **settings: object) -> Client:
    return Client("127.0.0.1", port, timeouts=QUICK, **settings)  # type: ignore[arg-type]


def files(folder: Path, count: int, **attributes: object) -> list[Path]:
    return [make.file(folder, make.instance(n, **attributes)) for n in range(1, count + 1)]  # type: ignore[arg-type]


class Kept:
    """What a peer took: UIDs and data sets; `on` says what it does with a UID before it answers."""

    def __init__(self, on: Callable[[Caller, str], int | None] = lambda _caller, _uid: 0) -> None:
        self.data: dict[str, bytes] = {}
        self.times: Counter[str] = Counter()
        self._on = on

    def __call__(self, caller: Caller) -> None:
        caller.accept()
        while (event := caller.message()) is not None:
            assert event.command is not None
            uid = event.command.affected_sop_instance_uid
            self.times[uid] += 1
            status = self._on(caller, uid)
            if status is None:
                return
            self.data[uid] = bytes(event.data or b"")
            caller.answer(event, status)


def test_three_lines(tmp_path: Path) -> None:
    """A folder: walked; what is no DICOM object is skipped, and said to be."""
    paths = files(tmp_path, 3)
    (tmp_path / "below").mkdir()
    paths.append(make.file(tmp_path / "below", make.instance(9)))
    (tmp_path / "README.txt").write_text("not an image")
    (tmp_path / "empty").touch()
    directory = make.instance(10, SOPClassUID="1.2.840.10008.1.3.10")
    (tmp_path / "DICOMDIR").write_bytes(make.part10(directory))
    kept = Kept()
    with scripted(kept) as peer:
        outcomes = client(peer.port).store(tmp_path)
    assert [sent.number for sent in outcomes] == list(range(7))
    assert {sent.path for sent in outcomes if sent.stored} == set(paths)
    assert {sent.path.name for sent in outcomes if sent.skipped and sent.path} == {
        "README.txt",
        "empty",
        "DICOMDIR",
    }
    assert not [sent for sent in outcomes if sent.failed or sent.warning]
    for sent in outcomes:
        if sent.stored:
            assert sent.path is not None
            part = part_of_file(sent.path)
            assert kept.data[sent.sop_instance_uid] == sent.path.read_bytes()[part.offset :]
            assert sent.bytes == part.length
            assert sent.status == 0


def test_pynetdicom_receives(tmp_path: Path) -> None:
    paths = files(tmp_path, 40, size=20_000)
    received: dict[str, bytes] = {}

    def handle(event: evt.Event) -> int:
        received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0

    ae = AE()
    ae.add_supported_context(make.CT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)])
    try:
        seen: list[tuple[Sent, int]] = []
        outcomes = client(server.socket.getsockname()[1]).store(
            paths, associations=4, progress=lambda sent, known: seen.append((sent, known))
        )
    finally:
        server.shutdown()
    assert [sent.path for sent in outcomes] == paths
    assert all(sent.stored for sent in outcomes)
    assert sorted(sent.number for sent, _ in seen) == list(range(40))
    assert {known for _, known in seen} == {40}
    for sent in outcomes:
        assert sent.path is not None
        assert received[sent.sop_instance_uid] == sent.path.read_bytes()[part_of_file(sent.path).offset :]


def test_files_named_patterns_and_bytes(tmp_path: Path) -> None:
    one, two, three = files(tmp_path, 3)
    with scripted(Kept()) as peer:
        towards = client(peer.port)
        assert [sent.path for sent in towards.store(one)] == [one]
        assert [sent.path for sent in towards.store(str(tmp_path / "*.[2-3].dcm"))] == [two, three]
        assert [sent.path for sent in towards.store([f"{tmp_path}/*2.dcm", str(one)])] == [two, one]
        blob = three.read_bytes()
        mixed = towards.store([blob, memoryview(bytearray(blob)), one, b"nothing"])
        assert [sent.path for sent in mixed] == [None, None, one, None]
        assert [sent.sop_instance_uid for sent in mixed[:2]] == [make.uid(1, 1, 3)] * 2
        assert [sent.stored for sent in mixed] == [True, True, True, False]
        assert towards.store(blob)[0].stored
        assert towards.store([]) == []


def test_a_file_that_was_named_is_not_skipped(tmp_path: Path) -> None:
    odd = tmp_path / "notes.txt"
    odd.write_text("hello" * 100)
    outcomes = client(1).store([odd, tmp_path / "none"])
    assert [sent.failed for sent in outcomes] == [True, True]
    assert isinstance(outcomes[0].error, UnparsableError)
    assert isinstance(outcomes[1].error, StorageError)


@pytest.mark.parametrize(
    ("status", "stored", "words"),
    [
        (0x0000, True, ""),
        (0xB000, True, ""),
        (0xB006, True, ""),
        (0xB007, True, ""),
        (0xA700, False, "A700H, out of resources"),
        (0xA900, False, "A900H, data set does not match SOP class"),
        (0xC123, False, "C123H, cannot understand"),
        (0x0111, False, "0111H, duplicate SOP instance"),
        (0x0110, False, "0110H, processing failure"),
        (0x1234, False, "1234H, an unknown status"),
    ],
)
def test_what_a_status_means(status: int, stored: bool, words: str, tmp_path: Path) -> None:
    path = make.file(tmp_path, make.instance())
    with scripted(Kept(lambda _caller, _uid: status)) as peer:
        [sent] = client(peer.port).store(path)
    assert (sent.status, sent.stored, sent.failed) == (status, stored, not stored)
    assert sent.warning == (stored and status != 0)
    if not stored:
        assert isinstance(sent.error, RefusedError)
        assert words in str(sent.error)


def test_what_the_peer_does_not_accept_fails_alone(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    jpeg = tmp_path / "jpeg.dcm"
    ds = make.instance(7)
    whole = make.part10(ds)
    uid = JPEGBaseline8Bit.encode().ljust(22, b"\0")
    start = whole.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(whole[start + 6 : start + 8], "little")
    jpeg.write_bytes(whole[: start + 6] + len(uid).to_bytes(2, "little") + uid + whole[start + 8 + length :])
    other = make.file(tmp_path, make.instance(8, SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))
    ae = AE()
    ae.add_supported_context(make.CT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)])
    try:
        outcomes = client(server.socket.getsockname()[1]).store([paths[0], jpeg, other, paths[1]])
    finally:
        server.shutdown()
    assert [sent.stored for sent in outcomes] == [True, False, False, True]
    assert isinstance(outcomes[1].error, AssociationError)
    for words in (str(jpeg), "CT Image Storage", "JPEG Baseline", "transfer-syntaxes-not-supported"):
        assert words in str(outcomes[1].error)
    for words in (
        str(other),
        "MR Image Storage",
        "Explicit VR Little Endian",
        "abstract-syntax-not-supported",
    ):
        assert words in str(outcomes[2].error)


def test_more_contexts_than_an_association_has(tmp_path: Path) -> None:
    """CONFORMANCE 5: 128 at most."""
    paths = [make.file(tmp_path, make.instance(n, SOPClassUID=f"1.2.3.{n % 300}")) for n in range(1, 601)]
    kept = Kept()
    with scripted(kept) as peer:
        outcomes = client(peer.port).store(paths)
        assert [len(caller.request.contexts) for caller in peer.callers] == [128, 128, 44]
    assert all(sent.stored for sent in outcomes)
    assert len(kept.data) == 600
    assert [sent.path for sent in outcomes] == paths


def test_several_associations_at_a_time(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(_caller: Caller, _uid: str) -> int:
        together.wait()
        return 0

    with scripted(Kept(meet)) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 9), associations=3)
        assert len(peer.callers) == 3
    assert all(sent.stored for sent in outcomes)


def test_an_association_lost_half_way_is_made_again(tmp_path: Path) -> None:
    def at_the_third(caller: Caller, uid: str) -> int | None:
        if caller.number == 0 and uid == make.uid(1, 1, 3):
            caller.send(associate.encode_abort(0, 0))
            return None
        return 0

    kept = Kept(at_the_third)
    with scripted(kept) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 6))
        assert len(peer.callers) == 2
    assert all(sent.stored for sent in outcomes)
    assert kept.times == {make.uid(1, 1, n): 2 if n == 3 else 1 for n in range(1, 7)}


def test_an_object_that_breaks_the_peer_is_given_up_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad = make.uid(1, 1, 3)
    kept = Kept(lambda _caller, uid: None if uid == bad else 0)
    with scripted(kept) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 6))
    assert [sent.stored for sent in outcomes] == [True, True, False, True, True, True]
    assert isinstance(outcomes[2].error, AssociationError)
    assert kept.times[bad] == 2


def test_a_peer_that_breaks_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_FIRST_WAIT", 0.001)
    with scripted(Kept(lambda _caller, _uid: None)) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 20), retries=4)
        assert len(peer.callers) == 5
    assert not any(sent.stored for sent in outcomes)
    assert all(isinstance(sent.error, AssociationError) for sent in outcomes)
    assert [sent.number for sent in outcomes] == list(range(20))


def test_a_rejection_for_good_is_not_asked_again(tmp_path: Path) -> None:
    def script(caller: Caller) -> None:
        caller.await_request()
        caller.send(associate.encode_reject(1, 1, 7))

    with scripted(script) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 5))
        assert len(peer.callers) == 1
    assert all("called-AE-title-not-recognized" in str(sent.error) for sent in outcomes)
    assert [sent.sop_instance_uid for sent in outcomes] == [make.uid(1, 1, n) for n in range(1, 6)]


def test_a_rejection_for_the_moment_is_waited_out(tmp_path: Path) -> None:
    def script(caller: Caller) -> None:
        if caller.number < 2:
            caller.await_request()
            caller.send(associate.encode_reject(2, 3, 2))
        else:
            caller.serve()

    with scripted(script) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 3))
        assert len(peer.callers) == 3
    assert all(sent.stored for sent in outcomes)


def test_a_peer_with_room_for_one_association_gets_all_of_it(tmp_path: Path) -> None:
    busy = threading.Lock()

    def script(caller: Caller) -> None:
        if not busy.acquire(blocking=False):
            caller.await_request()
            caller.send(associate.encode_reject(2, 3, 2))
            return
        try:
            Kept(lambda _caller, _uid: time.sleep(0.02) or 0)(caller)
        finally:
            busy.release()

    begun = time.monotonic()
    with scripted(script) as peer:
        outcomes = client(peer.port).store(files(tmp_path, 40), associations=4)
    assert all(sent.stored for sent in outcomes)
    assert time.monotonic() - begun < 5


def test_nobody_there_is_known_at_once(tmp_path: Path, free_port: int) -> None:
    begun = time.monotonic()
    outcomes = client(free_port).store(files(tmp_path, 5), associations=2)
    assert time.monotonic() - begun < 2
    assert all("refused" in str(sent.error) for sent in outcomes)


def test_a_peer_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    ports: list[int] = []

    def until_the_fourth(_caller: Caller, uid: str) -> int | None:
        if uid != make.uid(1, 1, 4):
            return 0
        first[0]._listener.shutdown(socket.SHUT_RDWR)
        first[0]._listener.close()
        threading.Timer(0.5, come_back).start()
        return None

    def come_back() -> None:
        again.append(Scripted(kept, port=ports[0]))

    kept = Kept()
    again: list[Scripted] = []
    first = [Scripted(Kept(until_the_fourth))]
    ports.append(first[0].port)
    outcomes = client(ports[0]).store(files(tmp_path, 8))
    assert all(sent.stored for sent in outcomes)
    assert sorted(kept.data) == [make.uid(1, 1, n) for n in range(4, 9)]
    again[0].close()


def test_a_peer_that_goes_away_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr("pacs_core.client.sending._WINDOW", 10)

    def until_the_fourth(_caller: Caller, uid: str) -> int | None:
        if uid != make.uid(1, 1, 4):
            return 0
        peer._listener.shutdown(socket.SHUT_RDWR)
        peer._listener.close()
        return None

    peer = Scripted(Kept(until_the_fourth))
    outcomes = client(peer.port).store(files(tmp_path, 25), retries=3)
    assert [sent.stored for sent in outcomes] == [True] * 3 + [False] * 22
    assert all(isinstance(sent.error, AssociationError) for sent in outcomes[3:])


def test_files_that_change_after_the_first_look(tmp_path: Path) -> None:
    paths = files(tmp_path, 6, size=400_000)

    def spoil(sent: Sent, _known: int) -> None:
        if sent.number == 0:
            paths[4].unlink()
            with paths[5].open("r+b") as file:
                file.truncate(200_000)

    kept = Kept(lambda _caller, uid: time.sleep(0.2) or 0 if uid.endswith(".2") else 0)
    with scripted(kept) as peer:
        outcomes = client(peer.port).store(paths, progress=spoil)
    assert [sent.stored for sent in outcomes] == [True] * 4 + [False] * 2
    assert "No such file" in str(outcomes[4].error)
    assert "shorter" in str(outcomes[5].error)
    assert make.uid(1, 1, 6) not in kept.data


def test_breaking_off_releases(tmp_path: Path) -> None:
    last: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        while (event := caller.event()) is not None:
            last.append(event.kind)
            if event.kind == pdu.MESSAGE:
                caller.answer(event)
            elif event.kind == pdu.RELEASE_RQ:
                caller.send(associate.RELEASE_RP)

    with scripted(script) as peer:
        outcomes = client(peer.port).store_each(files(tmp_path, 50))
        assert next(outcomes).stored
        outcomes.close()  # type: ignore[attr-defined]
    assert last[-1] == pdu.RELEASE_RQ


def test_breaking_off_aborts_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_GRACE", 0.2)
    last: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        while (event := caller.event()) is not None:
            last.append(event.kind)
            if event.kind == pdu.MESSAGE and event.command is not None and event.command.message_id == 1:
                caller.answer(event)

    with scripted(script) as peer:
        outcomes = Client("127.0.0.1", peer.port).store_each(files(tmp_path, 50))
        assert next(outcomes).stored
        begun = time.monotonic()
        outcomes.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begun < 3
    assert last[-1] == pdu.ABORT


def test_only_a_window_is_looked_at_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs_core.client.sending._WINDOW_BYTES", 5000)
    taken = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal taken
        while True:
            taken += 1
            yield make.part10(make.instance(taken))

    with scripted(Kept()) as peer:
        outcomes = client(peer.port).store_each(endless())
        for _ in range(30):
            assert next(outcomes).stored
        assert taken < 45
        outcomes.close()  # type: ignore[attr-defined]


def test_a_mistake_of_ours_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="AE title"):
        client(1, aec="SEVENTEEN LETTERS").store(files(tmp_path, 3))


def test_the_package_imports_fast() -> None:
    code = (
        "import sys, pacs_core\n"
        "assert 'pacs_core.client' not in sys.modules\n"
        "from pacs_core import Client\n"
        "print(sorted({'pydicom', 'pynetdicom', 'numpy', 'msgspec', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    import pacs_core

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        pacs_core.Nothing  # noqa: B018
