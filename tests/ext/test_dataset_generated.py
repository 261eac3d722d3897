"""Generated data sets of every VR, nesting, encoding and character set: pydicom's and ours are the same."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from pacs_core._ext.parsing import parse
from pacs_core.dicom.dataset import Dataset
from tests import compare
from tests.ext.test_scan_oracle import REPERTOIRES

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, about values

ENCODINGS = {"implicit": (True, True), "explicit": (False, True), "big": (False, False)}
SYNTAXES = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
# With code extensions. Not of two single-byte sets: to pydicom, an escape sequence is in force after a
# backslash, too; value 1 is (PS3.5 6.1.2.5.3).
EXTENDED = {
    "\\ISO 2022 IR 87": "山田太郎やまだ",
    "\\ISO 2022 IR 149": "김희중홍길동",
}
SETS = {"": "", **REPERTOIRES, **EXTENDED}

ASCII = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\^=~"), max_size=12
)


def texts(letters: str) -> st.SearchStrategy[str]:
    own = st.text(st.sampled_from(letters), min_size=1, max_size=8) if letters else ASCII
    return st.one_of(ASCII, own, st.tuples(ASCII, own).map("".join))


def names(letters: str) -> st.SearchStrategy[str]:
    part = texts(letters)
    return st.tuples(part, part).map(lambda both: "^".join(both).rstrip("^"))


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(None), values, st.lists(values, min_size=2, max_size=3))


def numbers(form: str) -> st.SearchStrategy[Any]:
    bits = 8 * struct.calcsize(form)
    low = -(2 ** (bits - 1)) if form.islower() else 0
    return several(st.integers(low, low + 2**bits - 1))


def words(unit: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=4).map(lambda data: data * unit)


# A tag of the standard, so that its VR is known in implicit VR, too; and one private each.
BY_VR: dict[str, tuple[int, Any]] = {
    "AE": (0x0008_0054, several(ASCII.filter(bool).map(lambda t: t[:16]))),
    "AS": (0x0010_1010, st.sampled_from([None, "042Y", "003D"])),
    "AT": (0x0028_0009, several(st.integers(0, 2**32 - 1))),
    "CS": (0x0008_0008, several(st.sampled_from(["ORIGINAL", "A B", "X_1"]))),
    "DA": (0x0008_0022, several(st.dates().map(lambda d: f"{d:%Y%m%d}".zfill(8)))),
    "DS": (0x0028_0030, several(st.sampled_from(["1.5", "-2e3", "0.000", "+7", "12345678901234.5", "100"]))),
    "DT": (0x0040_A13A, several(st.sampled_from(["2024", "20240229101112.5", "20240229101112+0100"]))),
    "FD": (0x0018_9087, several(st.floats(allow_nan=False, allow_infinity=False))),
    "FL": (0x0010_9431, several(st.floats(width=32, allow_nan=False, allow_infinity=False))),
    "IS": (0x0020_0013, several(st.integers(-(2**31), 2**31 - 1))),
    "OB": (0x0042_0011, words(2)),
    "OD": (0x7FE0_0009, words(8)),
    "OF": (0x0064_0009, words(4)),
    "OL": (0x0066_0040, words(4)),
    "OV": (0x7FE0_0001, words(8)),
    "OW": (0x0028_1201, words(2)),
    "SL": (0x0018_6020, numbers("i")),
    "SS": (0x0018_9219, numbers("h")),
    "SV": (0x0072_0082, numbers("q")),
    "TM": (0x0008_0032, several(st.sampled_from(["10", "1011", "101112", "101112.123456"]))),
    "UI": (0x0008_001A, several(st.sampled_from(["1.2.3", "1.2.840.10008.1.1"]))),
    "UL": (0x0008_1161, numbers("I")),
    "UN": (0x0014_FFFF, words(2)),
    "UR": (0x0008_1190, st.sampled_from([None, "http://example.org/a?b=c"])),
    "US": (0x0028_0010, numbers("H")),
    "UV": (0x0008_040C, numbers("Q")),
}
BY_TEXT_VR = {
    "LO": 0x0008_1030,
    "LT": 0x0010_4000,
    "PN": 0x0010_1001,
    "SH": 0x0008_0050,
    "ST": 0x0008_0081,
    "UC": 0x0018_9908,
    "UT": 0x0040_A160,
}
_ONE_VALUE = {"LT", "ST", "UT"}
CHARACTER_SET = 0x0008_0005
SEQUENCES = (0x0008_1140, 0x0040_A730)
OWN = {vr: 0x0009_1000 + at for at, vr in enumerate([*BY_VR, *BY_TEXT_VR])}


def values_of(vr: str, letters: str) -> st.SearchStrategy[Any]:
    if vr in BY_VR:
        return BY_VR[vr][1]
    one = names(letters) if vr == "PN" else texts(letters)
    return st.one_of(st.none(), one) if vr in _ONE_VALUE else several(one.filter(bool))


@st.composite
def datasets(draw: st.DrawFn, depth: int = 4, sets: str | None = None) -> pydicom.Dataset:
    """One of pydicom's: any elements, any kind of lengths."""
    made = pydicom.Dataset()
    if sets is None or draw(st.integers(0, 9)) == 0:
        sets = draw(st.sampled_from(sorted(SETS)))
        made.SpecificCharacterSet = sets.split("\\") if "\\" in sets else sets
    made.add_new(0x0009_0010, "LO", "OF_NOBODY_KNOWN")
    for vr in draw(st.sets(st.sampled_from([*BY_VR, *BY_TEXT_VR]), max_size=6)):
        tags = (BY_VR[vr][0] if vr in BY_VR else BY_TEXT_VR[vr], OWN[vr])
        value = draw(values_of(vr, SETS[sets]))
        made.add_new(draw(st.sampled_from(tags)), vr, value)
    for tag in draw(st.sets(st.sampled_from(SEQUENCES), max_size=2)) if depth else ():
        items = draw(st.lists(datasets(depth - 1, sets), max_size=2))
        for item in items:
            item.is_undefined_length_sequence_item = draw(st.booleans())
        made.add_new(tag, "SQ", items)
        made[tag].is_undefined_length = draw(st.booleans())
    return made


def by_pydicom(dataset: pydicom.Dataset, encoding: tuple[bool, bool]) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = encoding
    write_dataset(file, dataset)
    return file.getvalue()


def read_by_pydicom(data: bytes, encoding: tuple[bool, bool]) -> pydicom.Dataset:
    return read_dataset(io.BytesIO(data), *encoding)


def ours(data: bytes, encoding: tuple[bool, bool]) -> Dataset:
    return parse(Dataset, data, implicit=encoding[0], little=encoding[1])


generously = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(datasets(), st.sampled_from(sorted(ENCODINGS)))
@generously
def test_what_pydicom_writes_is_read_alike_and_written_alike(dataset: pydicom.Dataset, name: str) -> None:
    encoding = ENCODINGS[name]
    data = by_pydicom(dataset, encoding)
    found = ours(data, encoding)
    assert found.findings == ()
    assert not found.truncated
    assert list(compare.with_pydicom(read_by_pydicom(data, encoding), found)) == []
    assert found.to_bytes(SYNTAXES[encoding]) == data
    # Encoded anew it is the same bytes again: lengths are of their kind.
    again = found.copy()
    again.PatientID = "X"
    del again["PatientID"]
    for element in again:
        if element.vr == "SQ":
            element.value.append(Dataset())
            del element.value[-1]
    assert again.to_bytes(SYNTAXES[encoding]) == data


@given(datasets(), st.sampled_from(sorted(ENCODINGS)), st.sampled_from(sorted(ENCODINGS)))
@generously
def test_what_we_write_is_read_alike_by_pydicom(dataset: pydicom.Dataset, name: str, other: str) -> None:
    encoding, target = ENCODINGS[name], ENCODINGS[other]
    before = ours(by_pydicom(dataset, encoding), encoding)
    data = before.to_bytes(SYNTAXES[target])
    found = ours(data, target)
    assert list(compare.with_ours(before, found, implicit=target[0])) == []
    assert list(compare.with_pydicom(read_by_pydicom(data, target), found)) == []
    assert found.to_bytes(SYNTAXES[target]) == data


@given(datasets())
@generously
def test_json_is_alike_both_ways(dataset: pydicom.Dataset) -> None:
    encoding = (False, True)
    data = by_pydicom(dataset, encoding)
    found = ours(data, encoding)
    theirs = read_by_pydicom(data, encoding)
    text = found.to_json()
    assert normal(json.loads(text)) == normal(json.loads(json.dumps(theirs.to_json_dict())))
    back = Dataset.from_json(text)
    assert list(compare.with_ours(found, back, digits=False)) == []
    assert Dataset.from_json(theirs.to_json()) == back
    assert list(compare.with_pydicom(pydicom.Dataset.from_json(text), back)) == [] or has_long_numbers(back)


def has_long_numbers(dataset: Dataset) -> bool:
    """pydicom makes its own digits of the numbers in JSON, and has no sign of plus or zeros at the end."""
    return any(element.vr in {"DS", "IS"} for element in dataset.walk())


def normal(model: Any) -> Any:
    """Without what pydicom writes otherwise: '' for null, the Value of no items (PS3.18 F.2.5)."""
    if isinstance(model, dict):
        return {key: normal(value) for key, value in model.items() if (key, value) != ("Value", [])}
    if isinstance(model, list):
        return [normal(value) for value in model]
    return None if model == "" else model


@given(datasets(depth=2))
@generously
def test_pydicom_gets_and_gives_the_same(dataset: pydicom.Dataset) -> None:
    data = by_pydicom(dataset, (False, True))
    found = ours(data, (False, True))
    assert list(compare.with_pydicom(found.to_pydicom(), found)) == []
    assert list(compare.with_ours(found, Dataset.from_pydicom(found.to_pydicom()))) == []


# pydicom's bulk data are as the file has them, ours are set in little endian (PS3.5 7.3).
UNITS = {"OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(sorted(BY_VR)).filter(lambda vr: vr != "UN"), st.data()),
        st.tuples(st.just("delete"), st.integers(0, 99), st.none()),
        st.tuples(st.just("append"), st.sampled_from(SEQUENCES), st.none()),
        st.tuples(st.just("drop"), st.sampled_from(SEQUENCES), st.none()),
    ),
    max_size=12,
)


@given(datasets(depth=2), STEPS, st.sampled_from(sorted(ENCODINGS)))
@generously
def test_the_same_changes_give_the_same(
    dataset: pydicom.Dataset, steps: list[tuple[str, Any, Any]], name: str
) -> None:
    encoding = ENCODINGS[name]
    data = by_pydicom(dataset, encoding)
    theirs, mine = read_by_pydicom(data, encoding), ours(data, encoding)
    for step, what, more in steps:
        if step == "set":
            tag, strategy = BY_VR[what]
            value = more.draw(strategy)
            swap = what in UNITS and not encoding[1]
            theirs.add_new(tag, what, compare.swapped(value, UNITS[what]) if swap else value)
            mine.set(tag, value, what)
        elif step == "delete" and len(theirs):
            tag = int(sorted(theirs.keys())[what % len(theirs)])
            if tag == CHARACTER_SET:  # without it, text can't be written
                continue
            del theirs[tag]
            del mine[tag]
        elif step == "append":
            if what not in theirs:
                theirs.add_new(what, "SQ", [])
                mine.set(what, [], "SQ")
            item = pydicom.Dataset()
            item.PatientID = "added"
            theirs[what].value.append(item)
            mine[what].append(Dataset(PatientID="added"))
        elif step == "drop" and what in theirs and len(theirs[what].value):
            del theirs[what].value[0]
            del mine[what][0]
    assert [int(tag) for tag in sorted(theirs.keys())] == [element.tag for element in mine]
    written = mine.to_bytes(SYNTAXES[encoding])
    again = read_by_pydicom(written, encoding)
    assert list(compare.with_pydicom(again, ours(written, encoding))) == []
    assert (
        list(compare.with_ours(mine, ours(by_pydicom(theirs, encoding), encoding), implicit=encoding[0]))
        == []
    )
