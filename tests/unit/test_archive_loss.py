"""What an operator, a second process or a crash can do to an archive, and what may not be lost by it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from pacs_core.archive import Archive, Duplicates, Kept
from pacs_core.archive import backup as backup_module
from pacs_core.archive.backup import backup, restore
from pacs_core.archive.bulk import export_files, files_below, import_files
from pacs_core.archive.place import Place
from pacs_core.archive.reindex import reindex
from pacs_core.archive.settle import Recovered, settle
from pacs_core.archive.verify import verify
from pacs_core.config.peerfile import PeerFile
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.header import scan
from pacs_core.dicom.part10 import split
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT
from pacs_core.errors import ArchiveError, NotFoundError, OutOfResourcesError, StorageError
from pacs_core.store import Kept as Found
from pacs_core.store import Locator, Reason, State, Tombstone
from tests.make import instance, part10, uid

STUDY_DESCRIPTION = 0x00081030
FIRST = uid(1, 1, 1)


def one(number: int = 1, description: str = "Old", size: int = 400) -> bytes:
    return part10(instance(number, size=size, StudyDescription=description))


def description(archive: Archive) -> str:
    [study] = archive.find(Level.STUDY, {})
    return study[STUDY_DESCRIPTION]


def locator(archive: Archive, sop_instance_uid: str = FIRST) -> Locator:
    located = archive.index.locate(sop_instance_uid)
    assert located is not None
    return Locator.unpack(located.locator)


def after_copying(name: str, then: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `then` happen once in the next backup, when `name` was copied."""
    copy = backup_module._copy_tree

    def copied(source: Path, *rest: Any) -> None:
        copy(source, *rest)
        if source.name == name:
            monkeypatch.setattr(backup_module, "_copy_tree", copy)
            then()

    monkeypatch.setattr(backup_module, "_copy_tree", copied)


# Reindex, and who else is there


def test_nobody_has_an_archive_open_that_is_rebuilt(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        place = archive.place
        with pytest.raises(ArchiveError, match="has it open"):
            reindex(place)
        assert archive.holds(FIRST)
    with place.alone(), pytest.raises(ArchiveError, match="reindex"):
        Archive.open(place.root)
    assert reindex(place).indexed == 1


@pytest.mark.parametrize("what", ["folder", "file", "empty"])
def test_an_archive_without_its_index_is_not_taken_for_empty(tmp_path: Path, what: str) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        place = archive.place
    if what == "folder":
        shutil.rmtree(place.index)
    elif what == "file":
        (place.index / "data.mdb").unlink()
    else:
        (place.index / "data.mdb").write_bytes(b"")
    with pytest.raises(ArchiveError, match="pacs-core reindex"):
        Archive.open(place.root)
    reindex(place)
    with Archive.open(place.root) as archive:
        assert archive.holds(FIRST)


def test_a_rebuild_that_is_killed_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of the losers of duplicates too stay until the new index counts."""
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        kept = bytes(archive.objects.read(locator(archive)))
        meta, body = split(kept)
        twin = archive.objects.stage(kept[: meta.data_offset], body, scan(body, EXPLICIT).fields, 1)
        [copy], _ = archive.objects.publish([twin])
        assert isinstance(copy, Locator)
        before = archive.index.dump()
        place = archive.place

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pacs_core.archive.reindex.swap_in", killed)
        with pytest.raises(KeyboardInterrupt):
            reindex(place)
    with Archive.open(place.root) as archive:
        assert archive.index.dump() == before
        assert archive.objects.read(locator(archive)) == archive.objects.read(copy) == kept
    assert reindex(place).duplicates == 1


def test_a_replacement_that_is_lost_gives_its_place_back(tmp_path: Path) -> None:
    """At the next opening, and in a rebuild: what was to be replaced is whole."""
    root = tmp_path / "archive"
    archive = Archive.open(root)
    archive.store(one())
    nowhere = Locator.in_segment(archive.objects.mark().writer, 77, 112, 400)
    archive.objects.tombstone([Tombstone(locator(archive), nowhere, Reason.SUPERSEDED, FIRST, 1)])
    archive.objects.close(clean=False)
    archive.close()
    shutil.copytree(root, tmp_path / "other")
    with Archive.open(root) as archive:
        assert archive.holds(FIRST)
        assert verify(archive).findings == []
    shutil.rmtree(tmp_path / "other" / "index")
    reindex(Place.at(tmp_path / "other", create=False))
    with Archive.open(tmp_path / "other") as archive:
        assert archive.holds(FIRST)
        assert verify(archive).findings == []


# Duplicates and deletions


def test_a_loser_is_buried_before_the_mark_that_covers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks again at what lies before a mark: a crash in between would leave two copies for good."""
    with Archive.open(tmp_path / "archive") as first, Archive.open(tmp_path / "archive") as second:
        second.store(one(2))
        monkeypatch.setattr(second.ingest, "_is_held", lambda _: False)  # it looked before `first` came
        first.store(one())
        marks = second.index.marks()
        bury, seen = second.objects.tombstone, []

        def watched(entries: list[Tombstone]) -> None:
            bury(entries)
            seen.append(second.index.marks())

        monkeypatch.setattr(second.objects, "tombstone", watched)
        assert second.store(one(1, "New")).kept is Kept.HELD
        assert seen == [marks]
        assert description(first) == "Old"
        assert verify(first).findings == []


def test_a_loser_of_a_duplicate_is_never_taken_for_a_deletion(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "archive")
    archive.store(one())
    archive.objects.tombstone([Tombstone(locator(archive), None, Reason.DUPLICATE, FIRST, 1)])
    archive.objects.close(clean=False)
    archive.close()
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.holds(FIRST)
        assert verify(archive).findings == []


def test_a_deletion_that_failed_has_not_happened_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does it come about at the next rebuild, when the instance has been acknowledged again."""
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())

        def fail(*_: Any, **__: Any) -> None:
            raise StorageError("injected")

        with monkeypatch.context() as patched:
            patched.setattr(archive.index, "remove", fail)
            patched.setattr(archive.objects, "retract", fail)
            with pytest.raises(StorageError, match="injected"):
                archive.delete(instance=FIRST)
            # As long as it may yet be gone tomorrow nobody is told that it is held.
            with pytest.raises(StorageError, match="injected"):
                archive.store(one())
        assert archive.store(one()).kept is Kept.HELD
        place = archive.place
    reindex(place)
    with Archive.open(place.root) as archive:
        assert archive.holds(FIRST)


def test_two_deletions_that_failed_have_not_happened_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second was under way already when the first failed."""
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        archive.store(one(2))

        def fail(*_: Any, **__: Any) -> None:
            raise StorageError("injected")

        with monkeypatch.context() as patched:
            patched.setattr(archive.index, "remove", fail)
            patched.setattr(archive.ingest, "_be_sound", lambda: None)
            for number in (1, 2):
                with pytest.raises(StorageError, match="injected"):
                    archive.delete(instance=uid(1, 1, number))
        archive.store(one(3))
        place = archive.place
    assert reindex(place).indexed == 3


def test_an_interrupted_deletion_leaves_the_instance_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        with monkeypatch.context() as patched:
            patched.setattr(archive.index, "remove", interrupt)
            with pytest.raises(KeyboardInterrupt):
                archive.delete(instance=FIRST)
        place = archive.place
    reindex(place)
    with Archive.open(place.root) as archive:
        assert archive.holds(FIRST)


def test_mending_does_not_bring_back_what_was_deleted_meanwhile(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        found = Found(locator(archive), None, None, State.LISTED)
        with archive.objects.hold():  # the bytes stay where they are
            archive.delete(instance=FIRST)
            settle(archive.objects, archive.index, found, Recovered())
            assert not archive.holds(FIRST)


def test_a_full_disk_does_not_keep_an_archive_shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())

    def full(*_: object) -> None:
        raise OutOfResourcesError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("pacs_core.archive.archive.recover", full)
        with Archive.open(tmp_path / "archive") as archive:
            assert archive.holds(FIRST)


def test_what_is_to_go_when_there_is_room_is_not_acknowledged_as_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive.open(tmp_path / "archive")
    archive.store(one())
    archive.store(one(2))
    archive.objects.tombstone([Tombstone(locator(archive), None, Reason.DELETED, FIRST, 1)])
    archive.objects.close(clean=False)
    archive.close()

    def full(*_: object) -> None:
        raise OutOfResourcesError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("pacs_core.archive.archive.recover", full)
        with Archive.open(tmp_path / "archive") as archive:
            with pytest.raises(OutOfResourcesError):
                archive.store(one())
            assert archive.store(one(2)).kept is Kept.HELD
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.store(one()).kept is Kept.STORED
        assert verify(archive).findings == []
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.holds(FIRST)


def test_what_only_looks_like_a_writer_is_stepped_over(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        (archive.place.objects / "w00000002").write_text("no folder")
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.store(one(2)).kept is Kept.STORED
        assert verify(archive).findings == []


def test_peers_may_be_known_before_there_is_an_archive(tmp_path: Path) -> None:
    PeerFile(tmp_path / "archive").add("CT1", host="192.0.2.10")
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.store(one()).kept is Kept.STORED


# Backup and restore


@pytest.mark.parametrize("when", ["objects", "journal"])
@pytest.mark.parametrize("rebuilt", [False, True], ids=["opened", "rebuilt"])
def test_a_replacement_during_a_backup_costs_the_copy_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, rebuilt: bool
) -> None:
    with Archive.open(tmp_path / "archive", duplicates=Duplicates.REPLACE) as archive:
        archive.store(one())
        after_copying(when, lambda: archive.store(one(1, "New")), monkeypatch)
        backup(archive, tmp_path / "copy")
        assert description(archive) == "New"
    if rebuilt:
        reindex(Place.at(tmp_path / "copy", create=False))
    with Archive.open(tmp_path / "copy") as copy:
        assert description(copy) == "Old"
        assert verify(copy).findings == []


def test_a_writer_that_ends_during_a_backup_is_settled_in_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        other = Archive.open(tmp_path / "archive")
        other.store(one(2))
        snapshot = archive.index.snapshot

        def then(target: Path) -> None:
            snapshot(target)
            other.store(one(3))
            other.delete(instance=uid(1, 1, 2))
            other.close()

        monkeypatch.setattr(archive.index, "snapshot", then)
        backup(archive, tmp_path / "copy")
    with Archive.open(tmp_path / "copy") as copy:
        assert [copy.holds(uid(1, 1, number)) for number in (1, 2, 3)] == [True, False, True]
        assert verify(copy).findings == []


def test_what_was_deleted_during_a_backup_goes_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one(size=100_000))
        archive.store(one(2, size=100_000))
        gone = locator(archive)
        after_copying("objects", lambda: archive.delete(instance=FIRST), monkeypatch)
        backup(archive, tmp_path / "copy")
        with pytest.raises(NotFoundError):
            archive.objects.read(gone)
        assert verify(archive).findings == []


def test_bytes_that_still_count_are_not_swept(tmp_path: Path) -> None:
    """A tombstone whose record stands is a decision that was not carried out."""
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        archive.objects.tombstone([Tombstone(locator(archive), None, Reason.DELETED, FIRST, 1)])
        assert archive.sweep() == 0
        assert archive.objects.read(locator(archive))


def test_a_backup_overwrites_nothing_but_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with Archive.open(tmp_path / name) as archive:
            archive.store(one(1, name))
    with Archive.open(tmp_path / "one") as archive:
        with pytest.raises(ArchiveError, match="no backup of this archive"):
            backup(archive, tmp_path / "two")
        (tmp_path / "link").symlink_to("one")
        with pytest.raises(ArchiveError, match="inside"):
            backup(archive, tmp_path / "link")
        backup(archive, tmp_path / "copy")
        with Archive.open(tmp_path / "copy") as copy, pytest.raises(ArchiveError, match="in use"):
            backup(archive, tmp_path / "copy")
        backup(archive, tmp_path / "copy")
        with Archive.open(tmp_path / "copy") as copy:
            copy.store(one(2))
        archive.store(one(3))
        with Archive.open(tmp_path / "one") as another:
            another.store(one(4))
            with pytest.raises(ArchiveError, match="written to since"):
                backup(archive, tmp_path / "copy")
    with Archive.open(tmp_path / "two") as archive:
        assert description(archive) == "two"
        assert verify(archive).findings == []


def test_a_first_backup_that_was_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        with monkeypatch.context() as patched:
            patched.setattr(archive.index, "snapshot", interrupt)
            with pytest.raises(KeyboardInterrupt):
                backup(archive, tmp_path / "copy")
        backup(archive, tmp_path / "copy")
    with Archive.open(tmp_path / "copy") as copy:
        assert copy.holds(FIRST)


def test_a_restore_that_was_broken_off_is_no_archive_yet(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(one())
        backup(archive, tmp_path / "copy")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "copy", tmp_path / "restored", progress=interrupt)
    with pytest.raises(ArchiveError, match="run it again"):
        Archive.open(tmp_path / "restored")
    restore(tmp_path / "copy", tmp_path / "restored")
    with Archive.open(tmp_path / "restored") as archive:
        assert archive.holds(FIRST)


# Import and export


def test_one_file_does_not_end_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless UIDs and folders that can't be read are failures of their own; pipes are nobody's."""
    folder = tmp_path / "in"
    (folder / "shut").mkdir(parents=True)
    (folder / "a.dcm").write_bytes(b"\x08\0\x16\0UI\xd0\x07" + b"1" * 2000 + b"\x08\0\x18\0UI\x02\x001.")
    (folder / "b.dcm").write_bytes(one())
    os.mkfifo(folder / "c")
    shutil.copy(get_testdata_file("DICOMDIR-bigEnd") or "", folder / "d")
    scandir = os.scandir

    def shut(path: Any) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", shut)
    with Archive.open(tmp_path / "archive") as archive:
        outcomes = {o.path.name: o for o in import_files(archive, files_below([folder]))}
    assert outcomes["a.dcm"].error is not None
    assert outcomes["b.dcm"].kept is Kept.STORED
    assert outcomes["c"].skipped
    assert outcomes["d"].skipped
    assert outcomes["shut"].error is not None


def test_an_export_again_brings_what_was_replaced(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", duplicates=Duplicates.REPLACE) as archive:
        archive.store(one())
        [first] = export_files(archive, tmp_path / "out")
        archive.store(one(1, "New"))
        [second] = export_files(archive, tmp_path / "out")
        [third] = export_files(archive, tmp_path / "out")
        assert (first.present, second.present, third.present) == (False, False, True)
        with archive.open_instance(FIRST) as opened:
            assert third.path is not None
            assert third.path.read_bytes() == os.pread(opened.fd, opened.length, opened.offset)
