"""A query on the worklist: which keys are walked, what the records are tested for, what is told of them.

What PS3.4 K.2.2 and K.6.1.2 leave open is decided here:

- Every attribute of the standard is matched, and told: one that a step does not have without a value. Private
  attributes and bulk data are neither.
- A range of start dates with a range of start times is one range, from the first time on the first day to the
  last time on the last (K.6.1.2.2). Where one of them is a value, or nothing, each counts by itself.
- Steps that are COMPLETED or DISCONTINUED are offered only if the query says something about Scheduled
  Procedure Step Status: a value, or '*' for all.
- Study Instance UID is always told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pacs_core._ext import keys as native
from pacs_core._ext.worklist import Selector, count
from pacs_core.dicom.dataset import Dataset, Sequence
from pacs_core.dicom.packing import BULK
from pacs_core.dicom.query import Key, Matching, keys_of
from pacs_core.dicom.worklist import (
    MODALITY,
    START_DATE,
    START_TIME,
    STATION_AE_TITLE,
    STATUS,
    STEP_SEQUENCE,
    STUDY_INSTANCE_UID,
)
from pacs_core.index.plan import beginning
from pacs_core.workflow.state import STEP, STEP_KEY, State
from pacs_core.workflow.step import BY_MODALITY, BY_STATION, IDENTITY, KEYED

_BEHIND: Final = b"\xff"  # no UTF-8 has it: behind all that begins as what is before it
_COUNTED: Final = (32, 1024, 1 << 20)  # keys that are counted to tell which are the fewest
_FIRST: Final = 64  # responses of the first chunk: whoever waits for the first does not wait long
_CHUNK: Final = 512
_DAY: Final = 8  # letters of a date

Test = tuple[str, str, tuple[str, ...]]
Part = tuple[int, str, list[Test], list["Part"]]


class Range(NamedTuple):
    """Keys of a table from `start` up to, not with, `stop`."""

    start: bytes
    stop: bytes
    table: int = STEP_KEY


class Selection:
    """The steps that match an identifier, found as they are asked for.

    Attributes
    ----------
    unsupported : frozenset of int
        Tags of keys that are neither matched nor told.
    ranges : tuple of Range
        Of keys, that are walked.

    Raises
    ------
    IdentifierError
        A key that is a sequence of several items.
    """

    def __init__(self, state: State, identifier: Dataset) -> None:
        self._state = state
        keys = keys_of(identifier)
        self.unsupported = frozenset(key.tag for key in keys if not _is_supported(key))
        supported = [key for key in keys if _is_supported(key)]
        if all(key.tag != STUDY_INSTANCE_UID for key in supported):
            supported.append(Key(STUDY_INSTANCE_UID, "UI", Matching.UNIVERSAL))
        of_step = {key.tag: key for key in supported if key.tag == STEP_SEQUENCE}.get(STEP_SEQUENCE)
        matched = {key.tag: key for key in of_step.keys} if of_step is not None else {}
        start = _moments(matched.get(START_DATE), matched.get(START_TIME))
        self._selector = Selector(
            _parts(supported, combined=start is not None), start, finished=_asks_for_status(identifier)
        )
        self.ranges = self._fewest([*_driving(supported), *_driving_steps(matched)])

    def responses(self, *, implicit: bool) -> Iterator[list[bytes]]:
        """An identifier for each match, in chunks: in little endian, text in UTF-8.

        Where nothing matches chunks are empty: whoever reads them can break off at each.
        """
        return self._chunks(implicit=implicit, whole=False)

    def records(self) -> Iterator[list[bytes]]:
        """All that is kept of each match, in chunks: data sets in explicit VR little endian."""
        return self._chunks(implicit=False, whole=True)

    def _chunks(self, *, implicit: bool, whole: bool) -> Iterator[list[bytes]]:
        """Each match once, though it may stand under several keys."""
        seen: set[int] = set()
        limit = _FIRST
        several = len(self.ranges) > 1 or self.ranges[0].table == STEP_KEY
        for start, stop, table in self.ranges:
            after: bytes | None = None
            while True:
                numbers, found, after = self._selector.select(
                    self._state.environment,
                    STEP,
                    table,
                    start,
                    stop,
                    after=after,
                    implicit=implicit,
                    whole=whole,
                    limit=limit,
                )
                limit = _CHUNK
                yield (
                    [one for number, one in zip(numbers, found, strict=True) if _is_new(number, seen)]
                    if several
                    else found
                )
                if after is None:
                    break

    def _fewest(self, candidates: list[tuple[Range, ...]]) -> tuple[Range, ...]:
        """Those ranges that have the fewest keys; all steps by their start if there are none."""
        if not candidates:
            return (Range(b"", _BEHIND, STEP),)
        if len(candidates) == 1:
            return candidates[0]
        for most in _COUNTED:
            counts = [sum(self._count(one, most) for one in ranges) for ranges in candidates]
            if min(counts) < most:
                break
        return candidates[counts.index(min(counts))]

    def _count(self, keys: Range, most: int) -> int:
        return count(self._state.environment, keys.table, keys.start, keys.stop, most)


def _is_new(number: int, seen: set[int]) -> bool:
    """Whether a number is not among those seen; it is then."""
    before = len(seen)
    seen.add(number)
    return len(seen) > before


def _is_supported(key: Key) -> bool:
    return key.tag >> 16 & 1 == 0 and key.vr not in BULK


def _asks_for_status(identifier: Dataset) -> bool:
    items = identifier.get(STEP_SEQUENCE)
    return isinstance(items, Sequence) and any(item.get(STATUS) for item in items)


def _moments(date: Key | None, time: Key | None) -> tuple[str, str] | None:
    """The range of start dates and times as one, in DT; None if it is not one."""
    if date is None or time is None or not date.matching is time.matching is Matching.RANGE:
        return None
    days = [native.normalised(native.DATE, end.encode())[0].decode() for end in date.values]
    if any(day and len(day) != _DAY for day in days):
        return None
    first, last = (
        day + clock.replace(":", "") if day else "" for day, clock in zip(days, time.values, strict=True)
    )
    return first, last


def _parts(keys: Iterable[Key], *, combined: bool = False) -> list[Part]:
    """What is asked for, as the native selector takes it. The times of a combined range are no test."""
    tests: dict[int, list[Test]] = {}
    told: dict[int, tuple[str, list[Part]]] = {}
    for key in sorted(filter(_is_supported, keys), key=lambda key: key.tag):
        own = tests.setdefault(key.tag, [])
        told[key.tag] = key.vr, _parts(key.keys, combined=combined and key.tag == STEP_SEQUENCE)
        if key.matching not in (Matching.UNIVERSAL, Matching.SEQUENCE):
            own.append((key.vr, key.matching.value, key.values))
    if combined and START_TIME in tests:
        tests[START_TIME] = []
    return [(tag, vr, tests[tag], below) for tag, (vr, below) in told.items()]


# --- what is walked ---------------------------------------------------------------------------------------


def _beginning_with(text: bytes) -> Range:
    return Range(text, text + _BEHIND)


def _driving(keys: Iterable[Key]) -> Iterator[tuple[Range, ...]]:
    """The ranges of keys that patient and requested procedure could be found by."""
    for key in keys:
        if key.tag == STUDY_INSTANCE_UID and key.matching is Matching.VALUES:
            yield tuple(_beginning_with(IDENTITY + value.encode() + b"\0") for value in key.values)
        elif key.tag in KEYED and key.matching in (Matching.VALUES, Matching.WILDCARD):
            letter, kind = KEYED[key.tag]
            end = b"\0" if key.matching is Matching.VALUES else b""
            yield from _by_beginning(key, letter, kind, end)


def _by_beginning(key: Key, letter: int, kind: int, end: bytes) -> Iterator[tuple[Range, ...]]:
    """The keys of values, or that begin as patterns do; nothing if one has no beginning."""
    beginnings = [beginning(kind, value) for value in key.values]
    if all(beginnings):
        yield tuple(
            _beginning_with(bytes((letter, 1)) + one + (end if len(one) < native.CUT else b""))
            for one in beginnings
        )


def _driving_steps(keys: dict[int, Key]) -> Iterator[tuple[Range, ...]]:
    """The ranges of keys that a step could be found by: its start, with station or modality before it."""
    first, last = _days(keys.get(START_DATE))
    for letter, tag in ((BY_STATION, STATION_AE_TITLE), (BY_MODALITY, MODALITY)):
        key = keys.get(tag)
        if key is not None and key.matching is Matching.VALUES:
            heads = [bytes((letter, 1)) + value.encode() + b"\0" for value in key.values]
            yield tuple(Range(head + first, head + last + _BEHIND) for head in heads)
    if first or last:
        yield (Range(first, last + _BEHIND, STEP),)


def _days(key: Key | None) -> tuple[bytes, bytes]:
    """The first and the last day that are asked for, empty where that is open."""
    if key is None or key.matching not in (Matching.VALUES, Matching.RANGE):
        return b"", b""
    days = [native.normalised(native.DATE, end.encode())[0] for end in key.values]
    if key.matching is Matching.RANGE:
        return days[0], days[1]
    return min(days), max(days)
