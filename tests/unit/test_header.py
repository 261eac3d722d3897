"""The face of the scan: its documentation, its bounds, its cost with other threads about."""

import resource
import threading

import pytest

from pacs_core._ext import record
from pacs_core.dicom import header

EXPLICIT = "1.2.840.10008.1.2.1"
PIXELS = b"\xe0\x7f\x10\0OW\0\0"


def test_every_kind_of_finding_is_documented() -> None:
    assert header.__doc__ is not None
    for kind in header.KINDS:
        assert f"`{kind}`" in header.__doc__


def test_object_of_two_gigabytes_takes_no_memory() -> None:
    """CONFORMANCE 38."""
    size = 2 << 30
    chunk = bytes(1 << 20)
    scan = header.HeaderScan(EXPLICIT)
    scan.feed(b"\x08\0\x16\0UI\x04\x001.2\0" + PIXELS + size.to_bytes(4, "little"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(size // len(chunk)):
        scan.feed(chunk)
    scan.feed(b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")
    found = scan.finish()
    assert not found.truncated
    assert found.sop_class_uid == "1.2"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096


def test_length_that_claims_four_gigabytes_reserves_nothing() -> None:
    scan = header.HeaderScan(EXPLICIT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scan.feed(b"\x10\0\0\x40UT\0\0\xfe\xff\xff\xff" + b"x" * 100)
    found = scan.finish()
    assert found.truncated
    assert record.unpack(found.fields) == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096


def test_hundred_thousand_fragments_and_items_are_walked() -> None:
    """CONFORMANCE 38."""
    fragment = b"\xfe\xff\0\xe0\x04\0\0\0abcd"
    data = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + fragment * 100_001 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    found = header.scan(data, EXPLICIT)
    assert not found.truncated
    assert found.findings == ()


def test_long_walk_gives_up_the_gil() -> None:
    data = (b"\x09\0\x10\x10LO\0\0" * 1_000_000) * 4
    turns = 0
    done = threading.Event()

    def walk() -> None:
        header.scan(data, EXPLICIT)
        done.set()

    thread = threading.Thread(target=walk)
    thread.start()
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 1


@pytest.mark.parametrize("wanted", [[(0x00081140, "SQ")], [(0x7FE00010, "OW")], [(1, "XX")]])
def test_what_is_no_text_or_number_can_not_be_indexed(wanted: list[tuple[int, str]]) -> None:
    with pytest.raises(ValueError, match="indexed"):
        header.scanner(wanted)


def test_too_many_attributes_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        header.scanner([(0x00091000 + i, "LO") for i in range(256)])


def test_the_character_set_itself_can_be_wanted() -> None:
    found = header.scanner([(0x00080005, "CS")]).scan(b"\x08\0\x05\0CS\x0a\0ISO_IR 100", EXPLICIT)
    assert record.unpack(found.fields) == {0x00080005: b"ISO_IR 100"}
