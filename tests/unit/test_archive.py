"""The archive in a user's own process: what it keeps, says, mends, copies, and how it fails."""

from __future__ import annotations

import errno
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from pacs_core.archive import Archive, Duplicates, Kept
from pacs_core.archive.backup import backup, restore
from pacs_core.archive.bulk import export_files, files_below, import_files
from pacs_core.archive.reindex import reindex
from pacs_core.archive.verify import Fault, verify
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.media import safe_name
from pacs_core.dicom.part10 import split
from pacs_core.errors import (
    ArchiveError,
    DuplicateError,
    MismatchError,
    NotFoundError,
    PacsError,
    UnparsableError,
)
from pacs_core.pool.commit import GroupCommit, _Ticket
from tests.crash.faults import Watched
from tests.make import encoded, file, instance, part10, uid

STUDY_DESCRIPTION = 0x00081030
INSTANCES_IN_STUDY = 0x00201208
MODALITIES = 0x00080061


def test_stored_instances_are_found_and_read_back(tmp_path: Path) -> None:
    ds = instance(size=100_000)
    with Archive.open(tmp_path / "archive") as archive:
        stored = archive.store(part10(ds))
        assert (stored.kept, stored.sop_instance_uid) == (Kept.STORED, ds.SOPInstanceUID)
        assert archive.store(file(tmp_path, ds)).kept is Kept.HELD
        [study] = archive.find(Level.STUDY, {})
        assert study[STUDY_DESCRIPTION] == "Chest"
        with archive.open_instance(ds.SOPInstanceUID) as opened:
            assert opened.length > 100_000
        assert archive.holds(ds.SOPInstanceUID)
        with pytest.raises(NotFoundError):
            archive.open_instance("1.2.3")


def test_what_is_no_instance_is_refused_by_name(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        (tmp_path / "text").write_text("not DICOM")
        with pytest.raises(UnparsableError):
            archive.store(tmp_path / "text")
        with pytest.raises(PacsError, match="nowhere"):
            archive.store(tmp_path / "nowhere")
        with pytest.raises(UnparsableError, match="ends before"):
            archive.store(part10(instance())[:360])
        with pytest.raises(MismatchError, match="no SOP Instance UID"):
            archive.store(encoded(instance(SOPInstanceUID=None)))
        assert archive.stats().instances == 0


def test_a_duplicate_may_be_refused(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", duplicates=Duplicates.REJECT) as archive:
        archive.store(part10(instance()))
        with pytest.raises(DuplicateError):
            archive.store(part10(instance()))


def test_attributes_of_a_study_are_those_received_first_and_pass_on(tmp_path: Path) -> None:
    """The first that has a value wins; an empty one is filled; a removed supplier has an heir."""
    with Archive.open(tmp_path / "archive") as archive:

        def described() -> str | None:
            [study] = archive.find(Level.STUDY, {})
            return study.get(STUDY_DESCRIPTION)

        archive.store(part10(instance(1, StudyDescription="")))
        assert not described()
        archive.store(part10(instance(2, StudyDescription="Second")))
        archive.store(part10(instance(3, StudyDescription="Third")))
        assert described() == "Second"
        assert archive.delete(instance=uid(1, 1, 2)).instances == 1
        assert described() == "Third"
        assert len(archive.ingest.remove([uid(1, 1, 3), uid(1, 1, 3), "1.2.3"])) == 1
        assert not described()
        [study] = archive.find(Level.STUDY, {})
        assert study[INSTANCES_IN_STUDY] == "1"


def test_a_patient_is_an_id_and_its_issuer_and_none_without_an_id(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(part10(instance(1, study=1)))
        archive.store(part10(instance(1, study=2, PatientName="Other^Name")))
        archive.store(part10(instance(1, study=3, IssuerOfPatientID="Elsewhere")))
        archive.store(part10(instance(1, study=4, PatientID="")))
        archive.store(part10(instance(1, study=5, PatientID="")))
        assert archive.stats().patients == 4


def test_counters_follow_every_change(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(part10(instance(1, series=1, Modality="CT")))
        archive.store(part10(instance(2, series=2, Modality="MR")))
        [study] = archive.find(Level.STUDY, {})
        assert (study[MODALITIES], study[INSTANCES_IN_STUDY]) == ("CT\\MR", "2")
        archive.delete(instance=uid(1, 2, 2))
        [study] = archive.find(Level.STUDY, {})
        assert (study[MODALITIES], study[INSTANCES_IN_STUDY]) == ("CT", "1")
        archive.delete(instance=uid(1, 1, 1))
        assert list(archive.find(Level.PATIENT, {})) == []


@pytest.mark.parametrize("policy", list(Duplicates))
@pytest.mark.parametrize("seed", range(3))
def test_a_rebuilt_index_equals_the_one_it_replaces(tmp_path: Path, policy: Duplicates, seed: int) -> None:
    """Any history of stores, duplicates and deletions, small and large: same UIDs, attributes, counters."""
    random_ = random.Random(seed)
    root = tmp_path / "archive"
    with Archive.open(root, duplicates=policy) as archive:
        for step in range(120):
            number, study = random_.randint(1, 12), random_.randint(1, 3)
            if random_.random() < 0.25:
                archive.ingest.remove([uid(study, 1, number)])
                continue
            ds = instance(
                number,
                study=study,
                patient=f"P{random_.randint(1, 2)}",
                size=random_.choice((300, 1_100_000)),
                StudyDescription=random_.choice(("", f"Step {step}")),
                Modality=random_.choice(("CT", "MR")),
                PatientName=f"Name^{step}",
            )
            try:
                archive.store(part10(ds))
            except DuplicateError:
                assert policy is Duplicates.REJECT
        assert verify(archive).findings == []
        before = archive.index.dump()
        place = archive.place
    shutil.rmtree(place.index)
    assert reindex(place).unreadable == 0
    with Archive.open(root) as archive:
        assert archive.index.dump() == before
        assert verify(archive).findings == []


def test_reindex_needs_the_archive_for_itself(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(part10(instance()))
        place = archive.place
    with place.server_lock(), pytest.raises(ArchiveError, match="in use"):
        reindex(place)


def test_verify_tells_what_is_missing_damaged_and_unrecorded(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    with Archive.open(root) as archive:
        for number in (1, 2, 3):
            archive.store(part10(instance(number, size=1_100_000)))
        paths = {}
        for located in archive.instances():
            with archive.open_instance(located.sop_instance_uid) as opened:
                paths[located.sop_instance_uid] = Path(f"/proc/self/fd/{opened.fd}").resolve()
    paths[uid(1, 1, 1)].unlink()
    raw = bytearray(paths[uid(1, 1, 2)].read_bytes())
    raw[-10] ^= 1
    paths[uid(1, 1, 2)].write_bytes(raw)
    with Archive.open(root) as archive:
        archive.index.remove([uid(1, 1, 3)])
        found = verify(archive)
        assert not found.clean
        assert sorted(f.fault.name for f in found.findings) == ["DAMAGED", "MISSING", "ORPHAN"]
        mended = verify(archive, mend=True)
        assert {f.fault for f in mended.findings if not f.mended} == {Fault.DAMAGED}
        assert archive.holds(uid(1, 1, 3))
        assert not archive.holds(uid(1, 1, 1))
        assert [f.fault for f in verify(archive).findings] == [Fault.DAMAGED]


def test_a_backup_of_a_working_archive_is_an_archive(tmp_path: Path) -> None:
    stop = threading.Event()
    with Archive.open(tmp_path / "archive") as archive:
        for number in range(1, 20):
            archive.store(part10(instance(number, size=random.Random(number).choice((400, 1_100_000)))))
        before = archive.stats().instances

        def work() -> None:
            number = 100
            while not stop.is_set():
                number += 1
                archive.store(part10(instance(number, study=2)))
                archive.ingest.remove([uid(2, 1, number - 3)])

        worker = threading.Thread(target=work)
        worker.start()
        try:
            first = backup(archive, tmp_path / "copy")
            second = backup(archive, tmp_path / "copy")
        finally:
            stop.set()
            worker.join()
        assert first.files > 0
        assert second.present > 0
    restore(tmp_path / "copy", tmp_path / "restored")
    for name in ("copy", "restored"):
        with Archive.open(tmp_path / name) as copied:
            assert copied.stats().instances >= before
            assert verify(copied).clean
    with pytest.raises(ArchiveError, match="not empty"):
        restore(tmp_path / "copy", tmp_path / "restored")
    with Archive.open(tmp_path / "archive") as archive, pytest.raises(ArchiveError, match="inside"):
        backup(archive, tmp_path / "archive" / "backup")


def test_import_and_export_go_on_where_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(1, 8):
        file(folder, instance(number, patient="../P 1", size=100_000))
    (folder / "notes.txt").write_text("nothing of DICOM's, and long enough to have a prefix" * 9)
    with Archive.open(tmp_path / "archive") as archive:
        outcomes = list(import_files(archive, files_below([folder])))
        assert sum(o.kept is Kept.STORED for o in outcomes) == 7
        assert sum(o.skipped for o in outcomes) == 1
        assert {o.kept for o in import_files(archive, files_below([folder])) if not o.skipped} == {Kept.HELD}
        out = tmp_path / "out"
        written = list(export_files(archive, out))
        assert len(written) == 7
        assert all(o.error is None and not o.present for o in written)
        [first, *_] = [o.path for o in written if o.path]
        first.unlink()
        again = list(export_files(archive, out, study_instance_uid=uid(1)))
        assert sorted(o.present for o in again) == [False] + [True] * 6
        for path in out.rglob("*.dcm"):
            assert split(path)[1] == split(folder / path.name)[1]


@pytest.mark.parametrize("name", ["..", "../x", "/", "a/b", "a\0b", "", "x" * 300, "é", ".hidden", "-rf"])
def test_safe_names_stay_in_their_folder(name: str) -> None:
    safe = safe_name(name)
    assert "/" not in safe
    assert "\0" not in safe
    assert safe not in ("", ".", "..")
    assert not safe.startswith((".", "-"))
    assert len(safe.encode()) < 200
    assert safe != safe_name(name + "x")


def test_several_processes_worth_of_openers_share_an_archive(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    with Archive.open(root) as one, Archive.open(root) as two:
        one.store(part10(instance(1)))
        two.store(part10(instance(2)))
        assert one.stats().instances == two.stats().instances == 2
        assert two.store(part10(instance(1))).kept is Kept.HELD


def test_a_folder_that_is_no_archive_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArchiveError, match="neither empty nor an archive"):
        Archive.open(tmp_path)
    with pytest.raises(ArchiveError, match="no archive"):
        Archive.open(tmp_path / "absent", create=False)


class FailingSync(Watched):
    """Data syncs fail while `broken`."""

    broken = False

    def before(self, step: str, args: Any) -> None:  # noqa: ARG002
        if step == "fdatasync" and self.broken:
            raise OSError(errno.EIO, "injected")


@pytest.mark.parametrize("size", [400, 1_100_000], ids=["segment", "file"])
def test_a_failed_sync_is_answered_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    syscalls = FailingSync()
    with Archive.open(tmp_path / "archive", syscalls=syscalls) as archive:
        archive.store(part10(instance(1, size=size)))
        syscalls.broken = True
        with pytest.raises(PacsError):
            archive.store(part10(instance(2, size=size)))
        syscalls.broken = False
        assert not archive.holds(uid(1, 1, 2))
        assert archive.store(part10(instance(2, size=size))).kept is Kept.STORED
        assert verify(archive).findings == []


@pytest.mark.parametrize("policy", [Duplicates.KEEP, Duplicates.REPLACE])
@pytest.mark.parametrize("size", [400, 1_100_000], ids=["segment", "file"])
def test_a_failed_record_is_answered_and_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Duplicates, size: int
) -> None:
    """The index fails after the bytes are durable: nothing is acknowledged, nothing held is buried."""
    root = tmp_path / "archive"
    with Archive.open(root, duplicates=policy) as archive:
        archive.store(part10(instance(1, size=size, StudyDescription="Old")))

        def fail(*_: Any, **__: Any) -> Any:
            from pacs_core.errors import StorageError

            raise StorageError("injected")

        with monkeypatch.context() as patched:
            patched.setattr(archive.index, "commit", fail)
            for number in (1, 2) if policy is Duplicates.REPLACE else (2,):
                with pytest.raises(PacsError, match="injected"):
                    archive.store(part10(instance(number, size=size, StudyDescription="New")))
        archive.store(part10(instance(3, size=size)))
        [study] = archive.find(Level.STUDY, {})
        assert (study[STUDY_DESCRIPTION], study[INSTANCES_IN_STUDY]) == ("Old", "2")
        assert verify(archive).findings == []
        before = archive.index.dump()
        place = archive.place
    shutil.rmtree(place.index)
    reindex(place)
    with Archive.open(root) as archive:
        assert archive.index.dump() == before


def test_group_commit_batches_those_who_come_meanwhile() -> None:
    batches: list[list[int]] = []
    entered, go_on = threading.Event(), threading.Event()

    def work(items: Any) -> None:
        batches.append(list(items))
        entered.set()
        go_on.wait(5)

    commit: GroupCommit[int] = GroupCommit(work)
    threads = [threading.Thread(target=commit.run, args=(0,))]
    threads[0].start()
    assert entered.wait(5)
    threads += [threading.Thread(target=commit.run, args=(n,)) for n in range(1, 6)]
    for thread in threads[1:]:
        thread.start()
    while len(commit._queue) < 5:
        pass
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert batches[0] == [0]
    assert sorted(batches[1]) == [1, 2, 3, 4, 5]
    assert len(batches) == 2


def test_a_defect_in_a_group_commit_reaches_all_of_its_batch() -> None:
    def work(_: Any) -> None:
        raise ZeroDivisionError

    commit: GroupCommit[int] = GroupCommit(work)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            commit.run(1)


def test_whoever_leaves_a_group_commit_leaves_nobody_waiting() -> None:
    """Ctrl-C reaches a caller in the queue: the others go on, also when it had just been chosen to lead."""
    entered, go_on = threading.Event(), threading.Event()

    def work(_: Any) -> None:
        entered.set()
        go_on.wait(5)

    commit: GroupCommit[int] = GroupCommit(work)
    first = threading.Thread(target=commit.run, args=(0,))
    first.start()
    assert entered.wait(5)
    leaver: Any = _Ticket(1)
    with commit._lock:
        commit._queue.append(leaver)
    last = threading.Thread(target=commit.run, args=(2,))
    last.start()
    while len(commit._queue) < 2:
        pass
    go_on.set()
    assert leaver.gate.acquire(timeout=5)  # chosen to lead
    commit._leave(leaver)
    first.join(5)
    last.join(5)
    assert not last.is_alive()
    commit.close()
    with pytest.raises(ArchiveError, match="closed"):
        commit.run(3)


def test_what_a_defect_left_between_bytes_and_record_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archive"
    archive = Archive.open(root)
    archive.store(part10(instance(1)))

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(archive.index, "commit", fail)
    with pytest.raises(ZeroDivisionError):
        archive.store(part10(instance(2)))
    archive.close()
    with Archive.open(root) as again:
        assert verify(again).findings == []
        assert again.stats().instances == 1  # whole, but refused
        assert again.store(part10(instance(2))).kept is Kept.STORED
