"""What is asked for: the attribute matching of DICOM queries, one meaning for all who query (PS3.4 C.2.2.2).

A `Query` is made of the identifier of a C-FIND (or of whatever else names attributes and values); an index
plans it, the native matcher decides. What the standard leaves open is decided here:

- Matching is by the VR of the dictionary. Spaces and NULs around a value mean nothing.
- Wildcards ('*', '?') are those of AE, CS, LO, LT, PN, SH, ST, UC, UR and UT; elsewhere they are letters,
  which no date, number or UID has: no match, not all.
- Several values in a key match as any of them, in every VR that can have several; with multiple value
  matching negotiated, where C.2.2.2.8 has it, all of them have to match. An attribute of several values
  matches by any of its own. One of LT, ST, UR, UT and a UID that identifies have one, backslashes and all.
- Names (PN) match whatever their case, by the full case folding of Unicode (Groß is GROSS); '?' is one
  character as it was before. Empty components at the end, and spaces around components, mean nothing. A key
  of one component group matches any group of the name; of a key of several, each group matches the same group
  of the name, but those that say nothing: of '*', '^' and spaces only. A key of only such ones matches all.
  Of a component group 1,024 bytes count, as folded in UTF-8.
- Dates match in their old form (2024.01.31), too. A single value matches dates of the same precision.
- With fuzzy semantic matching negotiated (C.2.2.2.1), a component group of a name matches as above, and also
  if it has, in any order, a word that begins with each word of the key's. Words are what is between '^',
  spaces and other ASCII punctuation; an apostrophe is nothing, '*' and '?' are wildcards in those of a key.
  They are compared in Unicode's compatibility form (NFKD), case folded, without the marks of Latin, Greek,
  Cyrillic, Hebrew and Arabic letters: Dvořák is dvorak, ø is o, æ ae, œ oe, ł l, đ and ð d, þ th, ħ h, ŧ t,
  ı i. Or they are compared with ä, ö, ü, å and ø written out: Müller is muller, and it is mueller. 1,024
  bytes of them count.
- Times match by what they denote: 10 is 100000, 101112.50 is 101112.5. A range reaches from the first
  moment of its beginning to the last of its end, so that 10-11 holds 1145; a range never goes past midnight.
- A date and time (DT) is the span of time that it denotes: it matches the same span, and the ranges that it
  touches. Offsets from UTC count where both key and attribute have one; otherwise each tells its own clock.
  After a hyphen, 0000 to 1200 at the end is an offset, not a year.
- A DT of a key without an offset has that of the identifier's Timezone Offset From UTC, if it has one.
- With combined date and time negotiated (C.2.2.2.5), a date and a time whose keywords differ in that word
  only (StudyDate, StudyTime) are one range of moments if both are ranges, with the same ends open, of whole
  dates. Date and time of the attribute are put together and match as a DT; a date without a time is the whole
  day; of several, those at the same place belong together.
- What is no date or time matches no date, time or range.
- Decimal and integer strings match by their number.
- An attribute is empty (C.2.2.2.7) if it is absent, or has no more than separators and spaces.
- A key without a value, or of '*' alone where that is a wildcard, matches all, and those that do not have
  it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from pacs_core._ext.match import Matcher
from pacs_core.dicom import dictionary
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset, Sequence
from pacs_core.errors import IdentifierError

QUERY_RETRIEVE_LEVEL = 0x0008_0052
_CHARACTER_SET = 0x0008_0005
_TIMEZONE = 0x0008_0201

WITH_WILDCARDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
WITH_RANGES = frozenset({"DA", "DT", "TM"})
_ALL_OF = frozenset({"AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"})  # C.2.2.2.8
_ONE_VALUE = frozenset({"LT", "ST", "UR", "UT"})
_NOT_MATCHED = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_BACKSLASH = "\\"
_WILD = re.compile(r"[*?]")
_WHOLE_DATE = 8
_BYTES = 6  # of an extended negotiation that mean something here
_DATE = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)
_TIME = re.compile(r"\d\d(?:\d\d(?:\d\d(?:\.\d{0,6})?)?)?", re.ASCII)
_ZONE = re.compile(r"[+-]\d{4}", re.ASCII)

# The unique key of each level (PS3.4 C.6.1.1).
UNIQUE = {
    Level.PATIENT: 0x0010_0020,
    Level.STUDY: 0x0020_000D,
    Level.SERIES: 0x0020_000E,
    Level.IMAGE: 0x0008_0018,
}


class Model(NamedTuple):
    """An information model: the levels that it has, and the SOP classes of its services (PS3.4 C.6)."""

    top: Level
    bottom: Level
    find: str
    move: str
    get: str


def _model(number: int, top: Level, bottom: Level) -> Model:
    return Model(top, bottom, *(f"1.2.840.10008.5.1.4.1.2.{number}.{service}" for service in (1, 2, 3)))


PATIENT_ROOT = _model(1, Level.PATIENT, Level.IMAGE)
STUDY_ROOT = _model(2, Level.STUDY, Level.IMAGE)
PATIENT_STUDY_ONLY = _model(3, Level.PATIENT, Level.STUDY)  # retired
MODELS = (PATIENT_ROOT, STUDY_ROOT, PATIENT_STUDY_ONLY)


class Matching(Enum):
    """The kinds of attribute matching."""

    UNIVERSAL = "universal"  # C.2.2.2.3
    VALUES = "values"  # single value, list of UID, any of several: C.2.2.2.1, .2
    WILDCARD = "wildcard"  # C.2.2.2.4
    RANGE = "range"  # C.2.2.2.5
    SEQUENCE = "sequence"  # C.2.2.2.6
    EMPTY = "empty"  # C.2.2.2.7, where negotiated
    FUZZY = "fuzzy"  # of names, where negotiated: C.2.2.2.1
    COMBINED = "combined"  # date and time as one range, where negotiated: C.2.2.2.5


@dataclass(frozen=True, slots=True)
class Key:
    """One attribute that is asked for.

    Attributes
    ----------
    values : tuple of str
        Of VALUES, WILDCARD and FUZZY: any of them. Of RANGE: the two ends, '' where it is open. Of COMBINED,
        which is the key of the date: the same, dates and times put together.
    keys : tuple of Key
        Of SEQUENCE: what one item has to match.
    time : int
        Of COMBINED: the attribute of the time.
    """

    tag: int
    vr: str
    matching: Matching
    values: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    time: int = 0

    @property
    def tags(self) -> tuple[int, ...]:
        """The attributes that it matches."""
        return (self.tag, self.time) if self.matching is Matching.COMBINED else (self.tag,)

    def dates(self) -> Key:
        """Of COMBINED: the range of dates alone, which holds all that it matches and more. Else itself."""
        if self.matching is not Matching.COMBINED:
            return self
        first, last = self.values
        return Key(self.tag, self.vr, Matching.RANGE, (first[:_WHOLE_DATE], last[:_WHOLE_DATE]))

    @property
    def keyword(self) -> str:
        """Its keyword, or its tag in hexadecimal."""
        return dictionary.keyword_of(self.tag) or f"{self.tag:08X}"

    def __str__(self) -> str:
        if self.matching is Matching.SEQUENCE:
            return f"{self.keyword}=({' '.join(map(str, self.keys))})"
        if self.matching is Matching.RANGE:
            return f"{self.keyword}={self.values[0]}-{self.values[1]}"
        if self.matching is Matching.COMBINED:
            return f"{self.keyword}+{dictionary.keyword_of(self.time)}={self.values[0]}-{self.values[1]}"
        if self.matching is Matching.FUZZY:
            return f"{self.keyword}~{_BACKSLASH.join(self.values)}"
        return f"{self.keyword}={_BACKSLASH.join(self.values)}"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for at a level of an information model.

    Attributes
    ----------
    keys : tuple of Key
        Ascending by tag; the universal ones are what is to be returned besides.
    root : Level
        The top of the model: `PATIENT` or `STUDY`.
    """

    level: Level
    keys: tuple[Key, ...] = ()
    root: Level = Level.STUDY
    relational: bool = False
    tags: frozenset[int] = field(default_factory=frozenset)

    def matching(self) -> tuple[Key, ...]:
        """The keys that do not match all."""
        return tuple(key for key in self.keys if key.matching is not Matching.UNIVERSAL)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What was agreed on for an association by extended negotiation (PS3.4 C.5.1.1)."""

    relational: bool = False
    combined: bool = False  # date and time as one range
    fuzzy: bool = False
    empty: bool = False
    multiple: bool = False

    @classmethod
    def of(cls, information: bytes) -> Negotiated:
        """What service-class-application-information for C-FIND says, a byte for each; 1 is yes."""
        relational, combined, fuzzy, _, empty, multiple, *_ = (
            byte == 1 for byte in information.ljust(_BYTES, b"\0")
        )
        return cls(relational, combined, fuzzy, empty, multiple)

    @property
    def information(self) -> bytes:
        """The same as bytes; the fourth, timezone query adjustment, is none of ours."""
        return bytes((self.relational, self.combined, self.fuzzy, False, self.empty, self.multiple))


NOTHING = Negotiated()


def key_of(tag: int, vr: str, text: str, negotiated: Negotiated = NOTHING) -> Key:
    """The key that a value asks for, as text: several values joined by backslashes.

    `vr` is that of the dictionary, or what the identifier says of an attribute that is in none.
    """
    if vr in _NOT_MATCHED:
        return Key(tag, vr, Matching.UNIVERSAL)
    values = tuple(value for part in _parts(vr, text) if (value := part.strip(" \0")))
    if not values or any(_is_universal(vr, value) for value in values):
        return Key(tag, vr, Matching.UNIVERSAL)
    if negotiated.empty and values == ('""',):
        return Key(tag, vr, Matching.EMPTY)
    if vr in WITH_RANGES and len(values) == 1 and (ends := _range(vr, values[0])) is not None:
        return Key(tag, vr, Matching.RANGE, ends) if any(ends) else Key(tag, vr, Matching.UNIVERSAL)
    if vr == "PN" and negotiated.fuzzy:
        return Key(tag, vr, Matching.FUZZY, values)
    if vr in WITH_WILDCARDS and any(_WILD.search(value) for value in values):
        return Key(tag, vr, Matching.WILDCARD, values)
    return Key(tag, vr, Matching.VALUES, values)


def _parts(vr: str, text: str) -> list[str]:
    return [text] if vr in _ONE_VALUE else text.split(_BACKSLASH)


def _is_universal(vr: str, value: str) -> bool:
    """Whether a value says nothing: '*' alone, and of a name what has no more than delimiters besides."""
    return vr in WITH_WILDCARDS and not value.strip("*^= \0" if vr == "PN" else "*")


def _range(vr: str, value: str) -> tuple[str, str] | None:
    """The ends of a range; None if it is a single value. A DT may have an offset, -0500, of its own."""
    if vr != "DT":
        first, dash, last = value.partition("-")
        return (first.strip(" "), last.strip(" ")) if dash else None
    found = _DT_RANGE.fullmatch(value.replace(" ", ""))
    return (found[1] or "", found[2] or "") if found else None


_DT = r"\d{4,14}(?:\.\d{0,6})?(?:\+\d{4}|-(?:0\d\d\d|1[01]\d\d|1200))?"
_NOT_AN_OFFSET = r"(?!(?:0\d\d\d|1[01]\d\d|1200)$)"
_DT_RANGE = re.compile(rf"({_DT})?-({_NOT_AN_OFFSET}{_DT})?")


def query_of(identifier: Dataset, level: Level, root: Level, negotiated: Negotiated = NOTHING) -> Query:
    """The query that an identifier asks at a level (PS3.4 C.4.1.1.3.1, C.4.1.3.1).

    `root` is the top of the information model.

    Raises
    ------
    IdentifierError
        A unique key above the level that is missing or names several, unless relational queries were
        negotiated; a sequence of several items.
    """
    keys = tuple(_keys(identifier, negotiated))
    if not negotiated.relational:
        by_tag = {key.tag: key for key in keys}
        for above in range(root, level):
            _check_unique(by_tag.get(UNIQUE[Level(above)]), UNIQUE[Level(above)], level)
    return Query(level, keys, root, negotiated.relational, frozenset(key.tag for key in keys))


def keys_of(identifier: Dataset, negotiated: Negotiated = NOTHING) -> tuple[Key, ...]:
    """The keys of an identifier of a model without levels, ascending by tag (PS3.4 K.4.1.1.3.1).

    Raises
    ------
    IdentifierError
        A sequence of several items.
    """
    return tuple(_keys(identifier, negotiated))


def _check_unique(key: Key | None, tag: int, level: Level) -> None:
    if key is None or key.matching is not Matching.VALUES or len(key.values) != 1:
        raise IdentifierError(
            f"a search at level {level.name} needs one value in each unique key above it", tag=tag
        )


def _keys(identifier: Dataset, negotiated: Negotiated) -> Iterable[Key]:
    keys = list(_single_keys(identifier, negotiated))
    return _combined(keys) if negotiated.combined else keys


def _single_keys(identifier: Dataset, negotiated: Negotiated) -> Iterator[Key]:
    zone = str(identifier.get(_TIMEZONE) or "").strip(" \0")
    for element in identifier:
        tag = element.tag
        if tag & 0xFFFF == 0 or tag in (_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, _TIMEZONE):
            continue
        vr = dictionary.vr_of(tag) or element.vr
        value = element.value
        if isinstance(value, Sequence):
            yield _sequence(tag, value, negotiated)
        elif vr in _NOT_MATCHED or isinstance(value, memoryview):
            yield Key(tag, vr, Matching.UNIVERSAL)
        else:
            key = key_of(tag, vr, _text(element), negotiated)
            yield from _all_of(_zoned(key, zone) if vr == "DT" else key, negotiated)


def _all_of(key: Key, negotiated: Negotiated) -> Iterable[Key]:
    """A key for each value, where all of them have to match (PS3.4 C.2.2.2.8)."""
    several = len(key.values) > 1 and key.matching in (Matching.VALUES, Matching.FUZZY)
    several = several and not any(key.vr == "PN" and _WILD.search(value) for value in key.values)
    if not (negotiated.multiple and several and key.vr in _ALL_OF and _has_several(key.tag)):
        return [key]
    return [replace(key, values=(value,)) for value in key.values]


def _zoned(key: Key, zone: str) -> Key:
    """A key of moments, those without an offset in that time zone."""
    if not _ZONE.fullmatch(zone) or key.matching not in (Matching.VALUES, Matching.RANGE):
        return key
    with_zone = (value if not value or value[-5:-4] in "+-" else value + zone for value in key.values)
    return replace(key, values=tuple(with_zone))


def _combined(keys: list[Key]) -> list[Key]:
    """Keys of which the ranges of a date and its time are one; the time is only to be returned, then."""
    ranges = {key.tag: key for key in keys if key.matching is Matching.RANGE}
    found = {key.tag: key for key in keys}
    for date in [key for key in ranges.values() if key.vr == "DA"]:
        time = ranges.get(_time_of(date.tag))
        ends = _moments(date, time) if time is not None else None
        if time is not None and ends is not None:
            found[date.tag] = Key(date.tag, date.vr, Matching.COMBINED, ends, time=time.tag)
            found[time.tag] = Key(time.tag, time.vr, Matching.UNIVERSAL)
    return [found[key.tag] if key.tag in ranges else key for key in keys]


def _time_of(date: int) -> int:
    """The attribute of the time that goes with that of a date; 0 if there is none."""
    keyword = (dictionary.keyword_of(date) or "").replace("Date", "Time")
    try:
        tag = dictionary.tag_of(keyword)
    except KeyError:
        return 0
    return tag if dictionary.vr_of(tag) == "TM" else 0


def _moments(date: Key, time: Key) -> tuple[str, str] | None:
    """The ends of a range of dates and one of times put together; None if they are no range of moments."""
    ends = [_moment(*end) for end in zip(date.values, time.values, strict=True)]
    return None if None in ends else (ends[0] or "", ends[1] or "")


def _moment(date: str, time: str) -> str | None:
    if not date and not time:
        return ""
    day, clock = _DATE.fullmatch(date), _TIME.fullmatch(time.replace(":", ""))
    return day[1] + day[3] + day[4] + clock[0] if day and clock else None


def _has_several(tag: int) -> bool:
    entry = dictionary.entry(tag)
    return entry is not None and entry.vm != "1"


def _sequence(tag: int, items: Sequence, negotiated: Negotiated) -> Key:
    """A sequence key has one item; none, or an empty one, matches all."""
    if len(items) > 1:
        raise IdentifierError("a key that is a sequence has one item (PS3.4 C.2.2.2.6)", tag=tag)
    keys = tuple(_keys(items[0], negotiated)) if len(items) else ()
    if all(key.matching is Matching.UNIVERSAL for key in keys):
        return Key(tag, "SQ", Matching.UNIVERSAL, keys=keys)
    return Key(tag, "SQ", Matching.SEQUENCE, keys=keys)


class Filter:
    """Whether a data set matches keys, by the native matcher; universal ones match all.

    A sequence matches if one of its items matches all of its keys (PS3.4 C.2.2.2.6).
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        keys = [key for key in keys if key.matching is not Matching.UNIVERSAL]
        plain = [key for key in keys if key.matching is not Matching.SEQUENCE]
        self._tags = [key.tags for key in plain]
        self._matcher = Matcher([(key.vr, key.matching.value, key.values) for key in plain])
        self._nested = [(key.tag, Filter(key.keys)) for key in keys if key.matching is Matching.SEQUENCE]

    def __call__(self, dataset: Dataset) -> bool:
        for test, tags in enumerate(self._tags):
            texts = (_text(dataset.element(tag)) if tag in dataset else "" for tag in tags)
            if not self._matcher.matches(test, *(text.encode("utf-8", "replace") for text in texts)):
                return False
        for tag, matches in self._nested:
            items = dataset.get(tag)
            if not isinstance(items, Sequence) or not any(matches(item) for item in items):
                return False
        return True


def _text(element: object) -> str:
    """A value as text, tags in hexadecimal."""
    values = element.values  # type: ignore[attr-defined]
    if element.vr == "AT":  # type: ignore[attr-defined]
        return "\\".join(f"{value:08X}" for value in values)
    return "\\".join(str(getattr(value, "text", value)) for value in values)
