"""C-GET and C-MOVE towards peers that misbehave: an outcome for each instance, whole files or none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pacs_core import Client, read
from pacs_core._ext import pdu
from pacs_core._ext.command import encode, encode_store_rq
from pacs_core.client import Received, Timeouts, crew, retrieving
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.part10 import split
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import AssociationError, OutOfResourcesError, RefusedError
from tests import make
from tests.scripted import Caller, Scripted, scripted

QUICK = Timeouts(connect=2, acse=2, dimse=2, write=2, artim=0.5)
EXPLICIT = "1.2.840.10008.1.2.1"
STUDY = {"StudyInstanceUID": make.uid(1)}
C_FIND, C_GET, C_MOVE, C_CANCEL = 0x0020, 0x0010, 0x0021, 0x0FFF
PENDING = 0xFF00
COUNTERS = ("e1020", "e1021", "e1022", "e1023")


def client(port: int) -> Client:
    return Client("127.0.0.1", port, timeouts=QUICK)


class Pacs:
    """A peer that has series 1 to `series` of study 1, and does what `sending` says with a C-GET.

    That is called with the caller, the request and the UIDs that are asked for, and gives the final status.
    """

    def __init__(
        self,
        sending: Callable[[Pacs, Caller, pdu.Event, Sequence[str]], int | None] | None = None,
        *,
        series: int = 1,
        each: int = 3,
        refusing: Sequence[str] = (),
        size: int = 100,
    ) -> None:
        self.bytes = {
            make.uid(1, one, number): make.encoded(make.instance(number, series=one, size=size))
            for one in range(1, series + 1)
            for number in range(1, each + 1)
        }
        self.asked: list[Dataset] = []
        self.answers: list[int] = []
        self.cancelled = 0
        self._sending = sending or Pacs.send_all
        self._refusing = refusing

    def __call__(self, caller: Caller) -> None:
        caller.accept(refusing=self._refusing)
        while (event := caller.message()) is not None:
            assert event.command is not None
            if event.command.command_field == C_CANCEL:
                self.cancelled += 1
                continue
            identifier = read_dataset(bytes(event.data or b""), EXPLICIT)
            if event.command.command_field == C_FIND:
                self._find(caller, event, identifier)
                continue
            self.asked.append(identifier)
            status = self._sending(self, caller, event, self._uids(identifier))
            if status is None:
                return
            caller.respond(event, status)

    def _uids(self, identifier: Dataset) -> list[str]:
        wanted = identifier.get("SOPInstanceUID")
        if wanted:
            return [wanted] if isinstance(wanted, str) else list(wanted)
        return [uid for uid in self.bytes if uid.startswith(f"{identifier.SeriesInstanceUID}.")]

    def _find(self, caller: Caller, event: pdu.Event, asked: Dataset) -> None:
        for match in self._matches(asked):
            answer = Dataset(QueryRetrieveLevel=asked.QueryRetrieveLevel, **match)
            caller.respond(event, PENDING, answer.to_bytes(EXPLICIT))
        caller.respond(event, 0)

    def _matches(self, asked: Dataset) -> Iterator[dict[str, str]]:
        if asked.QueryRetrieveLevel == "STUDY":
            yield {"StudyInstanceUID": make.uid(1), "PatientID": "../../P1"}
        elif asked.QueryRetrieveLevel == "SERIES":
            for series in dict.fromkeys(uid.rpartition(".")[0] for uid in self.bytes):
                yield {"StudyInstanceUID": make.uid(1), "SeriesInstanceUID": series}
        else:
            for uid in self._uids(asked):
                yield {"SOPInstanceUID": uid, "SOPClassUID": make.CT}

    def send(self, caller: Caller, uid: str, data: bytes | None = None, *, sop_class: str = make.CT) -> int:
        """One C-STORE sub-operation; the status that is answered, -1 without an answer."""
        command = encode_store_rq(7, sop_class, uid)
        caller.message_out(self.context(caller), command, self.bytes[uid] if data is None else data)
        while (event := caller.message()) is not None:
            assert event.command is not None
            if event.command.command_field == C_CANCEL:
                self.cancelled += 1
                continue
            assert event.command.affected_sop_instance_uid == uid
            status = event.command.status
            assert status is not None
            self.answers.append(status)
            return status
        return -1

    @staticmethod
    def context(caller: Caller) -> int:
        """The context of CT images in explicit VR."""
        contexts = caller.request.contexts
        return next(i for i, abstract, syntaxes in contexts if abstract == make.CT and EXPLICIT in syntaxes)

    def send_all(self, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int:
        for number, uid in enumerate(uids, 1):
            self.send(caller, uid)
            caller.respond(event, PENDING, e1020=len(uids) - number, e1021=number, e1022=0, e1023=0)
        return 0


def files(folder: Path) -> dict[str, Path]:
    return {str(read(path).SOPInstanceUID): path for path in folder.rglob("*") if path.is_file()}


def ctrl_c(_received: Received, _known: int) -> None:
    raise KeyboardInterrupt


def assert_whole(pacs: Pacs, outcomes: Sequence[Received], folder: Path) -> None:
    """What came is there byte for byte, and nothing else is."""
    paths = {one.path for one in outcomes if one.path is not None}
    assert paths == {path for path in folder.rglob("*") if path.is_file()}
    for one in outcomes:
        if one.path is not None:
            meta, data = split(one.path)
            assert bytes(data) == pacs.bytes[one.sop_instance_uid]
            assert meta.sop_instance_uid == one.sop_instance_uid
            assert meta.transfer_syntax_uid == EXPLICIT


def test_get(tmp_path: Path) -> None:
    pacs = Pacs(series=2)
    seen: list[tuple[str, int]] = []
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(
            tmp_path, progress=lambda one, known: seen.append((one.sop_instance_uid, known)), **STUDY
        )
        request = peer.callers[1].request
    assert not [one for one in outcomes if one.failed or one.present]
    assert {one.sop_instance_uid for one in outcomes} == set(pacs.bytes)
    assert sorted(seen) == sorted((uid, 6) for uid in pacs.bytes)
    assert_whole(pacs, outcomes, tmp_path)
    assert request.roles == {make.CT: (False, True)}
    assert [asked.QueryRetrieveLevel for asked in pacs.asked] == ["SERIES", "SERIES"]
    assert all(one.bytes == len(pacs.bytes[one.sop_instance_uid]) for one in outcomes)


def test_contexts_for_every_transfer_syntax() -> None:
    few = list(retrieving.contexts_of([make.CT]))
    assert all(len(syntaxes) == 1 for _, syntaxes in few)
    assert {syntaxes[0] for _, syntaxes in few} >= {EXPLICIT, "1.2.840.10008.1.2.4.90"}
    for count in (2, 16, 50, 127):
        many = list(retrieving.contexts_of([f"1.2.{number}" for number in range(count)]))
        assert len(many) <= 127
        assert len({abstract for abstract, _ in many}) == count
        assert max(len(syntaxes) for _, syntaxes in many) <= 32


def test_several_associations_each_with_their_series(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int:
        both.wait()
        return pacs.send_all(caller, event, uids)

    pacs = Pacs(sending, series=2)
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY, associations=2)
    assert_whole(pacs, outcomes, tmp_path)
    assert len(outcomes) == 6


@pytest.mark.parametrize(
    "evil", ["../../../../evil", "/etc/passwd", "..", ".", "a/b", "x" * 64, "1.2.3..", "con\\prn", "%2e%2e/x"]
)
def test_30_a_uid_is_never_a_path(evil: str, tmp_path: Path) -> None:
    """CVE-2026-56445 and its like: also the patient's ID is '../../P1' here."""

    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int:
        assert pacs.send(caller, evil, pacs.bytes[uids[0]]) == 0
        return pacs.send_all(caller, event, uids)

    out = tmp_path / "a" / "b" / "c"
    with scripted(Pacs(sending)) as peer:
        outcomes = client(peer.port).get(out, **STUDY)
    assert len(outcomes) == 4
    there = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {one.path for one in outcomes}
    assert all(len(path.relative_to(out).parts) == 4 for path in there)
    assert all(part not in ("..", ".") for path in there for part in path.relative_to(out).parts)


def test_the_same_instance_twice(tmp_path: Path) -> None:
    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int:
        assert pacs.send(caller, uids[0]) == 0
        assert pacs.send(caller, uids[0], b"\x08\x00\x18\x00UI\x02\x001\0") == 0
        return pacs.send_all(caller, event, uids[1:])

    pacs = Pacs(sending)
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    assert sorted(one.sop_instance_uid for one in outcomes) == sorted(pacs.bytes)
    assert_whole(pacs, outcomes, tmp_path)


@pytest.mark.parametrize(
    ("data", "sop_class", "uid", "status"),
    [
        (b"\x02\x00\x10\x00UI\x02\x001\0", make.CT, "1.2.3", 0xC000),
        (b"\x00\x00\x00\x01US\x02\x001\0", make.CT, "1.2.3", 0xC000),
        (b"", make.CT, "1.2.3", 0xC000),
        (b"\x08\x00\x18\x00UI\x02\x001\0", "1.2.840.10008.5.1.4.1.1.4", "1.2.3", 0xA900),
        (b"\x08\x00\x18\x00UI\x02\x001\0", make.CT, "", 0xA900),
    ],
)
def test_13_what_is_no_data_set_is_not_kept(
    data: bytes, sop_class: str, uid: str, status: int, tmp_path: Path
) -> None:
    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int:
        assert pacs.send(caller, uid, data, sop_class=sop_class) == status
        return pacs.send_all(caller, event, uids)

    pacs = Pacs(sending)
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    [failed] = [one for one in outcomes if one.failed]
    assert failed.sop_instance_uid == uid
    assert_whole(pacs, outcomes, tmp_path)
    assert len(outcomes) == 4


def test_26_counters_are_not_believed(tmp_path: Path) -> None:
    """All completed, the peer says; one did not come."""

    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> None:
        pacs.send_all(caller, event, uids[1:])
        caller.respond(event, 0, e1021=3, e1022=0, e1023=0)
        while caller.message() is not None:
            pass

    pacs = Pacs(sending)
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    [failed] = [one for one in outcomes if one.failed]
    assert failed.sop_instance_uid == make.uid(1, 1, 1)
    assert "did not send it" in str(failed.error)
    assert_whole(pacs, outcomes, tmp_path)


@pytest.mark.parametrize(
    ("status", "words"), [(0xA701, "A701H, unable"), (0xA702, "A702H, unable"), (0xC0DE, "C0DEH")]
)
def test_a_refusal_is_the_outcome_of_each(status: int, words: str, tmp_path: Path) -> None:
    with scripted(Pacs(lambda *_: status)) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    assert len(outcomes) == 3
    assert all(words in str(one.error) for one in outcomes)
    assert not files(tmp_path)


def test_a_model_or_a_storage_context_that_is_refused(tmp_path: Path) -> None:
    with scripted(Pacs(refusing=["1.2.840.10008.5.1.4.1.2.2.3"])) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    assert len(outcomes) == 3
    assert all("does not accept C-GET in Study Root" in str(one.error) for one in outcomes)
    with scripted(Pacs(lambda *_: 0xB000, refusing=[make.CT])) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    assert all("B000H" in str(one.error) for one in outcomes)
    with (
        scripted(Pacs(refusing=["1.2.840.10008.5.1.4.1.2.2.1"])) as peer,
        pytest.raises(AssociationError, match="C-FIND"),
    ):
        client(peer.port).get(tmp_path, **STUDY)


@pytest.mark.parametrize("size", [100, 12 << 20])
def test_12_a_peer_that_dies_in_the_middle_is_asked_for_the_rest(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came stays and is not asked for again; of the one that was on its way nothing is left."""
    monkeypatch.setattr(crew, "_FIRST_WAIT", 0.001)
    deaths = 0

    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int | None:
        nonlocal deaths
        if len(uids) == 1:
            return pacs.send_all(caller, event, uids)
        deaths += 1
        pacs.send(caller, uids[0])
        half = pdu.fragment(pacs.context(caller), encode_store_rq(9, make.CT, uids[1]), True, 16384)
        half += pdu.fragment(pacs.context(caller), pacs.bytes[uids[1]], False, 16384)
        caller.send(b"".join(half)[:-20])
        return None

    pacs = Pacs(sending, size=size)
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    assert deaths == 2
    assert not [one for one in outcomes if one.failed]
    assert_whole(pacs, outcomes, tmp_path)
    assert len(outcomes) == 3
    assert [asked.QueryRetrieveLevel for asked in pacs.asked] == ["SERIES", "IMAGE", "IMAGE"]


def test_a_peer_that_always_dies_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_FIRST_WAIT", 0.001)
    with scripted(Pacs(lambda *_: None)) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
        assert len(peer.callers) < 6
    assert len(outcomes) == 3
    assert all(isinstance(one.error, AssociationError) for one in outcomes)


def test_run_again_fetches_what_is_missing(tmp_path: Path) -> None:
    pacs = Pacs(series=2)
    with scripted(pacs) as peer:
        first = client(peer.port).get(tmp_path, **STUDY)
        paths = {one.sop_instance_uid: one.path for one in first}
        gone = paths[make.uid(1, 2, 3)]
        cut = paths[make.uid(1, 2, 1)]
        assert gone is not None
        assert cut is not None
        gone.unlink()
        cut.write_bytes(b"")
        pacs.asked.clear()
        again = client(peer.port).get(tmp_path, **STUDY)
    assert [list(asked.SOPInstanceUID) for asked in pacs.asked] == [[make.uid(1, 2, 1), make.uid(1, 2, 3)]]
    assert sum(one.present for one in again) == 4
    assert {one.sop_instance_uid: one.path for one in again} == paths
    assert_whole(pacs, again, tmp_path)


def test_the_folder_is_the_same_from_whatever_level(tmp_path: Path) -> None:
    pacs = Pacs(series=2)
    series = {**STUDY, "SeriesInstanceUID": make.uid(1, 2)}
    with scripted(pacs) as peer:
        ours = client(peer.port)
        everything = {one.path for one in ours.get(tmp_path, **STUDY)}
        for keys in (series, {**series, "SOPInstanceUID": [make.uid(1, 2, 1), make.uid(1, 2, 2)]}):
            again = ours.get(tmp_path, None, keys)
            assert again
            assert all(one.present for one in again)
    [patient] = {path.relative_to(tmp_path).parts[0] for path in everything if path}
    assert patient.startswith("_P1_")


def test_10_a_full_disk_fails_each_and_the_association_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = os.fsync
    failing = {"now": False}

    def fsync(fd: int) -> None:
        if failing["now"]:
            raise OSError(28, "No space left on device")
        synced(fd)

    def sending(pacs: Pacs, caller: Caller, event: pdu.Event, uids: Sequence[str]) -> int:
        failing["now"] = True
        assert pacs.send(caller, uids[0]) == 0xA700
        failing["now"] = False
        return pacs.send_all(caller, event, uids[1:])

    monkeypatch.setattr(os, "fsync", fsync)
    pacs = Pacs(sending, size=6 << 20)
    with scripted(pacs) as peer:
        outcomes = client(peer.port).get(tmp_path, **STUDY)
    [failed] = [one for one in outcomes if one.failed]
    assert isinstance(failed.error, OutOfResourcesError)
    assert_whole(pacs, outcomes, tmp_path)


def test_8_stopping_early_cancels(tmp_path: Path) -> None:
    """C-CANCEL; what was on its way is kept, and nothing is half there."""

    def sending(pacs: Pacs, caller: Caller, _event: pdu.Event, uids: Sequence[str]) -> int:
        for uid in uids:
            pacs.send(caller, uid)
            if pacs.cancelled:
                return 0xFE00
        return 0

    pacs = Pacs(sending, each=2000)
    with scripted(pacs) as peer, pytest.raises(KeyboardInterrupt):
        client(peer.port).get(tmp_path, **STUDY, progress=ctrl_c)
    assert pacs.cancelled == 1
    there = files(tmp_path)
    assert 0 < len(there) < 2000
    assert all(bytes(split(path)[1]) == pacs.bytes[uid] for uid, path in there.items())


def test_a_cancel_that_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_GRACE", 0.3)
    over = threading.Event()

    def sending(pacs: Pacs, caller: Caller, _event: pdu.Event, uids: Sequence[str]) -> int | None:
        while pacs.send(caller, uids[0]) == 0:
            pass
        over.set()
        return None

    pacs = Pacs(sending)
    with scripted(pacs) as peer, pytest.raises(KeyboardInterrupt):
        client(peer.port).get(tmp_path, **STUDY, progress=ctrl_c)
    assert over.wait(5)
    assert list(files(tmp_path)) == [make.uid(1, 1, 1)]


def test_38_a_large_instance_goes_to_its_file_as_it_comes(tmp_path: Path) -> None:
    pacs = Pacs(each=1)
    [uid] = pacs.bytes
    pacs.bytes[uid] += b"\xfc\xff\xfc\xffOB\0\0" + (120 << 20).to_bytes(4, "little") + bytes(120 << 20)
    code = (
        "import re, sys\n"
        "from pacs_core import Client\n"
        "[got] = Client('127.0.0.1', int(sys.argv[1])).get(sys.argv[2], StudyInstanceUID=sys.argv[3])\n"
        "status = open('/proc/self/status').read()\n"
        "print(got.bytes, re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
    )
    with scripted(pacs) as peer:
        words = [sys.executable, "-c", code, str(peer.port), str(tmp_path), make.uid(1)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    length, kilobytes = map(int, done.stdout.split())
    assert length == len(pacs.bytes[uid])
    assert kilobytes < 100 << 10


# -- C-MOVE -------------------------------------------------------------------------------------------------


def moving(script: Callable[[Caller, pdu.Event], object]) -> Callable[[Caller], None]:
    def run(caller: Caller) -> None:
        caller.accept()
        while (event := caller.message()) is not None:
            if script(caller, event) == "die":
                return

    return run


def listed(*uids: str) -> bytes:
    return Dataset({0x00080058: list(uids)}).to_bytes(EXPLICIT)


def test_25_to_27_counters_and_failures_of_a_move() -> None:
    asked: list[tuple[str, Dataset]] = []

    def script(caller: Caller, event: pdu.Event) -> None:
        assert event.command is not None
        asked.append((event.command.move_destination, read_dataset(bytes(event.data or b""), EXPLICIT)))
        caller.respond(event, PENDING, e1020=2, e1021=1, e1022=0, e1023=0)
        caller.respond(event, 0xB000, listed("1.2.9"), e1021=1, e1022=1, e1023=1)

    seen: list[tuple[int, int, bool]] = []
    with scripted(moving(script)) as peer:
        [moved] = client(peer.port).move(
            "THEM", **STUDY, progress=lambda one, known: seen.append((one.remaining, known, one.pending))
        )
    assert (moved.completed, moved.failed, moved.warning, moved.remaining) == (1, 1, 1, 0)
    assert (moved.status, moved.failed_uids, moved.uids) == (0xB000, ("1.2.9",), (make.uid(1),))
    assert isinstance(moved.error, RefusedError)
    assert seen == [(2, 1, True), (0, 1, False)]
    [(destination, identifier)] = asked
    assert destination == "THEM"
    assert {element.keyword for element in identifier} == {"QueryRetrieveLevel", "StudyInstanceUID"}


@pytest.mark.parametrize(
    ("final", "error"),
    [
        ({"status": 0xA801}, "A801H, move destination unknown"),
        ({"status": 0xA702, "e1022": 3}, "A702H"),
        ({"status": 0, "e1021": 2, "e1022": 1}, "could not send 1 of them"),  # no success, whatever it says
        ({"status": 0, "identifier": listed("1.2.9", "1.2.8"), "e1021": 2}, "could not send 2 of them"),
        ({"status": 0xB000, "identifier": b"\xff" * 9, "e1021": 2, "e1023": 1}, ""),
        ({"status": 0, "e1021": 2, "e1020": 7}, ""),
        ({"status": 0}, ""),
    ],
)
def test_25_what_the_final_response_means(final: dict[str, object], error: str) -> None:
    with scripted(moving(lambda caller, event: caller.respond(event, **final))) as peer:  # type: ignore[arg-type]
        [moved] = client(peer.port).move("THEM", **STUDY)
    assert error in str(moved.error or "")
    assert (moved.error is not None) == bool(error)


def test_a_move_that_is_lost_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_FIRST_WAIT", 0.001)
    times = 0

    def script(caller: Caller, event: pdu.Event) -> str:
        nonlocal times
        times += 1
        caller.respond(event, PENDING, e1020=2, e1021=1)
        return "die"

    with scripted(moving(script)) as peer:
        [moved] = client(peer.port).move("THEM", **STUDY)
    assert times == 2
    assert isinstance(moved.error, AssociationError)
    assert not moved.pending


def test_a_store_during_a_move_is_no_response() -> None:
    def script(caller: Caller, event: pdu.Event) -> None:
        caller.message_out(event.context_id, encode({0x0100: 1, 0x0110: 3, 0x0800: 0x0101}))

    with scripted(moving(script)) as peer:
        [moved] = client(peer.port).move("THEM", **STUDY)
    assert "0001H instead of a response" in str(moved.error)


def test_other_keys_are_looked_up() -> None:
    pacs = Pacs(lambda *_: 0, series=2)
    with scripted(pacs) as peer:
        moved = client(peer.port).move("THEM", "SERIES", **STUDY, Modality="CT")
    assert sorted(one.uids for one in moved) == [(make.uid(1, 1),), (make.uid(1, 2),)]
    assert all("Modality" not in asked for asked in pacs.asked)
    assert all(asked.StudyInstanceUID == make.uid(1) for asked in pacs.asked)


def test_nobody_is_there(free_port: int, tmp_path: Path) -> None:
    with pytest.raises(AssociationError):
        client(free_port).get(tmp_path, **STUDY)
    [moved] = client(free_port).move("THEM", **STUDY)
    assert isinstance(moved.error, AssociationError)


def test_scripted_peers_answer_what_they_are_asked() -> None:
    """The peer of these tests itself: it has what its find says."""
    peer = Scripted(Pacs(series=2))
    found = list(client(peer.port).find("IMAGE", **STUDY, SeriesInstanceUID=make.uid(1, 2)))
    peer.close()
    assert len(found) == 3
