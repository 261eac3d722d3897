"""From a query to a walk of the index: the key that leaves the fewest records to look at drives it.

Unique keys are looked up. Of the attributes with ordered keys, and of modality and study date together, those
in question are counted up to a bound, and the fewest win; without a beginning (`*SMI*`), and for names that
match by their words, all keys of the attribute are walked, and only those that match count. Without any key
all records of the level are looked at. Whatever drives, the records decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pacs_core._ext import keys as native
from pacs_core._ext.kv import Environment
from pacs_core._ext.lookup import key_ids, keys_of, level_of
from pacs_core._ext.match import Matcher
from pacs_core._ext.rows import Schema
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.query import UNIQUE, Key, Matching, Query
from pacs_core.index import schema

MODALITY: Final = 0x0008_0060
MODALITIES_IN_STUDY: Final = 0x0008_0061
STUDY_DATE: Final = 0x0008_0020

_COUNTED: Final = 2048
_WILD = re.compile(r"[*?]")
_BEHIND: Final = b"\xff"  # no UTF-8 has it: behind all that begins as what is before it


class Range(NamedTuple):
    """Keys of the `key` table, from `start` up to, not with, `stop`."""

    start: bytes
    stop: bytes


class Driver(NamedTuple):
    """What a search walks.

    Attributes
    ----------
    level : Level
        Of the ids that it gives.
    why : str
        In words, for people.
    values : tuple of str
        Of a unique key.
    ranges : tuple of Range
        Of the `key` table.
    matcher : Matcher | None
        Which keys in the ranges count; None: all.
    estimate : int
        Of the ids, counted up to a bound.
    """

    level: Level
    why: str
    values: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    matcher: Matcher | None = None
    estimate: int = 0


def drivers(env: Environment, layout: Schema, query: Query) -> Iterator[Driver]:
    """All that could drive a query, each with its estimate; at least the walk of all records."""
    matching = tuple(key.dates() for key in query.matching())
    for key in matching:
        level = level_of(layout, key.tag)
        if level is None or level > query.level:
            continue
        found = _unique(key) or _keyed(layout, key)
        if found is not None:
            yield _estimated(env, found)
    compound = _modality_and_date(query, matching)
    if compound is not None:
        yield _estimated(env, compound)
    yield Driver(query.level, f"every record of level {query.level.name}", estimate=1 << 62)


def choose(env: Environment, layout: Schema, query: Query) -> Driver:
    """The driver with the lowest estimate: a unique key of the lowest level, if there is one."""
    found = list(drivers(env, layout, query))
    unique = [driver for driver in found if driver.values]
    return max(unique, key=lambda driver: driver.level) if unique else min(found, key=lambda d: d.estimate)


def _unique(key: Key) -> Driver | None:
    for level, tag in UNIQUE.items():
        if tag == key.tag and key.matching is Matching.VALUES:
            return Driver(level, f"unique key {key}", values=key.values, estimate=len(key.values))
    return None


def _keyed(layout: Schema, key: Key) -> Driver | None:
    """A walk of the ordered keys of an attribute that has them."""
    found = keys_of(layout, key.tag)
    if key.tag == schema.PATIENT_ID:
        found = native.PATIENT_ID, native.TEXT
    level = level_of(layout, key.tag)
    if found is None or level is None:
        return None
    at = Level(level)
    code, kind = found
    sparse, kind = kind & native.SPARSE, kind & ~native.SPARSE
    if key.matching is Matching.EMPTY and sparse:
        return None
    if key.matching is Matching.EMPTY:
        empty = bytes((code, 0))
        return Driver(at, f"empty {key.keyword}", ranges=(Range(empty, empty + b"\0"),))
    if key.matching is Matching.RANGE:
        return Driver(at, f"keys of {key}", ranges=(_date_range(bytes((code, 1)), *key.values),))
    if key.matching is Matching.VALUES:
        ranges = tuple(_exact(code, kind, value) for value in key.values)
        return Driver(at, f"keys of {key}", ranges=ranges)
    if key.matching not in (Matching.WILDCARD, Matching.FUZZY):
        return None
    beginnings = [beginning(kind, value) for value in key.values]
    if all(beginnings) and key.matching is Matching.WILDCARD:
        ranges = tuple(_prefix(bytes((code, 1)) + one) for one in beginnings)
        return Driver(at, f"keys of {key}", ranges=ranges)
    matcher = Matcher([(key.vr, key.matching.value, [_loosely(kind, value) for value in key.values])])
    return Driver(at, f"all keys of {key}", ranges=(_prefix(bytes((code, 1))),), matcher=matcher)


def _exact(code: int, kind: int, value: str) -> Range:
    """The key of a value; of a name, that of its first component group: the record decides of the others."""
    found = native.attribute_keys(code, kind, _group(kind, value).encode())[0]
    return Range(found, found + b"\0")


def _group(kind: int, value: str) -> str:
    """Of a name of several component groups the first that says something."""
    if kind != native.NAME:
        return value
    return next(group for group in value.split("=") if group.strip(" \0^*"))


def _loosely(kind: int, value: str) -> str:
    """A pattern for normalised values that has all that match `value`, and more: what was one character, '?',
    may be several once it is folded, and components at the end may be left out of a name."""
    group = _group(kind, value)
    if kind != native.NAME:
        return group
    begin = group.rstrip("^ \0*?")
    open_end = _WILD.search(group, len(begin)) is not None
    return (begin + "*" if open_end else group).replace("?", "*")


def beginning(kind: int, value: str) -> bytes:
    """What the normalised values begin with that match a pattern; nothing if that is open."""
    group = _group(kind, value)
    literal = _WILD.split(group, maxsplit=1)[0]
    normal = native.normalised(kind, literal.encode())[0]
    return normal[: native.CUT]


def _prefix(beginning: bytes) -> Range:
    return Range(beginning, beginning + _BEHIND)


def _date_range(head: bytes, first: str, last: str) -> Range:
    """Dates from the first to the last, '' where that is open."""
    start, stop = (native.normalised(native.DATE, end.encode())[0] for end in (first, last))
    return Range(head + start, head + stop + _BEHIND)


def _modality_and_date(query: Query, matching: tuple[Key, ...]) -> Driver | None:
    """Studies by a modality that is in them and, if asked for, their date."""
    if query.level < Level.STUDY:
        return None
    by_tag = {key.tag: key for key in matching}
    modality = by_tag.get(MODALITIES_IN_STUDY)
    if modality is None and query.level > Level.STUDY:
        modality = by_tag.get(MODALITY)
    if modality is None or modality.matching is not Matching.VALUES:
        return None
    date = by_tag.get(STUDY_DATE)
    ends = ("", "")
    if date is not None and date.matching is Matching.RANGE:
        ends = (date.values[0], date.values[1])
    elif date is not None and date.matching is Matching.VALUES and len(date.values) == 1:
        ends = (date.values[0], date.values[0])
    ranges = []
    for value in modality.values:
        head = native.modality_date_keys(value.encode(), b"")[0]
        ranges.append(_date_range(head, *ends))
        if any(ends):
            ranges.append(Range(head, head + b"\0"))  # studies of several dates, and of none
    words = f"keys of {modality}" + (f" with {date}" if ends != ("", "") else "")
    return Driver(Level.STUDY, words, ranges=tuple(ranges))


def _estimated(env: Environment, driver: Driver) -> Driver:
    """With the number of its ids, counted up to a bound; a walk of all keys of an attribute comes last."""
    if driver.values:
        return driver
    if driver.matcher is not None:
        return driver._replace(estimate=1 << 61)
    count = 0
    for start, stop in driver.ranges:
        ids, more, _ = key_ids(env, start, stop, limit=_COUNTED)
        count += len(ids) if more is None else 1 << 32
    return driver._replace(estimate=count)
