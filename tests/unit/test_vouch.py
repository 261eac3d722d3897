"""CONFORMANCE 36: a commitment is about the stored bytes, read and checked, not about the index's row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_core.archive import Archive, Duplicates
from pacs_core.archive.vouch import vouch
from pacs_core.dicom.commitment import Reason, Reference
from pacs_core.errors import OutOfResourcesError, StorageError
from pacs_core.store import Locator
from tests.make import CT, instance, part10, uid

SMALL, LARGE = 4096, 3 << 20  # in a segment, in a file of its own that takes several reads
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive") as archive:
        for number, size in enumerate((SMALL, SMALL, LARGE), 1):
            archive.store(part10(instance(number, size=size)))
        yield archive


def reference(number: int, sop_class: str = CT) -> Reference:
    return Reference(sop_class, uid(1, 1, number))


def place_of(archive: Archive, number: int) -> tuple[Path, int, int]:
    """File, offset and length of the bytes of an instance."""
    with archive.open_instance(uid(1, 1, number)) as opened:
        return Path(f"/proc/self/fd/{opened.fd}").readlink(), opened.offset, opened.length


def test_what_is_held_and_whole_is_vouched_for(archive: Archive) -> None:
    assert vouch(archive, [reference(n) for n in (3, 1, 2, 1)], known={CT}) == {}


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("where", [0.4, 0.999])
def test_one_byte_that_changed_is_found(archive: Archive, number: int, where: float) -> None:
    path, offset, length = place_of(archive, number)
    with path.open("r+b") as file:
        at = offset + int(length * where)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))
    wanted = [reference(n) for n in (1, 2, 3)]
    assert vouch(archive, wanted, known={CT}) == {number - 1: Reason.PROCESSING_FAILURE}


@pytest.mark.parametrize("number", [1, 3])
def test_bytes_that_end_early_are_found(archive: Archive, number: int) -> None:
    path, offset, length = place_of(archive, number)
    with path.open("r+b") as file:
        file.truncate(offset + length - 1)
    assert vouch(archive, [reference(number)], known={CT}) == {0: Reason.PROCESSING_FAILURE}


def test_bytes_that_are_gone_are_no_instance(archive: Archive) -> None:
    path, _, _ = place_of(archive, 3)
    path.unlink()
    assert vouch(archive, [reference(3), reference(2)], known={CT}) == {0: Reason.NO_SUCH_INSTANCE}


def test_the_bytes_of_another_instance_are_found(archive: Archive) -> None:
    """As if the index pointed there: what the row says is not enough."""
    archive.store(part10(instance(4, size=LARGE)))
    (path, _, _), (other, _, _) = place_of(archive, 3), place_of(archive, 4)
    path.write_bytes(other.read_bytes())
    assert vouch(archive, [reference(3), reference(4)], known={CT}) == {0: Reason.PROCESSING_FAILURE}


def test_what_is_not_held(archive: Archive) -> None:
    wanted = [reference(9), reference(1), reference(9, "1.2.3"), reference(1, MR), reference(1, "1.2.3")]
    assert vouch(archive, wanted, known={CT, MR}) == {
        0: Reason.NO_SUCH_INSTANCE,
        2: Reason.CLASS_NOT_SUPPORTED,
        3: Reason.CLASS_INSTANCE_CONFLICT,
        4: Reason.CLASS_INSTANCE_CONFLICT,
    }


def test_what_is_deleted_is_not_vouched_for(archive: Archive) -> None:
    archive.delete(instance=uid(1, 1, 2))
    assert vouch(archive, [reference(1), reference(2)], known={CT}) == {1: Reason.NO_SUCH_INSTANCE}


def test_an_instance_that_is_replaced_meanwhile_is_read_where_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.open(tmp_path / "replaced", duplicates=Duplicates.REPLACE) as archive:
        archive.store(part10(instance(1, size=LARGE)))
        before = archive.index.locate(uid(1, 1, 1))
        archive.store(part10(instance(1, size=LARGE + 2)))
        archive.sweep()
        after = archive.index.locate(uid(1, 1, 1))
        assert before is not None
        assert after is not None
        assert before.locator != after.locator
        found = iter([before])  # as it was when it was looked up first
        monkeypatch.setattr(archive.index, "locate", lambda _: next(found, after))
        assert vouch(archive, [reference(1)], known={CT}) == {}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfResourcesError("no descriptor is left"), Reason.RESOURCE_LIMITATION),
        (StorageError("an I/O error"), Reason.PROCESSING_FAILURE),
    ],
)
def test_bytes_that_cannot_be_read(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason
) -> None:
    opening = archive.objects.open_instance

    def broken(locator: Locator) -> object:
        if locator.is_segment:
            return opening(locator)
        raise error

    monkeypatch.setattr(archive.objects, "open_instance", broken)
    assert vouch(archive, [reference(1), reference(3)], known={CT}) == {1: reason}


def test_it_can_be_stopped(archive: Archive) -> None:
    assert vouch(archive, [reference(1)], known={CT}, stopped=lambda: True) is None
