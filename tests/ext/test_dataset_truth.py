"""Data sets == pydicom's, on every file at hand: elements, values, JSON; and what is written reads the same.

Each file with a difference is in a table here, with who is right; one that goes has to go there, too.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
import subprocess
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pacs_core.dicom import part10
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read
from pacs_core.errors import InvalidValueError, UnparsableError
from tests import compare
from tests.conftest import DCMTK
from tests.ext.test_scan_oracle import FILES

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, about what it reads

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
SYNTAXES = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big": BIG, "deflated": DEFLATED}

# Not DICOM: pydicom makes an element or two of anything.
NO_DICOM = {
    "README": "text",
    "no_meta.dcm": "begins with a stray byte: its first tag would be (0820,0500), its byte order big endian",
}

# What pydicom does not read at all.
UNREAD = {"emri_small_jpeg_2k_lossless_too_short.dcm": "it ends in the pixels, pydicom gives nothing"}

PADDED = (
    "spaces around each value of CS are insignificant (PS3.5 6.2): pydicom keeps those before a backslash"
)
BESIDE_PYDICOM = {
    name: {"00080008 value": PADDED}
    for name in (
        "693_J2KI.dcm",
        "693_UNCI.dcm",
        "SC_rgb_gdcm2k_uncompressed.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_jpeg_lossy_gdcm.dcm",
    )
}

# JSON: the rule, and what pydicom does. We are right by each of them.
JSON_RULES = {
    "group length": "left out (PS3.18 F.2.2); pydicom writes them",
    "null": "what is empty among several values is null (F.2.5); pydicom: an empty string",
    "byte order": "InlineBinary is little endian (F.2.7); pydicom: as it was read",
    "padding": PADDED,
}

# From JSON: a value that its VR does not allow is refused, though it was read. Our choice.
REFUSED = dict.fromkeys(
    ("ExplVR_BigEnd.dcm", "OT-PAL-8-face.dcm", "color-pl.dcm", "color-px.dcm"),
    "dates as in ACR-NEMA, 1997.04.24 (PS3.5 6.2, note 4 of DA)",
) | {"badVR.dcm": "1A is no IS"}

# Of explicit VR as it is labelled, but implicit: it is written as it is labelled.
RELABELLED = {"SC_rgb_jpeg.dcm"}


def contents(path: Path) -> bytes:
    """A file without its preamble."""
    data = path.read_bytes()
    return data[132:] if data[128:132] == b"DICM" else data


def of_pydicom(path: Path) -> pydicom.FileDataset:
    return pydicom.dcmread(path, force=True)


def ids(path: Path) -> str:
    return path.name


READABLE = [path for path in FILES if path.name not in NO_DICOM]
files = pytest.mark.parametrize("path", READABLE, ids=ids)


@pytest.mark.parametrize("path", [path for path in FILES if path.name in NO_DICOM], ids=ids)
def test_what_is_no_dicom_is_refused(path: Path) -> None:
    with pytest.raises(UnparsableError, match="not a DICOM file"):
        read(path)


@files
def test_elements_and_values_are_those_of_pydicom(path: Path) -> None:
    ours = read(path)
    if path.name in UNREAD:
        assert ours.truncated
        assert len(ours) > 100
        assert list(of_pydicom(path)) == []
        return
    theirs = of_pydicom(path)
    assert set(compare.with_pydicom(theirs, ours)) == set(BESIDE_PYDICOM.get(path.name, {}))
    if "file_meta" in theirs.__dict__:
        assert list(compare.with_pydicom(theirs.file_meta, ours.meta)) == []
    assert ours.truncated == (theirs.is_implicit_VR is None or path.name in CUT)


CUT = {"MR_truncated.dcm", "rtplan_truncated.dcm", "DICOMDIR-nooffset"}


def json_differences(ours: dict[str, Any], theirs: dict[str, Any], path: str = "") -> Iterator[str]:
    """The rule behind each difference, or the path of what none explains."""
    for tag in sorted({*ours, *theirs}):
        here = f"{path}{tag}"
        if tag not in ours or tag not in theirs:
            yield "group length" if tag.endswith("0000") and tag in theirs else here
        elif ours[tag] != theirs[tag]:
            yield from attribute_differences(ours[tag], theirs[tag], here)


def attribute_differences(ours: dict[str, Any], theirs: dict[str, Any], here: str) -> Iterator[str]:
    one, other = ours.get("Value", []), theirs.get("Value", [])
    if ours["vr"] != theirs["vr"] or len(one) != len(other):
        yield here
    elif ours["vr"] == "SQ":
        for place, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from json_differences(mine, its, f"{here}.{place}.")
    elif ours["vr"] == "OW" and is_swapped(ours, theirs):
        yield "byte order"
    elif one and [value or "" for value in one] == other:
        yield "null"
    elif one and [str(value).strip() for value in other] == one:
        yield "padding"
    else:
        yield here


def is_swapped(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    one, other = (base64.b64decode(each.get("InlineBinary", "")) for each in (ours, theirs))
    return one == compare.swapped(other, 2)


@files
def test_json_is_that_of_pydicom(path: Path) -> None:
    if path.name in {*UNREAD, "badVR.dcm"}:  # which pydicom has no JSON of
        pytest.skip("pydicom fails")
    theirs = of_pydicom(path).to_json_dict()
    found = set(json_differences(json.loads(read(path).to_json()), theirs))
    assert found <= set(JSON_RULES), "not one of the rules"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("693_J2KI.dcm", "group length"),
        ("693_J2KI.dcm", "padding"),
        ("chrH31.dcm", "null"),
        ("examples_ybr_color.dcm", "null"),
        ("MR_small_bigendian.dcm", "byte order"),
        ("rtdose_expb.dcm", "byte order"),
    ],
)
def test_rule_of_json_is_still_needed(name: str, rule: str) -> None:
    path = next(path for path in FILES if path.name == name)
    ours, theirs = json.loads(read(path).to_json()), of_pydicom(path).to_json_dict()
    assert rule in set(json_differences(ours, theirs))


@files
def test_json_and_back_is_the_same(path: Path) -> None:
    ours = read(path)
    if path.name in REFUSED:
        with pytest.raises(InvalidValueError):
            Dataset.from_json(ours.to_json())
        return
    back = Dataset.from_json(ours.to_json())
    assert list(compare.with_ours(ours, back, digits=False)) == []


@files
def test_what_is_not_changed_is_written_as_it_was(path: Path) -> None:
    ours = read(path)
    if ours.truncated or path.name in RELABELLED:
        return
    data = ours.to_bytes()
    if ours.meta.get("TransferSyntaxUID") == DEFLATED:
        was = zlib.decompress(path.read_bytes()[part10.read_meta(path.read_bytes()).data_offset :], -15)
        assert zlib.decompress(data, -15) == was
        return
    assert contents(path).endswith(data)
    if len(ours.meta) and ours.get("SOPClassUID"):
        assert ours.to_file() == bytes(128) + b"DICM" + contents(path)


def in_syntax(ours: Dataset, syntax: str) -> bytes | None:
    """A file of it, None if its pixels are compressed."""
    if isinstance(ours.get("PixelData"), tuple):
        with pytest.raises(InvalidValueError, match="compressed Pixel Data"):
            ours.to_bytes(syntax)
        return None
    data = ours.to_bytes(syntax)
    return part10.encode_meta("1.2", "1.2.3", syntax, None) + data


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
@files
def test_in_another_syntax_it_reads_the_same(path: Path, syntax: str) -> None:
    ours = read(path)
    file = in_syntax(ours, syntax)
    if file is None:
        return
    back = read(file)
    assert list(compare.with_ours(ours, back, implicit=syntax == IMPLICIT)) == []
    known = set(BESIDE_PYDICOM.get(path.name, {}))
    if syntax == BIG:
        known |= {f"{element.tag:08X} value" for element in back.walk() if is_unknown_number(element)}
    theirs = pydicom.dcmread(io.BytesIO(file))
    assert set(compare.with_pydicom(theirs, back)) == known


def is_unknown_number(element: Any) -> bool:
    """UN is little endian in big endian, too (PS3.5 6.2.2); pydicom takes its numbers for big endian."""
    header = bytes(element.dataset.element(element.tag).raw)
    return element.tag >> 16 == 0x0019 and element.vr == "US" and header[:1] != b"\0"


@files
def test_a_change_leaves_all_else_as_it_was(path: Path) -> None:
    ours = read(path)
    before = read(path)
    ours.PatientComments = "changed"
    del ours["PatientComments"]
    for element in list(ours):
        if element.vr == "SQ":
            element.value.append(Dataset(PatientID="1"))
            del element.value[-1]
    if "PatientComments" in before:
        before = before.copy()
        del before["PatientComments"]
    implicit, little = ours.encoding
    back = read(in_syntax_of(ours, implicit, little))
    assert list(compare.with_ours(before, back, implicit=implicit)) == []


def in_syntax_of(ours: Dataset, implicit: bool, little: bool) -> bytes:
    syntax = ours.meta.get("TransferSyntaxUID") or (IMPLICIT if implicit else EXPLICIT if little else BIG)
    return part10.encode_meta("1.2", "1.2.3", syntax, None) + ours.to_bytes(syntax)


@files
def test_pydicom_gets_and_gives_the_same(path: Path) -> None:
    ours = read(path)
    if path.name in UNREAD:
        return
    theirs = of_pydicom(path)
    if not ours.truncated:
        assert ours.to_pydicom() == theirs
    assert list(compare.with_ours(ours, Dataset.from_pydicom(theirs))) == []


@files
def test_copies_and_pickles_are_the_same(path: Path) -> None:
    ours = read(path)
    assert copy.copy(ours) == copy.deepcopy(ours) == ours
    if path.name not in UNREAD:
        assert pickle.loads(pickle.dumps(ours)) == ours
    assert not ours.changed


CHARSETS = [path for path in READABLE if path.parent.name == "charset_files"]


@pytest.mark.parametrize("path", CHARSETS, ids=ids)
def test_text_is_written_in_another_character_set(path: Path) -> None:
    ours = read(path)
    texts = [(e.path, e.values) for e in ours.walk() if e.vr in {"PN", "LO", "SH", "LT", "ST"}]
    ours.SpecificCharacterSet = "ISO_IR 192"
    for element in list(ours.walk()):
        if element.vr == "SQ":
            for item in element.value:
                if "SpecificCharacterSet" in item:
                    del item["SpecificCharacterSet"]
    back = read(in_syntax_of(ours, *ours.encoding))
    assert [(e.path, e.values) for e in back.walk() if e.vr in {"PN", "LO", "SH", "LT", "ST"}] == texts
    for element in back.walk():
        if element.vr == "PN":
            assert "\\".join(element.values) == bytes(element.raw).decode("utf-8").rstrip(" ")


CONVERTED = [
    path
    for path in READABLE
    if path.name in {"CT_small.dcm", "MR_small_bigendian.dcm", "rtplan.dcm", "reportsi.dcm", "test-SR.dcm"}
]
OPTIONS = ("+ti -e", "+ti +e", "+te -e", "+te +e", "+tb -e", "+tb +e", "+td", "+te +g", "+te +p 512 64")


@pytest.mark.skipif(not (DCMTK / "dcmconv").is_file(), reason="no DCMTK")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("path", CONVERTED, ids=ids)
def test_what_dcmtk_writes_reads_the_same(path: Path, options: str, tmp_path: Path) -> None:
    out = tmp_path / "out.dcm"
    subprocess.run([DCMTK / "dcmconv", *options.split(), path, out], check=True, capture_output=True)
    ours = read(out)
    assert not ours.truncated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(compare.with_pydicom(pydicom.dcmread(out), ours)) == []
    found = compare.with_ours(read(path), ours, implicit="+ti" in options)
    assert [each for each in found if "FFFCFFFC" not in each] == []  # but for the padding that was asked for
    assert out.read_bytes()[132:] == read(out).to_file()[132:] or "+td" in options
