"""The Storage service over the wire: CONFORMANCE 10 to 13 and 37, duplicates, odd and broken objects."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs_core.archive import Archive
from pacs_core.dicom.part10 import split
from tests.make import encoded, instance, uid
from tests.raw import RawSender
from tests.serving import Serving, pacs_core, serving, stats

MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = str(ExplicitVRLittleEndian)
MAP_SIZE = 64 << 20


def kept(archive: Path, sop_instance_uid: str) -> bytes:
    """The data set that is kept."""
    out = archive.parent / "out"
    pacs_core("export", "--archive", str(archive), str(out))
    [path] = list(out.rglob(f"{sop_instance_uid}.dcm"))
    data = bytes(split(path)[1])
    path.unlink()
    return data


def send(server: Serving, ds: pydicom.Dataset, **settings: object) -> int | None:
    """Send one instance; the status."""
    with RawSender(server.port, EXPLICIT) as sender:
        return sender.store(str(ds.SOPInstanceUID), encoded(ds), **settings).status  # type: ignore[arg-type]


def test_11_a_mismatch_is_a900_and_leaves_nothing(tmp_path: Path) -> None:
    ds = instance()
    with serving(tmp_path / "archive") as server, RawSender(server.port, EXPLICIT) as sender:
        assert sender.store(uid(9, 9, 9), encoded(ds)).status == 0xA900
        response = sender.store(str(ds.SOPInstanceUID), encoded(ds), abstract=MR)
        assert response.status == 0xA900
        assert response.offending_elements == (0x00080016,)
        assert stats(tmp_path / "archive")["instances"] == 0
        # The association goes on.
        assert sender.store(str(ds.SOPInstanceUID), encoded(ds)).status == 0x0000


def test_11_another_class_is_kept_with_b007_where_that_is_configured(tmp_path: Path) -> None:
    ds = instance()
    with (
        serving(tmp_path / "archive", "--set", "archive.mismatch=warn") as server,
        RawSender(server.port, EXPLICIT) as sender,
    ):
        assert sender.store(str(ds.SOPInstanceUID), encoded(ds), abstract=MR).status == 0xB007
        assert sender.store(uid(9, 9, 9), encoded(ds)).status == 0xA900  # but never under another identity
        assert stats(tmp_path / "archive")["instances"] == 1


@pytest.mark.parametrize(
    ("policy", "status", "description"),
    [("keep", 0x0000, "First"), ("replace", 0x0000, "Second"), ("reject", 0x0111, "First")],
)
@pytest.mark.parametrize("size", [500, 200_000], ids=["segment", "file"])
def test_11_duplicates_follow_the_policy_also_after_a_reindex(
    tmp_path: Path, policy: str, status: int, description: str, size: int
) -> None:
    archive = tmp_path / "archive"
    first = instance(StudyDescription="First", PatientName="First^One", size=size)
    second = instance(StudyDescription="Second", PatientName="Second^One", size=size)
    with serving(archive, "--set", f"archive.duplicates={policy}") as server:
        assert send(server, first) == 0x0000
        assert send(server, second) == status
        assert server.stop() == 0
    expected = {"First": first, "Second": second}[description]
    assert kept(archive, str(first.SOPInstanceUID)) == encoded(expected)

    def dump() -> object:
        with Archive.open(archive, create=False) as opened:
            assert opened.stats().instances == 1
            [study] = opened.find(1, {})  # type: ignore[arg-type]
            assert study[0x00081030] == description
            return opened.index.dump()

    before = dump()
    (archive / "index" / "data.mdb").unlink()
    pacs_core("reindex", "--archive", str(archive))
    assert dump() == before
    pacs_core("verify", "--archive", str(archive))


@pytest.mark.parametrize("size", [700, 300_000], ids=["segment", "file"])
def test_11_the_same_instance_from_eight_associations_at_once(tmp_path: Path, size: int) -> None:
    archive = tmp_path / "archive"
    variants = [encoded(instance(StudyDescription=f"V{n}", size=size)) for n in range(8)]
    with serving(archive) as server:
        statuses: list[int | None] = []

        def run(data: bytes) -> None:
            with RawSender(server.port, EXPLICIT) as sender:
                barrier.wait()
                statuses.append(sender.store(uid(1, 1, 1), data).status)

        barrier = threading.Barrier(len(variants))
        threads = [threading.Thread(target=run, args=(data,)) for data in variants]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0x0000] * len(variants)
        assert stats(archive)["instances"] == 1
        assert server.stop() == 0
    assert kept(archive, uid(1, 1, 1)) in variants
    pacs_core("verify", "--archive", str(archive))


def test_13_stray_groups_are_stripped_with_b006_and_the_rest_is_untouched(tmp_path: Path) -> None:
    """An element (0002,0010) inside the data set would be taken for file meta by readers."""
    archive = tmp_path / "archive"
    data = encoded(instance())
    stray = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.2\x00"
    command = b"\x00\x00\x00\x01US\x02\x00\x01\x00"
    with serving(archive) as server, RawSender(server.port, EXPLICIT) as sender:
        assert sender.store(uid(1, 1, 1), command + stray + data).status == 0xB006
    assert kept(archive, uid(1, 1, 1)) == data


def test_13_the_file_is_ours_and_the_preamble_is_zeros(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with serving(archive) as server:
        assert send(server, instance(size=2_000_000)) == 0
        assert server.stop() == 0
    [path] = (archive / "objects").rglob("*.dcm")
    assert path.read_bytes()[:132] == bytes(128) + b"DICM"
    read = pydicom.dcmread(path)
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.SourceApplicationEntityTitle == "RAWPEER"
    assert read.file_meta.MediaStorageSOPInstanceUID == uid(1, 1, 1)


def test_10_and_12_a_large_instance_is_kept_while_it_arrives(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    data = encoded(instance(size=30_000_000))
    with serving(archive) as server, RawSender(server.port, EXPLICIT) as sender:
        assert sender.store(uid(1, 1, 1), data).status == 0
        assert sender.store(uid(1, 1, 1), data).status == 0  # held already
        assert stats(archive)["instances"] == 1
    assert hashlib.sha256(kept(archive, uid(1, 1, 1))).digest() == hashlib.sha256(data).digest()


def test_10_what_can_not_be_understood_is_c000_and_the_association_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path / "archive") as server, RawSender(server.port, EXPLICIT) as sender:
        for data in (b"", b"\x08", b"\x00" * 100, bytes(range(256)) * 8):
            status = sender.store(uid(1, 1, 1), data).status
            assert status is not None
            assert status >> 8 == 0xA9 or status >> 12 == 0xC
        assert sender.store(uid(1, 1, 1), encoded(instance())).status == 0
        assert stats(tmp_path / "archive")["instances"] == 1


def odd_objects() -> dict[str, tuple[bytes, str]]:
    """CONFORMANCE 37: data sets that real devices send, with their transfer syntax."""
    plain = encoded(instance())
    implicit = encoded(instance(), ImplicitVRLittleEndian)
    nested: pydicom.Dataset = instance()
    for _ in range(100):
        outer = instance()
        outer.ReferencedStudySequence = [nested]
        nested = outer
    huge_ds = instance()
    huge_ds[Tag(0x00101030)] = RawDataElement(Tag(0x00101030), "DS", 6, b"1E400 ", 0, False, True)
    pixel = plain.index(b"\xe0\x7f\x10\x00")
    un_sequence = b"\x09\x00\x10\x00LO\x04\x00TEST\x09\x00\x01\x10UN\x00\x00\xff\xff\xff\xff"
    un_sequence += b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x60\x00\x02\x00\x00\x00CT"
    un_sequence += b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    at = plain.index(b"\x10\x00\x10\x00PN")
    duplicate = b"\x10\x00\x10\x00PN\x04\x00A^B "
    return {
        "UN of undefined length, implicit inside (CP-246)": (plain[:at] + un_sequence + plain[at:], EXPLICIT),
        "group length of VR UN": (
            b"\x08\x00\x00\x00UN\x00\x00\x04\x00\x00\x00\x10\x00\x00\x00" + plain,
            EXPLICIT,
        ),
        "truncated in its pixel data": (plain[: pixel + 40], EXPLICIT),
        "sequences nested 100 deep": (encoded(nested), EXPLICIT),
        "DS out of range": (encoded(huge_ds), EXPLICIT),
        "an element twice": (plain[:at] + duplicate + plain[at:], EXPLICIT),
        "implicit VR labelled explicit": (implicit, EXPLICIT),
        "explicit VR labelled implicit": (plain, str(ImplicitVRLittleEndian)),
        "mislabelled character set": (
            encoded(instance(SpecificCharacterSet="ISO_IR 192")).replace(b"Doe^Jane", b"D\xf6e^Jan\xe9"),
            EXPLICIT,
        ),
        "unknown character set": (encoded(instance(SpecificCharacterSet="ISO_IR 999")), EXPLICIT),
        "no Study or Series Instance UID": (
            encoded(instance(StudyInstanceUID=None, SeriesInstanceUID=None)),
            EXPLICIT,
        ),
        "empty UIDs": (encoded(instance(StudyInstanceUID="", SeriesInstanceUID="")), EXPLICIT),
        "no Patient ID": (encoded(instance(PatientID="")), EXPLICIT),
        "an odd length": (
            plain[:at] + b"\x10\x00\x10\x00PN\x03\x00A^B" + plain[at + 8 + 8 :],
            EXPLICIT,
        ),
        "deflated": (
            encoded(instance(), DeflatedExplicitVRLittleEndian),
            str(DeflatedExplicitVRLittleEndian),
        ),
    }


@pytest.mark.filterwarnings("ignore")
def test_37_broken_but_real_objects_are_kept_as_they_are(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with serving(archive) as server:
        for number, (what, (data, syntax)) in enumerate(odd_objects().items(), 1):
            one = uid(1, 1, 100 + number)
            # Same length as the UID that the objects were made with: they are patched, not made anew.
            made = uid(1, 1, 1).encode()
            if syntax == str(DeflatedExplicitVRLittleEndian):
                one = uid(1, 1, 1)
            else:
                assert data.count(made) >= 1, what
                one = uid(1, 1, 1)[:-1] + chr(ord("a") + number)
                data = data.replace(made, one.encode())
            with RawSender(server.port, syntax) as sender:
                assert sender.store(one, data).status == 0x0000, what
            assert kept(archive, one) == data, what
        assert stats(archive)["instances"] == len(odd_objects())
        assert server.stop() == 0
    pacs_core("verify", "--archive", str(archive))


def test_names_from_the_wire_never_become_paths(tmp_path: Path) -> None:
    """UIDs with `../`, NUL and the like: nothing leaves the archive, nor the folder of an export."""
    archive = tmp_path / "deep" / "archive"
    evil = ["../../../../tmp/evil", "/etc/passwd", "..", "1.2\x003", "a" * 64, "1.2/../../3"]
    with serving(archive) as server:
        for number, name in enumerate(evil):
            ds = instance(number + 1)
            made = str(ds.SOPInstanceUID).encode()
            raw = encoded(ds)
            at = raw.index(made) - 8
            padded = name.encode() + b"\0" * (len(name) % 2)
            raw = (
                raw[: at + 6]
                + len(padded).to_bytes(2, "little")
                + padded
                + raw[at + 8 + len(made) + len(made) % 2 :]
            )
            with RawSender(server.port, EXPLICIT) as sender:
                sender.store(name, raw)
        server.stop()
    out = tmp_path / "deep" / "out"
    pacs_core("export", "--archive", str(archive), str(out), check=None)
    outside = [
        p for p in tmp_path.rglob("*") if p.is_file() and archive not in p.parents and out not in p.parents
    ]
    assert outside == []
    assert not Path("/tmp/evil").exists()


def test_patients_of_the_same_id_and_other_issuer_are_two(tmp_path: Path) -> None:
    with serving(tmp_path / "archive") as server:
        assert send(server, instance(1, study=1, IssuerOfPatientID="A")) == 0
        assert send(server, instance(1, study=2, IssuerOfPatientID="B")) == 0
        assert send(server, instance(1, study=3, IssuerOfPatientID="B", PatientName="Another^Name")) == 0
        assert stats(tmp_path / "archive")["patients"] == 2


def test_a_disk_that_is_full_answers_a700_and_serves_on(tmp_path: Path) -> None:
    """CONFORMANCE 10, on a file system of 24 MB of its own."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(mounted)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        with serving(mounted / "archive", "--set", f"archive.map_size={MAP_SIZE}") as server:
            with RawSender(server.port, EXPLICIT) as sender:
                statuses = [
                    sender.store(uid(1, 1, n), encoded(instance(n, size=4_000_000))).status
                    for n in range(1, 9)
                ]
                assert statuses[0] == 0x0000
                assert statuses[-1] == 0xA700
                assert set(statuses) == {0x0000, 0xA700}
                with Archive.open(mounted / "archive", map_size=MAP_SIZE) as archive:
                    assert archive.stats().instances == statuses.count(0x0000)
                    assert archive.delete(instance=uid(1, 1, 1)).instances == 1
                # There is room again: the server goes on without a restart.
                assert sender.store(uid(1, 1, 1), encoded(instance(1, size=3_000_000))).status == 0x0000
            assert server.stop() == 0
        pacs_core("verify", "--archive", str(mounted / "archive"), "--set", f"archive.map_size={MAP_SIZE}")
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)
