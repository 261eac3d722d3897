"""`pacs-core find`, `get` and `move`: how keys are written, output in every format, exit codes; Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_core import Archive
from pacs_core._ext import pdu
from pacs_core.cli import main as cli
from pacs_core.cli.asking import question
from pacs_core.cli.tables import cell, columns_of, csv_lines, table
from pacs_core.dicom.dataset import Dataset
from tests import make
from tests.scripted import Caller, scripted
from tests.serving import Serving, serving
from tests.unit.test_client_find import PENDING, answering, study
from tests.unit.test_client_retrieve import Pacs, files

STUDY = f"StudyInstanceUID={make.uid(1)}"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PACS_CORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Three studies in an archive, and a server of it."""
    path = tmp_path_factory.mktemp("query") / "archive"
    with Archive.open(path) as archive:
        for number, name in ((1, "Doe^Jane"), (2, "山田^太郎"), (3, "Roe^Richard")):
            image = make.instance(
                study=number,
                patient=f"P{number}",
                size=2,
                PatientName=name,
                SpecificCharacterSet="ISO_IR 192",
                StudyDescription='a, "b"',
            )
            archive.store(make.part10(image))
    with serving(path) as server:
        yield server


@pytest.fixture(params=["network", "archive"])
def where(request: pytest.FixtureRequest, server: Serving) -> list[str]:
    """The same question, to a peer and to an archive."""
    if request.param == "network":
        return ["find", "127.0.0.1", str(server.port)]
    return ["find", "--archive", str(server.archive)]


def test_a_table(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*where, "StudyDate=2024-", "PatientName"]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["StudyDate", "PatientName", "StudyInstanceUID"]
    assert set(rule) == {"-", " "}
    assert sorted(row.split() for row in rows) == [
        ["20240102", name, make.uid(number)]
        for name, number in (("Doe^Jane", 1), ("Roe^Richard", 3), ("山田^太郎", 2))
    ]
    at = head.index("StudyInstanceUID")
    assert {columns_of(row[: row.index(make.ROOT)]) for row in rows} == {at}


def test_json(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*where, "PatientName=山田*", "StudyDate", "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    found = Dataset.from_json(line)
    assert found.PatientName == "山田^太郎"
    assert found.StudyInstanceUID == make.uid(2)
    assert cli.run([*where, "PatientName=山田*", "StudyDate", "--format", "json"]) == 0
    assert capsys.readouterr().out.splitlines() == [line]


def test_csv(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*where, "StudyDescription", "PatientID=P1", "StudyID", "--format", "csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row == {
        "StudyDescription": 'a, "b"',
        "PatientID": "P1",
        "StudyID": "1",
        "StudyInstanceUID": make.uid(1),
    }


def test_limit_levels_and_lists(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def rows(*words: str) -> list[str]:
        assert cli.run([*where, *words, "--format", "csv"]) == 0
        return sorted(capsys.readouterr().out.splitlines()[1:])

    assert len(rows("StudyDate", "--limit", "2")) == 2
    assert rows(STUDY, f"StudyInstanceUID={make.uid(3)}") == [make.uid(1), make.uid(3)]
    assert rows("patient", "PatientID=P*") == ["P1", "P2", "P3"]
    assert rows("SERIES", STUDY, "Modality") == [f"{make.uid(1)},CT,{make.uid(1, 1)}"]
    assert rows("PatientID=nobody", "StudyDate") == []


def test_explain(server: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["find", "--archive", str(server.archive), "--explain", "study", "PatientName=Doe*"]
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert "walks keys of PatientName=Doe*" in out
    assert "tests PatientName=Doe*" in out
    assert cli.run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] == out.splitlines()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["find"], "Missing argument"),
        (["find", "PatientID=1"], "expected HOST PORT"),
        (["find", "127.0.0.1", "1"], "expected HOST PORT"),
        (["find", "127.0.0.1", "70000", "PatientID=1"], "no such port"),
        (["find", "127.0.0.1", "1", "Modality=CT"], "needs one StudyInstanceUID"),
        (["find", "127.0.0.1", "1", "PatientNam=1"], "perhaps PatientName"),
        (["find", "127.0.0.1", "1", "image", "Rows=many"], "not a key that US allows"),
        (["find", "127.0.0.1", "1", "PatientID=1", "00100020"], "asked for twice"),
        (["find", "127.0.0.1", "1", "PatientID=1", "--aec", "SEVENTEEN LETTERS"], "--aec"),
        (["get", "127.0.0.1", "1", STUDY], "--out"),
        (["get", "127.0.0.1", "1", "--out", "x"], "Missing argument"),
        (["get", "127.0.0.1", "1", "KVP=1", "--out", "x"], "level of KVP is not known"),
        (["move", "127.0.0.1", "1", STUDY], "Missing argument"),
        (["move", "127.0.0.1", "0", "THEM", STUDY], "PORT"),
    ],
)
def test_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words) == 2
    assert said in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("find", "get", "move"):
        assert cli.run([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"  pacs-core {name} 127.0.0.1 11112 " in out
        assert "'PatientName=Doe*'" in out


def test_find_that_fails_prints_what_was_found(capsys: pytest.CaptureFixture[str], free_port: int) -> None:
    def script(caller: Caller, event: pdu.Event) -> None:
        caller.respond(event, PENDING, study(1))
        caller.respond(event, 0xA700)

    with scripted(answering(script)) as peer:
        assert cli.run(["find", "127.0.0.1", str(peer.port), "StudyDate", "--format", "csv"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["StudyDate,StudyInstanceUID", ",1.2.1"]
    assert "A700H, out of resources" in err
    assert cli.run(["find", "127.0.0.1", str(free_port), "StudyDate"]) == 1


def test_ctrl_c_while_a_peer_is_silent_cancels() -> None:
    heard: list[int] = []
    waiting = threading.Event()

    def script(caller: Caller, event: pdu.Event) -> None:
        waiting.set()
        cancel = caller.message()
        assert cancel is not None
        assert cancel.command is not None
        heard.append(cancel.command.command_field)
        caller.respond(event, 0xFE00)

    with scripted(answering(script)) as peer:
        words = [sys.executable, "-m", "pacs_core", "find", "127.0.0.1", str(peer.port), "StudyDate"]
        process = subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, cwd=Path(cli.__file__).parents[2]
        )
        assert waiting.wait(30)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert heard == [0x0FFF]
    assert "Traceback" not in err


def test_get(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pacs = Pacs(series=2)
    with scripted(pacs) as peer:
        words = ["get", "127.0.0.1", str(peer.port), STUDY, "--out", "out"]
        assert cli.run([*words, "--associations", "2"]) == 0
        assert "6 received, 0 present, 0 failed" in capsys.readouterr().out
        assert cli.run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["known"], told["received"], told["present"], told["failures"]) == (6, 0, 6, [])
    assert set(files(tmp_path / "out")) == set(pacs.bytes)


def test_get_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(Pacs(lambda *_: 0xA702)) as peer:
        words = ["get", "127.0.0.1", str(peer.port), STUDY, "--out", "out"]
        assert cli.run(words) == 1
        out, err = capsys.readouterr()
        assert "0 received, 0 present, 3 failed" in out
        assert err.count("A702H") == 1  # once, not for each
        assert cli.run([*words, "--json"]) == 1
        out, err = capsys.readouterr()
        assert len(json.loads(out)["failures"]) == 3
        assert err == ""
    with scripted(Pacs(each=0)) as peer:
        assert cli.run(["get", "127.0.0.1", str(peer.port), STUDY, "--out", "out"]) == 1


def test_move(capsys: pytest.CaptureFixture[str]) -> None:
    def sending(_pacs: Pacs, caller: Caller, event: pdu.Event, _uids: object) -> int:
        caller.respond(event, PENDING, e1020=1, e1021=1, e1022=0, e1023=0)
        return 0xA801

    with scripted(Pacs(lambda *_: 0)) as peer:
        words = ["move", "127.0.0.1", str(peer.port), "THEM"]
        assert cli.run([*words, f"SeriesInstanceUID={make.uid(1, 1)}", STUDY]) == 0
        assert "0 completed, 0 failed" in capsys.readouterr().out
    with scripted(Pacs(sending, series=2)) as peer:
        words = ["move", "127.0.0.1", str(peer.port), "THEM", "series", STUDY, "Modality=CT"]
        assert cli.run(words) == 1
        assert "A801H, move destination unknown" in capsys.readouterr().err
        assert cli.run([*words, "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["requests"], len(told["failures"])) == (2, 2)
    with scripted(Pacs(each=0)) as peer:
        words = ["move", "127.0.0.1", str(peer.port), "THEM", "series", STUDY, "Modality=CT"]
        assert cli.run(words) == 1


def test_words_of_a_question() -> None:
    asking = question(["study", "PatientName=Doe=x", "StudyInstanceUID=1.2", "StudyInstanceUID=1.3"], None)
    assert asking.keys == {"PatientName": "Doe=x", "StudyInstanceUID": "1.2\\1.3"}
    assert asking.columns == ["PatientName", "StudyInstanceUID"]
    assert question(["0020000D", "StudyDate"], None).columns == ["0020000D", "StudyDate"]
    path = "RequestAttributesSequence.0.ScheduledProcedureStepID"
    columns = question(["SERIES", f"{path}=1", STUDY], None).columns
    assert columns == [path, "StudyInstanceUID", "SeriesInstanceUID"]


# -- tables -------------------------------------------------------------------------------------------------


def test_a_table_is_as_wide_as_what_is_in_it() -> None:
    rows = [["a", "x" * 10], ["山田太郎", "y"]]
    lines = list(table(["N", "Value"], rows, None))
    assert lines == ["N         Value", "--------  ----------", f"a         {'x' * 10}", "山田太郎  y"]


@pytest.mark.parametrize("width", [24, 31, 40, 200])
def test_a_table_is_not_wider_than_the_terminal(width: int) -> None:
    rows = [["short", "山" * 30, "x" * 50]] * 3
    lines = list(table(["A", "B", "C"], rows, width))
    assert max(map(columns_of, lines)) <= width
    assert ("…" in lines[2]) == (width < 119)
    assert lines[2].startswith("short")


def test_a_table_does_not_wait_for_its_last_row() -> None:
    taken = 0

    def rows() -> Iterator[list[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield [str(taken), "x" * (taken > 300) * 50]

    lines = table(["A", "B"], rows(), None)
    for _ in range(350):
        last = next(lines)
    assert taken < 400
    assert last.endswith("x" * 50)


def test_cells_are_one_line_and_tell_the_terminal_nothing() -> None:
    dataset = Dataset(
        ImageType=["A", "B"],
        StudyDate="20260102",
        ReferencedStudySequence=[{}, {}],
        PatientWeight="70.50",
        Rows=5,
        PixelData=b"\0\0",
    )
    assert cell("Doe\x1b[31m^Jane\n") == "Doe.[31m^Jane."
    assert cell(dataset.ImageType) == "A\\B"
    assert cell(dataset.StudyDate) == "20260102"
    assert cell(dataset.ReferencedStudySequence) == "2 items"
    assert cell(dataset.PatientWeight) == "70.50"
    assert cell(dataset.Rows) == "5"
    assert cell(dataset.PixelData) == "2 bytes"
    assert cell(None) == ""
    assert columns_of("e\u0301山") == 3


def test_csv_is_read_by_others() -> None:
    rows = [['a, "b"', "1"], ["line\nbreak", ""]]
    text = "\n".join(csv_lines(["x", "y"], rows))
    assert list(csv.reader(io.StringIO(text))) == [["x", "y"], *rows]
