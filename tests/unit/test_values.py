"""Values as Python has them: what is read, what stays text, what is written; pydicom as the oracle."""

import copy
import datetime
import gc
import pickle
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.valuerep import format_number_as_ds, is_valid_ds

from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.values import (
    Date,
    DateTime,
    DecimalString,
    IntegerString,
    PersonName,
    Precision,
    Time,
    date,
    date_text,
    date_time,
    date_time_text,
    decimal_string,
    decimal_text,
    integer_string,
    integer_text,
    time,
    time_text,
)
from pacs_core.dimse.status import comment_of
from pacs_core.errors import InvalidValueError

UTC = datetime.UTC


def zone(minutes: int) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(minutes=minutes))


READ = [
    (date, "20200229", Date, datetime.date(2020, 2, 29)),
    (date, "00010101", Date, datetime.date(1, 1, 1)),
    (date, "1993.08.22", Date, datetime.date(1993, 8, 22)),
    (time, "07", Time, datetime.time(7)),
    (time, "0709", Time, datetime.time(7, 9)),
    (time, "070907", Time, datetime.time(7, 9, 7)),
    (time, "070907.5", Time, datetime.time(7, 9, 7, 500_000)),
    (time, "235959.123456", Time, datetime.time(23, 59, 59, 123_456)),
    (time, "07:09", Time, datetime.time(7, 9)),
    (time, "07:09:07.05", Time, datetime.time(7, 9, 7, 50_000)),
    (time, "235960", Time, datetime.time(23, 59, 59)),
    (time, "23:59:60.25", Time, datetime.time(23, 59, 59, 250_000)),
    (date_time, "2020", DateTime, datetime.datetime(2020, 1, 1)),
    (date_time, "202002", DateTime, datetime.datetime(2020, 2, 1)),
    (date_time, "20200229", DateTime, datetime.datetime(2020, 2, 29)),
    (date_time, "2020022907", DateTime, datetime.datetime(2020, 2, 29, 7)),
    (date_time, "202002290709", DateTime, datetime.datetime(2020, 2, 29, 7, 9)),
    (date_time, "20200229070907", DateTime, datetime.datetime(2020, 2, 29, 7, 9, 7)),
    (date_time, "20200229070907.25", DateTime, datetime.datetime(2020, 2, 29, 7, 9, 7, 250_000)),
    (date_time, "20161231235960", DateTime, datetime.datetime(2016, 12, 31, 23, 59, 59)),
    (date_time, "20200229+0000", DateTime, datetime.datetime(2020, 2, 29, tzinfo=UTC)),
    (date_time, "2020-1200", DateTime, datetime.datetime(2020, 1, 1, tzinfo=zone(-720))),
    (date_time, "2020-0030", DateTime, datetime.datetime(2020, 1, 1, tzinfo=zone(-30))),
    (
        date_time,
        "20200229070907.5+1400",
        DateTime,
        datetime.datetime(2020, 2, 29, 7, 9, 7, 500_000, zone(840)),
    ),
    (decimal_string, "1.50", DecimalString, 1.5),
    (decimal_string, "-.5", DecimalString, -0.5),
    (decimal_string, "+5.", DecimalString, 5.0),
    (decimal_string, "1E-5", DecimalString, 1e-5),
    (decimal_string, "1e999", DecimalString, float("inf")),
    (decimal_string, "3.14159265358979323846", DecimalString, 3.141592653589793),
    (integer_string, "0", IntegerString, 0),
    (integer_string, "512", IntegerString, 512),
    (integer_string, "+5", IntegerString, 5),
    (integer_string, "-007", IntegerString, -7),
    (integer_string, "99999999999999999999", IntegerString, 99999999999999999999),
]


@pytest.mark.parametrize(("read", "text", "kind", "value"), READ)
def test_a_value_is_what_python_has_for_it_and_keeps_its_text(
    read: Callable[[str], Any], text: str, kind: type, value: object
) -> None:
    found = read(text)
    assert type(found) is kind
    assert found == value
    assert hash(found) == hash(value)
    assert found.text == text
    if isinstance(value, datetime.datetime):
        assert found.utcoffset() == value.utcoffset()


@pytest.mark.parametrize(("read", "text", "kind", "value"), READ)
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, *(lambda v, p=p: pickle.loads(pickle.dumps(v, p)) for p in (0, 2, 5))],
    ids=["copy", "deepcopy", "pickle 0", "pickle 2", "pickle 5"],
)
def test_a_copy_keeps_type_value_and_text(
    read: Callable[[str], Any], text: str, kind: type, value: object, again: Callable[[Any], Any]
) -> None:
    found = again(read(text))
    assert (type(found), found, found.text) == (kind, value, text)


# What has no spaces in it, and what does or is not easily seen.
NOT_READ = [
    (
        date,
        "20200230 00000000 2020 20200101-20200131 2020W011 2020-01-01 202001.01. 2020.01.1 x",
        ["", "２０２００１０１", "20200101 "],
    ),
    (
        time,
        "24 1060 101061 1 101 1011.5 10.5 101112. 101112.1234567 101112,5 0800-1000 10:1112 1011:12 10:11Z",
        ["", "T10", "101112+0100", "１０１１", "10\n"],
    ),
    (
        date_time,
        "20 20201 202013 20200230 2020010124 202001012360 20200101101161 2020.5 202001011011.5 0000 "
        "2019-2020 20190101-20200101 2020-0000 2020+1401 20200101101112.1234567",
        ["", "2020-1201", "2020+01", "20200101T10", "２０２０"],
    ),
    (
        decimal_string,
        "abc 1_000 nan NaN infinity -inf 0x10 1,5 . 1e 1e5.5 --1 1-2 1.5d0",
        ["", " ", "1 2", "１", "1\n"],
    ),
    (integer_string, "abc 1.5 1.0 1_000 0x10 1e3 --1 1-2 +", ["", " ", "1 2", "１", "5\n", "9" * 5000]),
]


@pytest.mark.parametrize(("read", "words", "more"), NOT_READ)
def test_what_is_no_value_stays_the_text_it_is(
    read: Callable[[str], object], words: str, more: list[str]
) -> None:
    for text in [*words.split(), *more]:
        assert read(text) is text


def test_padding_is_not_part_of_a_number() -> None:
    assert (decimal_string(" 5 "), integer_string(" 5 ")) == (5.0, 5)
    assert (decimal_string(" 5 ").text, integer_string(" 5 ").text, integer_string("5 ").text) == (
        "5",
        "5",
        "5",
    )


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("07", "HOUR"),
        ("0709", "MINUTE"),
        ("07:09", "MINUTE"),
        ("070907", "SECOND"),
        ("07:09:07.5", "FRACTION"),
    ],
)
def test_the_precision_of_a_time(text: str, precision: str) -> None:
    assert time(text).precision is Precision[precision]


@pytest.mark.parametrize("offset", ["", "+0100", "-0100"])
@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("2020", "YEAR"),
        ("202002", "MONTH"),
        ("20200229", "DAY"),
        ("2020022907", "HOUR"),
        ("202002290709", "MINUTE"),
        ("20200229070907", "SECOND"),
        ("20200229070907.0", "FRACTION"),
    ],
)
def test_the_precision_of_a_date_and_time(text: str, precision: str, offset: str) -> None:
    assert date_time(text + offset).precision is Precision[precision]


def test_what_is_computed_has_the_text_of_its_value() -> None:
    day = date("2020.02.28") + datetime.timedelta(days=1)
    assert (type(day), day.text) == (Date, "20200229")
    later = date_time("2020-0330") + datetime.timedelta(hours=1, microseconds=7)
    assert (later.text, later.precision) == ("20200101010000.000007-0330", Precision.FRACTION)
    assert time("0709").replace(second=5).text == "070905"
    assert pickle.loads(pickle.dumps(day)).text == "20200229"
    assert (DecimalString(1.5).text, IntegerString(7).text) == ("1.5", "7")
    assert (DecimalString("1.50").text, IntegerString("+7").text) == ("1.50", "+7")


@pytest.mark.parametrize("attribute", ["text", "year"])
def test_a_value_can_not_be_changed(attribute: str) -> None:
    with pytest.raises(AttributeError):
        setattr(date("20200101"), attribute, "20210101")


def test_the_decimal_of_a_number_is_exact() -> None:
    assert decimal_string("0.1").decimal == Decimal("0.1")
    assert str(decimal_string(" 3.14159265358979323846000 ").decimal) == "3.14159265358979323846000"
    assert decimal_string("1e999").decimal == Decimal("1e999")
    assert decimal_string("1e" + "9" * 30).decimal == Decimal("Infinity")


# Names


def test_a_name_is_its_text_and_knows_its_groups() -> None:
    name = PersonName("Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert name == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert {name: 1}[str(name)] == 1
    assert (name.alphabetic, name.ideographic, name.phonetic) == (
        "Yamada^Tarou",
        "山田^太郎",
        "やまだ^たろう",
    )
    assert (PersonName("A^B").ideographic, PersonName("A^B").phonetic) == ("", "")
    assert pickle.loads(pickle.dumps(name)) == copy.copy(name) == name
    assert type(pickle.loads(pickle.dumps(name))) is PersonName


@pytest.mark.parametrize(
    ("text", "components"),
    [
        (
            "Adams^John Robert Quincy^^Rev.^B.A. M.Div.",
            ("Adams", "John Robert Quincy", "", "Rev.", "B.A. M.Div."),
        ),
        ("Doe", ("Doe", "", "", "", "")),
        ("", ("", "", "", "", "")),
        ("=山田^太郎", ("山田", "太郎", "", "", "")),
        ("^^==やまだ^たろう", ("やまだ", "たろう", "", "", "")),
        ("^Jane=山田", ("", "Jane", "", "", "")),
        ("A^B^C^D^E^F", ("A", "B", "C", "D", "E")),
    ],
)
def test_the_components_of_a_name(text: str, components: tuple[str, ...]) -> None:
    name = PersonName(text)
    found = (name.family_name, name.given_name, name.middle_name, name.name_prefix, name.name_suffix)
    assert found == components


def test_a_name_is_made_of_components_without_needless_delimiters() -> None:
    made = PersonName.of("Adams", "John", prefix="Rev.")
    assert (type(made), made) == (PersonName, "Adams^John^^Rev.")
    assert PersonName.of("Doe") == "Doe"
    assert PersonName.of("A", "B", "C", "D", "E") == "A^B^C^D^E"
    assert PersonName.of("Yamada", "Tarou", phonetic="やまだ^たろう") == "Yamada^Tarou==やまだ^たろう"
    assert PersonName.of("", ideographic="山田^太郎") == "=山田^太郎"


@pytest.mark.parametrize("part", ["a^b", "a=b", "a\\b", "a\nb", "a\x1b"])
def test_a_component_with_a_delimiter_is_refused(part: str) -> None:
    for place in range(5):
        with pytest.raises(InvalidValueError):
            PersonName.of(*[""] * place, part)
    if "^" not in part:
        for group in ("ideographic", "phonetic"):
            with pytest.raises(InvalidValueError):
                PersonName.of("A", **{group: part})


# Writing


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (date_text, datetime.date(33, 2, 1), "00330201"),
        (date_text, date("1993.08.22"), "1993.08.22"),
        (date_text, "20200101", "20200101"),
        (date_text, "", ""),
        (time_text, datetime.time(7, 9), "070900"),
        (time_text, datetime.time(7, 9, 7, 50), "070907.000050"),
        (time_text, time("07:09"), "07:09"),
        (time_text, "235960.5", "235960.5"),
        (date_time_text, datetime.datetime(33, 2, 1, 7), "00330201070000"),
        (
            date_time_text,
            datetime.datetime(2020, 2, 1, 7, 0, 0, 50, zone(-210)),
            "20200201070000.000050-0330",
        ),
        (date_time_text, datetime.datetime(2020, 2, 1, tzinfo=zone(840)), "20200201000000+1400"),
        (date_time_text, datetime.datetime(2020, 2, 1, tzinfo=UTC), "20200201000000+0000"),
        (date_time_text, datetime.date(2020, 2, 1), "20200201"),
        (date_time_text, date("1993.08.22"), "19930822"),
        (date_time_text, date_time("2020+0100"), "2020+0100"),
        (date_time_text, "202002", "202002"),
        (decimal_text, 5, "5"),
        (decimal_text, 0.1, "0.1"),
        (decimal_text, -0.0, "-0.0"),
        (decimal_text, 1e22, "1E+22"),
        (decimal_text, 0.1 + 0.2, "0.3"),
        (decimal_text, 1 / 3, ".333333333333333"),
        (decimal_text, -200 / 3, "-66.666666666667"),
        (decimal_text, 1 / 3e20, "333333333333E-32"),
        (decimal_text, 12345678901234567, "12345678901235E3"),
        (decimal_text, 10**4000, "1E4000"),
        (decimal_text, Decimal("1.50"), "1.50"),
        (decimal_text, Decimal("1e-99999999999"), "1E-99999999999"),
        (decimal_text, Decimal("1.23456789e999999999"), "123457E999999994"),
        (decimal_text, Fraction(1, 4), "0.25"),
        (decimal_text, np.float32(0.5), "0.5"),
        (decimal_text, np.float64(0.1), "0.1"),
        (decimal_text, decimal_string("3.14159265358979323846"), "3.14159265358979323846"),
        (decimal_text, " 1.5", " 1.5"),
        (integer_text, -(2**31), "-2147483648"),
        (integer_text, 2**31 - 1, "2147483647"),
        (integer_text, True, "1"),
        (integer_text, np.uint8(7), "7"),
        (integer_text, integer_string("99999999999"), "99999999999"),
        (integer_text, "+0000000005", "+0000000005"),
    ],
)
def test_a_value_is_written_as_its_vr_asks(write: Callable[[Any], str], value: object, text: str) -> None:
    assert write(value) == text


def at_offset(**offset: int) -> datetime.datetime:
    return datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(**offset)))


NOT_WRITTEN = {
    date_text: ["20200230", "2020.01.01", "20200101-20200131", datetime.datetime(2020, 1, 1), 20200101],
    time_text: ["10:11", "24", datetime.time(7, tzinfo=UTC), 7],
    date_time_text: [
        *("2020.5", "2019-2020", 2020, datetime.time(7)),
        *(at_offset(minutes=841), at_offset(minutes=-721), at_offset(seconds=90)),
    ],
    decimal_text: [
        *("abc", "1_000", "12345678901234567", object(), None, float("nan"), float("-inf")),
        *map(Decimal, ("sNaN", "Infinity", "1e-99999999999999999")),
    ],
    integer_text: ["1.0", "2147483648", "-2147483649", "+00000000000005", 2**31, -(2**31) - 1, 1.5, None],
}


@pytest.mark.parametrize(("write", "values"), NOT_WRITTEN.items())
def test_what_its_vr_does_not_allow_is_not_written(write: Callable[[Any], str], values: list[object]) -> None:
    for value in values:
        with pytest.raises(InvalidValueError) as caught:
            write(value)
        assert caught.value.value is value


@pytest.mark.parametrize("kind", [DecimalString, IntegerString])
def test_a_number_that_can_not_be_written_can_not_be_made(kind: type) -> None:
    for value in ("abc", "1_000"):
        with pytest.raises(InvalidValueError):
            kind(value)
    with pytest.raises(InvalidValueError):
        DecimalString(float("nan"))


def test_an_error_names_the_value_but_not_to_a_peer() -> None:
    with pytest.raises(InvalidValueError) as caught:
        date_text("Doe^Jane")
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == "not a value that DA allows: 'Doe^Jane'"
    assert comment_of(caught.value) == "not a value that DA allows"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(
        InvalidValueError, match=r"^not a value that IS allows: int that is too long to print$"
    ):
        integer_text(10**5000)


@given(st.dates())
def test_every_date_comes_back(value: datetime.date) -> None:
    assert date(date_text(value)) == value
    assert date_time(date_text(value)) == datetime.datetime(value.year, value.month, value.day)


@given(st.times())
def test_every_time_comes_back(value: datetime.time) -> None:
    assert time(time_text(value)) == value


@given(st.datetimes(timezones=st.none() | st.integers(-720, 840).map(zone)))
def test_every_date_and_time_comes_back(value: datetime.datetime) -> None:
    found = date_time(date_time_text(value))
    assert (found, found.utcoffset()) == (value, value.utcoffset())


@given(st.floats(allow_nan=False, allow_infinity=False) | st.decimals(allow_nan=False, allow_infinity=False))
def test_a_ds_loses_no_more_than_pydicoms(value: float | Decimal) -> None:
    text = decimal_text(value)
    assert is_valid_ds(text)
    exact = Decimal(value)
    if Decimal("1e-300") < abs(exact) < Decimal("1e300"):
        ours, theirs = Fraction(text), Fraction(format_number_as_ds(value))
        assert abs(ours - Fraction(value)) <= abs(theirs - Fraction(value))


NUMBER = st.from_regex(
    r"[+-]?([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


def read_from_bytes(vr: str, *texts: str) -> Any:
    dataset = Dataset()
    dataset._put(0x00091010, vr, "\\".join(texts).encode())
    return dataset.element(0x00091010).values


@given(st.lists(NUMBER, min_size=1, max_size=3))
@example(["9007199254740993", "123456789012345e22", "1e-22", "1e23", "-0", "0." + "0" * 20 + "1"])
def test_a_ds_in_bytes_is_to_the_last_bit_what_python_reads(texts: list[str]) -> None:
    found = read_from_bytes("DS", *texts)
    assert [struct.pack("<d", value) for value in found] == [struct.pack("<d", float(t)) for t in texts]
    assert [(type(value), value.text) for value in found] == [(DecimalString, text) for text in texts]


@given(st.lists(st.from_regex(r"[+-]?[0-9]{1,25}", fullmatch=True), min_size=1, max_size=3))
@example(["-0", "+0", "0", "00", "-5", "999999999999999999", "-1000000000000000000"])
def test_an_is_in_bytes_is_what_python_reads(texts: list[str]) -> None:
    found = read_from_bytes("IS", *texts)
    assert [(type(value), value, value.text) for value in found] == [
        (IntegerString, int(text), text) for text in texts
    ]
    assert found == tuple(pickle.loads(pickle.dumps(value)) for value in found)


def test_values_in_the_standard_forms_cost_the_garbage_collector_nothing() -> None:
    for vr, text in {
        "DS": "1.5",
        "IS": "7",
        "DA": "20240102",
        "TM": "101112",
        "DT": "20240102101112",
    }.items():
        (value,) = read_from_bytes(vr, text)
        assert (value.text, gc.is_tracked(value)) == (text, False)


def test_a_class_made_of_decimal_string_is_one() -> None:
    class Length(DecimalString):
        unit = "mm"

    length = Length("2.50")
    length.of = "ruler"  # type: ignore[attr-defined]
    assert (length, length.text, length.unit, hash(length)) == (2.5, "2.50", "mm", hash(2.5))
    assert type(length) is Length
    assert type(length + 1) is float
    with pytest.raises(InvalidValueError):
        Length("1_000")
    with pytest.raises(TypeError):
        DecimalString("1", "2")  # type: ignore[call-arg]


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_integer_comes_back(value: int) -> None:
    found = integer_string(integer_text(value))
    assert (found, found.text) == (value, str(value))


@given(st.text(st.sampled_from("0123456789+-.eE _xn"), max_size=20))
def test_a_ds_is_read_if_it_has_the_form_of_one(text: str) -> None:
    """pydicom's pattern is of at most 16 characters."""
    found = isinstance(decimal_string(text), DecimalString)
    assert found == (is_valid_ds(text) and text.strip(" ") != "") or len(text) > 16
