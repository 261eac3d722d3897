"""The natural Python types of DICOM values (PS3.5 6.2): names, dates, times, and numbers written as text.

Each is what it is in Python (a `str`, `datetime.date`, `float`…) and remembers its text as it was written,
so that reading and writing changes nothing. They are immutable, compare and hash as their bases, and can be
copied and pickled. What Python computes from them (`Date + timedelta`) has the text that the standard asks.

Reading never fails: the text of a value that is none (a range of a query, garbage) stays a `str`. Writing is
strict and raises `InvalidValueError`; only what was read is written as it was. '' is a value of every VR.
"""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Iterator
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from enum import IntEnum
from typing import Any, Self, SupportsIndex, cast

from pacs_core._ext.literals import DecimalString, make_decimals, read_decimal
from pacs_core.errors import InvalidValueError

_HOUR = r"(?:[01]\d|2[0-3])"
_OFFSET = r"(?!-0000)(?:\+(?:0\d|1[0-3])[0-5]\d|\+1400|-(?:0\d|1[01])[0-5]\d|-1200)"
# HHMMSS.FFFFFF, cut off after any part, and the HH:MM:SS.FFFFFF of ACR-NEMA 300. Group 2 is a leap second.
_TIME = re.compile(rf"{_HOUR}(?:(:?)[0-5]\d(?:\1(?:[0-5]\d|(60))(?:\.\d{{1,6}})?)?)?", re.ASCII)
# YYYYMMDDHHMMSS.FFFFFF&ZZXX, cut off after any part. Groups: digits, fraction, offset.
_DIGITS = rf"\d{{4}}(?:\d\d){{0,2}}|\d{{8}}{_HOUR}(?:\d\d){{0,2}}"
_DATE_TIME = re.compile(rf"({_DIGITS})((?<=\d{{14}})\.\d{{1,6}})?({_OFFSET})?", re.ASCII)
# What stands for the parts that are cut off.
_EARLIEST = "00000101000000"
# Of these alone, `float` and `int` read what DS and IS allow; of others also '1_000', 'nan' or Arabic digits.
_OF_DECIMALS, _OF_INTEGERS = "0123456789+-.eE ", "0123456789+- "
_LONGEST_DECIMAL, _LONGEST_INTEGER = 16, 12
_LEAST_INTEGER, _GREATEST_INTEGER = -(2**31), 2**31 - 1
_NO_NAME = re.compile(r"[\\^=\x00-\x1f\x7f]")
_NO_GROUP = re.compile(r"[\\=\x00-\x1f\x7f]")


class Precision(IntEnum):
    """The last part that a time or a date and time gives; what it does not give is unknown, not zero."""

    YEAR = 1
    MONTH = 2
    DAY = 3
    HOUR = 4
    MINUTE = 5
    SECOND = 6
    FRACTION = 7


class PersonName(str):
    """A PN (PS3.5 6.2.1): up to three component groups, "Yamada^Tarou=山田^太郎=やまだ^たろう"."""

    __slots__ = ()

    @classmethod
    def of(
        cls,
        family: str,
        given: str = "",
        middle: str = "",
        prefix: str = "",
        suffix: str = "",
        *,
        ideographic: str = "",
        phonetic: str = "",
    ) -> Self:
        """A name of its components; `ideographic` and `phonetic` are whole groups, "山田^太郎".

        Raises
        ------
        InvalidValueError
            A delimiter or control character inside a component.
        """
        components = [family, given, middle, prefix, suffix]
        for pattern, texts in ((_NO_NAME, components), (_NO_GROUP, [ideographic, phonetic])):
            for text in texts:
                if pattern.search(text):
                    raise InvalidValueError("a delimiter or control character in part of a name", value=text)
        alphabetic = "^".join(components).rstrip("^")
        return cls("=".join((alphabetic, ideographic, phonetic)).rstrip("="))

    @property
    def alphabetic(self) -> str:
        """The first group, in single-byte characters."""
        return _part(self, "=", 0)

    @property
    def ideographic(self) -> str:
        """The second group."""
        return _part(self, "=", 1)

    @property
    def phonetic(self) -> str:
        """The third group."""
        return _part(self, "=", 2)

    @property
    def family_name(self) -> str:
        """The family name (family name complex) of the first group that is not empty."""
        return self._component(0)

    @property
    def given_name(self) -> str:
        """The given names (given name complex) of the first group that is not empty."""
        return self._component(1)

    @property
    def middle_name(self) -> str:
        """The middle names of the first group that is not empty."""
        return self._component(2)

    @property
    def name_prefix(self) -> str:
        """What stands before the name, "Dr.", in the first group that is not empty."""
        return self._component(3)

    @property
    def name_suffix(self) -> str:
        """What stands after the name, "Jr.", in the first group that is not empty."""
        return self._component(4)

    def _component(self, place: int) -> str:
        given = (group for group in self.split("=") if group.strip("^ "))
        return _part(next(given, ""), "^", place)


class _Moment:
    """What dates and times share: the text, which their bases know nothing of, nor their pickles."""

    __slots__ = ()
    _text: str

    @property
    def text(self) -> str:
        """The value as it is written; as it was, if it was read."""
        try:
            return self._text
        except AttributeError:
            return self._form()

    def _form(self) -> str:
        raise NotImplementedError

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        made = cast("tuple[Any, ...]", super().__reduce_ex__(protocol))
        return (*made[:2], self.__getstate__())


class Date(_Moment, datetime.date):
    """A DA: YYYYMMDD."""

    __slots__ = ("_text",)

    def _form(self) -> str:
        return _date_form(self)


class Time(_Moment, datetime.time):
    """A TM: HHMMSS.FFFFFF, or less of it. The leap second is read as the one before it."""

    __slots__ = ("_text",)

    @property
    def precision(self) -> Precision:
        """How much of the time is given."""
        whole, point, _ = self.text.replace(":", "").partition(".")
        return Precision.FRACTION if point else Precision(len(whole) // 2 + Precision.DAY)

    def _form(self) -> str:
        return _time_form(self)


class DateTime(_Moment, datetime.datetime):
    """A DT: YYYYMMDDHHMMSS.FFFFFF&ZZXX, or less of it; aware if it has an offset. Leap seconds as in a TM."""

    __slots__ = ("_text",)

    @property
    def precision(self) -> Precision:
        """How much of the date and time is given."""
        whole, point, _ = re.split("[+-]", self.text)[0].partition(".")
        return Precision.FRACTION if point else Precision(len(whole) // 2 - 1)

    def _form(self) -> str:
        return _date_time_form(self)


class IntegerString(int):
    """An IS.

    Raises
    ------
    InvalidValueError
        Of a number that no IS can be, or a text that is none.
    """

    _text: str

    def __new__(cls, value: SupportsIndex | str = 0) -> Self:
        text = integer_text(value)
        made = super().__new__(cls, text)
        made._text = text
        return made

    @property
    def text(self) -> str:
        """The value as it is written, without padding; as it was, if it was read."""
        try:
            return self._text.strip(" ")
        except AttributeError:
            return str(int(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return integer_string, (self.text,)


def date(text: str) -> Date | str:
    """The date of a DA; `text` itself if it is none."""
    digits = text.replace(".", "") if len(text) == 10 and text[4::3] == ".." else text  # ACR-NEMA 300
    if len(digits) != 8 or not digits.isdecimal():  # '2020W011' is a date to Python
        return text
    try:
        made = Date.fromisoformat(digits)
    except ValueError:
        return text
    made._text = text
    return made


def time(text: str) -> Time | str:
    """The time of a TM; `text` itself if it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return text
    leap = found.start(2)
    made = Time.fromisoformat(text if leap < 0 else f"{text[:leap]}59{text[leap + 2 :]}")
    made._text = text
    return made


def date_time(text: str) -> DateTime | str:
    """The date and time of a DT; `text` itself if it is none.

    A range of years ("2019-2020") is none, though '-' begins an offset too: no offset is -2020.
    """
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        return text
    digits, fraction, offset = found.groups("")
    whole = digits + _EARLIEST[len(digits) :]
    second = "59" if whole[12:] == "60" else whole[12:]
    try:
        made = DateTime.fromisoformat(f"{whole[:8]}T{whole[8:12]}{second}{fraction}{offset}")
    except ValueError:
        return text
    made._text = text
    return made


def decimal_string(text: str) -> DecimalString | str:
    """The number of a DS, of whatever length and size; `text` itself if it is none."""
    if text.strip(_OF_DECIMALS):
        return text
    try:
        return read_decimal(text)
    except ValueError:
        return text


def integer_string(text: str) -> IntegerString | str:
    """The number of an IS, of whatever size; `text` itself if it is none."""
    if text.strip(_OF_INTEGERS):
        return text
    try:
        made = int.__new__(IntegerString, text)
    except ValueError:  # no number; or one of over 4,300 digits, which Python does not read
        return text
    if text[0] in "+-0 ":  # An attribute takes as long as the number: not for what is written so anyway.
        made._text = text
    return made


def date_text(value: datetime.date | str) -> str:
    """A date as a DA is written.

    Raises
    ------
    InvalidValueError
        Not a date, or a text that is none.
    """
    if isinstance(value, Date):
        return value.text
    if isinstance(value, str):
        return _allowed("DA", value, "." not in value and isinstance(date(value), Date))
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return _date_form(value)
    raise _refused("DA", value)


def time_text(value: datetime.time | str) -> str:
    """A time as a TM is written: to the second, with a fraction if it has one.

    Raises
    ------
    InvalidValueError
        Not a time, or one with a time zone, or a text that is none.
    """
    if isinstance(value, Time):
        return value.text
    if isinstance(value, str):
        return _allowed("TM", value, ":" not in value and isinstance(time(value), Time))
    if isinstance(value, datetime.time):
        return _time_form(value)
    raise _refused("TM", value)


def date_time_text(value: datetime.date | str) -> str:
    """A date and time as a DT is written; a date alone is a DT of that precision.

    Raises
    ------
    InvalidValueError
        Not a date, or one with an offset that a DT can't have, or a text that is none.
    """
    if isinstance(value, DateTime):
        return value.text
    if isinstance(value, str):
        return _allowed("DT", value, isinstance(date_time(value), DateTime))
    if isinstance(value, datetime.datetime):
        return _date_time_form(value)
    if isinstance(value, datetime.date):
        return _date_form(value)
    raise _refused("DT", value)


def decimal_text(value: float | Decimal | str) -> str:
    """A number as a DS is written, in at most 16 characters: exact where they suffice, otherwise rounded.

    Raises
    ------
    InvalidValueError
        Not a number, not a finite one, or a text that is none.
    """
    if isinstance(value, DecimalString):
        return value.text
    if isinstance(value, str):
        sound = len(value) <= _LONGEST_DECIMAL and isinstance(decimal_string(value), DecimalString)
        return _allowed("DS", value, sound)
    try:
        # The digits of a float are the fewest that tell it from others.
        exact = Decimal(value if isinstance(value, int | Decimal) else repr(float(value)))
    except (TypeError, ValueError):
        raise _refused("DS", value) from None
    text = str(exact)
    if exact.is_finite() and len(text) <= _LONGEST_DECIMAL:
        return text
    fitting = (form for form in _decimal_forms(exact) if len(form) <= _LONGEST_DECIMAL)
    if exact.is_finite() and (text := next(fitting, "")):
        return text
    raise _refused("DS", value)


def integer_text(value: SupportsIndex | str) -> str:
    """A whole number as an IS is written.

    Raises
    ------
    InvalidValueError
        Not a whole number, not one of 32 bits, or a text that is none.
    """
    if isinstance(value, IntegerString):
        return value.text
    if isinstance(value, str):
        read = integer_string(value) if len(value) <= _LONGEST_INTEGER else value
        return _allowed("IS", value, isinstance(read, int) and _LEAST_INTEGER <= read <= _GREATEST_INTEGER)
    try:
        number = operator.index(value)
    except TypeError:
        raise _refused("IS", value) from None
    if not _LEAST_INTEGER <= number <= _GREATEST_INTEGER:
        raise _refused("IS", value)
    return str(number)


def _date_form(value: datetime.date) -> str:
    return f"{value.year:04}{value.month:02}{value.day:02}"


def _time_form(value: datetime.time) -> str:
    if value.tzinfo is not None:
        raise _refused("TM", value)
    return _clock(value)


def _date_time_form(value: datetime.datetime) -> str:
    offset = value.utcoffset()
    if offset is None:
        return _date_form(value) + _clock(value)
    minutes, rest = divmod(offset, datetime.timedelta(minutes=1))
    if rest or not -12 * 60 <= minutes <= 14 * 60:
        raise _refused("DT", value)
    hours, minutes = divmod(abs(minutes), 60)
    sign = "-" if offset < datetime.timedelta() else "+"
    return f"{_date_form(value)}{_clock(value)}{sign}{hours:02}{minutes:02}"


def _clock(value: datetime.time | datetime.datetime) -> str:
    fraction = f".{value.microsecond:06}" if value.microsecond else ""
    return f"{value.hour:02}{value.minute:02}{value.second:02}{fraction}"


def _decimal_forms(exact: Decimal) -> Iterator[str]:
    """The ways to write a number, of ever fewer digits; of as many, the plainer before the shorter ones."""
    for precision in range(_LONGEST_DECIMAL, 0, -1):
        rounded = Context(precision, Emin=MIN_EMIN, Emax=MAX_EMAX).normalize(exact)
        sign, digits, exponent = rounded.as_tuple()
        scientific = f"{rounded:E}".replace("E+", "E")
        if abs(rounded.adjusted()) < _LONGEST_DECIMAL:
            plain = f"{rounded:f}"
            yield from (plain, scientific, plain.replace("0.", ".", 1) if abs(rounded) < 1 else plain)
        else:
            yield scientific
        yield f"{'-' * sign}{''.join(map(str, digits))}E{exponent}"


def _part(text: str, delimiter: str, place: int) -> str:
    parts = text.split(delimiter)
    return parts[place] if place < len(parts) else ""


def _allowed(vr: str, text: str, sound: bool) -> str:
    if sound or not text:
        return text
    raise _refused(vr, text)


def _refused(vr: str, value: object) -> InvalidValueError:
    return InvalidValueError(f"not a value that {vr} allows", value=value)


make_decimals(as_written=decimal_text, again=decimal_string)
