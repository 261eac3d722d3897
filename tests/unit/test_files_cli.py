"""The commands on files: dump, json, edit."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pydicom
import pytest

import pacs_core
from pacs_core.cli import files
from pacs_core.cli import main as cli
from pacs_core.dicom.media import UNFINISHED, files_below, files_of
from tests import make

ROOT = Path(pacs_core.__file__).parents[1]
Said = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PACS_CORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command: exit code, output, errors."""

    def run(words: list[str]) -> tuple[int, str, str]:
        code = cli.run(words)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, one below the other, and one that is no DICOM."""
    below = tmp_path / "in" / "below"
    below.mkdir(parents=True)
    (below.parent / "1.dcm").write_bytes(make.part10(make.instance(1, PatientID="P1")))
    (below / "2.dcm").write_bytes(make.part10(make.instance(2, PatientID="P2", size=4096)))
    (below / "notes.txt").write_text("hello")
    return below.parent


def several(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.dcm").write_bytes(make.part10(make.instance(number, size=4096)))


def test_files_are_named_by_name_folder_and_pattern(folder: Path) -> None:
    one, two = folder / "1.dcm", folder / "below" / "2.dcm"
    (folder / f".abc{UNFINISHED}").write_bytes(one.read_bytes())
    (folder / "[1].dcm").write_bytes(one.read_bytes())
    assert [(f.path, f.folder) for f in files_of([one])] == [(one, None)]
    assert [f.path for f in files_of(["in/**/*.dcm"])] == [
        Path("in/1.dcm"),
        Path("in/[1].dcm"),
        Path("in/below/2.dcm"),
    ]
    assert next(iter(files_of(["in/b*"]))) == (Path("in/below/2.dcm"), Path("in/below"))
    assert [f.path for f in files_of([folder / "[1].dcm"])] == [folder / "[1].dcm"]
    assert [f.path for f in files_of([folder]) if f.found] == [
        one,
        folder / "[1].dcm",
        two,
        two.with_name("notes.txt"),
    ]


@pytest.mark.usefixtures("folder")
def test_dump(said: Said) -> None:
    code, out, err = said(["dump", "in/1.dcm"])
    assert (code, err) == (0, "")
    assert out == pacs_core.read("in/1.dcm").dump() + "\n"
    code, out, _ = said(["dump", "in/1.dcm", "--no-meta", "--width", "90"])
    whole = pacs_core.read("in/1.dcm").dump(width=90) + "\n"
    assert (code, out) == (0, whole[whole.index("(0008,0016)") :])
    code, out, _ = said(["dump", "in"])
    assert [line for line in out.splitlines() if line.startswith("#")] == ["# in/1.dcm", "# in/below/2.dcm"]


def test_dump_of_some_elements(folder: Path, said: Said) -> None:
    item = pydicom.Dataset()
    item.PatientID, item.OtherPatientIDsSequence = "NESTED", [pydicom.Dataset()]
    make.file(folder, make.instance(3, OtherPatientIDsSequence=[item]))
    path = f"in/{make.uid(1, 1, 3)}.dcm"
    keys = ["--only", "0010,0040", "--only", "TransferSyntaxUID", "--only", "**.PatientID", "--only", "60xx"]
    code, out, _ = said(["dump", path, *keys])
    assert code == 0
    assert [line.split("#")[0].split() for line in out.splitlines()] == [
        ["(0010,0040)", "CS", "[F]"],
        ["(0002,0010)", "UI", "[1.2.840.10008.1.2.1]"],
        ["(0010,0020)", "LO", "[P1]"],
        ["(0010,0020)", "LO", "[NESTED]"],
    ]
    assert out.splitlines()[-1].endswith("OtherPatientIDsSequence.0.PatientID")
    assert "TransferSyntax" not in said(["dump", path, "--no-meta", *keys])[1]
    assert "item 0" in said(["dump", path, "--only", "OtherPatientIDsSequence", "--depth", "1"])[1]
    assert "item 0" not in said(["dump", path, "--only", "OtherPatientIDsSequence", "--depth", "0"])[1]


def test_dump_of_what_is_odd(folder: Path, said: Said) -> None:
    whole = (folder / "1.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-100])
    code, out, _ = said(["dump", "in", "--findings"])
    assert code == 0
    assert out.splitlines()[0] == "# in/cut.dcm"
    assert "it ends in the middle" in out
    assert "1.dcm" not in out
    assert out.splitlines()[1:] == said(["dump", "in/cut.dcm"])[1].splitlines()[-len(out.splitlines()) + 1 :]


def test_standard_input(folder: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, expected in (
        (["dump", "-", "--only", "PatientID"], "[P1]"),
        (["json", "-"], '"P1"'),
    ):
        stream = io.TextIOWrapper(io.BytesIO((folder / "1.dcm").read_bytes()))
        monkeypatch.setattr(sys, "stdin", stream)
        code, out, _ = said(words)
        assert code == 0
        assert expected in out


@pytest.mark.usefixtures("folder")
def test_json(said: Said) -> None:
    code, out, _ = said(["json", "in/1.dcm"])
    assert code == 0
    assert json.loads(out) == json.loads(pacs_core.read("in/1.dcm").to_json())
    assert out.count("\n") == 1
    code, out, _ = said(["json", "in"])
    assert [json.loads(line)["00100020"]["Value"] for line in out.splitlines()] == [["P1"], ["P2"]]
    code, out, _ = said(["json", "in", "--array", "--pretty"])
    assert [one["00100020"]["Value"] for one in json.loads(out)] == [["P1"], ["P2"]]
    assert said(["json", "in/below/notes.txt", "--array"])[:2] == (1, "[]\n")


def test_json_for_people_has_the_same_digits(folder: Path, said: Said) -> None:
    make.file(folder, make.instance(3, PixelSpacing=["0.50000", "1e2"], StudyDescription='a "{[,:]}" \\ b'))
    path = f"in/{make.uid(1, 1, 3)}.dcm"
    plain, pretty = said(["json", path])[1], said(["json", path, "--pretty"])[1]
    assert json.loads(plain) == json.loads(pretty)
    assert '  "00280030": {\n    "vr": "DS",\n    "Value": [\n      0.50000,\n      1e2\n    ]\n  }' in pretty


@pytest.mark.usefixtures("folder")
def test_json_with_bulk_data_elsewhere(said: Said) -> None:
    path = "in/below/2.dcm"
    assert "InlineBinary" in json.loads(said(["json", path])[1])["7FE00010"]
    assert "7FE00010" not in json.loads(said(["json", path, "--bulk", "omit"])[1])
    uri = f"https://pacs.example/bulk/{make.uid(1, 1, 2)}/PixelData"
    for prefix in ("https://pacs.example/bulk", "https://pacs.example/bulk/"):
        told = json.loads(said(["json", path, "--bulk", prefix])[1])
        assert told["7FE00010"] == {"vr": "OW", "BulkDataURI": uri}


@pytest.mark.usefixtures("folder")
def test_json_and_back(said: Said) -> None:
    Path("one.json").write_text(said(["json", "in/below/2.dcm", "--pretty"])[1])
    assert said(["json", "--reverse", "one.json", "-o", "back.dcm"]) == (0, "", "")
    assert pacs_core.read("back.dcm") == pacs_core.read("in/below/2.dcm")
    Path("bad.json").write_text("{")
    code, _, err = said(["json", "--reverse", "bad.json", "-o", "bad.dcm"])
    assert (code, Path("bad.dcm").exists()) == (1, False)
    assert "not JSON" in err


def test_edit_elsewhere(folder: Path, said: Said) -> None:
    before = {path: path.read_bytes() for path in files_below(folder)}
    words = ["edit", "in", "--set", "PatientName=Roe^Richard", "--remove", "StudyID", "--empty", "StudyTime"]
    code, out, err = said([*words, "--out", "out"])
    assert (code, err) == (0, "")
    assert out.startswith("2 edited, 0 failed, 1 skipped in ")
    assert sorted(files_below(Path("out"))) == [Path("out/1.dcm"), Path("out/below/2.dcm")]
    dataset = pydicom.dcmread("out/below/2.dcm")
    assert (dataset.PatientName, dataset.StudyTime, "StudyID" in dataset) == ("Roe^Richard", "", False)
    assert before == {path: path.read_bytes() for path in files_below(folder)}


def test_edit_in_place(folder: Path, said: Said) -> None:
    os.chmod(folder / "1.dcm", 0o640)  # noqa: PTH101
    Path("alias.dcm").symlink_to(folder / "1.dcm")
    # Every file once, however often it is named.
    code, out, _ = said(["edit", "in", "in/*.dcm", "alias.dcm", "--shift-dates", "1", "--in-place", "--json"])
    assert code == 0
    assert json.loads(out) == {
        **{"edited": 2, "failed": 0, "skipped": 1},
        **{"left": [], "failures": [], "interrupted": False},
    }
    assert pacs_core.read("in/1.dcm").StudyDate.text == "20240103"
    assert (folder / "1.dcm").stat().st_mode & 0o777 == 0o640
    assert Path("alias.dcm").is_symlink()


@pytest.mark.usefixtures("folder")
def test_edit_with_a_secret(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_bytes(b"of a file\r\n")
    words = ["edit", "in", "--hash", "PatientID", "--map-uids", "--shift-dates=-365..-1"]
    assert said([*words, "--secret-file", "secret", "--out", "a"])[0] == 0
    monkeypatch.setenv("PACS_CORE_SECRET", "of a file")
    assert said([*words, "--out", "b"])[0] == 0
    monkeypatch.setenv("PACS_CORE_SECRET", "another")
    assert said([*words, "--out", "c"])[0] == 0
    a, b, c = (Path(name, "1.dcm").read_bytes() for name in "abc")
    assert a == b != c
    one, two = pacs_core.read("a/1.dcm"), pacs_core.read("a/below/2.dcm")
    assert one.StudyInstanceUID == two.StudyInstanceUID != make.uid(1)
    assert one.meta["MediaStorageSOPInstanceUID"] == one.SOPInstanceUID


@pytest.mark.usefixtures("folder")
def test_edit_to_another_transfer_syntax(said: Said) -> None:
    for name, uid in (("implicit", ""), ("explicit", ".1"), ("deflated", ".1.99"), ("big-endian", ".2")):
        assert said(["edit", "in/1.dcm", "--syntax", name, "--out", name])[0] == 0
        dataset = pydicom.dcmread(Path(name, "1.dcm"))
        assert dataset.file_meta.TransferSyntaxUID == f"1.2.840.10008.1.2{uid}"
        assert dataset.PatientID == "P1"
        pixels = pydicom.dcmread("in/1.dcm").pixel_array
        assert (dataset.pixel_array == pixels).all()


def test_what_fails_is_named_and_the_rest_goes_on(folder: Path, said: Said) -> None:
    whole = make.part10(make.instance(3))
    (folder / "0.dcm").write_bytes(whole[:-200])
    (folder / "1.4.dcm").write_bytes(whole.replace(b"20240102", b"sometime"))
    words = ["edit", "in", "none.dcm", "in/below/notes.txt", "--shift-dates", "1", "--out", "out"]
    code, out, err = said(words)
    assert code == 1
    assert out.startswith("3 edited, 3 failed, 1 skipped")
    lines = sorted(err.splitlines())
    assert lines[0] == "in/0.dcm: it ends in the middle of something"
    assert lines[1] == "in/1.4.dcm: StudyDate stays as it is: no date that can be shifted"
    assert lines[2].startswith("in/below/notes.txt: ")
    assert lines[3] == "none.dcm: No such file or directory"
    told = json.loads(said([*words[:-1], "again", "--json"])[1])
    assert sorted(one["path"] for one in told["failures"]) == ["in/0.dcm", "in/below/notes.txt", "none.dcm"]
    assert told["left"][0]["element"] == "StudyDate"
    assert said(["dump", "none.dcm"])[0] == said(["json", "none.dcm"])[0] == 1


def test_nothing_is_written_outside_of_out(folder: Path, said: Said) -> None:
    outside = Path("outside")
    outside.mkdir()
    Path("out").mkdir()
    Path("out/below").symlink_to(outside.absolute())
    Path("out/1.dcm").symlink_to(Path("outside/new.dcm").absolute())
    code, out, err = said(["edit", "in", "--empty", "PatientName", "--out", "out"])
    assert (code, list(outside.iterdir())) == (1, [])
    assert out.startswith("0 edited, 3 failed")
    assert err.count("leads out of out") == 3
    dotted = ["edit", f"{folder}/../in/below/../1.dcm", "*/below", "--empty", "PatientName"]
    assert said([*dotted, "--out", "flat"])[0] == 0
    assert sorted(path.name for path in Path("flat").iterdir()) == ["1.dcm", "2.dcm"]


def test_no_file_is_written_over_another(folder: Path, said: Said) -> None:
    twin = Path("twin")
    twin.mkdir()
    (twin / "1.dcm").write_bytes((folder / "1.dcm").read_bytes())
    code, out, err = said(["edit", "in/1.dcm", "twin", "--empty", "PatientName", "--out", "out"])
    assert (code, out[:19]) == (1, "1 edited, 1 failed,")
    assert "twin/1.dcm: would be written to out/1.dcm" in err
    code, _, err = said(["edit", "in", "--empty", "PatientName", "--out", "in"])
    assert code == 1
    assert "--in-place" in err
    assert pacs_core.read("in/1.dcm").PatientName == "Doe^Jane"


@pytest.mark.parametrize(
    "words",
    [
        ["dump"],
        ["dump", "in", "--width", "79"],
        ["dump", "in", "--only", "PatientNme"],
        ["json"],
        ["json", "--reverse", "x.json"],
        ["json", "in", "-o", "x.dcm"],
        ["json", "--reverse", "x.json", "y.json", "-o", "x.dcm"],
        ["edit", "in", "--set", "PatientName=X"],
        ["edit", "in", "--set", "PatientName=X", "--in-place", "--out", "out"],
        ["edit", "in", "--in-place"],
        ["edit", "in", "--in-place", "--set", "PatientName"],
        ["edit", "in", "--in-place", "--set", "PatientNme=X"],
        ["edit", "in", "--in-place", "--hash", "PatientID"],
        ["edit", "in", "--in-place", "--map-uids", "--secret-file", "none"],
        ["edit", "in", "--in-place", "--shift-dates", "soon"],
        ["edit", "in", "--in-place", "--syntax", "jpeg"],
        ["edit", "in", "--in-place", "--set", "PatientName=X", "--jobs", "0"],
    ],
)
def test_usage(words: list[str], said: Said, folder: Path) -> None:
    before = {path: path.read_bytes() for path in files_below(folder)}
    code, out, err = said(words)
    assert (code, out) == (2, "")
    assert err
    assert before == {path: path.read_bytes() for path in files_below(folder)}


def test_nothing_to_do_is_no_success(said: Said) -> None:
    Path("empty").mkdir()
    assert said(["edit", "empty", "--empty", "PatientName", "--in-place"])[0] == 1
    assert said(["dump", "empty"])[0] == 1
    assert said(["json", "empty"])[0] == 1


def test_many_files_in_processes(said: Said) -> None:
    several(Path("in"), files._FEW + 20)
    Path("in/0007.dcm").write_bytes(b"broken")
    Path("in/0008.dcm").write_bytes(make.part10(make.instance(8))[:-100])
    words = ["in", "--jobs", "2"]
    code, out, err = said(["edit", *words, "--set", "PatientID=NEW", "--out", "out"])
    assert code == 1
    assert out.startswith(f"{files._FEW + 18} edited, 1 failed, 1 skipped")
    assert err.startswith("in/0008.dcm: ")
    assert {pacs_core.read(path).PatientID for path in files_below(Path("out"))} == {"NEW"}
    code, out, _ = said(["dump", "out", "--only", "InstanceNumber", "--jobs", "2"])
    numbers = [int(line.split("[")[-1].split()[2]) for line in out.splitlines() if line.startswith("(")]
    assert (code, numbers) == (0, [n for n in range(files._FEW + 20) if n not in (7, 8)])
    code, out, _ = said(["json", "out", "--jobs", "2"])
    assert [json.loads(line)["00200013"]["Value"] for line in out.splitlines()] == [[n] for n in numbers]


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, which does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "pacs_core", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def await_some_edited(before: dict[Path, bytes], count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(path.read_bytes() != data for path, data in list(before.items())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def check_whole(folder: Path, before: dict[Path, bytes]) -> int:
    """That every file is the old one or the new one, and nothing else is taken for one; how many are new."""
    found = list(files_below(folder))
    assert found == sorted(before)
    new = 0
    for path in found:
        if path.read_bytes() != before[path]:
            dataset = pacs_core.read(path, strict=True)
            old = pacs_core.read(before[path])
            assert dataset.PatientName == "New^Name"
            dataset.PatientName = old.PatientName
            assert dataset == old
            new += 1
    return new


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_in_the_middle_every_file_is_old_or_new(tmp_path: Path, jobs: str) -> None:
    folder = tmp_path / "in"
    several(folder, 400)
    rng = random.Random(int(jobs))
    done = 0
    for round_ in range(3):
        before = {path: path.read_bytes() for path in files_below(folder)}
        rest = [str(path) for path in before if pacs_core.read(path).PatientName != "New^Name"]
        words = ["edit", *rest, "--set", "PatientName=New^Name", "--in-place", "--jobs", jobs]
        with started(*words) as process:
            await_some_edited(before, 5)
            time.sleep(rng.random() * 0.02)
            os.killpg(process.pid, signal.SIGKILL)
        new = check_whole(folder, before)
        assert new >= 5, round_
        done += new
    assert done < 400, "it was too fast to be killed in the middle"
    assert cli.run(["edit", str(folder), "--set", "PatientName=New^Name", "--in-place"]) == 0
    assert {pacs_core.read(path).PatientName for path in files_below(folder)} == {"New^Name"}


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_in_order(tmp_path: Path, jobs: str) -> None:
    folder = tmp_path / "in"
    several(folder, 600)
    before = {path: path.read_bytes() for path in files_below(folder)}
    words = ["edit", str(folder), "--set", "PatientName=New^Name", "--in-place", "--jobs", jobs, "--json"]
    with started(*words) as process:
        await_some_edited(before, 5)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    told = json.loads(out)
    assert told["interrupted"]
    assert 0 < told["edited"] <= check_whole(folder, before) < 600
    assert sorted(folder.iterdir()) == sorted(before)


@pytest.mark.usefixtures("folder")
def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with started("dump", *["in/1.dcm"] * 60) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 1


def test_they_import_no_more_than_they_need() -> None:
    code = (
        "import sys; from pacs_core.cli.main import run\n"
        "run(['dump', 'in/1.dcm']); run(['json', 'in/1.dcm'])\n"
        "run(['edit', 'in/1.dcm', '--remove', 'private', '--out', 'out'])\n"
        "slow = {'pydicom', 'pynetdicom', 'numpy', 'tqdm', 'msgspec', 'tomlkit', 'structlog'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines()[-1] == "[]"
