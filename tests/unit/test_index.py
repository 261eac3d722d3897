"""The index as a whole: opening, sharing, locking, asking, copying, and what happens when the disk fails."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_model import CT_CLASS, SYNTAX, amount, instance

from pacs_core.dicom.attributes import Level
from pacs_core.errors import ArchiveError, CorruptError, IdentifierError, OutOfResourcesError, StorageError
from pacs_core.index import Index, Mark, Outcome
from pacs_core.index import schema as tables

TESTS = Path(__file__).parent.parent
MAP = 1 << 26


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "index", map_size=MAP) as opened:
        yield opened


def python(script: str, *args: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, "-c", script, *args],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_opened_twice_it_is_one(tmp_path: Path, index: Index) -> None:
    with Index.open(tmp_path / "index", map_size=MAP) as again:
        again.commit([instance(1).entry])
    assert index.held("1.2.3.1")
    with pytest.raises(ArchiveError, match="closed"):
        again.commit([instance(2).entry])
    index.close()
    with Index.open(tmp_path / "index", map_size=MAP) as later:
        assert later.held("1.2.3.1")


def test_no_index_to_read(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no index"):
        Index.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("version", "said"), [(3, "newer"), (0, "reindex")])
def test_schema_of_another_version(tmp_path: Path, index: Index, version: int, said: str) -> None:
    index.sync()
    index._opened.env.write([(tables.META, b"schema", struct.pack("<I", version))])
    index.sync()
    index.close()
    with pytest.raises(ArchiveError, match=said):
        Index.open(tmp_path / "index", map_size=MAP)


def test_attributes_keep_their_codes(tmp_path: Path, index: Index) -> None:
    """An attribute that comes later has a new code; the records written before mean what they meant."""
    index.commit([instance(1).entry])
    before = index.dump()
    codes = tables.unpack_codes(index._opened.env.read(tables.META, [b"codes"])[0] or b"")
    more = tables.pack_codes({**codes, 0x0099_0001: tables.Code(Level.IMAGE, 200, 0)})
    index._opened.env.write([(tables.META, b"codes", more)])
    index.close()
    with Index.open(tmp_path / "index", map_size=MAP) as again:
        assert again.dump() == before
        packed = again._opened.env.read(tables.META, [b"codes"])[0] or b""
        assert tables.unpack_codes(packed).items() >= codes.items()


def test_located(index: Index) -> None:
    index.commit([instance(number).entry for number in range(1, 4)])
    located = index.locate("1.2.3.2")
    assert located is not None
    assert located[3:10] == ("1.2.3.2", CT_CLASS, SYNTAX, "MODALITY", instance(2).entry.locator, 2, 2)
    assert index.locate("1.2.3") is None
    assert not index.held("1.2.3")
    assert not index.held("")


def test_instances_are_resumed(index: Index) -> None:
    index.commit([instance(number).entry for number in range(1, 30)])
    walk = index.instances()
    first = [next(walk) for _ in range(11)]
    rest = list(index.instances(after=first[-1].id))
    assert [one.sop_instance_uid for one in first + rest] == [f"1.2.3.{number}" for number in range(1, 30)]


def test_find_by_unique_keys(index: Index) -> None:
    """CONFORMANCE 15 and 22: the hierarchy of unique keys, and what is computed."""
    number = 0
    for patient in range(3):
        for study in range(2):
            for series in range(3):
                for _ in range(4):
                    number += 1
                    index.commit(
                        [
                            instance(
                                number,
                                PatientID=f"P{patient}",
                                StudyInstanceUID=f"1.{patient}.{study}",
                                SeriesInstanceUID=f"2.{series}",
                                Modality=("CT", "MR", "SR")[series],
                            ).entry
                        ]
                    )
    assert len(list(index.find(Level.PATIENT))) == 3
    assert len(list(index.find(Level.STUDY))) == 6
    assert len(list(index.find(Level.SERIES))) == 18
    assert len(list(index.find(Level.IMAGE))) == 72
    (patient,) = index.find(Level.PATIENT, {"PatientID": "P1"})
    assert (patient[0x0020_1200], patient[0x0020_1202], patient[0x0020_1204]) == ("2", "6", "24")
    studies = list(index.find(Level.STUDY, {"PatientID": "P1", "StudyInstanceUID": ""}))
    assert [study[tables.STUDY_INSTANCE_UID] for study in studies] == ["1.1.0", "1.1.1"]
    (study,) = index.find(Level.STUDY, {"StudyInstanceUID": "1.2.1"})
    assert study[tables.PATIENT_ID] == "P2"
    assert study[0x0008_0061] == "CT\\MR\\SR"
    assert study[0x0008_0062] == CT_CLASS
    assert (study[0x0020_1206], study[0x0020_1208]) == ("3", "12")
    assert len(list(index.find(Level.STUDY, {"StudyInstanceUID": ["1.0.0", "1.1.1", "9"]}))) == 2
    assert list(index.find(Level.STUDY, {"PatientID": "P1", "StudyInstanceUID": "1.2.1"})) == []
    assert len(list(index.find(Level.SERIES, {"SeriesInstanceUID": "2.1"}))) == 6
    (series,) = index.find(Level.SERIES, {"StudyInstanceUID": "1.0.0", "SeriesInstanceUID": "2.1"})
    assert (series[0x0008_0060], series[0x0020_1209]) == ("MR", "4")
    assert len(list(index.find(Level.IMAGE, {"PatientID": "P0"}))) == 24
    assert len(list(index.find(Level.IMAGE, {"StudyInstanceUID": "1.0.0", "SeriesInstanceUID": "2.1"}))) == 4
    (image,) = index.find(Level.IMAGE, {"SOPInstanceUID": "1.2.3.7"})
    assert (image[0x0020_0013], image[0x0002_0010]) == ("7", SYNTAX)
    assert len(list(index.instances({"StudyInstanceUID": "1.0.0"}))) == 12
    for level, keys in ((Level.STUDY, {"SeriesInstanceUID": "1"}), (Level.IMAGE, {"PatientName": "x"})):
        with pytest.raises(IdentifierError):
            index.find(level, keys)
    # after a removal the computed ones are right at once
    index.remove([one.sop_instance_uid for one in index.instances({"SeriesInstanceUID": "2.2"})])
    (study,) = index.find(Level.STUDY, {"StudyInstanceUID": "1.2.1"})
    assert (study[0x0008_0061], study[0x0020_1206], study[0x0020_1208]) == ("CT\\MR", "2", "8")


def test_patient_ids_of_several_values_and_cases(index: Index) -> None:
    index.commit([instance(1, PatientID="a\\b", StudyInstanceUID="1.1").entry])
    index.commit([instance(2, PatientID="A", StudyInstanceUID="1.2").entry])
    assert len(list(index.find(Level.PATIENT, {"PatientID": "a\\b"}))) == 1
    assert list(index.find(Level.PATIENT, {"PatientID": "a"})) == []
    assert len(list(index.find(Level.PATIENT, {"PatientID": ["A", "a\\b"]}))) == 2


def test_marks(index: Index) -> None:
    index.commit([instance(1).entry], mark=Mark(7, 1, 2, 3))
    index.commit([], mark=Mark(9, 4, 5, 6))
    index.commit([instance(2).entry], mark=Mark(7, 10, 20, 1 << 40))
    assert index.marks() == {7: Mark(7, 10, 20, 1 << 40), 9: Mark(9, 4, 5, 6)}


def test_a_batch_that_changes_nothing_is_no_commit(index: Index) -> None:
    index.commit([instance(1).entry])
    before = index.stats().commits
    index.commit([instance(1).entry])
    index.commit([])
    assert index.stats().commits == before


WRITER = """
import sys
from index_model import instance
from pacs_core.index import Index
with Index.open(sys.argv[1], map_size=1 << 26) as index:
    print("ready", flush=True)
    sys.stdin.read(1)
    for number in range(int(sys.argv[2]), int(sys.argv[2]) + 50):
        index.commit([instance(number, StudyInstanceUID=f"1.{number % 3}").entry])
    print("done", flush=True)
"""


def test_exclusive_keeps_other_processes_and_threads_out(tmp_path: Path, index: Index) -> None:
    index.commit([instance(1).entry])
    threaded = threading.Thread(target=lambda: index.commit([instance(5000).entry]))
    with python(WRITER, str(tmp_path / "index"), "1000") as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with index.exclusive():
            other.stdin.write("x")
            other.stdin.flush()
            threaded.start()
            before = index.stats().instances
            time.sleep(0.2)
            assert index.stats().instances == before
            with index.exclusive():
                index.commit([instance(2).entry])
            assert index.stats().instances == before + 1
        assert other.stdout.readline() == "done\n"
    threaded.join()
    assert index.stats().instances == 53
    assert list(index.check()) == []


def test_processes_write_at_the_same_time(tmp_path: Path, index: Index) -> None:
    others = [python(WRITER, str(tmp_path / "index"), str(start)) for start in (100, 200, 300)]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    for other in others:
        other.communicate("x")
        assert other.returncode == 0
    held = [instance(s + n, StudyInstanceUID=f"1.{(s + n) % 3}") for s in (100, 200, 300) for n in range(50)]
    assert index.dump() == amount(held)
    assert list(index.check()) == []


def test_a_fork_is_told_to_open_anew(tmp_path: Path, index: Index) -> None:
    index.commit([instance(1).entry])
    reading, writing = os.pipe()
    if os.fork() == 0:
        said = []
        try:
            for call in (lambda: index.held("x"), lambda: index.commit([instance(2).entry]), index.stats):
                try:
                    call()
                    said.append("no")
                except ArchiveError as exc:
                    said.append("yes" if "fork" in str(exc) else str(exc))
            with Index.open(tmp_path / "index", map_size=MAP) as again:
                said.append(again.commit([instance(2).entry])[0].outcome.name)
        finally:
            os.write(writing, " ".join(said).encode())
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 1000) == b"yes yes yes INSERTED"
    os.close(reading)
    os.wait()
    assert index.held("1.2.3.2")
    assert index.commit([instance(3).entry])[0].outcome is Outcome.INSERTED


def test_snapshots(tmp_path: Path, index: Index) -> None:
    index.commit([instance(number).entry for number in range(1, 100)])
    for compact in (False, True):
        folder = tmp_path / "deep" / f"copy{compact}"
        index.snapshot(folder, compact=compact)
        with Index.open(folder, map_size=MAP) as copy:
            assert copy.dump() == index.dump()
            assert list(copy.check()) == []
        with pytest.raises(ArchiveError, match="already"):
            index.snapshot(folder)


def test_a_full_map_is_out_of_resources(tmp_path: Path) -> None:
    with Index.open(tmp_path / "small", map_size=1 << 18) as index:
        done = 0
        batches = (
            [instance(start + n, ImageComments="x" * 900).entry for n in range(20)]
            for start in range(1, 10**6, 20)
        )
        full = None
        while full is None:
            try:
                index.commit(next(batches))
                done += 20
            except OutOfResourcesError as exc:
                full = exc
        assert not index._opened.env.condemned
        assert index.stats().instances == done
        assert index.remove(["1.2.3.1"])[0].outcome is Outcome.REMOVED
        assert list(index.check()) == []


def test_who_writes_nothing_keeps_no_page_from_use(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("injected")

    assert not index._opened.env.pinned
    with monkeypatch.context() as patched:
        patched.setattr("pacs_core._ext.catalog.apply_batch", fail)
        with pytest.raises(StorageError, match="injected"):
            index.commit([instance(1).entry])
    assert not index._opened.env.pinned
    index.commit([instance(1).entry])


def test_after_a_write_that_failed_the_next_commit_reopens(index: Index) -> None:
    """CONFORMANCE 10: the disk is full; the server lives on."""
    index.commit([instance(1).entry])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        for number in range(2, 10):
            with pytest.raises((OutOfResourcesError, StorageError)):
                index.commit([instance(number * 100 + n, ImageComments="x" * 2000).entry for n in range(60)])
            assert index.stats().instances == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert index.commit([instance(2).entry])[0].outcome is Outcome.INSERTED
    assert index.dump() == amount([instance(1), instance(2)])
    assert list(index.check()) == []


@pytest.mark.parametrize("table", range(1, 8))
def test_check_sees_what_is_missing_from_any_table(index: Index, table: int) -> None:
    index.commit([instance(number, SeriesInstanceUID=f"1.{number % 2}").entry for number in range(1, 6)])
    assert list(index.check()) == []
    key, _ = index._opened.env.walk(table)[0]
    index._opened.env.write([(table, key, None)])
    try:
        problems = list(index.check())
    except CorruptError as exc:  # the record of a parent
        problems = [str(exc)]
    assert problems


def test_records_that_do_not_decode_are_corrupt(index: Index) -> None:
    index.commit([instance(1).entry])
    env = index._opened.env
    for level, table in ((0, 2), (1, 3), (2, 4), (3, 5)):
        key, value = env.walk(table)[0]
        for broken in (b"", b"\x09" + value[1:], value[: len(value) // 2], b"\x01" + b"\xff" * len(value)):
            env.write([(table, key, broken)])
            with pytest.raises(CorruptError):
                list(index.find(Level(level)))
            with pytest.raises(CorruptError):
                index.remove(["1.2.3.1"])
        env.write([(table, key, value)])
    assert index.remove(["1.2.3.1"])[0].outcome is Outcome.REMOVED
