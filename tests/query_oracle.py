"""The rules of `pacs_core.dicom.query` written down a second time, slow and obvious: who answers a query."""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from index_model import Instance, amount

from pacs_core.dicom.attributes import ATTRIBUTES, Level
from pacs_core.dicom.query import Key, Matching, Query

Row = dict[int, str]

NUMBERS = {"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
ONE_VALUE = {"LT", "ST", "UR", "UT"}
IDENTIFYING = {0x0020_000D, 0x0020_000E, 0x0008_0018}
LEVELS = {attribute.tag: attribute.level for attribute in ATTRIBUTES} | {
    0x0020_1200: Level.PATIENT,
    0x0020_1202: Level.PATIENT,
    0x0020_1204: Level.PATIENT,
    0x0008_0061: Level.STUDY,
    0x0008_0062: Level.STUDY,
    0x0020_1206: Level.STUDY,
    0x0020_1208: Level.STUDY,
    0x0020_1209: Level.SERIES,
}


# --- one key ----------------------------------------------------------------------------------------------


@functools.cache
def matches(key: Key, text: str, time: str = "", nested: bool = False) -> bool:
    """Whether an attribute of that text, '' if it is absent, is what a key asks for; a date with its time."""
    if key.matching is Matching.UNIVERSAL:
        return True
    if key.matching is Matching.SEQUENCE:  # one item that is all that is asked for
        items = json.loads(text or "[]")
        return any(
            all(matches(one, item.get(str(one.tag), ""), nested=True) for one in key.keys) for item in items
        )
    if key.matching is Matching.COMBINED:
        pairs = itertools.zip_longest(text.split("\\"), time.split("\\"), fillvalue="")
        return any(_in_moments(key.values, _moment(*pair)) for pair in pairs)
    if key.matching is Matching.EMPTY:
        return not text.strip(" \0\\^=" if key.vr == "PN" else " \0\\")
    one = key.vr in ONE_VALUE or (key.tag in IDENTIFYING and not nested)
    values = [value.strip(" \0") for value in ([text] if one else text.split("\\"))]
    return any(_value(key, value) for value in values if value)


def _value(key: Key, value: str) -> bool:
    if key.matching is Matching.RANGE:
        return _RANGES[key.vr](key.values, value)
    if key.matching is Matching.FUZZY:
        return any(_name(wanted, value, True, fuzzy=True) for wanted in key.values)
    wild = key.matching is Matching.WILDCARD
    return any(_is(key.vr, wanted, value, wild) for wanted in key.values)


def _is(vr: str, wanted: str, value: str, wild: bool) -> bool:
    if vr == "PN":
        return _name(wanted, value, wild)
    if vr in _SINGLE:
        one, other = _SINGLE[vr](wanted), _SINGLE[vr](value)
        return one is not None and other is not None and _same(one, other)
    if vr in NUMBERS and (number := _number(wanted)) is not None:
        return number == _number(value)
    return pattern(wanted, [(char, False) for char in value]) if wild else wanted == value


def pattern(wanted: str, text: list[tuple[str, bool]]) -> bool:
    """Whether characters, each with whether it only goes on another one, are what a pattern says."""
    at = {0}
    for char in wanted:
        if char == "*":
            at = set(range(min(at), len(text) + 1)) if at else at
        elif char == "?":
            at = {_behind(text, place) for place in at if place < len(text)}
        else:
            at = {place + 1 for place in at if place < len(text) and text[place][0] == char}
    return len(text) in at


def _behind(text: list[tuple[str, bool]], place: int) -> int:
    place += 1
    while place < len(text) and text[place][1]:
        place += 1
    return place


# --- names ------------------------------------------------------------------------------------------------


def _name(wanted: str, value: str, wild: bool, *, fuzzy: bool = False) -> bool:
    groups, keys = value.split("="), wanted.split("=")
    if len(keys) == 1:
        return any(_group(wanted, group, wild) or (fuzzy and _fuzzy(wanted, group)) for group in groups)
    return all(
        number < len(groups)
        and (_group(group, groups[number], wild) or (fuzzy and _fuzzy(group, groups[number])))
        for number, group in enumerate(keys)
        if group.strip(" \0^*")
    )


def _components(group: str) -> list[str]:
    components = [component.strip(" \0") for component in group.strip(" \0").split("^")]
    while components and not components[-1]:
        components.pop()
    return components


def _group(wanted: str, group: str, wild: bool) -> bool:
    asked = "^".join(_components(wanted)).casefold()
    found = _components(group)
    if not wild:
        return asked == "^".join(found).casefold()
    if not found:
        return False
    padded = found + [""] * (5 - len(found))
    return pattern(asked, _folded("^".join(found))) or (
        "^" in asked and pattern(asked, _folded("^".join(padded)))
    )


_LETTERS = {
    **{letter: (bare, bare) for letter, bare in {"œ": "oe", "æ": "ae", "þ": "th", "’": ""}.items()},
    **{letter: (bare, bare) for letter, bare in {"ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t"}.items()},
    **{"ø": ("o", "oe"), "ı": ("i", "i")},
}
_WRITTEN_OUT = {("a", "\u0308"): "e", ("o", "\u0308"): "e", ("u", "\u0308"): "e", ("a", "\u030a"): "a"}


def _fuzzy(wanted: str, group: str) -> bool:
    """Whether there is a word that begins with each of those that are wanted, bare or written out."""
    bare, out = (
        [word for word in _words(wanted, out, kept="*?") if word.strip("*")] for out in (False, True)
    )
    return bool(bare) and all(
        any(re.match(_expression(one), word) for word in _words(group, False))
        or any(re.match(_expression(other), word) for word in _words(group, True))
        for one, other in zip(bare, out, strict=True)
    )


def _expression(word: str) -> str:
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(char, re.escape(char)) for char in word)


def _words(text: str, written_out: bool, kept: str = "") -> list[str]:
    bare = ""
    for char in text:
        bare += (
            char if char in kept else _plain(char, bare[-1:] if char in "\u0308\u030a" else "", written_out)
        )
    return "".join(
        char if char in kept or char.isascii() is False or char.isalnum() else " " for char in bare
    ).split(" ")


def _plain(char: str, before: str, written_out: bool) -> str:
    """What is compared of a character: lower case, without compatibility and marks."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char.casefold()).casefold())
    plain = ""
    for part in decomposed:
        if part in _LETTERS:
            plain += _LETTERS[part][written_out]
        elif unicodedata.category(part) == "Mn" and ord(part) < 0x700:
            base = plain[-1:] or before
            plain += _WRITTEN_OUT.get((base, part), "") if written_out else ""
        elif part != "'":
            plain += " " if part in "*?" else part
    return plain


def _folded(text: str) -> list[tuple[str, bool]]:
    return [(folded, number > 0) for char in text for number, folded in enumerate(char.casefold())]


# --- dates, times, numbers --------------------------------------------------------------------------------


def _date(text: str) -> str | None:
    if re.fullmatch(r"....\...\...", text, re.ASCII | re.DOTALL):
        text = text.replace(".", "")
    return text if re.fullmatch(r"[0-9]+", text) else None


def _time(text: str, fill: str = "0") -> str | None:
    """A time to the microsecond, hhmmssffffff; what is not told is filled up."""
    found = re.fullmatch(r"([0-9]{2}|[0-9]{4}|[0-9]{6}(\.[0-9]{0,6})?)", text.replace(":", ""))
    if found is None:
        return None
    whole, _, fraction = found[0].partition(".")
    return whole.ljust(6, fill) + fraction.ljust(6, fill)


_DT = re.compile(
    r"([0-9]{4})([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?(\.[0-9]{0,6})?([+-][0-9]{4})?"
)


def _span(text: str) -> tuple[datetime, datetime, timedelta | None] | None:
    """From, until (not with), and the offset."""
    found = _DT.fullmatch(text)
    if found is None or (found[7] and not found[6]):
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in found.groups()[:6])
    if month not in (None, *range(1, 13)) or day not in (None, *range(1, 32)):
        return None
    if (hour or 0) > 23 or (minute or 0) > 59 or (second or 0) > 60:
        return None
    begin = datetime(year or 1, month or 1, 1) + timedelta(days=(day or 1) - 1)
    begin += timedelta(hours=hour or 0, minutes=minute or 0, seconds=second or 0)
    fraction = (found[7] or ".")[1:]
    begin += timedelta(microseconds=int(fraction.ljust(6, "0")))
    if month is None:
        end = begin.replace(year=begin.year + 1)
    elif day is None:
        end = (begin + timedelta(days=31)).replace(day=1)
    else:
        finest = [
            part for part in ((3, "days"), (4, "hours"), (5, "minutes"), (6, "seconds")) if found[part[0]]
        ]
        end = begin + timedelta(**{finest[-1][1]: 1 / 10 ** len(fraction)})
    return begin, end, _offset(found[8])


def _moment(date: str, time: str) -> str:
    """A date and a time put together; '' if there is no whole date, or what is no time."""
    day = _date(date.strip(" \0")) or ""
    clock = time.strip(" \0").replace(":", "")
    return day + clock if len(day) == 8 and re.fullmatch(r"[0-9.]*", clock) else ""


def _offset(text: str | None) -> timedelta | None:
    if text is None:
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return offset if text[0] == "+" else -offset


def _shift(one: timedelta | None, other: timedelta | None) -> timedelta:
    return timedelta() if one is None or other is None else one - other


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return bool(one == other)
    shift = _shift(other[2], one[2])
    return bool(one[:2] == (other[0] - shift, other[1] - shift))


def _number(text: str) -> float | None:
    if not re.fullmatch(r"[0-9+\-.eE]+", text):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _in_dates(ends: tuple[str, ...], value: str) -> bool:
    date, first, last = (_date(text) for text in (value, *ends))
    if date is None or (ends[0] and first is None) or (ends[1] and last is None):
        return False
    return date[: len(first or "")] >= (first or "") and date[: len(last or "")] <= (last or "")


def _in_times(ends: tuple[str, ...], value: str) -> bool:
    time, first, last = _time(value), _time(ends[0], "0"), _time(ends[1], "9")
    if time is None or (ends[0] and first is None) or (ends[1] and last is None):
        return False
    return (first or "") <= time and (last is None or time <= last)


def _in_moments(ends: tuple[str, ...], value: str) -> bool:
    span, first, last = _span(value), _span(ends[0]), _span(ends[1])
    if span is None or (ends[0] and first is None) or (ends[1] and last is None):
        return False
    if first is not None and span[1] - _shift(span[2], first[2]) <= first[0]:
        return False
    return last is None or span[0] - _shift(span[2], last[2]) < last[1]


_SINGLE: dict[str, Any] = {"DA": _date, "TM": _time, "DT": _span}
_RANGES: dict[str, Any] = {"DA": _in_dates, "TM": _in_times, "DT": _in_moments}


# --- all that is held -------------------------------------------------------------------------------------


def answer(query: Query, rows: Iterable[Row]) -> list[Row]:
    """Those of what is held at the level of a query that match it."""
    keys = [key for key in query.keys if LEVELS.get(key.tag, Level.IMAGE + 1) <= query.level]
    return [row for row in rows if all(matches(key, *(row.get(tag, "") for tag in key.tags)) for key in keys)]


def held(instances: list[Instance]) -> dict[Level, list[Row]]:
    """What is known of each patient, study, series and instance, and of what it belongs to."""
    uids = {one.study: one["StudyInstanceUID"] for one in instances}
    found: dict[Level, list[Row]] = {level: [] for level in Level}
    for name, patient in amount(instances)["patients"].items():
        for level, row in _below(name, patient, uids):
            found[level].append({tag: value for tag, value in row.items() if value})
    return found


def _below(name: str, patient: dict[str, Any], uids: dict[str, str]) -> Iterator[tuple[Level, Row]]:
    patient_id, _, issuer = ("", "", "") if name.startswith("of study") else name.rpartition("\\")
    counts = map(str, patient["counters"])
    who = {0x0010_0020: patient_id, 0x0010_0021: issuer, **_values(patient)}
    who |= zip((0x0020_1200, 0x0020_1202, 0x0020_1204), counts, strict=True)
    yield Level.PATIENT, who
    for key, study in patient["studies"].items():
        which = who | _values(study)
        which[0x0020_000D] = uids[key]
        which[0x0008_0061], which[0x0008_0062] = (
            "\\".join(sorted(study[names])) for names in ("modalities", "classes")
        )
        which[0x0020_1206], which[0x0020_1208] = str(len(study["series"])), str(study["instances"])
        yield Level.STUDY, which
        for series_uid, series in study["series"].items():
            part = which | _values(series)
            part[0x0020_000E], part[0x0020_1209] = series_uid, str(len(series["instances"]))
            yield Level.SERIES, part
            for uid, image in series["instances"].items():
                own = {int(tag, 16): value for tag, value in image["values"].items()}
                yield Level.IMAGE, part | own | {0x0008_0018: uid}


def _values(record: dict[str, Any]) -> Row:
    return {int(tag, 16): value for tag, (value, _) in record["values"].items()}
