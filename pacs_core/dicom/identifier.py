"""The identifier of a query or a retrieval (PS3.4 C.4.1.1.3.1), made of keys as Python has them.

    asked_of({"PatientName": "Doe*", "StudyDate": (date(2026, 1, 1), None), "StudyDescription": None})

Keys are those that `Dataset` takes, and paths into sequences that are not there yet. Values are those that it
takes, and:

`None`, `""`            what is to be returned, whatever it is
`(first, last)`         a range of dates, times or dates and times; None where it is open
`["1.2.3", "1.2.4"]`    any of these
`"Doe*"`, `"2026-"`     text goes as it is: wildcards, ranges
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

from pacs_core._ext.tree import Tree
from pacs_core.dicom import dictionary, selectors
from pacs_core.dicom.attributes import BY_TAG, Level
from pacs_core.dicom.dataset import Dataset, Sequence
from pacs_core.dicom.keys import resolve, tag_in
from pacs_core.dicom.packing import NUMBERS, packed
from pacs_core.dicom.query import QUERY_RETRIEVE_LEVEL, UNIQUE, WITH_RANGES, Matching, key_of
from pacs_core.errors import IdentifierError, InvalidValueError

_CHARACTER_SET = 0x0008_0005
_TIMEZONE = 0x0008_0201
_PLAIN = frozenset({_CHARACTER_SET, _TIMEZONE, QUERY_RETRIEVE_LEVEL})
_FORMS = frozenset({"DA", "DS", "DT", "IS", "TM"})  # of which text in a key need not be a value
_READ: dict[str, Callable[[str], object]] = {"AT": lambda text: int(text, 16), "FL": float, "FD": float}
_ONE_RANGE = 2
_MOMENTS = (datetime.date, datetime.time, type(None))  # a datetime is a date

# Those of which the level is not in the index, for they are computed (PS3.4 C.3.4).
_COMPUTED = {
    0x0020_1200: Level.PATIENT,  # NumberOfPatientRelatedStudies
    0x0020_1202: Level.PATIENT,
    0x0020_1204: Level.PATIENT,
    0x0008_0061: Level.STUDY,  # ModalitiesInStudy
    0x0008_0062: Level.STUDY,  # SOPClassesInStudy
    0x0020_1206: Level.STUDY,  # NumberOfStudyRelatedSeries
    0x0020_1208: Level.STUDY,
    0x0020_1209: Level.SERIES,  # NumberOfSeriesRelatedInstances
    0x0008_3002: Level.IMAGE,  # AvailableTransferSyntaxUID
}


class Asked(NamedTuple):
    """An identifier, complete with its level, and the top of the information model that it is for."""

    identifier: Dataset
    level: Level
    root: Level


def asked_of(
    keys: Mapping[Any, object], level: Level | str | None = None, root: Level | str | None = None
) -> Asked:
    """What keys ask for, at a level and in a model that are given, or else as the keys have it.

    Without a level it is the lowest of the keys' levels; without a model it is Study Root, but for patients.
    The unique key of the level is asked for if it is not among the keys.

    Raises
    ------
    IdentifierError
        The level can't be told from the keys, or is not in the model; two keys mean the same element.
    KeyError
        A key means no element.
    InvalidValueError
        A value that its VR does not allow.
    """
    identifier = identifier_of(keys)
    if level is None:
        level = identifier.get(QUERY_RETRIEVE_LEVEL) or None
    top = None if root is None else _top(root)
    chosen = _inferred(identifier, top) if level is None else level_named(level)
    if top is None:
        top = Level.PATIENT if chosen is Level.PATIENT else Level.STUDY
    if chosen < top:
        raise IdentifierError(f"level {chosen.name} is not in the model of {top.name} root")
    identifier[QUERY_RETRIEVE_LEVEL] = chosen.name
    if UNIQUE[chosen] not in identifier:
        identifier[UNIQUE[chosen]] = None
    return Asked(identifier, chosen, top)


def identifier_of(keys: Mapping[Any, object]) -> Dataset:
    """The data set of keys; without a level, if none is among them. Raises as `asked_of`."""
    identifier = Dataset()
    places = set()
    for key, value in keys.items():
        tree, tag = _place(identifier, key)
        if (id(tree), tag) in places:
            raise IdentifierError(f"{_name(tag)} is asked for twice")
        places.add((id(tree), tag))
        _set(tree, tag, value)
    return identifier


def level_named(name: Level | str) -> Level:
    """The level of a name, in any case; INSTANCE is IMAGE. IdentifierError if it is none."""
    if isinstance(name, Level):
        return name
    upper = "IMAGE" if name.upper() == "INSTANCE" else name.upper()
    if upper not in Level.__members__:
        raise IdentifierError(f"no such level: {name!r}; there are {', '.join(Level.__members__)}")
    return Level[upper]


def _top(root: Level | str) -> Level:
    top = level_named(root)
    if top > Level.STUDY:
        raise IdentifierError(f"there is no {top.name} root: PATIENT or STUDY")
    return top


def values_of(identifier: Dataset, tag: int) -> tuple[str, ...]:
    """The values that a key has to be one of, as text; none if it is another kind of key, or not there."""
    if tag not in identifier:
        return ()
    element = identifier.element(tag)
    key = key_of(tag, element.vr, "\\".join(str(value) for value in element.values))
    return key.values if key.matching is Matching.VALUES else ()


def _inferred(identifier: Dataset, top: Level | None) -> Level:
    tags = [element.tag for element in identifier if element.tag & 0xFFFF and element.tag not in _PLAIN]
    levels = {tag: level for tag in tags if (level := _level_of(tag)) is not None}
    lowest = max(levels.values(), default=None)
    unknown = [tag for tag in tags if tag not in levels and not selectors.is_creator(tag)]
    if lowest is None or (unknown and lowest is not Level.IMAGE):
        about = f" of {', '.join(map(_name, unknown))}" if unknown else ""
        raise IdentifierError(f"the level{about} is not known: give the level of the query")
    lowest = lowest if top is None else max(lowest, top)
    for above in range(Level.STUDY if top is None else top, lowest):
        unique = UNIQUE[Level(above)]
        if len(values_of(identifier, unique)) != 1:
            why = next(tag for tag, level in levels.items() if level is lowest)
            raise IdentifierError(
                f"{_name(why)} is of level {lowest.name}, and a search there needs one {_name(unique)}: "
                "give it, or the level of the query"
            )
    return lowest


def _level_of(tag: int) -> Level | None:
    attribute = BY_TAG.get(tag)
    return attribute.level if attribute is not None else _COMPUTED.get(tag)


def _name(tag: int) -> str:
    return dictionary.keyword_of(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _place(identifier: Dataset, key: object) -> tuple[Tree, int]:
    """The data set and the tag that a key means; the sequences on its way are made, of one item each."""
    path = selectors.parse(key) if isinstance(key, str) else None
    if not isinstance(path, selectors.Path):
        return resolve(identifier, key, reserve=True)
    tree: Tree = identifier
    for step, _ in path.steps:
        tag = tag_in(tree, step, reserve=True)
        if tag not in tree or not len(tree[tag]):
            tree._put(tag, "SQ", Sequence([Dataset()]))
        tree = tree[tag][0]
    return tree, tag_in(tree, path.key, reserve=True)


def _set(tree: Tree, tag: int, value: object) -> None:
    assert isinstance(tree, Dataset)
    vr = dictionary.vr_of(tag)
    if isinstance(value, str):
        if vr in _FORMS or vr in NUMBERS or vr == "AT":
            tree._put(tag, vr, _bytes_of(tag, vr, value))
        else:
            tree.set(tag, value or None)
    elif vr == "SQ" and value is not None:
        items = [value] if isinstance(value, Mapping) else value
        if not isinstance(items, Iterable):
            raise InvalidValueError("a sequence has items", value=value, tag=tag)
        tree.set(tag, [identifier_of(item) if isinstance(item, Mapping) else item for item in items])
    elif vr in WITH_RANGES and _is_range(value):
        ends = [b"" if end is None else packed(vr, end) for end in value]
        tree._put(tag, vr, b"-".join(ends))
    else:
        tree.set(tag, value)


def _bytes_of(tag: int, vr: str, text: str) -> bytes:
    """Text of a key as it is, which need be no value; numbers have to be some."""
    read = _READ.get(vr, int)
    try:
        if vr in _FORMS:
            return text.encode("ascii")
        return bytes(packed(vr, [read(part) for part in text.split("\\") if part]))
    except ValueError:  # InvalidValueError is one, too
        raise InvalidValueError(f"not a key that {vr} allows", value=text, tag=tag) from None


def _is_range(value: object) -> TypeGuard[tuple[object, object]]:
    return (
        isinstance(value, tuple)
        and len(value) == _ONE_RANGE
        and all(isinstance(end, _MOMENTS) for end in value)
    )
