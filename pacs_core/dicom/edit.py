"""Changing data sets by rules: for many files, for coercion, and for what de-identification needs.

    rules = edit.Rules(
        [
            edit.set("PatientName", "X"),
            edit.remove("OtherPatientIDsSequence"),
            edit.remove("private"),
            edit.hash("PatientID"),
            edit.shift_dates(-37),
            edit.map_uids(),
        ],
        secret=secret,
    )
    rules.apply(pacs_core.read("ct.dcm")).save("other.dcm")

A rule says which elements it is about (`selectors`: keys, paths, patterns) and what becomes of each. Of the
rules that select an element the first decides, and no other sees it; so what is special comes before what is
general. Elements that no rule selects stay the bytes they were.

What is derived from a value (hashes, UIDs, shifts by patient) is HMAC-SHA-256 under a secret: the same for
the same value and secret, in every element, file and process, and without the secret not to be found out by
trying values. Rules can be pickled, secret included, and used by many threads.

As text, a rule is one line: what it does and what it is about.

    set PatientName=X                  several values are separated by backslashes
    empty **.PatientBirthDate
    remove private
    hash PatientID
    shift-dates -37                    or, by patient, -365..-1
    map-uids
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pacs_core._ext.tree import Element
from pacs_core.dicom import dictionary, selectors
from pacs_core.dicom.changes import (
    DATES,
    HASHED,
    Change,
    Empty,
    Hash,
    Keep,
    MapUIDs,
    Remove,
    Report,
    Run,
    Set,
    ShiftDates,
    Spot,
)
from pacs_core.dicom.changes import Left as Left
from pacs_core.dicom.packing import BULK, NUMBERS, packed
from pacs_core.dicom.selectors import Block, Path, Pattern, Representation, Selector, Tags, is_creator
from pacs_core.errors import InvalidValueError

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset

_SOP_INSTANCE = 0x0008_0018
_MEDIA_STORAGE_SOP_INSTANCE = 0x0002_0003
_PATIENT_ID = 0x0010_0020


@dataclass(frozen=True, slots=True)
class Rule:
    """Which elements, and what becomes of each."""

    where: Selector
    what: Change


class _Ranked(NamedTuple):
    rank: int  # its place among the rules: the lowest decides
    what: Change


class Rules:
    """Rules in the order in which they decide.

    Parameters
    ----------
    rules : iterable of Rule
    secret : bytes
        For hashes, UIDs and shifts by patient: 16 random bytes at least, say. Who has it can find out what
        was hashed by trying, who has lost it can't do the same to other files.

    Raises
    ------
    ValueError
        If there is a rule that takes a secret, and none.
    """

    def __init__(self, rules: Iterable[Rule], secret: bytes = b"") -> None:
        self.rules = tuple(rules)
        self._secret = secret
        self._paths: list[tuple[Path, _Ranked]] = []
        self._by_tag: dict[int, _Ranked] = {}
        self._by_vr: dict[str, _Ranked] = {}
        self._others: list[tuple[Pattern, _Ranked]] = []
        for rank, rule in enumerate(self.rules):
            if rule.what.keyed and not secret:
                raise ValueError("hashes, UIDs and shifts by patient take a secret")
            self._add(rule.where, _Ranked(rank, rule.what))

    def _add(self, where: Selector, ranked: _Ranked) -> None:
        match where:
            case Path():
                self._paths.append((where, ranked))
            case Tags(tag, 0xFFFF_FFFF):
                self._by_tag.setdefault(tag, ranked)
            case Representation(vrs):
                for vr in vrs:
                    self._by_vr.setdefault(vr, ranked)
            case _:
                self._others.append((where, ranked))

    @classmethod
    def parse(cls, lines: Iterable[str], secret: bytes = b"") -> Self:
        """The rules of lines of text, see above.

        Raises
        ------
        ValueError
            For a line that is no rule, which is named; else as the constructor.
        """
        return cls(map(_parsed, lines), secret)

    def apply(self, dataset: Dataset, report: Report = lambda _: None) -> Dataset:
        """Change a data set in place, and the SOP Instance UID in its file meta information with its own.

        `report` is called with each element that had to be left as it was.

        Raises
        ------
        InvalidValueError
            For a value that an element can't have, or text that the data set's character set does not have;
            what was changed until then stays so.
        """
        run = Run(self._secret, str(dataset.get(_PATIENT_ID) or ""), report)
        uid = dataset.get(_SOP_INSTANCE)
        named = self._named(dataset)
        if self._by_tag or self._by_vr or self._others:
            self._walk(dataset, "", named, run)
        for (_, tag), (tree, ranked) in named.items():
            element = tree.element(tag) if tag in tree else None
            if element is not None or isinstance(ranked.what, Set):
                ranked.what.change(Spot(tree, tag, element, "", run))  # none of them leaves anything
        new = dataset.get(_SOP_INSTANCE)
        if new and new != uid and dataset.meta is not None:
            dataset.meta[_MEDIA_STORAGE_SOP_INSTANCE] = new
        return dataset

    def _named(self, dataset: Dataset) -> dict[tuple[int, int], tuple[Any, _Ranked]]:
        """What rules name by key or path: data set (by identity) and tag, the rule that decides.

        A private element that is named keeps its creator, unless a rule before says otherwise.
        """
        found: dict[tuple[int, int], tuple[Any, _Ranked]] = {}
        for path, ranked in self._paths:
            for _, tree, tag in path.places(dataset, reserve=isinstance(ranked.what, Set)):
                found.setdefault((id(tree), tag), (tree, ranked))
                if not isinstance(path.key, int) and not isinstance(ranked.what, Remove):
                    creator = tag & 0xFFFF_0000 | tag >> 8 & 0xFF
                    found.setdefault((id(tree), creator), (tree, _Ranked(ranked.rank, Keep())))
        return found

    def _walk(
        self, tree: Dataset, prefix: str, named: dict[tuple[int, int], tuple[Any, _Ranked]], run: Run
    ) -> None:
        """Apply what patterns select, in a data set and what is in it, but for what is named before."""
        # All is decided before anything is done: elements of a private block are known by its creator.
        decided = [(element, element.vr, self._first(element)) for element in tree]
        for element, vr, ranked in decided:
            tag = element.tag
            rival = named.get((id(tree), tag))
            if rival is not None and (ranked is None or rival[1].rank < ranked.rank):
                continue
            if ranked is not None:
                named.pop((id(tree), tag), None)
                ranked.what.change(Spot(tree, tag, element, prefix, run))
            elif vr == "SQ":
                for place, item in enumerate(element.value):
                    self._walk(item, f"{prefix}{element.path}.{place}.", named, run)

    def _first(self, element: Element) -> _Ranked | None:
        """The rule that decides among those with patterns."""
        best = self._by_tag.get(element.tag)
        other = self._by_vr.get(element.vr) if self._by_vr else None
        if other is not None and (best is None or other.rank < best.rank):
            best = other
        for where, ranked in self._others:
            if best is not None and best.rank < ranked.rank:
                break
            # A block without its creator would be nobody's; only who removes the block means it, too.
            if where.selects(element) and (isinstance(ranked.what, Remove) or not is_creator(element.tag)):
                return ranked
        return best

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rules, self._secret)

    def __repr__(self) -> str:
        return f"<Rules: {len(self.rules)}>"


def set(where: str, value: object, vr: str | None = None) -> Rule:
    """Give elements a value, as `Dataset.set` does.

    `where` is text as `selectors` has it. What it names by a key, or by a path into items that are there, is
    made if it is not there; patterns make nothing. Data sets of a sequence are copied.

    Raises
    ------
    KeyError
        If `where` is no selector.
    InvalidValueError
        If the VR of the element is known and does not allow the value.
    """
    selector = _selector(where)
    vrs = (vr,) if vr else _vrs_of(selector)
    if len(vrs) == 1 and vrs[0] != "SQ":
        packed(vrs[0], value)
    return Rule(selector, Set(tuple(value) if isinstance(value, list) else value, vr))


def empty(where: str) -> Rule:
    """Leave elements that are there without a value. KeyError as `set`."""
    return Rule(_selector(where), Empty())


def remove(where: str) -> Rule:
    """Leave elements out; with all of a private block its creator, too. KeyError as `set`."""
    return Rule(_selector(where), Remove())


def keep(where: str) -> Rule:
    """Leave elements as they are, whatever later rules say. KeyError as `set`."""
    return Rule(_selector(where), Keep())


def hash(where: str) -> Rule:
    """Replace values of text by a keyed hash of 16 characters, A to Z and 2 to 7.

    The hash is of the text, whatever element it is in and character set it was written in. Without a value,
    elements stay so.

    Raises
    ------
    KeyError
        As `set`.
    InvalidValueError
        If the VR of the element is known and no text.
    """
    selector = _selector(where)
    for vr in _vrs_of(selector):
        if vr not in HASHED:
            raise InvalidValueError(f"{vr} can't hold a hash")
    return Rule(selector, Hash())


def shift_dates(days: int | tuple[int, int]) -> Rule:
    """Move every DA, and the date in every DT, by so many days.

    A pair is the least and the most days: which, the Patient ID decides, by a keyed hash. Dates of forms that
    DICOM no longer has, texts that are no dates, and a DT without a day are left, and reported.

    Raises ValueError for a pair in which the least is more than the most, and for more days than there are.
    """
    least, most = days if isinstance(days, tuple) else (days, days)
    if not -date.max.toordinal() < least <= most < date.max.toordinal():
        raise ValueError(f"from {least} to {most} days is no range")
    return Rule(Representation(frozenset(DATES)), ShiftDates(least, most))


def map_uids() -> Rule:
    """Replace the UIDs of studies, series, instances, frames of reference and whatever else, everywhere.

    The same UID becomes the same UID, so that references stay true.
    """
    return Rule(Representation(frozenset({"UI"})), MapUIDs())


def _selector(where: str) -> Selector:
    selector = selectors.parse(where)
    key = selector.key if isinstance(selector, Path) else None
    if isinstance(key, int) and (key >> 16 in (0, 2) or not key & 0xFFFF):
        raise KeyError(f"{where}: group lengths and groups 0000 and 0002 are written anew, not edited")
    return selector


def _vrs_of(selector: Selector) -> tuple[str, ...]:
    """The VRs that the element that is selected can have by the dictionaries; none if they don't know it."""
    entry: dictionary.Entry | dictionary.PrivateEntry | None = None
    match selector:
        case Path(_, int(tag)) | Tags(int(tag), 0xFFFF_FFFF):
            entry = dictionary.entry(tag)
        case Path(_, (int(group), str(creator), int(element))) | Block(group, creator, int(element)):
            entry = dictionary.private_entry(creator, group << 16 | 0x1000 | element)
    return () if entry is None else entry.vrs


def _parsed(line: str) -> Rule:
    verb, _, about = line.strip().partition(" ")
    try:
        if verb not in _VERBS:
            raise ValueError(f"a rule begins with {', '.join(_VERBS)}")
        return _VERBS[verb](about.strip())
    except (KeyError, ValueError) as exc:
        raise ValueError(f"{line}: {exc.args[0]}") from None


def _parse_set(about: str) -> Rule:
    where, equals, text = about.partition("=")
    if not equals:
        raise ValueError("to set takes KEY=VALUE")
    return set(where, _of_text(_vrs_of(_selector(where)), text))


def _of_text(vrs: tuple[str, ...], text: str) -> object:
    """What a value of these VRs is in Python, of its text."""
    vr = vrs[0] if vrs else ""
    if vr == "SQ" or vr in BULK:
        raise ValueError(f"a value of {vr} can't be given as text")
    convert: Callable[[str], object] | None = dictionary.parse_tag if vr == "AT" else _NUMBER.get(vr)
    if convert is None or not text:
        return text
    return [convert(part) for part in text.split("\\")]


_NUMBER: dict[str, Callable[[str], object]] = {
    vr: float if code in "fd" else int for vr, code in NUMBERS.items()
}


def _parse_shift(about: str) -> Rule:
    least, dots, most = about.partition("..")
    return shift_dates((int(least), int(most)) if dots else int(least))


def _parse_map(about: str) -> Rule:
    if about:
        raise ValueError("map-uids is about all UIDs")
    return map_uids()


_VERBS: dict[str, Callable[[str], Rule]] = {
    "set": _parse_set,
    "empty": empty,
    "remove": remove,
    "keep": keep,
    "hash": hash,
    "shift-dates": _parse_shift,
    "map-uids": _parse_map,
}
