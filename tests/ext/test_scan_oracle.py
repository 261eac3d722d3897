"""scan == pydicom, on every file at hand and on generated data sets; one scan in any chunks == the whole.

Where we differ from pydicom on purpose:

- A value cut off by the end of the data is dropped (half a UID is another UID); pydicom keeps the half.
- Half a data set is read as far as it goes; pydicom gives nothing if it ends inside encapsulated pixels.
- PN keep empty component groups at their end ("A^B=="), which pydicom's text drops.
- PN in ISO 2022 Japanese: a kanji whose byte is that of '=' or '^' does not end the component group.
- Without (0008,0005), bytes over 127 are read as UTF-8 if they are valid UTF-8; pydicom reads Latin-1 always.
- Korean and Chinese text that is not designated again after a delimiter, and escape sequences of sets that
  (0008,0005) does not list, are read; pydicom gives Latin-1 for them.
- Terms of (0008,0005) that are names of Python codecs, but not in the standard, are unknown.
- A VR of two capital letters that is none has the long header if its reserved bytes are zero (PS3.5 7.1.2),
  one of other printable characters the short header; pydicom: the short header, implicit VR.
- Long VRs with a two-byte length, explicit elements amid implicit ones and swapped byte order are recognised.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import pydicom
import pytest
import sequence_items
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID

from pacs_core._ext import record
from pacs_core.dicom import attributes, header, part10
from pacs_core.errors import UnparsableError

SHARED = Path(os.environ.get("PACS_CORE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
ROOTS = [root for root in (Path(pydicom.__file__).parent / "data", SHARED) if root.is_dir()]
FILES = sorted(
    path
    for root in ROOTS
    for path in root.rglob("*")
    if path.is_file()
    and path.suffix not in {".py", ".pyc", ".json", ".txt", ".md", ".zst", ".icc", ".gz", ".dump"}
)
# Files of which pydicom makes nothing: what they hold, and that they end too early.
CUT = {"emri_small_jpeg_2k_lossless_too_short.dcm"}


def text_of(element: pydicom.DataElement) -> str:
    """The value as the index holds it."""
    value = element.value
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(str(getattr(v, "original_string", v)).strip(" \0") for v in value)
    if element.VR != "PN":
        value = getattr(value, "original_string", value)
    return str(value).rstrip(" \0") if element.VR in {"LT", "ST", "UT"} else str(value).strip(" \0")


def expected(dataset: Dataset) -> dict[int, object]:
    return {
        a.tag: items_of(dataset[a.tag]) if a.vr == "SQ" else text_of(dataset[a.tag])
        for a in attributes.ATTRIBUTES
        if a.tag in dataset
    }


def items_of(element: pydicom.DataElement) -> list[dict[int, str]]:
    """The items as the index holds them."""
    held = [tag for tag, _ in attributes.ITEMS[element.tag]]
    return [
        {tag: text for tag in held if tag in item and (text := text_of(item[tag]))} for item in element.value
    ]


def fields(found: header.Header) -> dict[int, object]:
    """The fields, PN without empty component groups at their end."""
    got: dict[int, object] = {}
    for tag, value in record.unpack(found.fields).items():
        if attributes.BY_TAG[tag].vr == "SQ":
            got[tag] = sequence_items.unpack(value)
            continue
        text = value.decode()
        if attributes.BY_TAG[tag].vr == "PN":
            text = "\\".join(name.rstrip("=").strip() for name in text.split("\\"))
        got[tag] = text
    return got


def same(one: header.Header, other: header.Header) -> bool:
    return (one.fields, one.findings, one.stray, one.truncated) == (
        other.fields,
        other.findings,
        other.stray,
        other.truncated,
    )


def in_chunks(data: memoryview | bytes, syntax: str, sizes: list[int]) -> header.Header:
    chunks = header.HeaderScan(syntax)
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        chunks.feed(data[at : at + size])
        at += size
        turn += 1
    return chunks.finish()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_gives_what_pydicom_reads(path: Path) -> None:
    try:
        meta, data = part10.split(path)
    except UnparsableError:
        pytest.skip("not a DICOM file")
    found = header.scan(data, meta.transfer_syntax_uid)
    assert not found.stray
    assert same(in_chunks(data, meta.transfer_syntax_uid, [1] if len(data) < 50_000 else [65_537, 3]), found)
    if path.name in CUT:
        assert found.truncated
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        wanted = expected(dataset)
    assert fields(found) == wanted
    assert found.sop_instance_uid == dataset.get("SOPInstanceUID", "")
    assert found.truncated == ("truncated" in path.name)


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\^=~"), max_size=30)
REPERTOIRES = {
    "ISO_IR 100": "äöüßéÅ",
    "ISO_IR 101": "ąłńśźż",
    "ISO_IR 109": "ĝĥĵŝŭ",
    "ISO_IR 110": "āēģķļ",
    "ISO_IR 126": "αβγδε",
    "ISO_IR 127": "قباني",
    "ISO_IR 138": "שרוןא",
    "ISO_IR 144": "Люкс",
    "ISO_IR 148": "ğışçö",
    "ISO_IR 166": "นามสก",
    "ISO_IR 13": "ﾔﾏﾀﾞ",
    "ISO_IR 192": "王小東é𝄞",
    "GB18030": "王小东张",
    "GBK": "王小东张",
}
SIMPLE = {
    "AE": TEXT.map(lambda t: t[:16]),
    "CS": st.sampled_from(["CT", "ORIGINAL", "", "A B"]),
    "DA": st.sampled_from(["20240229", ""]),
    "TM": st.sampled_from(["101112.5", "10"]),
    "DT": st.just("20240229101112"),
    "DS": st.sampled_from(["1.5", "-2e3"]),
    "IS": st.sampled_from(["12", "-3"]),
    "UI": st.sampled_from(["1.2.3", "1.2.840.10008.1.2.34"]),
    "AS": st.just("042Y"),
    "US": st.integers(0, 65535),
}
OTHERS: list[tuple[int, str, object]] = [
    (0x00081140, "SQ", None),
    (0x00091010, "OB", b"abcdef"),
    (0x00091011, "UN", b"\xfe\xff\x00\xe0"),
    (0x00091012, "FD", 1.5),
    (0x00091013, "UT", "long " * 20),
    (0x00091014, "OV", bytes(16)),
    (0x00091015, "AT", 0x00100010),
    (0x00091016, "SS", -5),
    (0x00091017, "SV", -5),
    (0x00091018, "UV", 5),
    (0x00091019, "UR", "http://example.org"),
    (0x0009101A, "UC", "a\\b"),
    (0x0009101B, "OD", bytes(16)),
    (0x0009101C, "OF", bytes(8)),
    (0x0009101D, "OL", bytes(8)),
    (0x0009101E, "SL", -70000),
    (0x0009101F, "UL", 70000),
    (0x00091020, "FL", 0.5),
    (0x00091021, "ST", "short"),
]


@st.composite
def requests(draw: st.DrawFn, letters: st.SearchStrategy[str]) -> pydicom.DataElement:
    """A Request Attributes Sequence: items of either kind, with sequences and character sets in them."""
    items = []
    for _ in range(draw(st.integers(0, 3))):
        item = Dataset()
        text = letters
        if draw(st.booleans()):
            character_set = draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192", "ISO_IR 144"]))
            item.SpecificCharacterSet = character_set
            text = st.one_of(TEXT, st.text(REPERTOIRES[character_set], max_size=20))
        for tag, vr in draw(st.sets(st.sampled_from(attributes.ITEMS[0x00400275]))):
            value = draw(SIMPLE.get(vr, text))
            item.add_new(tag, vr, value[:16] if vr == "SH" else value)
        if draw(st.booleans()):
            code = Dataset()
            code.ScheduledProcedureStepID = "not this one"
            code.is_undefined_length_sequence_item = draw(st.booleans())
            item.ScheduledProtocolCodeSequence = Sequence([code])
            item["ScheduledProtocolCodeSequence"].is_undefined_length = draw(st.booleans())
        item.is_undefined_length_sequence_item = draw(st.booleans())
        items.append(item)
    element = pydicom.DataElement(0x00400275, "SQ", Sequence(items))
    element.is_undefined_length = draw(st.booleans())
    return element


@st.composite
def datasets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    dataset = Dataset()
    character_set = draw(st.sampled_from(["", *REPERTOIRES]))
    if character_set:
        dataset.SpecificCharacterSet = character_set
    letters = st.one_of(TEXT, st.text(REPERTOIRES.get(character_set, "abc"), max_size=20))
    for attribute in draw(st.sets(st.sampled_from(attributes.ATTRIBUTES), max_size=12)):
        if attribute.vr == "SQ":
            continue
        value = draw(SIMPLE.get(attribute.vr, letters))
        dataset.add_new(attribute.tag, attribute.vr, value[:16] if attribute.vr == "SH" else value)
    if draw(st.booleans()):
        dataset.add(draw(requests(letters)))
    dataset.add_new(0x00090010, "LO", "CREATOR")
    for tag, vr, other in draw(st.lists(st.sampled_from(OTHERS), max_size=6, unique_by=lambda row: row[0])):
        if vr != "SQ":
            dataset.add_new(tag, vr, other)
        elif depth:
            items = draw(st.lists(datasets(depth=depth - 1), max_size=2))
            for item in items:
                item.is_undefined_length_sequence_item = draw(st.booleans())
            dataset.add_new(tag, vr, Sequence(items))
            dataset[tag].is_undefined_length = draw(st.booleans())
    return dataset


@given(
    datasets(),
    st.sampled_from(
        ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
    ),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_generated_data_set_gives_what_pydicom_reads(dataset: Dataset, syntax: str, sizes: list[int]) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
        wanted = expected(pydicom.dcmread(io.BytesIO(file.getvalue())))
    meta, data = part10.split(file.getvalue())
    found = header.scan(data, meta.transfer_syntax_uid)
    assert fields(found) == wanted
    assert not found.truncated
    assert not found.stray
    assert {finding.kind for finding in found.findings} <= {"trailing bytes"}
    assert same(in_chunks(data, syntax, sizes), found)


SEEDS = [
    b"\x08\0\x16\0UI\x04\x001.2\0",
    b"\xfe\xff\0\xe0\xff\xff\xff\xff",
    b"\xfe\xff\r\xe0\0\0\0\0",
    b"\x08\0\x40\x11SQ\0\0",
]


@given(
    st.lists(
        st.one_of(st.binary(max_size=24), st.sampled_from(SEEDS), st.just(b"\xff" * 4)), max_size=30
    ).map(b"".join),
    st.sampled_from(
        ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
    ),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
@settings(max_examples=400, deadline=None)
def test_any_bytes_give_the_same_in_any_chunks(data: bytes, syntax: str, sizes: list[int]) -> None:
    whole = header.scan(data, syntax)
    record.check(whole.fields)
    for value in record.unpack(whole.fields).values():
        assert len(value) <= 8192
        value.decode("utf-8")
    assert same(in_chunks(data, syntax, sizes), whole)
    ends = [end for pair in whole.stray for end in pair]
    assert ends == sorted(ends)
