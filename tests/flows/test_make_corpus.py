"""The corpus maker: valid instances of every kind, the same ones for the same seed, and no half files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from pacs_core.archive import Archive
from pacs_core.dicom.part10 import split
from tests.conftest import DCMTK, tool
from tests.serving import pacs_core, until

MAKE_CORPUS = [sys.executable, str(Path(__file__).resolve().parents[2] / "tools" / "make_corpus.py")]
MIXTURE = [
    *("--ct", "3", "--mr", "6", "--radiographs", "2", "--multiframe", "2", "--tiny", "66"),
    *("--huge", "1", "--huge-size", "1M", "--studies", "64", "--other-syntaxes", "50"),
]
SCRIPTS = {
    "": "LATIN",
    "ISO_IR 100": "LATIN",
    "ISO_IR 144": "CYRILLIC",
    "ISO_IR 126": "GREEK",
    "ISO_IR 127": "ARABIC",
    "ISO 2022 IR 87": "CJK HIRAGANA LATIN",
    "ISO 2022 IR 149": "CJK HANGUL LATIN",
    "GB18030": "CJK LATIN",
    "ISO_IR 192": "LATIN HEBREW DEVANAGARI",
}


def make_corpus(*args: str | Path, code: int = 0) -> dict[str, object]:
    done = subprocess.run(
        [*MAKE_CORPUS, "--json", *map(str, args)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something of every kind, by one process, half of it in other transfer syntaxes."""
    folder = tmp_path_factory.mktemp("corpus") / "out"
    report = make_corpus(folder, *MIXTURE, "--jobs", "1")
    assert (report["instances"], report["studies"], report["stopped"]) == (80, 64, False)
    return folder


def test_pydicom_reads_every_kind_to_the_last_pixel(corpus: Path) -> None:
    classes: Counter[str] = Counter()
    syntaxes, uids = set(), set()
    for path in files(corpus).values():
        dataset = dcmread(path)
        classes[dataset.SOPClassUID.name] += 1
        syntaxes.add(dataset.file_meta.TransferSyntaxUID.name)
        uids.add(dataset.SOPInstanceUID)
        assert all(UID(e.value).is_valid for e in dataset.iterall() if e.VR == "UI" and e.VM == 1)
        assert any(element.tag.is_private_creator for element in dataset)
        if "Rows" in dataset:
            pixels = dataset.pixel_array
            assert pixels.size == int(dataset.get("NumberOfFrames", 1)) * (
                dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
            )
            assert pixels.std() > 0
            assert pixels.max() < 1 << dataset.BitsStored
    assert len(uids) == 80
    assert classes["CT Image Storage"] == 3
    assert classes["MR Image Storage"] == 6
    assert classes["Enhanced MR Image Storage"] == 1
    assert classes["Ultrasound Multi-frame Image Storage"] == 1
    assert classes["Basic Text SR Storage"] >= 20
    assert {"Explicit VR Little Endian", "Implicit VR Little Endian"} < syntaxes


def test_names_are_in_the_script_of_their_character_set(corpus: Path) -> None:
    seen = set()
    for path in files(corpus).values():
        dataset = dcmread(path)
        character_set = dataset.get("SpecificCharacterSet", "")
        key = character_set if isinstance(character_set, str) else character_set[-1]
        for name in (dataset.PatientName, dataset.ReferringPhysicianName):
            scripts = {unicodedata.name(c).split()[0] for c in str(name) if c.isalpha()}
            assert scripts <= set(SCRIPTS[key].split()), name
        seen.add(key)
        if "2022 IR 87" in key:
            assert len(dataset.PatientName.components) == 3
    assert seen == set(SCRIPTS)


def test_dcmtk_takes_them(corpus: Path) -> None:
    paths = [str(path) for path in files(corpus).values()]
    for name in ("dcmftest", "dcmdump"):
        done = subprocess.run(
            [tool(DCMTK / name, "dcmtk"), *paths], capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_jobs_make_no_difference(corpus: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path / "out", *MIXTURE, "--jobs", "3")
    one, three = files(corpus), files(tmp_path / "out")
    assert list(one) == list(three)
    assert [name for name in one if one[name].read_bytes() != three[name].read_bytes()] == []


def test_another_seed_makes_others_beside(tmp_path: Path) -> None:
    make_corpus(tmp_path, "--tiny", "5", "--jobs", "1")
    before = files(tmp_path)
    assert "not empty" in str(make_corpus(tmp_path, "--tiny", "5", code=2)["error"])
    assert "there already" in str(make_corpus(tmp_path, "--tiny", "5", "--add", code=1)["error"])
    assert files(tmp_path) == before
    make_corpus(tmp_path, "--tiny", "5", "--add", "--seed", "2")
    assert len(files(tmp_path)) == 10
    assert len({dcmread(path).SOPInstanceUID for path in files(tmp_path).values()}) == 10


def test_an_archive_imports_them_or_is_filled_at_once(corpus: Path, tmp_path: Path) -> None:
    imported, filled = tmp_path / "imported", tmp_path / "filled"
    assert json.loads(pacs_core("import", "--archive", str(imported), "--json", str(corpus)).stdout) == {
        "stored": 80, "held": 0, "replaced": 0, "skipped": 0, "failed": 0, "failures": [],
    }  # fmt: skip
    options = (*MIXTURE, "--archive", str(filled))
    assert make_corpus(*options)["instances"] == 80
    again = make_corpus(*options)
    assert (again["instances"], again["held"]) == (0, 80)
    for archive in (imported, filled):
        verified = json.loads(pacs_core("verify", "--archive", str(archive), "--json").stdout)
        assert (verified["instances"], verified["findings"]) == (80, [])
    with Archive.open(filled) as archive:
        assert archive.stats().studies == 64
        for path in files(corpus).values():
            meta, data = split(path)
            with archive.open_instance(meta.sop_instance_uid) as opened:
                kept = os.pread(opened.fd, opened.length, opened.offset)
            assert kept.endswith(data)


def test_an_interrupt_leaves_whole_files_only(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*MAKE_CORPUS, str(tmp_path / "out"), "--mr", "100000", "--jobs", "2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            assert until(lambda: any((tmp_path / "out").glob("*/*/0001")), 30)
        finally:
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes
        out, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (130, "")
    report = json.loads(out)
    left = files(tmp_path / "out")
    assert report["stopped"]
    assert 0 < report["instances"] == len(left)
    assert not any(".part" in name for name in left)
    for path in list(left.values())[-40:]:
        assert dcmread(path).pixel_array.shape == (256, 256)
    assert all(any(folder.iterdir()) for folder in (tmp_path / "out").rglob("*") if folder.is_dir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tiny", "3"], "where to"),
        (["out", "--archive", "archive"], "where to"),
        (["out", "--ct", "2", "--tiny", "3", "--studies", "6"], "from 2 (a study is of one kind) to 5"),
        (["out", "--tiny", "3", "--studies", "2", "--patients", "3"], "only 2 studies"),
        (["out", "--huge", "1", "--huge-size", "5G"], "from 512K, a frame, to 4G"),
        (["out", "--huge", "1", "--huge-size", "much"], "expected a number of bytes"),
    ],
)
def test_what_can_not_be_is_said_before_anything_is_made(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in str(make_corpus(*options, code=2)["error"])
    assert list(tmp_path.iterdir()) == []
