"""Modality Worklist against a real `pacs-core serve`, kept by other processes meanwhile; killed, too."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind

import pacs_core
from pacs_core import Archive, Client
from pacs_core._ext.command import encode
from pacs_core.cli import main as cli
from pacs_core.config import PeerFile
from pacs_core.dicom.worklist import MODALITY_WORKLIST_FIND, identifier_of
from pacs_core.errors import AssociationError, IdentifierError, RefusedError
from pacs_core.workflow.worklist import advance
from tests.flows.rawpeer import Peer, p_data, pdv
from tests.flows.test_find import commands
from tests.serving import Serving, serving

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
}
MANY = 3000
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def step(**keys: str) -> dict[str, str]:
    plain = {
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "Modality": "CT",
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": "20260105",
        "ScheduledProcedureStepStartTime": "093000",
        "ScheduledProcedureStepDescription": "Head",
    }
    return plain | keys


STEPS = (
    step(StudyInstanceUID="1.2.1", ScheduledProcedureStepID="S1", AccessionNumber="A1"),
    step(
        **{"StudyInstanceUID": "1.2.1", "ScheduledProcedureStepID": "S2", "Modality": "MR"},
        **{"ScheduledStationAETitle": "MR1", "ScheduledProcedureStepStartDate": "20260106"},
        ScheduledPerformingPhysicianName="Kildare^James",
    ),
    step(StudyInstanceUID="1.2.3", ScheduledProcedureStepID="S3", PatientID="P3", PatientName=JAPANESE),
    step(
        StudyInstanceUID="1.2.4", ScheduledProcedureStepID="S4", PatientID="P4", PatientName="Müller^Jürgen"
    ),
    step(
        **{"StudyInstanceUID": "1.2.5", "ScheduledProcedureStepID": "S5"},
        **{"PatientID": "P5", "ScheduledProcedureStepStatus": "COMPLETED"},
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    path = tmp_path_factory.mktemp("worklist") / "archive"
    with serving(path) as server:
        with Archive.open(path) as archive:  # while it is served
            archive.worklist.schedule_all(STEPS)
            many = {"ScheduledStationAETitle": "MANY", "PatientID": "MANY"}
            archive.worklist.schedule_all(
                step(**many, ScheduledProcedureStepID=str(number)) for number in range(MANY)
            )
        yield server
        assert server.stop() == 0


def identifier(keys: dict[str, Any], of_step: dict[str, Any]) -> Dataset:
    dataset, item = Dataset(), Dataset()
    for to, values in ((dataset, keys), (item, of_step)):
        for keyword, value in values.items():
            setattr(to, keyword, value)
    dataset.ScheduledProcedureStepSequence = [item]
    return dataset


def ask(
    server: Serving, keys: dict[str, Any], of_step: dict[str, Any], syntax: str = "explicit"
) -> tuple[list[Dataset], list[int]]:
    """Matches and statuses, as pynetdicom has them."""
    entity = AE()
    entity.add_requested_context(ModalityWorklistInformationFind, SYNTAXES[syntax])
    association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE")
    assert association.is_established
    answers = list(association.send_c_find(identifier(keys, of_step), ModalityWorklistInformationFind))
    association.release()
    assert answers[-1][1] is None  # the final response has no identifier
    return [found for _, found in answers[:-1]], [status.Status for status, _ in answers]


ALL = {"ScheduledProcedureStepID": "", "Modality": ""}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_32_a_response_for_each_step_in_the_transfer_syntax_of_the_query(
    server: Serving, syntax: str
) -> None:
    keys = {"PatientName": "", "PatientID": "P1", "AccessionNumber": ""}
    found, statuses = ask(server, keys, {**ALL, "ScheduledPerformingPhysicianName": ""}, syntax)
    assert statuses == [0xFF00, 0xFF00, 0]
    first, second = sorted(
        found, key=lambda one: one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    )
    assert [one.StudyInstanceUID for one in (first, second)] == [
        "1.2.1",
        "1.2.1",
    ]  # though it was not asked for
    assert (first.AccessionNumber, second.AccessionNumber) == ("A1", "")
    assert [len(one.ScheduledProcedureStepSequence) for one in (first, second)] == [1, 1]
    item = second.ScheduledProcedureStepSequence[0]
    assert (item.ScheduledProcedureStepID, item.Modality) == ("S2", "MR")
    assert item.ScheduledPerformingPhysicianName == "Kildare^James"
    assert {element.keyword for element in item} == {*ALL, "ScheduledPerformingPhysicianName"}
    assert {element.keyword for element in first} == {
        *("AccessionNumber", "PatientName", "PatientID", "StudyInstanceUID", "ScheduledProcedureStepSequence")
    }


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("of_step", "steps"),
    [
        ({"ScheduledStationAETitle": "CT1"}, ["S1", "S3", "S4"]),
        ({"ScheduledStationAETitle": "MR1", "ScheduledProcedureStepStartDate": "20260106"}, ["S2"]),
        ({"ScheduledStationAETitle": "MR1", "ScheduledProcedureStepStartDate": "20260105"}, []),
        ({"ScheduledProcedureStepStartDate": "20260106-", "Modality": ""}, ["S2"]),
        ({"ScheduledProcedureStepStartDate": "20260104-20260105", "Modality": "MR"}, []),
        ({"ScheduledProcedureStepStartDate": "20260106", "ScheduledProcedureStepStartTime": "09-10"}, ["S2"]),
        ({"Modality": "MR"}, ["S2"]),
        ({"ScheduledPerformingPhysicianName": "kil*"}, ["S2"]),
        ({"ScheduledProcedureStepStatus": "COMPLETED"}, ["S5"]),
        ({"ScheduledProcedureStepStatus": "", "ScheduledProcedureStepID": "S5"}, []),
        ({"ScheduledProcedureStepID": "S5"}, []),
        (
            {"ScheduledProcedureStepStatus": "*", "ScheduledProcedureStepID": "S?"},
            ["S1", "S2", "S3", "S4", "S5"],
        ),
    ],
)
def test_32_keys_in_the_sequence_match(server: Serving, of_step: dict[str, str], steps: list[str]) -> None:
    found, statuses = ask(server, {"PatientID": "P*"}, {"ScheduledProcedureStepID": "", **of_step})
    assert statuses[-1] == 0
    assert sorted(one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in found) == steps


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["", "ISO 2022 IR 87"], "Yamada*=山田*"),
        (["", "ISO 2022 IR 87"], "=山田^太郎"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "*=*=やまだ^たろう"),
        ("ISO_IR 192", "山田*"),
        ("GB18030", "=山田^太郎"),
    ],
)
def test_24_japanese_is_found_and_told_as_it_is_asked(server: Serving, sets: Any, key: str) -> None:
    keys = {"SpecificCharacterSet": sets, "PatientName": key}
    [found], _ = ask(server, keys, {"ScheduledProcedureStepDescription": "", **ALL})
    assert found.SpecificCharacterSet == sets
    assert found.PatientName == JAPANESE
    assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID == "S3"


def test_24_what_the_character_set_does_not_have_is_told_in_utf_8(server: Serving) -> None:
    [found], _ = ask(
        server, {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "", "PatientID": "P3"}, ALL
    )
    assert (found.SpecificCharacterSet, found.PatientName) == ("ISO_IR 192", JAPANESE)
    [found], _ = ask(
        server, {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "", "PatientID": "P4"}, ALL
    )
    assert (found.SpecificCharacterSet, found.PatientName) == ("ISO_IR 100", "Müller^Jürgen")


def test_22_a_level_a_group_length_and_a_time_zone_break_nothing(server: Serving) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "TimezoneOffsetFromUTC": "+0100", "PatientID": "P1"}
    found, statuses = ask(server, keys, ALL)
    assert statuses == [0xFF00, 0xFF00, 0]
    assert all("QueryRetrieveLevel" not in one for one in found)


def test_21_private_keys_are_left_out_and_said(server: Serving) -> None:
    entity = AE()
    entity.add_requested_context(ModalityWorklistInformationFind)
    association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE")
    asked = identifier({"PatientID": "P3"}, ALL)
    asked.private_block(0x0009, "SOMEBODY", create=True).add_new(1, "LO", "x")
    (status, found), (final, _) = association.send_c_find(asked, ModalityWorklistInformationFind)
    association.release()
    assert (status.Status, final.Status) == (0xFF01, 0)
    assert not any(element.tag.is_private for element in found)


def test_19_a_sequence_of_two_items_is_refused(server: Serving) -> None:
    entity = AE()
    entity.add_requested_context(ModalityWorklistInformationFind)
    association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE")
    asked = identifier({}, ALL)
    asked.ScheduledProcedureStepSequence.append(Dataset())
    [(status, _)] = association.send_c_find(asked, ModalityWorklistInformationFind)
    association.release()
    assert status.Status == 0xA900


def test_23_no_match_is_just_success_and_all_are_told(server: Serving) -> None:
    assert ask(server, {"PatientID": "nobody"}, ALL) == ([], [0])
    found, statuses = ask(server, {"PatientID": "MANY"}, ALL)
    assert statuses == [0xFF00] * MANY + [0]
    assert len({one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in found}) == MANY


@pytest.mark.parametrize("physician", ["", "nobody"], ids=["many", "none"])
def test_23_a_cancel_is_the_final_status(server: Serving, physician: str) -> None:
    asked = identifier_of({"PatientID": "", "ScheduledPerformingPhysicianName": physician})
    explicit = SYNTAXES["explicit"]
    with Peer(server) as peer:
        peer.associated(contexts=[(1, MODALITY_WORKLIST_FIND, [explicit])])
        command = encode({0x0002: MODALITY_WORKLIST_FIND, 0x0100: 0x20, 0x0110: 7, 0x0700: 0, 0x0800: 1})
        cancel = encode({0x0100: 0x0FFF, 0x0120: 7, 0x0800: 0x0101})
        query = p_data(pdv(1, 3, command), pdv(1, 2, asked.to_bytes(explicit)))
        peer.send(query + p_data(pdv(1, 3, cancel)))
        *pending, final = commands(peer)
        assert final == 0xFE00
        assert set(pending) <= {0xFF00}
        assert len(pending) < MANY
        peer.released()


def test_our_client_asks_as_it_does_of_studies(server: Serving) -> None:
    client = Client("127.0.0.1", server.port, aec="PACSCORE")
    [found] = client.worklist(PatientID="P3", Modality=None)
    assert (found.PatientID, found.StudyInstanceUID) == ("P3", "1.2.3")
    [item] = found.ScheduledProcedureStepSequence
    assert (item.Modality, item.ScheduledProcedureStepID) == ("CT", "S3")
    [found] = client.worklist({"PatientID": "P3", "ScheduledProcedureStepSequence": []})
    assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription == "Head"
    with pytest.raises(IdentifierError):
        client.worklist({"Modality": "CT", "ScheduledProcedureStepSequence.0.Modality": "MR"})
    with pytest.raises(KeyError):
        client.worklist(NoSuchKeyword="")


def test_what_changes_is_seen_at_once(server: Serving) -> None:
    client = Client("127.0.0.1", server.port, aec="PACSCORE")
    with Archive.open(server.archive) as archive:
        [name] = archive.worklist.schedule(step(PatientID="CHANGES"))
        assert len(list(client.worklist(PatientID="CHANGES"))) == 1
        archive.state.change(lambda change: advance(change, [name], "STARTED"))
        [found] = client.worklist(PatientID="CHANGES", ScheduledProcedureStepStatus="STARTED")
        assert found.StudyInstanceUID == name.study_instance_uid
        archive.state.change(lambda change: advance(change, [name], "COMPLETED"))
        assert list(client.worklist(PatientID="CHANGES")) == []
        archive.worklist.remove(name)
        assert list(client.worklist(PatientID="CHANGES", ScheduledProcedureStepStatus="*")) == []


def test_who_may_not_ask_is_refused(tmp_path: Path) -> None:
    PeerFile(tmp_path / "archive").add("FINDER", may=["echo", "find"])
    PeerFile(tmp_path / "archive").add("MODALITY", may=["worklist"])
    with serving(tmp_path / "archive") as server:
        with pytest.raises(RefusedError, match="0124"):
            list(Client("127.0.0.1", server.port, aec="PACSCORE", aet="FINDER").worklist(PatientID=""))
        assert (
            list(Client("127.0.0.1", server.port, aec="PACSCORE", aet="MODALITY").worklist(PatientID=""))
            == []
        )


def test_a_peer_without_a_worklist_is_named() -> None:
    with pytest.raises(AssociationError):
        list(Client("127.0.0.1", 1).worklist(PatientID=""))


# --- the command line -------------------------------------------------------------------------------------


def test_the_command_asks_with_and_without_its_name(
    server: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    address = ["127.0.0.1", str(server.port), "--aec", "PACSCORE"]
    for words in (["worklist", *address], ["worklist", "query", *address]):
        assert cli.run([*words, "PatientName", "Modality=MR", "--format", "csv"]) == 0
        assert capsys.readouterr().out.splitlines() == ["PatientName,Modality", "Doe^Jane,MR"]
    assert (
        cli.run(["worklist", "--aec", "PACSCORE", *address[:2], "--station", "MR1", "--date", "2026-01-06"])
        == 0
    )
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["PatientName", "PatientID"]
    assert row.split()[:2] == ["Doe^Jane", "P1"]
    assert row.split()[-2:] == ["1.2.1", "S2"]
    assert cli.run(["worklist", *address, "--modality", "MR", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["00400100"]["Value"][0]["00080060"]["Value"] == ["MR"]
    assert cli.run(["worklist", *address, "NoSuchKeyword"]) == 2


CSV = """\ufeffPatientName;PatientID;Modality;ScheduledStationAETitle;ScheduledProcedureStepStartDate;\
ScheduledProcedureStepStartTime;ScheduledProcedureStepDescription;StudyInstanceUID;ScheduledProcedureStepID
山田^太郎;C1;CT;CT1;2026-01-05;09:30;Head;1.2.10;C
Roe;C2;CT;CT1;;09:30;Head;;
Roe;C3;CT;CT1;20260106;0930;Head;;;too many
"""


def test_the_command_keeps_a_worklist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = ["--archive", str(tmp_path / "archive")]

    def run(*words: str, code: int = 0) -> str:
        assert cli.run(["worklist", *words, *archive]) == code
        return capsys.readouterr().out

    words = [f"{key}={value}" for key, value in step(ScheduledProcedureStepStartDate="2026-01-07").items()]
    [name] = json.loads(run("add", "--json", *words))
    assert run("add", "PatientName=Doe", code=1) == ""
    assert run("add", "Nothing=x", code=2) == ""

    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.csv").write_text(CSV, "utf-8")
    (folder / "b.json").write_text(
        json.dumps([step(StudyInstanceUID="1.2.11", ScheduledProcedureStepID="J")])
    )
    (folder / "README").write_text("nothing of it")
    model = pacs_core.dicom.dataset.Dataset(PatientName="Model^M", PatientID="M")
    model.ScheduledProcedureStepSequence = [
        {
            key: value
            for key, value in step(ScheduledProcedureStepID=one).items()
            if not key.startswith("Patient")
        }
        for one in ("M1", "M2")
    ]
    (folder / "c.json").write_text("\n".join([model.to_json(), json.dumps({"PatientName": 7})]))
    (folder / "d.wl").write_bytes(model.to_bytes("1.2.840.10008.1.2"))
    (folder / "e.json").write_text("{")
    told = json.loads(run("import", "--json", str(folder), code=1))
    assert told["scheduled"] == 1 + 1 + 2 + 2
    assert [failure["where"].removeprefix(f"{folder}/") for failure in told["failures"]] == [
        *("a.csv line 4", "c.json entry 2", "e.json", "a.csv line 3"),
    ]
    assert "ScheduledProcedureStepStartDate" in told["failures"][3]["error"]

    listed = run("list", "PatientName", "ScheduledProcedureStepID", "--format", "csv").splitlines()
    added = f"Doe^Jane,{name['scheduled_procedure_step_id']}"
    wanted = [added, "山田^太郎,C", "Doe^Jane,J", *["Model^M,M1", "Model^M,M2"] * 2]
    assert sorted(listed[1:]) == sorted(wanted)
    assert run("remove", "1.2.10", "C", "--json") == '{"removed": 1}\n'
    assert run("remove", "1.2.10", "C", code=1) == ""
    assert run("remove", "1.2.11") == "1 removed\n"
    assert run("remove", "1.2.11", code=1) == ""
    assert run("remove", "1.2.11", "--before", "20260101", code=2) == ""
    assert run("remove", "--before", "2026-01-07") == "4 removed\n"
    assert run("list", "PatientID", "--format", "csv").splitlines() == ["PatientID", "P1"]
    for days, count in (("2026-01-07", 1), ("20260108-", 0), ("-2026-01-07", 1), ("2026-01-01-20260131", 1)):
        assert len(run("list", "PatientID", f"--date={days}", "--format", "csv").splitlines()) == 1 + count
    for days in ("nonsense", "2026-13-01", "2026-1-7", "2026W011", "-", "20260101-x"):
        assert run("list", f"--date={days}", code=2) == ""
    with Archive.open(tmp_path / "archive") as opened:
        opened.state.change(lambda change: advance(change, [tuple(name.values())], "COMPLETED"))
    assert run("list", "PatientID", "--format", "csv").splitlines() == ["PatientID"]
    assert run("list", "PatientID", "--all", "--format", "csv").splitlines() == ["PatientID", "P1"]


# --- crash ------------------------------------------------------------------------------------------------

SCHEDULING = """
import sys
from pacs_core import Archive
from tests.flows.test_worklist_scp import step
with Archive.open(sys.argv[1]) as archive:
    for number in range(100_000):
        [name] = archive.worklist.schedule(step(ScheduledProcedureStepID=f"{sys.argv[2]}-{number}"))
        print(*name, flush=True)
"""


def test_what_was_scheduled_stands_whenever_the_process_is_killed(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    source = random.Random(3)
    names: list[tuple[str, ...]] = []
    for attempt in range(int(os.environ.get("PACS_CORE_ROUNDS", "4"))):
        process = subprocess.Popen(
            [sys.executable, "-c", SCHEDULING, str(archive), str(attempt)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        names += [tuple(process.stdout.readline().split())]
        time.sleep(source.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        # A line that was cut may be of a step that is there or not.
        names += [
            tuple(line.split()) for line in process.stdout.read().splitlines(True) if line.endswith("\n")
        ]
        process.wait()
        process.stdout.close()
    with Archive.open(archive) as opened:
        for name in names:
            study, number = name
            kept = opened.worklist.get((study, number))
            assert kept.PatientName == "Doe^Jane"
            [found] = opened.worklist.search(StudyInstanceUID=study)
            assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID == number
        everything = list(opened.worklist)
        assert len(names) <= len(everything) <= len(names) + 4
        assert len(list(opened.worklist.search(ScheduledStationAETitle="CT1"))) == len(everything)
