"""File meta information: ours is what PS3.10 asks for, others' is read however it is."""

import io
import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_core.dicom import part10
from pacs_core.dicom.part10 import Meta, Reception, encode_meta, read_meta, split
from pacs_core.errors import UnparsableError

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
DATA = b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x08\0\x16\0UI\x04\x001.2\0"
UIDS = st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts)))


@given(
    UIDS, UIDS, st.sampled_from(["", "STORESCU", "A B"]), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
)
def test_meta_is_read_as_written_by_us_and_by_pydicom(
    sop_class: str, instance: str, source: str, stamp: int, checksum: int
) -> None:
    reception = Reception(stamp, source, checksum, 12)
    meta = encode_meta(sop_class, instance, EXPLICIT, reception)
    assert read_meta(meta + DATA) == Meta(sop_class, instance, EXPLICIT, reception, len(meta))
    assert len(meta) == len(encode_meta(sop_class, instance, EXPLICIT, Reception(0, source, 0, 0)))
    theirs = pydicom.dcmread(io.BytesIO(meta + DATA))
    assert theirs.preamble == bytes(128)
    assert theirs.file_meta.MediaStorageSOPInstanceUID == instance
    assert theirs.file_meta.FileMetaInformationGroupLength == len(meta) - 144
    assert theirs.file_meta.get("SourceApplicationEntityTitle", "") == source
    assert theirs.SpecificCharacterSet == "ISO_IR 100"


def test_meta_without_reception_has_no_private_information() -> None:
    meta = encode_meta(CT, "1.2.3", EXPLICIT, None)
    assert read_meta(meta) == Meta(CT, "1.2.3", EXPLICIT, None, len(meta))


def test_private_information_of_others_is_not_ours() -> None:
    meta = encode_meta(CT, "1.2.3", EXPLICIT, Reception(1, "A", 2, 3))
    creator = part10.PRIVATE_INFORMATION_UID.encode()
    assert read_meta(meta.replace(creator, b"1" * len(creator))).reception is None


@pytest.mark.parametrize(
    ("title", "kept"),
    [("A\0B\n", b"AB"), ("  ", None), ("X" * 20, b"X" * 16), ("É", b"?"), ("\x7f\x1b", None)],
)
def test_ae_title_goes_out_clean(title: str, kept: bytes | None) -> None:
    """CONFORMANCE 9."""
    meta = encode_meta(CT, "1.2.3", EXPLICIT, Reception(0, title, 0, 0))
    source = read_meta(meta).reception
    assert source is not None
    assert source.source_ae.encode() == (kept or b"")
    assert (b"\x02\0\x16\0AE" in meta) == (kept is not None)


def test_endless_uid_is_refused() -> None:
    with pytest.raises(UnparsableError, match="UID"):
        encode_meta(CT, "1" * 2000, EXPLICIT, None)


def short(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


@pytest.mark.parametrize(
    ("head", "syntax"),
    [
        (b"", EXPLICIT),
        (part10.PREAMBLE, EXPLICIT),
        (b"DICM" + short(0x10, b"UI", b"1.2.840.10008.1.2.1\0"), EXPLICIT),
        (short(0x10, b"UI", b"1.2.840.10008.1.2.4.50"), "1.2.840.10008.1.2.4.50"),
        (part10.PREAMBLE + short(0, b"UL", b"\xff\xff\0\0") + short(0x10, b"UI", b"1.2.3  "), "1.2.3"),
        (part10.PREAMBLE + short(0, b"UL", b"\x01\0\0\0") + short(0x10, b"UI", b"1.2.3\0\0\0"), "1.2.3"),
        (part10.PREAMBLE + short(2, b"UI", b"1.2\0"), EXPLICIT),
        (part10.PREAMBLE + struct.pack("<HHL", 2, 0x10, 6) + b"1.2.3\0", "1.2.3"),
    ],
    ids=[
        "no meta",
        "preamble only",
        "no preamble",
        "no preamble, no DICM",
        "group length too large, UID padded with spaces",
        "group length too small, UID padded with NULs",
        "no transfer syntax",
        "implicit VR",
    ],
)
def test_file_of_others_is_read(head: bytes, syntax: str) -> None:
    """CONFORMANCE 37."""
    meta = read_meta(head + DATA)
    assert meta.transfer_syntax_uid == syntax
    assert (head + DATA)[meta.data_offset :] == DATA


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (b"\x08\0\x16\0\x04\0\0\x001.2\0", "1.2.840.10008.1.2"),
        (b"\0\x08\0\x16UI\0\x041.2\0", "1.2.840.10008.1.2.2"),
        (DATA, EXPLICIT),
    ],
)
def test_transfer_syntax_is_guessed_by_the_first_element(data: bytes, syntax: str) -> None:
    assert read_meta(data).transfer_syntax_uid == syntax


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"%PDF-1.7 and so on",
        b"hello, world",
        bytes(4096),
        part10.PREAMBLE,
        part10.PREAMBLE + short(0x10, b"UI", b"1.2.3\0")[:-2],
        part10.PREAMBLE + struct.pack("<HH2sHL", 2, 0x102, b"OB", 0, 0xFFFFFFFF) + DATA,
        part10.PREAMBLE + struct.pack("<HH2sHL", 2, 0x102, b"OB", 0, 0x7FFFFFFF) + DATA,
        part10.PREAMBLE + struct.pack("<HH2sH", 2, 0x102, b"OB", 0),
        b"\x08\0\x16\0\xff\xff\xff\x7f1.2\0",
        b"\0\x08\0\x16\0\0\0\x041.2\0",
    ],
)
def test_what_is_no_file_is_refused(data: bytes) -> None:
    with pytest.raises(UnparsableError):
        read_meta(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for buffer in (data, part10.PREAMBLE + data):
        try:
            meta = read_meta(buffer)
        except UnparsableError:
            continue
        assert 0 <= meta.data_offset <= len(buffer)


def test_split_takes_a_path_or_bytes(tmp_path: Path) -> None:
    whole = encode_meta(CT, "1.2.3", EXPLICIT, None) + DATA
    path = tmp_path / "file"
    path.write_bytes(whole)
    for source in (path, str(path), whole, memoryview(whole)):
        meta, data = split(source)
        assert meta.sop_instance_uid == "1.2.3"
        assert data == DATA
    path.write_bytes(b"")
    with pytest.raises(UnparsableError, match="empty"):
        split(path)
