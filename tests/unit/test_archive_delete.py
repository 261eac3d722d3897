"""Deletion of studies, series and instances: what counts at every moment, what goes, what stays."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pacs_core.archive import Archive, Duplicates, Kept
from pacs_core.archive import delete as delete_module
from pacs_core.archive.reindex import reindex
from pacs_core.archive.verify import verify
from pacs_core.dicom.attributes import Level
from pacs_core.errors import DuplicateError, NotFoundError, StorageError
from tests.make import instance, part10, uid

STUDY_UID, SERIES_UID, SOP_UID, PATIENT_ID = 0x0020000D, 0x0020000E, 0x00080018, 0x00100020
STUDY_DESCRIPTION = 0x00081030
MODALITIES = 0x00080061


class Held(NamedTuple):
    """One instance as a test knows it."""

    patient: str
    study: int
    series: int
    number: int
    modality: str

    @property
    def uid(self) -> str:
        return uid(self.study, self.series, self.number)


@cache
def file_of(one: Held) -> bytes:
    """Every third is large enough for a file of its own."""
    return part10(
        instance(
            one.number,
            study=one.study,
            series=one.series,
            patient=one.patient,
            size=9_000 if one.number % 3 == 0 else 300,
            Modality=one.modality,
            StudyDescription="" if one.number % 4 else f"Description {one.number}",
        )
    )


def hospital() -> list[Held]:
    """Two patients, five studies of up to three series, of different modalities."""
    return [
        Held(f"P{study % 2}", study, series, number, ("CT", "MR", "SR")[(study + series) % 3])
        for study in range(1, 6)
        for series in range(1, 2 + study % 3)
        for number in range(1, 8)
    ]


def counted(archive: Archive) -> dict[str, list[Any]]:
    """What queries say of each patient, study and series that is held."""
    told: dict[str, list[Any]] = {}
    for patient in archive.find(Level.PATIENT, {}):
        told[patient[PATIENT_ID]] = [int(patient[tag]) for tag in (0x00201200, 0x00201202, 0x00201204)]
    for study in archive.find(Level.STUDY, {}):
        told[study[STUDY_UID]] = [*(int(study[t]) for t in (0x00201206, 0x00201208)), study[MODALITIES]]
    for series in archive.find(Level.SERIES, {}):
        told[series[SERIES_UID]] = [int(series[0x00201209])]
    return told


def expected(held: set[Held]) -> dict[str, list[Any]]:
    """The same, counted one by one."""
    below: dict[str, set[Held]] = defaultdict(set)
    for one in held:
        for parent in (one.patient, uid(one.study), uid(one.study, one.series)):
            below[parent].add(one)
    told: dict[str, list[Any]] = {}
    for parent, some in below.items():
        studies, series = {one.study for one in some}, {(one.study, one.series) for one in some}
        if parent.startswith("P"):
            told[parent] = [len(studies), len(series), len(some)]
        elif parent.count(".") == uid(1).count("."):
            told[parent] = [len(series), len(some), "\\".join(sorted({one.modality for one in some}))]
        else:
            told[parent] = [len(some)]
    return told


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete_module, "BATCH", 3)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive", small=4096) as opened:
        yield opened


def reopened(archive: Archive, **settings: Any) -> Archive:
    """The same archive, closed and with a rebuilt index, which has to be equal."""
    before = archive.index.dump()
    archive.close()
    shutil.rmtree(archive.place.index)
    assert reindex(archive.place).unreadable == 0
    again = Archive.open(archive.place.root, small=4096, **settings)
    assert again.index.dump() == before
    assert verify(again).findings == []
    return again


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("policy", list(Duplicates))
@pytest.mark.parametrize("seed", range(2))
def test_counters_are_right_at_every_level_whatever_goes(
    tmp_path: Path, policy: Duplicates, seed: int
) -> None:
    dice = random.Random(seed)
    everything = hospital()
    dice.shuffle(everything)
    with Archive.open(tmp_path / "archive", duplicates=policy, small=4096) as archive:
        held: set[Held] = set()
        for one in everything:
            archive.store(file_of(one))
            held.add(one)
        while held:
            one = dice.choice(sorted(held))
            kind = dice.choice(("instance", "instance", "series", "study"))
            same = {"study": 2, "series": 3, "instance": 4}[kind]
            going = {other for other in held if other[1:same] == one[1:same]}
            named = uid(*one[1:same])
            assert archive.delete(**{kind: named}).instances == len(going)
            held -= going
            with pytest.raises(NotFoundError):
                archive.delete(**{kind: named})
            assert counted(archive) == expected(held)
            again = dice.choice(everything)
            if dice.random() < 0.3 and held:
                try:
                    archive.store(file_of(again))
                except DuplicateError:
                    assert again in held
                held.add(again)
            if len(held) == 20:
                with reopened(archive, duplicates=policy) as rebuilt:
                    assert counted(rebuilt) == expected(held)
                archive = Archive.open(tmp_path / "archive", duplicates=policy, small=4096)
        assert counted(archive) == {}
        assert archive.stats().bytes == 0
        assert not list(archive.place.objects.rglob("*.dcm"))
        reopened(archive, duplicates=policy).close()


@pytest.mark.usefixtures("small_batches")
def test_a_query_in_the_midst_counts_what_is_there(archive: Archive) -> None:
    everything = hospital()
    for one in everything:
        archive.store(file_of(one))
    sizes = []

    def look(gone: int) -> None:
        there = {match[SOP_UID] for match in archive.find(Level.IMAGE, {})}
        assert counted(archive) == expected({one for one in everything if one.uid in there})
        sizes.append(gone)

    before = archive.stats().bytes
    deleted = archive.delete(study=uid(2), progress=look)
    assert sizes == [3] * 7
    assert deleted.instances == 21
    assert deleted.bytes == before - archive.stats().bytes > 0


@pytest.mark.usefixtures("small_batches")
def test_no_header_is_read_again_where_all_of_a_study_goes(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 15):
        archive.store(part10(instance(number, StudyDescription="Late" if number == 9 else "")))
    read: list[object] = []
    monkeypatch.setattr("pacs_core.archive.heirs.read_instance", lambda *place, **_: read.append(place))
    archive.delete(study=uid(1))
    assert read == []


def test_the_next_supplies_what_a_series_gave_to_its_study(archive: Archive) -> None:
    for number, described in enumerate(("", "First", "", "Second"), 1):
        archive.store(part10(instance(number, series=number, StudyDescription=described)))
    for gone, described in ((1, "First"), (2, "Second"), (4, None)):
        archive.delete(series=uid(1, gone))
        [study] = archive.find(Level.STUDY, {})
        assert study.get(STUDY_DESCRIPTION) == described


def test_a_series_uid_names_all_series_that_have_it(archive: Archive) -> None:
    for study in (1, 2, 3):
        archive.store(part10(instance(study=study, SeriesInstanceUID="2.25.9" if study < 3 else "")))
    assert archive.delete(series="2.25.9").instances == 2
    with pytest.raises(NotFoundError):
        archive.delete(series="")
    assert [one.sop_instance_uid for one in archive.instances()] == [uid(3, 1, 1)]


@pytest.mark.parametrize("named", [{}, {"study": "1", "series": "2"}])
def test_exactly_one_uid_is_to_be_given(archive: Archive, named: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="one of"):
        archive.delete(**named)


@pytest.mark.usefixtures("small_batches")
def test_what_is_stored_again_meanwhile_or_later_stays(archive: Archive) -> None:
    files = {number: part10(instance(number)) for number in range(1, 10)}
    for file in files.values():
        archive.store(file)
    again: list[Kept] = []

    def store_again(_: int) -> None:
        if len(again) < 2:  # the last go first
            again.append(archive.store(files[9 - len(again)]).kept)

    assert archive.delete(study=uid(1), progress=store_again).instances == 9
    assert again == [Kept.STORED] * 2
    assert archive.store(files[1]).kept is Kept.STORED
    with reopened(archive) as rebuilt:
        assert sorted(one.sop_instance_uid for one in rebuilt.instances()) == [
            uid(1, 1, n) for n in (1, 8, 9)
        ]


def test_what_is_replaced_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete_module, "BATCH", 1)
    with Archive.open(tmp_path / "archive", duplicates=Duplicates.REPLACE) as archive:
        for number in (1, 2, 3):
            archive.store(part10(instance(number)))
        first = part10(instance(1, StudyDescription="New"))
        told: list[int] = []

        def replace(gone: int) -> None:
            if not told:
                assert archive.store(first).kept is Kept.REPLACED
            told.append(gone)

        assert archive.delete(study=uid(1), progress=replace).instances == 2
        assert told == [1, 1, 0]
        with reopened(archive) as rebuilt:
            assert [study[STUDY_DESCRIPTION] for study in rebuilt.find(Level.STUDY, {})] == ["New"]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("what", ["carrying_out", "tombstone"])
def test_a_deletion_that_fails_midway_has_done_what_it_told_of(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    for one in hospital():
        archive.store(file_of(one))
    gone: list[int] = []

    def fail(*_: Any) -> None:
        raise StorageError("injected")

    def count(number: int) -> None:
        gone.append(number)
        monkeypatch.setattr(archive.objects, what, fail)

    with pytest.raises(StorageError, match="injected"):
        archive.delete(study=uid(3), progress=count)
    monkeypatch.undo()
    assert gone == [3]
    there = {match[SOP_UID] for match in archive.find(Level.IMAGE, {})}
    assert counted(archive) == expected({one for one in hospital() if one.uid in there})
    assert len(there) == len(hospital()) - 3
    assert archive.delete(study=uid(3)).instances == 4
    reopened(archive).close()


DYING = """
import os, sys
from pacs_core.archive import Archive

archive = Archive.open(sys.argv[1])
archive.index.remove = lambda *_, **__: os._exit(9)
archive.delete(study=sys.argv[2])
"""


@pytest.mark.parametrize("policy", list(Duplicates))
def test_nobody_is_told_that_what_a_dead_process_was_deleting_is_held(
    tmp_path: Path, policy: Duplicates
) -> None:
    """It died between tombstones and records: at the next start all that goes, but not what came since."""
    root = tmp_path / "archive"
    with Archive.open(root, duplicates=policy) as archive:
        for number in (1, 2, 3):
            archive.store(part10(instance(number)))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        died = subprocess.run([sys.executable, "-c", DYING, root, uid(1)], env=environment, check=False)
        assert died.returncode == 9
        assert archive.stats().instances == 3
        archive.store(part10(instance(1, study=2)))
        archive.delete(study=uid(2))  # another deletion, that ends well, says nothing of the first
        kept = archive.store(part10(instance(1, StudyDescription="Again"))).kept
        assert kept is (Kept.REPLACED if policy is Duplicates.REPLACE else Kept.STORED)
    with Archive.open(root, duplicates=policy) as archive:
        assert [one.sop_instance_uid for one in archive.instances()] == [uid(1, 1, 1)]
        reopened(archive).close()


def test_a_deletion_that_failed_and_another_carried_out_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has stored the instance again by then: what it holds is not what the first meant."""

    def fail(*_: Any, **__: Any) -> None:
        raise StorageError("injected")

    with Archive.open(tmp_path / "archive") as first, Archive.open(tmp_path / "archive") as second:
        first.store(part10(instance(1)))
        monkeypatch.setattr(first.index, "remove", fail)
        with pytest.raises(StorageError, match="injected"):
            first.delete(study=uid(1))
        monkeypatch.undo()
        assert second.store(part10(instance(1, StudyDescription="Again"))).kept is Kept.STORED
        [old] = first.objects.tombstones()
        first.store(part10(instance(2)))
        assert first.objects.tombstones() == [old]
    with Archive.open(tmp_path / "archive", small=4096) as archive:
        reopened(archive).close()


def test_space_goes_back(archive: Archive) -> None:
    for number in range(1, 40):
        size = 60_000 if number % 2 else 3_000
        archive.store(part10(instance(number, study=number % 2 + 1, size=size)))

    def on_disk() -> int:
        return sum(path.stat().st_blocks * 512 for path in archive.place.objects.rglob("*.*"))

    before = on_disk()
    archive.delete(study=uid(2))
    assert on_disk() < before - 19 * 60_000
    assert archive.dead_bytes() == 0
    archive.delete(instance=uid(1, 1, 2))
    assert 3_000 < archive.dead_bytes() < 5_000
    place = archive.place
    archive.close()
    with Archive.open(place.root) as again:
        again.delete(study=uid(1))
        assert again.dead_bytes() == 0
    assert not [path for path in place.objects.rglob("*.*") if path.suffix in (".dcm", ".seg")]
