"""Performed procedure steps over the wire: pynetdicom's SCU at our server, our SCU at pynetdicom's SCP.

CONFORMANCE 33 and 34, with the statuses that a modality sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset as Foreign
from pynetdicom import AE, evt

import pacs_core
from pacs_core.archive import Archive
from pacs_core.cli import main as cli
from pacs_core.client import mpps_reports
from pacs_core.client.mpps import PerformedStep
from pacs_core.client.operations import perform
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Operation
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT
from pacs_core.errors import InvalidValueError, MissingAttributeError, RefusedError
from pacs_core.workflow.state import META
from tests.make import file, instance, part10, uid
from tests.serving import Serving, serving
from tests.serving import pacs_core as command
from tests.steps import created, ended

MPPS = "1.2.840.10008.3.1.2.3.3"
RETRIEVE = "1.2.840.10008.3.1.2.3.4"
SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    archive = tmp_path_factory.mktemp("mpps") / "archive"
    with serving(archive, "--set", "pool.acceptors=2") as server:
        yield server


@contextmanager
def modality(port: int) -> Iterator[Any]:
    """pynetdicom's SCU on an association."""
    entity = AE("CT1")
    entity.add_requested_context(MPPS)
    entity.add_requested_context(RETRIEVE)
    heard: list[Any] = []
    handlers: list[Any] = [(evt.EVT_DIMSE_RECV, lambda event: heard.append(event.message.command_set))]
    association = entity.associate("127.0.0.1", port, evt_handlers=handlers)
    assert association.is_established
    association.heard = heard  # type: ignore[attr-defined]  # the responses as they came
    try:
        yield association
    finally:
        association.release()


def create(association: Any, name: str | None, **attributes: object) -> Any:
    return association.send_n_create(created(**attributes).to_pydicom(), MPPS, name)[0]


def change(association: Any, name: str, dataset: Dataset) -> Any:
    return association.send_n_set(dataset.to_pydicom(), MPPS, name)[0]


def without(keyword: str) -> Foreign:
    dataset = created().to_pydicom()
    del dataset[keyword]
    return dataset


# -- pynetdicom at our server -------------------------------------------------------------------------------


def test_a_modality_reports_a_step_and_others_read_it(server: Serving) -> None:
    with modality(server.port) as ours, modality(server.port) as other:  # in a process each
        assert create(ours, "1.2.1").Status == 0x0000
        status, found = other.send_n_get([0x00400252], RETRIEVE, "1.2.1")
        assert (status.Status, found.PerformedProcedureStepStatus) == (0x0000, "IN PROGRESS")
        assert len(found) == 1
        assert change(other, "1.2.1", Dataset(PerformedProcedureStepDescription="Chest")).Status == 0x0000
        assert change(ours, "1.2.1", ended()).Status == 0x0000
        status, found = other.send_n_get([], RETRIEVE, "1.2.1")
        assert status.Status == 0x0000
    expected = created(
        **{element.keyword: element.value for element in ended()}, PerformedProcedureStepDescription="Chest"
    )
    assert found == expected.to_pydicom()


def test_creation_is_answered_as_the_standard_says(server: Serving) -> None:
    with modality(server.port) as association:

        def answer(name: str, dataset: Foreign) -> tuple[int, int | None]:
            association.send_n_create(dataset, MPPS, name)
            return association.heard[-1].Status, association.heard[-1].get("AttributeIdentifierList")

        assert answer("1.2.2", created().to_pydicom()) == (0x0000, None)
        assert answer("1.2.2", created().to_pydicom()) == (0x0111, None)
        other = created(PerformedProcedureStepStatus="COMPLETED").to_pydicom()
        assert answer("1.2.3", other) == (0x0106, 0x00400252)
        assert answer("1.2.3", created(Modality="").to_pydicom()) == (0x0121, 0x00080060)
        assert answer("1.2.3", without("Modality")) == (0x0120, 0x00080060)  # of type 1
        assert answer("1.2.3", without("PatientID")) == (0x0120, 0x00100020)  # of type 2
        assert association.send_n_get([], RETRIEVE, "1.2.3")[0].Status == 0x0112


def test_without_a_uid_the_server_chooses_one(server: Serving) -> None:
    with modality(server.port) as association:
        assert create(association, None).Status == 0x0000
        chosen = association.heard[-1].AffectedSOPInstanceUID
        assert chosen.is_valid
        assert association.send_n_get([], RETRIEVE, chosen)[0].Status == 0x0000


def test_setting_is_answered_as_the_standard_says(server: Serving) -> None:
    with modality(server.port) as association:
        assert change(association, "1.2.4", ended()).Status == 0x0112
        create(association, "1.2.4")
        answer = change(association, "1.2.4", ended(PatientID="P2"))
        assert (answer.Status, answer.AttributeIdentifierList) == (0x0105, 0x00100020)
        answer = change(association, "1.2.4", ended(PerformedSeriesSequence=[]))
        assert (answer.Status, answer.AttributeIdentifierList) == (0x0121, 0x00400340)
        assert change(association, "1.2.4", ended("DONE")).Status == 0x0106
        assert change(association, "1.2.4", ended()).Status == 0x0000
        answer = change(association, "1.2.4", ended("DISCONTINUED"))
        assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)
        assert answer.ErrorComment == "Performed Procedure Step Object may no longer be updated"


def test_character_sets_are_combined_or_refused(server: Serving) -> None:
    with modality(server.port) as association:
        create(association, "1.2.5", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
        # pynetdicom does not send bytes that are in no character set.
        changes = Dataset(SpecificCharacterSet="ISO_IR 192", PerformedProcedureStepDescription="ab")
        broken = read_dataset(changes.to_bytes(EXPLICIT).replace(b"ab", b"\xff\xfe"), EXPLICIT)
        client = pacs_core.Client("127.0.0.1", server.port, aec="PACSCORE", aet="CT1")
        with client.associate([(MPPS, [EXPLICIT])]) as other, pytest.raises(RefusedError, match="0106H"):
            perform(other, Operation.N_SET, MPPS, "1.2.5", broken, name="MPPS")
        changes = Dataset(SpecificCharacterSet="ISO_IR 144", PerformedProcedureStepDescription="Череп")
        assert change(association, "1.2.5", changes).Status == 0x0000
        found = association.send_n_get([], RETRIEVE, "1.2.5")[1]
        assert (found.PatientName, found.PerformedProcedureStepDescription) == ("Müller^Jürgen", "Череп")


def test_operations_that_there_are_not_are_refused(server: Serving) -> None:
    with modality(server.port) as association:
        assert association.send_n_create(created().to_pydicom(), RETRIEVE, "1.2.6")[0].Status == 0x0211
        assert association.send_n_delete(MPPS, "1.2.1").Status == 0x0211
        assert association.send_n_get([], RETRIEVE, "1.2.6")[0].Status == 0x0112


def test_who_may_not_is_told(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    settings = tmp_path / "settings.toml"
    settings.write_text('[server]\nunknown_callers = "known"\n[[peer]]\naet = "CT1"\nmay = ["store"]\n')
    with serving(archive, "--config", str(settings)) as server, modality(server.port) as association:
        assert create(association, "1.2.3").Status == 0x0124
        assert association.send_n_get([], RETRIEVE, "1.2.3")[0].Status == 0x0124


def test_a_state_that_can_not_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.state.change(lambda change: change.put(META, b"schema", b"\x63\0\0\0"))
    done = command("serve", "--archive", str(tmp_path / "archive"), "--port", "0", check=1)
    assert "is of schema 99, of a newer version" in done.stderr


# -- our SCU ------------------------------------------------------------------------------------------------


class Kept:
    """pynetdicom's SCP: keeps what it is told, and answers what it is to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Foreign]] = []
        self.status = 0x0000

    def create(self, event: evt.Event) -> tuple[int, Foreign | None]:
        self.told.append(("N-CREATE", event.request.AffectedSOPInstanceUID, event.attribute_list))
        return self.status, Foreign()

    def change(self, event: evt.Event) -> tuple[int, Foreign | None]:
        self.told.append(("N-SET", event.request.RequestedSOPInstanceUID, event.modification_list))
        return self.status, Foreign()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def client(kept: Kept) -> Iterator[pacs_core.Client]:
    entity = AE("RIS")
    entity.add_supported_context(MPPS)
    handlers: list[Any] = [(evt.EVT_N_CREATE, kept.create), (evt.EVT_N_SET, kept.change)]
    running = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert running is not None
    yield pacs_core.Client("127.0.0.1", running.server_address[1], aec="RIS", aet="CT1")
    running.shutdown()


CODE = {"CodeValue": "CH", "CodingSchemeDesignator": "99X", "CodeMeaning": "Chest"}
ITEM = Dataset(
    SpecificCharacterSet="ISO_IR 100",
    PatientName="Müller^Jürgen",
    PatientID="P1",
    IssuerOfPatientID="HOSPITAL",
    PatientBirthDate="19700101",
    PatientSex="M",
    StudyInstanceUID=uid(1),
    ReferencedStudySequence=[],
    AccessionNumber="A1",
    RequestedProcedureID="RP1",
    RequestedProcedureDescription="Thorax",
    RequestedProcedureCodeSequence=[CODE],
    AdmissionID="ADM1",
    ScheduledProcedureStepSequence=[
        {
            "Modality": "CT",
            "ScheduledStationAETitle": "CT1",
            "ScheduledStationName": "ROOM2",
            "ScheduledProcedureStepID": "SPS1",
            "ScheduledProcedureStepDescription": "Schädel",
            "ScheduledProcedureStepLocation": "EAST",
            "ScheduledProtocolCodeSequence": [CODE],
        }
    ],
)


def test_a_worklist_item_is_performed(kept: Kept, client: pacs_core.Client, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    images = [instance(number, ProtocolName="Head routine", OperatorsName="Roe") for number in (1, 2)]
    for image in images:
        file(tmp_path / "images", image)
    (tmp_path / "images" / "notes.txt").write_text("hello")
    report = instance(1, series=2, SOPClassUID=SR, Rows=None, PixelData=None)
    with client.mpps(ITEM) as step:
        assert step.study_uids == (uid(1),)
        assert step.status == "IN PROGRESS"
        step.add(tmp_path / "images")
        step.add([part10(images[0]), pacs_core.read(part10(report))])  # what is there already counts once
    assert step.status == "COMPLETED"
    (_, first, said), (_, second, last) = kept.told
    assert first == second == step.uid
    # PS3.4 F.7.2, as our own server checks it.
    assert said.SpecificCharacterSet == "ISO_IR 100"
    scheduled = said.ScheduledStepAttributesSequence[0]
    assert "SpecificCharacterSet" not in scheduled
    assert (scheduled.StudyInstanceUID, scheduled.AccessionNumber) == (uid(1), "A1")
    assert (scheduled.RequestedProcedureID, scheduled.ScheduledProcedureStepID) == ("RP1", "SPS1")
    assert scheduled.ScheduledProcedureStepDescription == "Schädel"
    assert scheduled.ScheduledProtocolCodeSequence[0].CodeValue == "CH"
    assert scheduled.RequestedProcedureCodeSequence[0].CodeValue == "CH"
    assert (said.PatientName, said.IssuerOfPatientID, said.AdmissionID) == (
        "Müller^Jürgen",
        "HOSPITAL",
        "ADM1",
    )
    assert (said.Modality, said.StudyID, said.PerformedStationAETitle) == ("CT", "RP1", "CT1")
    assert (said.PerformedStationName, said.PerformedLocation) == ("ROOM2", "EAST")
    assert said.PerformedProcedureStepDescription == "Schädel"
    assert said.ProcedureCodeSequence[0].CodeValue == "CH"
    assert said.PerformedProtocolCodeSequence[0].CodeValue == "CH"
    assert said.PerformedProcedureStepStatus == "IN PROGRESS"
    assert last.PerformedProcedureStepStatus == "COMPLETED"
    assert last.PerformedProcedureStepEndDate
    assert last.PerformedProcedureStepEndTime
    found = {item.SeriesInstanceUID: item for item in last.PerformedSeriesSequence}
    assert list(found) == [uid(1, 1), uid(1, 2)]
    assert found[uid(1, 1)].ProtocolName == "Head routine"
    assert found[uid(1, 1)].OperatorsName == "Roe"
    references = found[uid(1, 1)].ReferencedImageSequence
    assert sorted(item.ReferencedSOPInstanceUID for item in references) == [uid(1, 1, 1), uid(1, 1, 2)]
    other = found[uid(1, 2)]
    assert other.ProtocolName == "Schädel"
    assert len(other.ReferencedImageSequence) == 0
    assert other.ReferencedNonImageCompositeSOPInstanceSequence[0].ReferencedSOPClassUID == SR


def test_worklist_items_stay_as_they_are(kept: Kept, client: pacs_core.Client) -> None:
    item = ITEM.copy()
    code = Dataset(CodeValue="CH", CodingSchemeDesignator="99X", CodeMeaning="Schädel")
    item["ScheduledProcedureStepSequence.0.ScheduledProtocolCodeSequence"] = [code]
    before = item.to_json()
    with client.mpps(item) as step:
        step.set(ProcedureCodeSequence=[code])
    assert item.to_json() == before
    assert code.SpecificCharacterSet == "ISO_IR 192"
    meaning = kept.told[0][2].PerformedProtocolCodeSequence[0].CodeMeaning
    assert meaning == "Schädel"


def test_several_items_are_performed_in_one_step(kept: Kept, client: pacs_core.Client) -> None:
    other = ITEM.copy()
    other.StudyInstanceUID = uid(2)
    with client.mpps([ITEM, other]) as step:
        assert step.study_uids == (uid(1), uid(2))
    items = kept.told[0][2].ScheduledStepAttributesSequence
    assert [item.StudyInstanceUID for item in items] == [uid(1), uid(2)]


def test_what_nobody_scheduled_is_performed(kept: Kept, client: pacs_core.Client) -> None:
    with client.mpps(Modality="DX", PatientName="山田", AccessionNumber="A7", uid="1.2.3") as step:
        step.set(PerformedProcedureTypeDescription="Emergency")
        step.series(SeriesInstanceUID="1.2.4", ProtocolName="Hand", RetrieveAETitle="PACS")
    assert [(what, name) for what, name, _ in kept.told] == [
        ("N-CREATE", "1.2.3"),
        ("N-SET", "1.2.3"),
        ("N-SET", "1.2.3"),
    ]
    said, between, last = (dataset for _, _, dataset in kept.told)
    assert (said.SpecificCharacterSet, said.PatientName) == ("ISO_IR 192", "山田")
    assert said.ScheduledStepAttributesSequence[0].AccessionNumber == "A7"
    assert "AccessionNumber" not in said
    assert said.ScheduledStepAttributesSequence[0].StudyInstanceUID == step.study_uids[0]
    assert between.PerformedProcedureTypeDescription == "Emergency"
    [item] = last.PerformedSeriesSequence
    assert (item.SeriesInstanceUID, item.ProtocolName, item.RetrieveAETitle) == ("1.2.4", "Hand", "PACS")


def test_a_body_that_raises_discontinues(kept: Kept, client: pacs_core.Client) -> None:
    def body(step: PerformedStep) -> None:
        step.add(part10(instance(1)))
        step.stop("110505")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), client.mpps(ITEM) as step:
        body(step)
    assert step.status == "DISCONTINUED"
    last = kept.told[-1][2]
    assert last.PerformedProcedureStepStatus == "DISCONTINUED"
    [reason] = last.PerformedProcedureStepDiscontinuationReasonCodeSequence
    assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110505", "DCM")
    assert reason.CodeMeaning == "Patient refused to continue procedure"
    assert last.PerformedSeriesSequence[0].SeriesInstanceUID == uid(1, 1)


def test_a_step_can_be_stopped_in_order(kept: Kept, client: pacs_core.Client) -> None:
    with client.mpps(ITEM) as step:
        step.stop(("X1", "99X", "Power cut"))
    assert step.status == "DISCONTINUED"
    last = kept.told[-1][2]
    assert last.PerformedProcedureStepDiscontinuationReasonCodeSequence[0].CodeMeaning == "Power cut"
    assert len(last.PerformedSeriesSequence) == 0
    with pytest.raises(InvalidValueError, match="no such reason"):
        mpps_reports.reason_item("4711")


def test_what_a_peer_refuses_is_told(kept: Kept, client: pacs_core.Client) -> None:
    kept.status = 0x0106
    with pytest.raises(RefusedError, match="0106H, invalid attribute value"), client.mpps(ITEM):
        pytest.fail("the body of a step that did not begin")
    kept.status = 0x0000
    with pytest.raises(RefusedError), client.mpps(ITEM) as step:
        kept.status = 0x0110
    assert step.status == "IN PROGRESS"

    def body() -> None:
        kept.status = 0x0110
        raise ZeroDivisionError

    kept.status = 0x0000
    with pytest.raises(ZeroDivisionError) as caught, client.mpps(ITEM) as step:
        body()
    assert step.uid in caught.value.__notes__[0]
    kept.status = 0x0000
    step.complete()
    assert step.status == "COMPLETED"


def test_what_is_incomplete_is_not_sent(kept: Kept, client: pacs_core.Client) -> None:
    with pytest.raises(MissingAttributeError, match="Modality"), client.mpps(PatientID="P1"):
        pytest.fail("the body of a step that did not begin")
    assert kept.told == []


def test_our_server_takes_what_our_client_says(server: Serving) -> None:
    client = pacs_core.Client("127.0.0.1", server.port, aec="PACSCORE", aet="CT1")
    with client.mpps(ITEM, uid="1.3.1") as step:
        step.add(part10(instance(1, study=5)))
    with pytest.raises(ZeroDivisionError), client.mpps(Modality="CT", uid="1.3.2") as step:
        raise ZeroDivisionError
    client.store(part10(instance(1, study=5)))
    with Archive.open(server.archive) as archive:
        assert archive.performed.get("1.3.1").PerformedProcedureStepStatus == "COMPLETED"
        assert archive.performed.get("1.3.2").PerformedProcedureStepStatus == "DISCONTINUED"
        assert [step.uid for step in archive.performed.list(study=uid(5))] == ["1.3.1"]


# -- the command line ---------------------------------------------------------------------------------------


def test_steps_by_command(server: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = ["127.0.0.1", str(server.port), "--aec", "PACSCORE", "--aet", "CT1"]
    item = tmp_path / "item.json"
    item.write_text(ITEM.to_json())
    path = file(tmp_path, instance(1))

    def run(*words: str) -> str:
        assert cli.run(["mpps", *words]) == 0
        return capsys.readouterr().out.strip()

    name = run("start", *peer, "--item", str(item), "PerformedLocation=WEST")
    assert run("complete", *peer, name, str(path)) == f"{name} COMPLETED"
    told = json.loads(run("start", *peer, "Modality=DX", "StudyInstanceUID=1.2.9", "--json"))
    assert told["study_instance_uids"] == ["1.2.9"]
    other = told["sop_instance_uid"]
    assert cli.run(["mpps", "discontinue", *peer, other, "--reason", "4711"]) == 2
    capsys.readouterr()
    run("discontinue", *peer, other, "--reason", "110501")
    archive = ["--archive", str(server.archive)]
    lines = run("list", *archive, "--study", uid(1), "--status", "completed", "--json").splitlines()
    [found] = [each for each in map(Dataset.from_json, lines) if each.SOPInstanceUID == name]
    assert (found.PerformedLocation, found.PatientName) == ("WEST", "Müller^Jürgen")
    assert found["PerformedSeriesSequence.0.SeriesInstanceUID"] == uid(1, 1)
    [line] = run("list", *archive, "--study", "1.2.9").splitlines()[2:]
    assert line.split()[:2] == [other, "DISCONTINUED"]


def test_commands_that_fail(server: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = ["127.0.0.1", str(server.port), "--aec", "PACSCORE"]
    assert cli.run(["mpps", "complete", *peer, "1.2.99"]) == 1
    assert "0112H, no such SOP instance" in capsys.readouterr().err
    assert cli.run(["mpps", "start", *peer, "Modality"]) == 2
    assert cli.run(["mpps", "start", *peer, "Modalty=CT"]) == 2
    assert cli.run(["mpps", "start", *peer, "PatientID=P1"]) == 1
    assert "Modality is missing" in capsys.readouterr().err
    empty = tmp_path / "item.json"
    empty.write_text("[]")
    assert cli.run(["mpps", "start", *peer, "--item", str(empty)]) == 1
    assert "no worklist item" in capsys.readouterr().err
