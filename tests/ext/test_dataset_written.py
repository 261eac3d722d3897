"""What is written is what was there, however odd: bugs that fuzzing found (tests/fuzz/rewritten.pyx)."""

import json
import struct

import pytest

from pacs_core._ext.encode import encode
from pacs_core._ext.parsing import parse
from pacs_core.dicom import charset
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import InvalidValueError

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"


def test_a_data_set_without_a_file_is_read_in_every_syntax() -> None:
    dataset = Dataset(PatientID="P1")
    for syntax in (IMPLICIT, EXPLICIT, BIG):
        assert read_dataset(dataset.to_bytes(syntax), syntax) == dataset


@pytest.mark.parametrize(("keyword", "value"), [("Rows", 200), ("RealWorldValueSlope", 0.1)])
def test_numbers_whose_bytes_are_over_127_can_be_set(keyword: str, value: float) -> None:
    dataset = Dataset({keyword: value})
    assert dataset[keyword] == value
    assert len(dataset) == 1  # and no character set


def read(data: bytes, *, implicit: bool = False, little: bool = True) -> Dataset:
    return parse(Dataset, data, implicit=implicit, little=little)


def explicit(tag: int, vr: bytes, value: bytes, order: str = "<") -> bytes:
    long = vr in (b"OB", b"OW", b"UN", b"SQ")
    length = struct.pack(f"{order}HL" if long else f"{order}H", *([0] if long else []), len(value))
    return struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr + length + value


@pytest.mark.parametrize(
    "odd",
    [
        b"\x09\0\x10\x10??\x04\0abcd",
        b"\x09\0\x10\x10\0\0\x04\0abcd",
        b"\x09\0\x10\x10OB\x04\0abcd",
        b"\x09\0\x10\x10ZZ\x04\0abcd",
    ],
    ids=["question marks", "zeros", "short header of OB", "short header of an unknown VR"],
)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_an_element_whose_header_is_odd_is_written_with_a_sound_one(odd: bytes, syntax: str) -> None:
    dataset = read(explicit(0x00080060, b"CS", b"CT") + odd + explicit(0x00280010, b"US", b"\x10\0"))
    dataset.PatientID = "changed"
    again = read_dataset(dataset.to_bytes(syntax), syntax)
    assert again.findings == () or odd[4:6] == b"ZZ"
    assert (again.Rows, again.PatientID) == (16, "changed")
    assert bytes(again.element(0x00091010).raw) == b"abcd"


def test_an_odd_number_of_bytes_in_words_is_padded_before_it_is_swapped() -> None:
    dataset = Dataset(PixelData=b"odd")
    assert bytes(read_dataset(dataset.to_bytes(BIG), BIG).PixelData) == b"do\0d"
    read_big = read(explicit(0x7FE00010, b"OW", b"odd", ">"), little=False)
    assert json.loads(read_big.to_json())["7FE00010"]["InlineBinary"] == "ZG8AZA=="
    assert read_big.to_bytes(EXPLICIT).endswith(b"do\0d")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_what_is_less_than_a_number_does_not_become_one(syntax: str) -> None:
    dataset = read(explicit(0x00280010, b"US", b"\x10\0\x07") + explicit(0x00280011, b"US", b"\x07"))
    dataset.PatientID = "changed"
    assert json.loads(dataset.to_json())["00280011"] == {"vr": "US"}
    again = read_dataset(dataset.to_bytes(BIG), BIG)
    again = read_dataset(again.to_bytes(syntax), syntax)
    assert (again.Rows, again.Columns) == (16, None)


def test_fragments_that_claim_too_much_or_are_big_endian_are_sound_in_json() -> None:
    table, end = b"\xff\xfe\xe0\0" + bytes(4), b"\xff\xfe\xe0\xdd" + bytes(4)
    begun = b"\x7f\xe0\0\x10OB\0\0\xff\xff\xff\xff" + table
    fragment = b"\xff\xfe\xe0\0\0\0\0\x04\xff\xd8\xff\xd9"
    sound = "/v8A4AAAAAD+/wDgBAAAAP/Y/9k="
    assert (
        json.loads(read(begun + fragment + end, little=False).to_json())["7FE00010"]["InlineBinary"] == sound
    )
    cut = begun + fragment.replace(b"\x04", b"\x40", 1)
    assert json.loads(read(cut, little=False).to_json())["7FE00010"]["InlineBinary"] == sound


def test_whole_numbers_in_json_are_no_longer_than_python_reads() -> None:
    dataset = read(b"\x20\0\x13\0IS\x88\x13" + b"1" * 5000)
    assert json.loads(dataset.to_json())["00200013"]["Value"] == ["1" * 5000]


def test_text_is_not_written_in_a_character_set_that_was_deleted() -> None:
    dataset = read(
        explicit(0x00080005, b"CS", b"ISO_IR 192") + explicit(0x00100010, b"PN", "Mü".encode() + b" ")
    )
    del dataset.SpecificCharacterSet
    with pytest.raises(InvalidValueError):
        dataset.to_bytes()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    assert b"M\xfc" in dataset.to_bytes()


def test_every_path_that_walk_tells_leads_back() -> None:
    dataset = read(
        explicit(0x00090000, b"UL", b"\x0a\0\0\0")
        + explicit(0x00090010, b"LO", b"ACME")
        + explicit(0x60020010, b"US", b"\x10\0")
    )
    assert [element.path for element in dataset.walk()] == ["00090000", "00090010", "60020010"]
    assert all(dataset.element(element.path).tag == element.tag for element in dataset.walk())


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG])
@pytest.mark.parametrize(("value", "rows"), [(b"\x10\0\x07", 16), (b"\x07", None)])
def test_padding_a_un_makes_no_number(value: bytes, rows: int | None, syntax: str) -> None:
    dataset = read(explicit(0x00280010, b"UN", value))
    assert dataset.Rows == rows
    assert read_dataset(dataset.to_bytes(syntax), syntax).Rows == rows


@pytest.mark.parametrize("vr", [b"LO", b"PN"])
def test_text_of_nothing_but_escape_sequences_is_no_value(vr: bytes) -> None:
    data = explicit(0x00080005, b"CS", b"\\ISO 2022 IR 87") + explicit(0x00101000, vr, b"\x1b$B\x1b(B")
    dataset = read(data)
    assert dataset.element(0x00101000).values == ()
    assert dataset[0x00101000] == ""
    assert json.loads(dataset.to_json())["00101000"] == {"vr": vr.decode()}


def test_what_is_set_of_file_meta_information_or_group_lengths_is_not_written_into_the_data_set() -> None:
    dataset = Dataset({"PatientID": "P1", 0x00020010: EXPLICIT, 0x00000002: "1.2", 0x00080000: 20})
    assert [element.tag for element in read_dataset(dataset.to_bytes(BIG), BIG)] == [0x00100020]


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
def test_encapsulated_data_keeps_its_vr_and_is_ob_when_set(syntax: str) -> None:
    item, end = b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)
    fragments = item + bytes(4) + item + b"\2\0\0\0\xff\xd8"
    dataset = read(b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\xff" + fragments + end)
    again = read_dataset(b"".join(encode(dataset, charset.encode, little=syntax == EXPLICIT)), syntax)
    assert [again.element("PixelData").vr, *map(bytes, again.PixelData)] == ["OW", b"", b"\xff\xd8"]
    dataset.PixelData = [b"", b"\xff\xd9"]
    assert dataset.element("PixelData").vr == "OB"
    dataset.set(0x00091010, [b"", b"\xff\xd8"], "UN")
    assert dataset.element(0x00091010).vr == "OB"
    again = read_dataset(b"".join(encode(dataset, charset.encode, little=syntax == EXPLICIT)), syntax)
    assert [bytes(piece) for piece in again[0x00091010]] == [b"", b"\xff\xd8"]
