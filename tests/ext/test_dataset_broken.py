"""What real and hostile senders produce, as data sets (CONFORMANCE 37): read as far as can be, each named.

Every case is read twice: as it is, for the elements and the findings; strictly, for the error with its tag
and the place in the file.
"""

from __future__ import annotations

import resource
import struct
import time
import zlib
from typing import NamedTuple

import pytest

from pacs_core.dicom import part10
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read
from pacs_core.errors import UnparsableError
from tests.ext.test_scan import ITEM_END, SEQUENCE_END, explicit, implicit, item

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
UNDEFINED = 0xFFFF_FFFF
ITEM = 0xFFFE_E000

ACCESSION, STUDIES, REFERENCED = 0x0008_0050, 0x0008_1110, 0x0008_1199
NAME, PATIENT, PIXELS = 0x0010_0010, 0x0010_0020, 0x7FE0_0010
NUMBER = explicit(ACCESSION, "SH", b"A1")
ID = explicit(PATIENT, "LO", b"P1")


def file(data: bytes, syntax: str = EXPLICIT) -> bytes:
    return part10.encode_meta("1.2", "1.2.3", syntax, None) + data


START = len(file(b""))  # where the data set begins
BIG_START = len(file(b"", BIG))


def sequence(content: bytes, tag: int = STUDIES, vr: str = "SQ", order: str = "<") -> bytes:
    return explicit(tag, vr, b"", UNDEFINED, order) + content + implicit(0xFFFE_E0DD, order=order)


def open_item(content: bytes) -> bytes:
    return item(content, UNDEFINED) + ITEM_END


class Case(NamedTuple):
    """`values`: what is there, by key. `finding`, `tag`, `offset`: of what is odd, in the data set."""

    data: bytes
    values: dict[str, object]
    finding: str = ""
    tag: int = 0
    offset: int = 0
    syntax: str = EXPLICIT
    rewritten: tuple[str, ...] = (IMPLICIT, EXPLICIT, BIG)  # the syntaxes in which it then reads the same


P1: dict[str, object] = {"PatientID": "P1"}
A1: dict[str, object] = {"ReferencedStudySequence.0.AccessionNumber": "A1"}
CASES = {
    "UN of undefined length": Case(
        sequence(open_item(implicit(ACCESSION, b"A1")), vr="UN") + ID, {**A1, **P1}
    ),
    "UN of undefined length, explicit inside": Case(
        sequence(open_item(NUMBER), vr="UN") + ID, {**A1, **P1}, "explicit element", ACCESSION, 20
    ),
    "UN of undefined length in big endian": Case(
        explicit(STUDIES, "UN", b"", UNDEFINED, ">")
        + open_item(implicit(ACCESSION, b"A1"))
        + SEQUENCE_END
        + explicit(PATIENT, "LO", b"P1", order=">"),
        {**A1, **P1},
        syntax=BIG,
    ),
    "group length of VR UN": Case(
        explicit(0x0008_0000, "UN", b"\4\0\0\0") + ID, {"00080000": 4}, rewritten=()
    ),
    "private element of another VR": Case(
        explicit(0x0009_0010, "LO", b"GEMS_IDEN_01") + explicit(0x0009_1002, "US", b"\1\0") + ID,
        {"(0009,GEMS_IDEN_01,02)": 1, **P1},
        rewritten=(EXPLICIT, BIG),
    ),
    "private element of no VR": Case(
        explicit(0x0009_0010, "LO", b"GEMS_IDEN_01") + explicit(0x0009_1003, "??", b"ab") + ID,
        P1,
        "unknown vr",
        0x0009_1003,
        20,
    ),
    "two-byte length of OB": Case(
        struct.pack("<HH2sH", 0x0008, 0x1140, b"OB", 4) + b"abcd" + ID, P1, "two-byte length", 0x0008_1140, 0
    ),
    "two-byte length of UT": Case(
        struct.pack("<HH2sH", 0x0008, 0x0119, b"UT", 4) + b"abcd" + ID,
        {"00080119": "abcd", **P1},
        "two-byte length",
        0x0008_0119,
        0,
    ),
    "item end missing": Case(
        explicit(STUDIES, "SQ", b"", UNDEFINED) + item(NUMBER, UNDEFINED) + SEQUENCE_END + ID,
        {**A1, **P1},
        "misplaced delimiter",
        0xFFFE_E0DD,
        30,
    ),
    "sequence end missing": Case(
        explicit(STUDIES, "SQ", b"", UNDEFINED) + open_item(NUMBER) + ID,
        {**A1, **P1},
        "misplaced delimiter",
        PATIENT,
        38,
    ),
    "item longer than its sequence": Case(
        explicit(STUDIES, "SQ", item(NUMBER, 100)) + ID, {**A1, **P1}, "bad length", ITEM, 12
    ),
    "element longer than its item": Case(
        explicit(STUDIES, "SQ", item(explicit(ACCESSION, "SH", b"A1", 30))) + ID,
        {**A1, **P1},
        "bad length",
        ACCESSION,
        20,
    ),
    "fragment of undefined length": Case(
        sequence(open_item(NUMBER) + item(b"abcd"), PIXELS, "OB"), {}, "bad length", ITEM, 12, JPEG, ()
    ),
    "wrong character set": Case(
        explicit(0x0008_0005, "CS", b"ISO_IR 192") + explicit(NAME, "PN", b"M\xfcller"),
        {"PatientName": "M�ller"},
        "bad characters",
        NAME,
        26,
    ),
    "unknown character set": Case(
        explicit(0x0008_0005, "CS", b"ISO_IR 999") + ID, P1, "unknown character set", 0x0008_0005, 8
    ),
    "IS out of range": Case(
        explicit(0x0020_0013, "IS", b"99999999999 "),
        {"InstanceNumber": 99999999999},
        "not a value that IS allows",
        0x0020_0013,
        8,
    ),
    "no DS": Case(
        explicit(0x0018_0050, "DS", b"1,5 "),
        {"SliceThickness": "1,5"},
        "not a value that DS allows",
        0x0018_0050,
        8,
    ),
    "DS beyond a float": Case(explicit(0x0018_0050, "DS", b"-1E999"), {"SliceThickness": float("-inf")}),
    "empty UIDs": Case(
        explicit(0x0008_0016, "UI") + explicit(0x0008_0018, "UI", b"\0\0"),
        {"SOPClassUID": "", "SOPInstanceUID": ""},
    ),
    "duplicate": Case(ID + explicit(PATIENT, "LO", b"P2"), {"PatientID": "P2"}, "duplicate", PATIENT, 10),
    "out of order": Case(ID + NUMBER, {**P1, "AccessionNumber": "A1"}, "out of order", ACCESSION, 10),
    "odd length": Case(
        explicit(ACCESSION, "SH", b"A12") + ID, {"AccessionNumber": "A12", **P1}, "odd length", ACCESSION, 0
    ),
    "padded end": Case(ID + bytes(4), P1, "trailing bytes", 0, 10),
    "implicit as explicit": Case(
        implicit(ACCESSION, b"A1") + implicit(PATIENT, b"P1"), P1, "mislabelled syntax", ACCESSION, 0
    ),
    "explicit as implicit": Case(NUMBER + ID, P1, "mislabelled syntax", ACCESSION, 0, IMPLICIT),
}
# What is wrong with a value is found when it is asked for: reading is lazy.
OF_VALUES = ("bad characters", "unknown character set", "not a value")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_read_and_what_is_odd_is_named(case: Case) -> None:
    found = read(file(case.data, case.syntax))
    assert {key: found[key] for key in case.values} == case.values
    assert not found.truncated
    start = len(file(b"", case.syntax))
    expected = [(case.finding, case.tag, start + case.offset)]
    if not case.finding or case.finding.startswith(OF_VALUES):
        expected = []
    assert [each[:3] for each in found.findings] == expected
    for syntax in case.rewritten:
        again = read(file(found.to_bytes(syntax), syntax))
        assert {key: again[key] for key in case.values} == case.values


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_strict_reading_says_what_where(case: Case) -> None:
    data = file(case.data, case.syntax)
    if not case.finding:
        read(data, strict=True)
        return
    with pytest.raises(UnparsableError, match=case.finding) as caught:
        read(data, strict=True)
    assert caught.value.tag == (case.tag or None)
    assert caught.value.offset == len(file(b"", case.syntax)) + case.offset


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_without_preamble_or_meta_information(syntax: str) -> None:
    data = Dataset(SOPClassUID="1.2", PatientID="P1").to_bytes(syntax)
    for start in (b"", bytes(128) + b"DICM", b"DICM", file(b"", syntax)[128:], file(b"", syntax)[132:]):
        found = read(start + data, strict=True)
        assert (found.SOPClassUID, found.PatientID, len(found)) == ("1.2", "P1", 2)


def test_group_1_is_not_meta_information() -> None:
    data = explicit(0x0001_0001, "LO", b"ab") + ID
    for start in (b"", file(b"")):
        found = read(start + data, strict=True)
        assert 0x0001_0001 in found
        assert len(found.meta) == (7 if start else 0)
        assert found.to_bytes() == data
        found.PatientID = "P2"
        assert found.to_bytes() == data[:-2] + b"P2"


NESTED = sequence(open_item(sequence(open_item(NUMBER), REFERENCED)))
WHOLE = NESTED + ID


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_cut_off_anywhere(cut: int) -> None:
    found = read(file(WHOLE[:cut]))
    assert found.truncated == (cut != len(NESTED))
    whole = dict(path_and_value(read(file(WHOLE))))
    assert set(dict(path_and_value(found))) <= set(whole)
    again = read(file(found.to_bytes()), strict=True)
    assert list(path_and_value(again)) == list(path_and_value(found))
    if found.truncated:
        with pytest.raises(UnparsableError, match="ends in the middle") as caught:
            read(file(WHOLE[:cut]), strict=True)
        assert caught.value.offset is not None
        assert START <= caught.value.offset < START + cut


def path_and_value(dataset: Dataset) -> list[tuple[str, object]]:
    return [(e.path, "" if e.vr == "SQ" else e.value) for e in dataset.walk()]


@pytest.mark.parametrize(
    ("cut", "tag", "offset"),
    [
        (8, STUDIES, 0),
        (16, ITEM, 12),
        (24, REFERENCED, 20),
        (32, ITEM, 32),
        (33, ACCESSION, 40),
    ],
)
def test_strict_names_the_innermost_that_is_cut_off(cut: int, tag: int, offset: int) -> None:
    with pytest.raises(UnparsableError) as caught:
        read(file(NESTED[:-cut]), strict=True)
    assert (caught.value.tag, caught.value.offset) == (tag, START + offset)


def nested(depth: int, undefined: bool) -> bytes:
    if undefined:
        opened = explicit(STUDIES, "SQ", b"", UNDEFINED) + item(b"", UNDEFINED)
        return opened * depth + NUMBER + (ITEM_END + SEQUENCE_END) * depth
    data = NUMBER
    for _ in range(depth):
        data = explicit(STUDIES, "SQ", item(data))
    return data


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("depth", [100, 256])
def test_nested_deep(depth: int, undefined: bool) -> None:
    found = read(file(nested(depth, undefined)), strict=True)
    *sequences, last = found.walk()
    assert len(sequences) == depth
    assert last.path == "ReferencedStudySequence.0." * depth + "AccessionNumber"
    assert found[last.path] == last.value == "A1"
    assert read(found.to_file()) == found == found.copy()
    last.dataset.AccessionNumber = "B2"
    for syntax in (IMPLICIT, EXPLICIT, BIG):
        assert read(file(found.to_bytes(syntax), syntax))[last.path] == "B2"
    assert Dataset.from_json(found.to_json())[last.path] == "B2"
    assert len(found.dump(width=80).splitlines()) == 2 * depth + 1 + 7


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("depth", [257, 10_000])
def test_nested_too_deep(depth: int, undefined: bool) -> None:
    with pytest.raises(UnparsableError, match="more than 256 sequences in each other") as caught:
        read(file(nested(depth, undefined)))
    assert caught.value.offset is not None


def test_nested_too_deep_where_it_is_parsed_when_asked_for() -> None:
    """Private sequences in implicit VR are opaque until then: each level is parsed by itself."""
    creator = implicit(0x0029_0010, b"SIEMENS MEDCOM HEADER ")
    data = creator
    for _ in range(300):
        data = creator + implicit(0x0029_1040, item(data))
    found = read(file(data, IMPLICIT))
    assert [element.vr for element in found] == ["LO", "SQ"]
    for ask in (lambda: list(found.walk()), found.to_json, found.dump, lambda: found == found.copy()):
        with pytest.raises(UnparsableError, match="more than 256 sequences in each other"):
            ask()
    assert found.to_bytes() == data


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        (explicit(PIXELS, "OW", bytes(800), 0xFFFF_FFFE), PIXELS),
        (explicit(STUDIES, "SQ", b"", 0xFFFF_FFFE) + item(NUMBER, 0xFFFF_FFF0), STUDIES),
        (explicit(PIXELS, "OB", b"", UNDEFINED) + item(bytes(800), 0xFFFF_FFF0), ITEM),
        (explicit(0x0040_A160, "UT", b"x" * 800, 0xFFFF_FFFE), 0x0040_A160),
        (implicit(0x0040_A160, b"x" * 800, 0xFFFF_FFFE), 0x0040_A160),
    ],
)
def test_length_of_four_gigabytes_costs_nothing(data: bytes, tag: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    found = read(file(data))
    assert found.truncated
    for element in found.walk():
        assert element.vr == "SQ" or element.length <= 1000
    found.to_bytes()
    found.to_json()
    assert time.perf_counter() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8192
    with pytest.raises(UnparsableError, match=r"ends in the middle|mislabelled syntax") as caught:
        read(file(data), strict=True)
    assert caught.value.tag == tag or found.findings


def deflated(data: bytes, how: int = zlib.Z_FINISH) -> bytes:
    deflater = zlib.compressobj(9, wbits=-15)
    return deflater.compress(data) + deflater.flush(how)


def test_deflate_bomb_is_an_error_in_bounded_memory() -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = deflater.compress(explicit(PIXELS, "OB", b"", 0x1000_0000))
    bomb += b"".join(deflater.compress(bytes(1 << 20)) for _ in range(64)) + deflater.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnparsableError, match="more than 1000000 bytes") as caught:
        read(file(bomb, DEFLATED), inflate_limit=1_000_000)
    assert caught.value.offset == 1_000_001
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16384


def test_what_inflates_to_just_the_limit_is_read() -> None:
    data = file(deflated(ID * 1), DEFLATED)
    assert read(data, inflate_limit=len(ID), strict=True).PatientID == "P1"
    with pytest.raises(UnparsableError, match="more than"):
        read(data, inflate_limit=len(ID) - 1)


def test_what_follows_a_deflate_stream_is_not_gathered() -> None:
    begun = time.perf_counter()
    found = read(file(deflated(ID) + bytes(20_000_000) + b"x", DEFLATED))
    assert found.PatientID == "P1"
    assert time.perf_counter() - begun < 1


LONG = b"".join(explicit(0x0010_0010 + n, "LO", b"%08d" % n) for n in range(16, 300))


@pytest.mark.parametrize(
    ("data", "finding", "truncated"),
    [
        (deflated(LONG), "", False),
        (deflated(LONG) + b"\0", "", False),
        (deflated(LONG)[:-40], "", True),
        (deflated(LONG, zlib.Z_SYNC_FLUSH) + b"\xff" * 60, "bad deflate stream", True),
        (zlib.compress(LONG), "bad deflate stream", False),
        (explicit(0x0008_0005, "CS", b"ISO_IR 100") + LONG, "mislabelled syntax", False),
        (deflated(LONG) + b"more", "trailing bytes", False),
    ],
    ids=["whole", "padded", "cut", "broken", "zlib", "not deflated", "followed"],
)
def test_deflate_streams_of_all_kinds(data: bytes, finding: str, truncated: bool) -> None:
    found = read(file(data, DEFLATED))
    assert [each.kind for each in found.findings] == ([finding] if finding else [])
    assert found.truncated == truncated
    if not truncated:
        assert found[0x0010_0020] == "00000016"
    if finding or truncated:
        with pytest.raises(UnparsableError, match=finding or "ends in the middle"):
            read(file(data, DEFLATED), strict=True)


@pytest.mark.parametrize(
    "data", [b"", bytes(1000), bytes(range(256)) * 4, bytes(128) + b"DICM", b"GIF89a" + bytes(200), b"\x02\0"]
)
def test_what_is_no_dicom_is_an_error(data: bytes) -> None:
    with pytest.raises(UnparsableError) as caught:
        read(data)
    assert caught.value.offset is not None
