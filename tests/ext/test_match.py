"""The matcher of queries against the slow oracle, and against hostile input."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import query_oracle as oracle
from hypothesis import example, given
from hypothesis import strategies as st

from pacs_core._ext.match import Matcher
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.identifier import identifier_of
from pacs_core.dicom.query import Key, Matching, Negotiated, key_of, query_of

TAG = 0x0010_0010
ALL = Negotiated(empty=True)

GIVEN = [
    "Müller",
    "GROß",
    "Strauẞ",
    "İnci",
    "ﬁnn",
    "Σίσυφος",
    "ΟΔΟΣ",
    "Люксембург",
    "قباني",
    "𐐀𐐨",
    "e\u0301",
    "Doe",
]
IDEOGRAPHIC = ["山田", "洪^吉洞", "王^小东", "鈴木^花子"]
PHONETIC = ["やまだ^たろう", "홍^길동", "すずき"]


def native(key: Key, value: bytes, time: bytes = b"") -> bool:
    return Matcher([(key.vr, key.matching.value, key.values)]).matches(0, value, time)


def agree(vr: str, wanted: str, value: str) -> None:
    key = key_of(TAG, vr, wanted, ALL)
    if key.matching in (Matching.UNIVERSAL, Matching.SEQUENCE):
        return
    assert native(key, value.encode()) == oracle.matches(key, value), (key, value)


def mangled(parts: st.SearchStrategy[str], inserted: str) -> st.SearchStrategy[str]:
    """Texts of some parts, here and there with other letters, in another case or without some."""
    piece = parts | st.sampled_from(list(inserted))
    cased = piece | piece.map(str.upper) | piece.map(str.lower) | piece.map(str.casefold)
    cut = st.builds(lambda text, at: text[: at % (len(text) + 1)], cased, st.integers(0, 20))
    return st.lists(cased | cut, max_size=6).map("".join)


names = mangled(st.sampled_from([*GIVEN, *IDEOGRAPHIC, *PHONETIC]), "^= \\ \0")
name_keys = mangled(st.sampled_from([*GIVEN, *IDEOGRAPHIC, *PHONETIC]), "^=*? \\")
short = st.text(st.sampled_from("aAbß山?*^= \\\0"), max_size=8)


@given(name_keys | short, names | short)
@example("Gro?", "Groß")
@example("GRO??", "Groß")
@example("GROS?", "Groß")
@example("?nci", "İnci")
@example("gro*^?", "GROẞ^ß")
@example("=山?", "Yamada^Tarou=山田^太郎=やまだ^たろう")
@example("Yamada*=*=やまだ^*", "Yamada^Tarou=山田^太郎=やまだ")
@example("*=山田", "=山田")
@example("Doe^*", "DOE")
@example("Doe^^^^^", " Doe ^ ")
@example("Doe\\Roe", "Foo\\roe")
@example("?", "\u0301")
def test_names(wanted: str, value: str) -> None:
    """CONFORMANCE 17, 19, 20, 24."""
    agree("PN", wanted, value)


@pytest.mark.parametrize(
    ("wanted", "value", "found"),
    [
        ("GROSS", "Groß", True),
        ("gro?", "Groß", True),  # '?' is one character of the name, though two of the folded one
        ("gro??", "Groß", False),
        ("?nci", "İnci", True),
        ("οδοσ", "ΟΔΟΣ", True),
        ("ΟΔΟς", "οδοσ", True),
        ("DOE^*", "Doe", True),
        ("DOE^J", "Doe", False),
        ("DOE^", "Doe", True),
        ("山田", "Yamada=山田=やまだ", True),
        ("=山田", "Yamada=山田=やまだ", True),
        ("=やまだ", "Yamada=山田=やまだ", False),
        ("*=山?", "Yamada=山田=やまだ", True),
        ("*=山??", "Yamada=山田=やまだ", False),
        ("Doe", "", False),
        ("?", "", False),
    ],
)
def test_names_as_they_are_said_to_match(wanted: str, value: str, found: bool) -> None:
    assert native(key_of(TAG, "PN", wanted), value.encode()) is found


FUZZY = Negotiated(fuzzy=True)
letters_and_marks = st.text(
    st.sampled_from("aoueAOßøæœłđðþħŧıİäÖüÅéñǖỞ\u0308\u030a\u0301\u0344ёЙάΰأيשּﾀﾞダ홍Ａ＊？ﬁﷺ℡’'-., ^=*?"),
    max_size=8,
)


@given(name_keys | short | letters_and_marks, names | short | letters_and_marks)
@example("ü*e", "MUELLER^Ü")
@example("u\u0308", "ue")
@example("a\u0301\u0308", "ae")
@example("u\u0344", "ue")
@example("＊", "a")
@example("*=anna", "Doe=Schmidt^Anna")
@example("--", "--")
@example("'", "a")
def test_20_fuzzy_matching_is_the_oracle_s_and_only_adds(wanted: str, value: str) -> None:
    key, literal = key_of(TAG, "PN", wanted, FUZZY), key_of(TAG, "PN", wanted)
    if key.matching is Matching.UNIVERSAL:
        return
    assert key.matching is Matching.FUZZY
    found = native(key, value.encode())
    assert found == oracle.matches(key, value), (key, value)
    assert found or not native(literal, value.encode())


@pytest.mark.parametrize(
    ("wanted", "value", "found"),
    [
        ("jane doe", "Doe^Jane", True),
        ("do ja", "Doe^Jane^Maria", True),
        ("jane", "Doe^Mary^Jane", True),
        ("ane", "Doe^Jane", False),
        ("*ane", "Doe^Jane", True),
        ("doe jim", "Doe^Jane", False),
        ("Muller", "Müller^Jürgen", True),
        ("MUELLER^JUERGEN", "Müller^Jürgen", True),
        ("Müller", "MUELLER^JUERGEN", True),
        ("mueller jurgen", "Müller^Jürgen", True),
        ("muller", "MUELLER", False),
        ("Müller", "MULLER", True),
        ("Müller", "Mu\u0308ller", True),
        ("Mueller", "Mu\u0308ller", True),
        ("Soren", "Sørensen", True),
        ("Soeren", "Sørensen", True),
        ("Dvorak", "Dvořák^Antonín", True),
        ("obrien", "O'Brien^Pat", True),
        ("Lüdenscheidt", "Müller-Lüdenscheidt", True),
        ("ﾔﾏﾀﾞ", "ヤマダ^タロウ", True),
        ("太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("=tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", False),
        ("=太郎=たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Семен", "Семён^Иванов", True),
        ("احمد", "أحمد", True),
        ("Doe", "", False),
    ],
)
def test_20_names_as_they_are_said_to_match_by_their_words(wanted: str, value: str, found: bool) -> None:
    assert native(key_of(TAG, "PN", wanted, FUZZY), value.encode()) is found


@pytest.mark.parametrize("wanted", ["", "*", "**", "^^^", "=", "*=*", "^*", " * ^ * ", "Doe\\*", "=*^"])
def test_keys_that_say_nothing_match_all(wanted: str) -> None:
    assert key_of(TAG, "PN", wanted).matching is Matching.UNIVERSAL


letters = st.text(st.sampled_from("aAbé山?*\\ \0"), max_size=8)


@given(st.sampled_from(["AE", "CS", "LO", "SH", "UC", "LT", "ST", "UR", "UT", "UI", "AS"]), letters, letters)
@example("LO", "a\\b", "b\\c")
@example("LT", "a\\b", "a\\b")
@example("SH", "?", "山")
@example("UI", "*", "1.2")
def test_texts(vr: str, wanted: str, value: str) -> None:
    """CONFORMANCE 16, 17, 19: a text of one value has its backslashes; case counts."""
    agree(vr, wanted, value)


def digits(*forms: str) -> st.SearchStrategy[str]:
    return st.one_of(*(st.from_regex(form, fullmatch=True) for form in forms))


def ranged(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    either = st.just("") | one
    return one | st.builds(lambda a, b: f"{a}-{b}", either, either) | st.builds("{}\\{}".format, one, one)


dates = digits(
    r"20[0-2][0-9][01][0-9][0-3][0-9]",
    r"20[0-2][0-9]\.[01][0-9]\.[0-3][0-9]",
    r"20[0-9]{1,5}",
    "[0-9*. -]{1,9}",
)
times = digits(
    r"[01][0-9]",
    r"[01][0-9][0-5][0-9]",
    r"1[01][0-5]0[0-5]0(\.[05]{0,6})?",
    r"1[01]:[05]0:[05]0(\.5)?",
    "[0-9.:]{1,9}",
)
moments = digits(
    r"20[12][0-9]((0[1-9]|1[0-2])((0[1-9]|[12][0-9]|3[01])([01][0-9](([0-5][0-9])([0-5][0-9](\.[0-9]{0,6})?)?)?)?)?)?"
    r"([+-]0[0-9]00)?",
    r"2024010[12]0[0-3](00)?([+-]0[0-3]00)?",
    "[0-9.+-]{1,12}",
)


@given(ranged(dates), dates)
@example("20240101", "2024.01.01")
@example("2024.01.01", "20240101")
@example("2024.01.01-2024.01.31", "20240115")
@example("2024-", "20240115")
@example("20240101-", "2024")
@example("2024x-", "20250101")
@example("*", "20240101")
def test_dates(wanted: str, value: str) -> None:
    """CONFORMANCE 17, 18."""
    agree("DA", wanted, value)


@given(ranged(times), times)
@example("10-11", "1145")
@example("10-11", "12")
@example("101112.50", "101112.5")
@example("101112.500-", "101112.5")
@example("-101112.2", "101112.25")
@example("-101112.20", "101112.25")
@example("101112.", "101112")
@example("10", "10:00:00")
@example("9-17", "100000")
@example("101112.5.5", "101112.5.5")
def test_times(wanted: str, value: str) -> None:
    """CONFORMANCE 18."""
    agree("TM", wanted, value)


@given(ranged(moments), moments)
@example("2024-0500", "20240101")
@example("2024-0500-2024-0500", "2024+0100")
@example("2024010112-2024010113", "20240101125959.999999")
@example("2024010112+0000", "2024010113+0100")
@example("2024010112+0000", "2024010112")
@example("20240101-", "202401")
@example("20249999-", "20240101")
@example("202412-202501", "20241231235959.999999")
@example("20240101000000.-", "20240101000000.")
def test_moments(wanted: str, value: str) -> None:
    """CONFORMANCE 18: offsets count where both sides tell theirs."""
    agree("DT", wanted, value)


def combined(date: str, time: str) -> Key | None:
    """The key of the study date of a query for date and time; None if they are not one range."""
    identifier = identifier_of({"StudyDate": date, "StudyTime": time})
    query = query_of(identifier, Level.STUDY, Level.STUDY, Negotiated(combined=True))
    return next((key for key in query.keys if key.matching is Matching.COMBINED), None)


whole_dates = digits(r"2024(\.?)0[12]\1[0-3][0-9]", r"202401[01][0-9]")
clocks = digits(r"1[0-2]([0-5]0([0-5]0(\.[05]{0,6})?)?)?", r"1[01]:[05]0:[05]0(\.5)?")


@given(
    st.tuples(whole_dates, clocks),
    st.tuples(whole_dates, clocks),
    st.sampled_from(["{0}-{1}", "{0}-", "-{1}"]),
    whole_dates | dates | st.lists(whole_dates, max_size=3).map("\\".join),
    clocks | times | st.just("") | st.lists(clocks | st.just(""), max_size=3).map("\\".join),
)
@example(("20060705", "10"), ("20060707", "18"), "{0}-{1}", "20060706", "235959")
@example(("20240101", "10"), ("20240102", "11"), "{0}-{1}", "20240101\\20240103", "09\\12")
@example(("20240101", "10"), ("20240102", "11"), "{0}-{1}", "20240105\\20240101", "10")
@example(("20240101", "10"), ("20240102", "11"), "{0}-{1}", "20240101", "10+0100")
@example(("20249901", "10"), ("20240102", "11"), "{0}-{1}", "20240101", "10")
def test_18_a_combined_range_is_the_oracle_s(
    first: tuple[str, str], last: tuple[str, str], form: str, date: str, time: str
) -> None:
    key = combined(form.format(first[0], last[0]), form.format(first[1], last[1]))
    assert key is not None
    found = native(key, date.encode(), time.encode())
    assert found == oracle.matches(key, date, time), (key, date, time)
    assert native(key.dates(), date.encode()) or not found


@pytest.mark.parametrize(
    ("dates", "times", "date", "time", "found"),
    [
        # The example of the standard: from July 5, 10 am, until July 7, 6 pm.
        ("20060705-20060707", "1000-1800", "20060706", "030000", True),
        ("20060705-20060707", "1000-1800", "20060705", "095959", False),
        ("20060705-20060707", "1000-1800", "20060707", "1800", True),
        ("20060705-20060707", "1000-1800", "20060707", "1801", False),
        ("20060705-", "1000-", "20060706", "0900", True),
        ("20060705-", "1000-", "20060705", "0900", False),
        ("-20060705", "-1000", "20060704", "2359", True),
        ("-20060705", "-1000", "20060705", "1030", False),
        ("2006.07.05-2006.07.07", "10:00-18:00", "2006.07.05", "10:00:00", True),
        ("20060705-20060707", "1000-1800", "20060707", "", True),  # some time of that day
        ("20060705-20060707", "1000-1800", "", "120000", False),
        ("20060705-20060707", "1000-1800", "20060706", "noon", False),
        ("20060705-20060707", "1000-1800", "2006", "1200", False),
    ],
)
def test_18_date_and_time_as_one_range(dates: str, times: str, date: str, time: str, found: bool) -> None:
    key = combined(dates, times)
    assert key is not None
    assert native(key, date.encode(), time.encode()) is found


@pytest.mark.parametrize(
    ("dates", "times"),
    [
        ("20240101-20240131", "10-"),
        ("20240101-", "-10"),
        ("20240101", "10-12"),
        ("20240101-20240131", "10"),
        ("202401-202402", "10-12"),
        ("20240101-20240131", "9-12"),
        ("-", "-"),
    ],
)
def test_18_ranges_of_different_forms_stay_two(dates: str, times: str) -> None:
    assert combined(dates, times) is None


@given(st.sampled_from(["IS", "DS", "US"]), *[st.text(st.sampled_from("0123.+-eExn\\ "), max_size=6)] * 2)
@example("DS", "1.50", "1.5")
@example("IS", "007", "7\\8")
@example("DS", "inf", "inf")
@example("DS", "0x10", "16")
@example("DS", "nan", "nan")
@example("US", "*", "1")
def test_numbers(vr: str, wanted: str, value: str) -> None:
    agree(vr, wanted, value)


@given(st.sampled_from(["PN", "LO", "DA", "UI"]), st.text(st.sampled_from("a^=\\ \0"), max_size=4))
def test_empty_values(vr: str, value: str) -> None:
    """C.2.2.2.7."""
    agree(vr, '""', value)


@pytest.mark.parametrize("negotiated", [ALL, Negotiated(fuzzy=True)], ids=["literal", "fuzzy"])
@pytest.mark.parametrize("vr", ["PN", "LO"])
@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("*a" * 10_000, "a" * 1_000_000),
        ("*a" * 5_000 + "*c", "a" * 1_000_000),
        ("*" * 10_000 + "b", "a" * 1_000_000),
        ("?" * 60_000 + "*", "山" * 300_000),
        ("*" + "a" * 4_000 + "b", "a" * 8_192),
        ("*=" * 5_000 + "a", "=" * 1_000_000),
        ("\\".join("ab" * 5_000), "\\".join("cd" * 100)),
        ("*a*b " * 200, "ab ba " * 170),
        ("*a" * 512, "ä" * 512),
    ],
)
def test_hostile_keys_take_bounded_time(vr: str, wanted: str, value: str, negotiated: Negotiated) -> None:
    key = key_of(TAG, vr, wanted, negotiated)
    began = time.process_time()
    native(key, value.encode())
    assert time.process_time() - began < 2


FORMS: Sequence[tuple[str, str, tuple[str, ...]]] = [
    (vr, matching, values)
    for vr in ("PN", "DA", "TM", "DT", "DS", "LO", "UI", "LT")
    for matching, values in (
        ("values", ("a\0b", "20240101")),
        ("wildcard", ("*?\0*", "?山*^?")),
        ("range", ("1", "2025")),
        ("empty", ()),
        ("fuzzy", ("a\0b=ß*", "?山*^?")),
        ("combined", ("2024010110", "20250101")),
    )
]
ANY = Matcher(FORMS)


@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from([b"\0", b"\xff", b"\xf0\x9f", b"\xe5\xb1", b"^", b"=", b"\\", b"2"])).map(
        b"".join
    )
)
@example(b"\xe5")
@example(b"a" * 2000)
@example("ß".encode() * 2000)
def test_bytes_that_are_no_text_do_no_harm(value: bytes) -> None:
    for test in range(ANY.count):
        ANY.matches(test, value)
        ANY.matches(test, value[:16], value)
        ANY.matches(test, b"20240101\\" * 3, value)


def test_of_a_component_group_1024_bytes_count() -> None:
    long = "ß" * 512
    assert native(key_of(TAG, "PN", long + "x"), (long + "y").encode())
    assert not native(key_of(TAG, "PN", long[:-1] + "x"), (long[:-1] + "y").encode())


def test_what_is_no_matcher() -> None:
    with pytest.raises(KeyError):
        Matcher([("LO", "phonetic", ())])
    with pytest.raises(ValueError, match="two ends"):
        Matcher([("DA", "range", ("1",))])
    with pytest.raises(IndexError):
        Matcher([]).matches(0, b"")
    with pytest.raises(TypeError, match="once"):
        Matcher([]).__init__([])  # type: ignore[misc]


def test_a_key_of_very_many_values_is_compiled_in_time_that_grows_with_them() -> None:
    began = time.process_time()
    matcher = Matcher([("LO", "values", [str(number) for number in range(200_000)])])
    assert time.process_time() - began < 5
    assert matcher.matches(0, b"199999")
    assert not matcher.matches(0, b"200000")


@pytest.mark.parametrize(
    ("first", "last", "matches"),
    [
        ("2023", "", True),
        ("", "2025", True),
        ("", "", True),
        ("20249901", "", False),
        ("", "20249901", False),
        ("20249901", "20259901", False),
        ("2023", "20259901", False),
    ],
)
def test_18_an_end_of_a_range_that_is_no_moment_matches_nothing(first: str, last: str, matches: bool) -> None:
    assert Matcher([("DT", "range", (first, last))]).matches(0, b"20240102101112") == matches
