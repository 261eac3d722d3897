"""Attributes added while others are at work: other processes, and a server that is killed half-way."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from pacs_core import Archive
from pacs_core.archive.fill import remaining
from pacs_core.archive.verify import verify
from pacs_core.dicom.attributes import Level
from tests.make import instance, part10, uid
from tests.serving import Serving, pacs_core, serving, stats, until

ADDED = "archive.attributes=AdmissionID,00180050,PatientBirthName"
HELD = 1200

# Opens the archive before anybody adds to it, and goes to work when it is told to.
EARLY = """
import sys
from pacs_core import Archive
from tests.make import instance, part10, uid
with Archive.open(sys.argv[1]) as archive:
    archive.store(part10(instance(1)))
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "store\\n":
            archive.store(part10(instance(4, AdmissionID="V4", SliceThickness="4")))
            archive.store(part10(instance(5, study=2, AdmissionID="V5", SliceThickness="5")))
        else:
            archive.delete(instance=uid(1, 1, 2))
        print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("doing", "admissions", "slices"),
    [
        ("store", {uid(1): "V2", uid(2): "V5"}, {"2", "3", "4", "5"}),
        ("delete", {uid(1): "V3"}, {"3"}),
    ],
)
def test_a_process_that_was_there_before_records_it_too(
    tmp_path: Path, doing: str, admissions: dict[str, str], slices: set[str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", EARLY, str(tmp_path / "archive")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as early:
        assert early.stdin is not None
        assert early.stdout is not None
        assert early.stdout.readline() == "ready\n"
        with Archive.open(tmp_path / "archive", attributes=["AdmissionID", "SliceThickness"]) as archive:
            for number in (2, 3):
                archive.store(part10(instance(number, AdmissionID=f"V{number}", SliceThickness=f"{number}")))
            assert archive.fill().instances == 1
            early.stdin.write(f"{doing}\n")
            early.stdin.flush()
            assert early.stdout.readline() == "done\n"
            assert not any(addition.pending for addition in archive.additions())
            studies = archive.find(Level.STUDY, {})
            assert {study[0x0020000D]: study[0x00380010] for study in studies} == admissions
            images = archive.find(Level.IMAGE, {})
            assert {image[0x00180050] for image in images if 0x00180050 in image} == slices
            assert verify(archive).clean
        early.stdin.close()


def find(findscu: Path, server: Serving, *keys: str) -> str:
    words = [word for key in ("QueryRetrieveLevel=STUDY", "StudyInstanceUID", *keys) for word in ("-k", key)]
    done = subprocess.run(
        [findscu, "-v", "-S", "-aec", "PACSCORE", *words, "127.0.0.1", str(server.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def left(path: Path) -> int:
    with Archive.open(path, create=False) as archive:
        return remaining(archive.index)


def admitted(count: int) -> list[bytes]:
    """Instances, ten of each study, as files that are made of one: that is quick."""
    one = part10(
        instance(
            80000,
            study=70000,
            patient="P70000",
            size=2,
            AdmissionID="V70000",
            PatientBirthName="Maiden^70000",
            SliceThickness="1",
        )
    )
    return [
        one.replace(b"70000", b"7%04d" % (number // 10)).replace(b"80000", b"8%04d" % number)
        for number in range(count)
    ]


def test_a_server_fills_in_and_goes_on_after_a_kill(tmp_path: Path, findscu: Path) -> None:
    path = tmp_path / "archive"
    with Archive.open(path) as archive, ThreadPoolExecutor(8) as threads:
        list(threads.map(archive.store, admitted(HELD)))
    with ExitStack() as held_back:
        held_back.enter_context(archive.place.fill_lock(wait=True))
        with serving(path, "--set", ADDED) as server:
            answer = find(findscu, server, "AdmissionID=V70007")
            assert answer.count("Find Response: ") == HELD // 10  # not matched, and said so
            assert "Pending: WarningUnsupportedOptionalKeys" in answer
            held_back.close()
            assert until(lambda: left(path) < HELD)
            server.kill()
    assert 0 < left(path) < HELD
    listed = json.loads(pacs_core("stats", "--archive", str(path), "--json").stdout)
    assert {(one["keyword"], one["pending"]) for one in listed["attributes"]} == {
        ("AdmissionID", True),
        ("PatientBirthName", True),
        ("SliceThickness", True),
    }
    with serving(path) as server:  # whatever its settings say: the index knows
        assert until(lambda: not left(path), 60)
        answer = find(findscu, server, "AdmissionID=V70007", "PatientBirthName=maiden*")
        assert answer.count("Find Response: ") == 1
        assert f"[{uid(70007)}" in answer
        assert "[Maiden^70007" in answer
        assert "Unsupported" not in answer
        assert server.stop() == 0
    assert stats(path)["to_ask"] == 0
    pacs_core("verify", "--archive", str(path))
    before = dumped(path)
    pacs_core("reindex", "--archive", str(path), "--set", ADDED)
    assert dumped(path) == before


def dumped(path: Path) -> object:
    with Archive.open(path) as archive:
        return archive.index.dump()


def test_the_command_asks_all_and_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with Archive.open(path) as archive:
        for number in range(40):
            archive.store(part10(instance(number, size=2, AdmissionID="V1")))
    words = ("reindex", "--attributes", "--archive", str(path), "--set", ADDED, "--json")
    assert json.loads(pacs_core(*words).stdout) == {"filled": 40, "unreadable": 0}
    assert json.loads(pacs_core(*words).stdout) == {"filled": 0, "unreadable": 0}
    shown = pacs_core("stats", "--archive", str(path)).stdout
    assert "attribute  AdmissionID (STUDY)\n" in shown
    found = pacs_core("find", "--archive", str(path), "study", "AdmissionID=V*", "--json").stdout
    assert '"V1"' in found
    explained = pacs_core("find", "--archive", str(path), "study", "AdmissionID=V*", "--explain").stdout
    assert explained.startswith("walks keys of AdmissionID=V*")
    wrong = pacs_core("stats", "--archive", str(path), "--set", "archive.attributes=Nonsense", check=2)
    assert "archive.attributes: Nonsense: no keyword or tag" in wrong.stderr
