"""The data dictionary against pydicom's, which it is generated from."""

import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._private_dict import private_dictionaries
from pydicom.datadict import (
    dictionary_has_tag,
    dictionary_VR,
    get_entry,
    get_private_entry,
    keyword_for_tag,
    private_dictionary_VR,
    repeater_has_tag,
    tag_for_keyword,
)

from pacs_core._ext import dictionary as native
from pacs_core.dicom import dictionary
from pacs_core.dicom.dictionary import Entry, PrivateEntry
from tools import gen_dictionary

GENERATED = gen_dictionary.version_of(gen_dictionary.HEADER.read_text("ascii"))
same_version = pytest.mark.skipif(
    pydicom.__version__ != GENERATED,
    reason=f"the dictionary was generated from pydicom {GENERATED}, and this is {pydicom.__version__}",
)

KEYWORDS = [entry[4] for _, entry in sorted(DicomDictionary.items()) if entry[4]]


def instances(key: str) -> Iterator[int]:
    """Some tags that a key with x stands for, the first and the last among them, private groups as well."""
    digits = random.Random(key)
    yield int(key.replace("x", "0"), 16)
    yield int(key.replace("x", "F"), 16)
    for _ in range(8):
        yield int("".join(digits.choice("0123456789ABCDEF") if c == "x" else c for c in key), 16)


def is_generic(tag: int) -> bool:
    """Whether a tag is a group length or a private creator (PS3.5 7.2, 7.8.1)."""
    return tag & 0xFFFF == 0 or (tag >> 16 & 1 == 1 and 0x10 <= tag & 0xFFFF <= 0xFF)


def vrs_of(text: str) -> tuple[str, ...]:
    return () if text == "NONE" else tuple(text.replace("_", " or ").split(" or "))


def pydicoms(tag: int) -> Entry | None:
    """The entry as pydicom has it."""
    try:
        vr, vm, name, retired, keyword = get_entry(tag)
    except KeyError:
        return None
    return Entry(tag, keyword, name, vrs_of(vr), vm, retired == "Retired")


def tags() -> st.SearchStrategy[int]:
    """Any tags, but most of them known or next to one."""
    known = st.sampled_from(sorted(DicomDictionary))
    repeating = st.sampled_from(sorted(RepeatersDictionary)).flatmap(
        lambda key: st.sampled_from(list(instances(key)))
    )
    near = st.builds(lambda tag, bit: tag ^ 1 << bit, known | repeating, st.integers(0, 31))
    return known | repeating | near | st.integers(0, 0xFFFF_FFFF)


@same_version
def test_the_header_is_current() -> None:
    assert gen_dictionary.HEADER.read_text("ascii") == gen_dictionary.generate()


def test_a_stale_header_is_told_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "dictionary.h"
    stale.write_text(gen_dictionary.HEADER.read_text("ascii").replace("PatientName", "PatientsName"))
    monkeypatch.setattr(gen_dictionary, "HEADER", stale)
    run = CliRunner().invoke
    told = run(gen_dictionary.main, ["--check"])
    assert told.exit_code == 1
    assert "is not current" in told.output
    assert run(gen_dictionary.main, []).exit_code == 0
    assert run(gen_dictionary.main, ["--check"]).exit_code == 0
    assert gen_dictionary.version_of(stale.read_text("ascii")) == pydicom.__version__


def test_groups_that_repeat_in_two_ways_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gen_dictionary.RepeatersDictionary, "0020x100", ("CS", "1", "Made Up", "", "MadeUp"))
    with pytest.raises(SystemExit, match="more than one way"):
        gen_dictionary.families()


@same_version
def test_every_element_is_as_in_pydicom() -> None:
    wrong = [f"{tag:08X}" for tag in DicomDictionary if dictionary.entry(tag) != pydicoms(tag)]
    assert len(DicomDictionary) > 5000
    assert wrong == []


@same_version
def test_every_repeating_element_is_as_in_pydicom() -> None:
    for tag in itertools.chain.from_iterable(map(instances, RepeatersDictionary)):
        expected = pydicoms(tag)
        if expected or not is_generic(tag):
            assert dictionary.entry(tag) == expected, f"{tag:08X}"


@same_version
def test_every_keyword_leads_to_its_tag() -> None:
    assert list(dictionary.keywords()) == KEYWORDS
    assert [dictionary.tag_of(keyword) for keyword in KEYWORDS] == [tag_for_keyword(k) for k in KEYWORDS]


@same_version
def test_keywords_of_repeating_groups_are_listed_apart() -> None:
    repeating = {entry[4] for entry in RepeatersDictionary.values()}
    assert set(dictionary.keywords(repeating=True)) == repeating


@same_version
@given(tags())
@example(0x0028_0400)  # an element of its own, and (0028,04x0)
@example(0x0028_0410)
@example(0x6011_3000)  # private, whatever its mask
def test_any_tag_is_as_in_pydicom(tag: int) -> None:
    known = dictionary_has_tag(tag) or (repeater_has_tag(tag) and not tag >> 16 & 1)
    assert (dictionary.entry(tag) is not None) == (known or is_generic(tag))
    if known:
        assert dictionary.entry(tag) == pydicoms(tag)
        assert dictionary.vr_of(tag) == (vrs_of(dictionary_VR(tag)) or ("",))[0]
    if not is_generic(tag):
        assert dictionary.keyword_of(tag) == keyword_for_tag(tag)


@given(tags())
def test_the_short_answers_are_those_of_the_entry(tag: int) -> None:
    entry = dictionary.entry(tag) or Entry(tag, "", "", (), "", False)
    short = dictionary.keyword_of(tag), dictionary.name_of(tag), dictionary.vr_of(tag)
    assert short == (entry.keyword, entry.name, entry.vr)


@pytest.mark.parametrize(
    ("tag", "keyword", "vr"),
    [
        (0x0000_0000, "CommandGroupLength", "UL"),
        (0x0002_0000, "FileMetaInformationGroupLength", "UL"),
        (0x0008_0000, "GenericGroupLength", "UL"),
        (0x6002_0000, "GenericGroupLength", "UL"),
        (0x0009_0000, "GenericGroupLength", "UL"),
        (0x0009_000F, "", ""),
        (0x0009_0010, "PrivateCreator", "LO"),
        (0x6001_00FF, "PrivateCreator", "LO"),
        (0x0009_0100, "", ""),
        (0x0008_0010, "RecognitionCode", "SH"),
        (0x0008_000F, "", ""),
    ],
)
def test_group_lengths_and_private_creators(tag: int, keyword: str, vr: str) -> None:
    assert (dictionary.keyword_of(tag), dictionary.vr_of(tag)) == (keyword, vr)


@pytest.mark.parametrize("tag", [-1, 1 << 32])
def test_what_is_no_tag_is_an_error(tag: int) -> None:
    with pytest.raises(OverflowError):
        dictionary.entry(tag)


@same_version
@given(
    st.text()
    | st.builds(
        lambda keyword, at, text, cut: keyword[:at] + text + keyword[at + cut :],
        st.sampled_from(KEYWORDS),
        st.integers(0, 70),
        st.text("aRS\0", max_size=2),
        st.integers(0, 2),
    )
)
@example("Rows\0")
@example("Row")
@example("R\0ws")
@example("\ud800")
@example("Größe")
@example("")  # pydicom has elements without a keyword, and gives one of them
def test_any_keyword_is_as_in_pydicom(keyword: str) -> None:
    expected = tag_for_keyword(keyword) if keyword else None
    if expected is None:
        with pytest.raises(KeyError):
            native.tag_of(keyword)  # the other one then looks for keywords like it, and that takes time
    else:
        assert native.tag_of(keyword) == expected


@pytest.mark.parametrize(
    ("keyword", "word"),
    [
        ("PatientNme", "no keyword or tag: 'PatientNme'; perhaps PatientName or"),
        ("studydate", "perhaps StudyDate"),
        ("OverlayData", "OverlayData is in many groups"),
    ],
)
def test_an_unknown_keyword_is_told_with_those_like_it(keyword: str, word: str) -> None:
    for lookup in (dictionary.tag_of, dictionary.parse_tag):
        with pytest.raises(KeyError) as caught:
            lookup(keyword)
        assert word in caught.value.args[0]


def test_nothing_is_suggested_for_what_looks_like_no_keyword() -> None:
    with pytest.raises(KeyError) as caught:
        dictionary.tag_of("0123456789!")
    assert caught.value.args == ("no keyword or tag: '0123456789!'",)


@pytest.mark.parametrize(
    "text", ["PatientName", "00100010", "0x00100010", "0X00100010", "0010,0010", "(0010,0010)"]
)
def test_tags_are_parsed(text: str) -> None:
    assert dictionary.parse_tag(text) == 0x0010_0010


@given(st.integers(0, 0xFFFF_FFFF), st.booleans())
def test_any_tag_is_parsed_in_every_way_to_write_it(tag: int, lower: bool) -> None:
    pair = f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
    for text in (f"{tag:08X}", f"0x{tag:08X}", pair, f"({pair})"):
        assert dictionary.parse_tag(text.lower() if lower else text) == tag


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0010001",
        "001000100",
        "0010 0010",
        "0010,00100",
        "(0010,0010",
        "0010,0010)",
        "(00100010)",
        "0x0010,0010",
        "0010,001G",
        "00100010\n",
        "０0100010",
        "+0100010",
        "0010_010",
    ],
)
def test_what_is_no_tag_is_not_parsed(text: str) -> None:
    with pytest.raises(KeyError):
        dictionary.parse_tag(text)


def pydicoms_private(creator: str, tag: int) -> PrivateEntry | None:
    """The private entry as pydicom has it; for keys like 001110xx it finds none."""
    try:
        _, vm, name, retired = get_private_entry(tag, creator)
        return PrivateEntry(name, vrs_of(private_dictionary_VR(tag, creator)), vm, bool(retired))
    except KeyError:
        return None


def test_every_private_element_is_as_in_pydicom() -> None:
    found = 0
    for creator, elements in private_dictionaries.items():
        for tag in itertools.chain.from_iterable(map(instances, elements)):
            entry = dictionary.private_entry(creator, tag)
            assert entry == pydicoms_private(creator, tag), f"{creator} {tag:08X}"
            found += entry is not None
    assert found > 10_000


def test_private_elements_are_those_of_their_creator() -> None:
    found = dictionary.private_entry("SIEMENS CSA HEADER", 0x0029_1010)
    assert found is not None
    assert (found.name, found.vr, found.vm) == ("CSA Image Header Info", "OB", "1")
    assert dictionary.private_entry("SIEMENS CSA HEADER", 0x0029_4210) == found
    assert dictionary.private_entry("SIEMENS CSA HEADER ", 0x0029_1010) == found  # padded to even length
    assert dictionary.private_entry("SIEMENS CSA HEADER", 0x0029_1001) is None
    assert dictionary.private_entry("siemens csa header", 0x0029_1010) is None
    assert dictionary.private_entry("", 0x0029_1010) is None


def test_a_creator_is_found_as_it_is_spelled_before_it_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private_dictionaries, "ACME", {"0029xx10": ("US", "1", "Bare", "")})
    monkeypatch.setitem(private_dictionaries, "ACME ", {"0029xx10": ("US", "1", "Padded", "")})
    names = [dictionary.private_entry(creator, 0x0029_1010) for creator in ("ACME", "ACME ", " ACME")]
    assert [found and found.name for found in names] == ["Bare", "Padded", "Bare"]


def test_nothing_needs_pydicom_whose_private_elements_count_where_it_is() -> None:
    code = """
import sys
from pacs_core.dicom import dictionary
assert dictionary.entry(dictionary.parse_tag("PatientName")).vr == "PN"
assert dictionary.private_entry("SIEMENS CSA HEADER", 0x00291010).vr == "OB"
print(sorted(name for name in sys.modules if name.startswith("pydicom")))
from pydicom.datadict import add_private_dict_entry
add_private_dict_entry("ACME", 0x00291010, "US", "Added")
print(dictionary.private_entry("ACME", 0x00291010).name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "Added"]
