"""The worklist beside DCMTK: its findscu asks our server, our client and command ask its wlmscpfs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_core import Archive, Client, read
from pacs_core.dicom.dataset import Dataset
from pacs_core.workflow.scheduling import plain
from tests.conftest import DCMTK, tool
from tests.interop.test_client_dcmtk import running
from tests.interop.test_query_peers import free_ports
from tests.serving import pacs_core, serving

STEPS = [
    {
        "PatientName": name,
        "PatientID": f"P{number}",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "AccessionNumber": f"A{number}",
        "StudyInstanceUID": f"1.2.{number}",
        "RequestedProcedureID": f"R{number}",
        "RequestedProcedureDescription": "Examination",
        "Modality": modality,
        "ScheduledStationAETitle": station,
        "ScheduledProcedureStepStartDate": f"2026010{number}",
        "ScheduledProcedureStepStartTime": "093000",
        "ScheduledProcedureStepDescription": "Head",
        "ScheduledPerformingPhysicianName": "Kildare^James",
        "ScheduledProcedureStepID": f"S{number}",
    }
    for number, (name, modality, station) in enumerate(
        [("Doe^Jane", "CT", "CT1"), ("Müller^Jürgen", "MR", "MR1"), ("Doe^John", "CT", "CT2")], 1
    )
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The steps as files of wlmscpfs, which has a folder for each AE title that it is called by."""
    folder = tmp_path / "wlm" / "WLM"
    folder.mkdir(parents=True)
    (folder / "lockfile").touch()
    for number, keys in enumerate(STEPS):
        dataset = plain(keys)
        if "SpecificCharacterSet" in dataset:
            dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.31", f"1.2.9.{number}"
        dataset.save(folder / f"{number}.wl", "1.2.840.10008.1.2.1")
    return folder


def keys(**changes: str) -> list[str]:
    """The keys as findscu takes them."""
    step = "ScheduledProcedureStepSequence[0]."
    asked = {
        **{"PatientName": "", "PatientID": "", "StudyInstanceUID": ""},
        **{f"{step}{key}": "" for key in ("Modality", "ScheduledProcedureStepID", "ScheduledStationAETitle")},
    }
    asked |= {key if key in asked else f"{step}{key}": value for key, value in changes.items()}
    return [word for key, value in asked.items() for word in ("-k", f"{key}={value}" if value else key)]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, ["S1", "S2", "S3"]),
        ({"Modality": "CT"}, ["S1", "S3"]),
        ({"Modality": "CT", "ScheduledProcedureStepStartDate": "20260102-"}, ["S3"]),
        ({"ScheduledStationAETitle": "MR1"}, ["S2"]),
        ({"PatientName": "doe*"}, ["S1", "S3"]),
        ({"PatientID": "P2"}, ["S2"]),
        ({"ScheduledPerformingPhysicianName": "Nobody"}, []),
    ],
)
def test_32_findscu_finds_what_is_scheduled(
    findscu: Path, tmp_path: Path, asked: int, changes: dict[str, str], steps: list[str]
) -> None:
    command = [str(findscu), "-W", "-X", "-od", str(tmp_path), "-aec", "PACSCORE", *keys(**changes)]
    done = subprocess.run(
        [*command, "127.0.0.1", str(asked)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [read(path) for path in sorted(tmp_path.glob("rsp*.dcm"))]
    assert [one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in found] == steps
    assert all(one.StudyInstanceUID for one in found)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server of the steps; its port."""
    path = tmp_path_factory.mktemp("findscu") / "archive"
    with Archive.open(path) as archive:
        archive.worklist.schedule_all(STEPS)
    with serving(path) as server:
        yield server.port


def test_32_our_client_asks_wlmscpfs(files: Path, tmp_path: Path) -> None:
    program = tool(DCMTK / "wlmscpfs", "dcmtk")
    [port] = free_ports(1)
    with running([str(program), "-dfp", str(files.parent), str(port)], port, tmp_path):
        client = Client("127.0.0.1", port, aec="WLM")

        def found(**changes: object) -> list[Dataset]:
            asked = {"PatientName": None, "PatientID": None, "Modality": None, "RequestedProcedureID": None}
            return sorted(client.worklist(asked | changes), key=lambda one: one.StudyInstanceUID)

        assert [one.PatientName for one in found()] == ["Doe^Jane", "Müller^Jürgen", "Doe^John"]
        [one] = found(Modality="MR", ScheduledProcedureStepStartDate="20260101-20260131")
        [step] = one.ScheduledProcedureStepSequence
        assert (one.PatientID, one.RequestedProcedureID, step.Modality) == ("P2", "R2", "MR")
        assert step.ScheduledProcedureStepID == "S2"
        assert found(Modality="MR", ScheduledStationAETitle="CT1") == []

        words = ["worklist", "127.0.0.1", str(port), "--aec", "WLM", "--modality", "CT", "--json"]
        told = [json.loads(line) for line in pacs_core(*words).stdout.splitlines()]
        assert sorted(one["00100020"]["Value"][0] for one in told) == ["P1", "P3"]


def test_its_files_are_imported(files: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    assert json.loads(
        pacs_core("worklist", "import", str(files.parent), "--archive", archive, "--json").stdout
    ) == {
        "scheduled": 3,
        "failures": [],
    }
    assert pacs_core("worklist", "import", str(files / "*.wl"), "--archive", archive).returncode == 0
    with Archive.open(archive) as opened:
        kept = list(opened.worklist)
    assert [one.PatientName for one in kept] == ["Doe^Jane", "Müller^Jürgen", "Doe^John"]
    assert [one.StudyInstanceUID for one in kept] == ["1.2.1", "1.2.2", "1.2.3"]
