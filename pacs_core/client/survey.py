"""What a retrieval is of: what matches at a peer, asked for by C-FIND, level by level down to instances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pacs_core.client.association import Association
from pacs_core.client.exchange import matches
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.identifier import Asked, asked_of, values_of
from pacs_core.dicom.query import QUERY_RETRIEVE_LEVEL, UNIQUE
from pacs_core.errors import RefusedError

_SOP_CLASS = 0x0008_0016

Keys = dict[int, str]
"""Unique keys, from the patient's down: tag → value."""


@dataclass(slots=True)
class Series:
    """A series at the peer.

    Attributes
    ----------
    keys : dict[int, str]
        Its unique keys, and the patient's as far as it is told.
    instances : dict[str, str]
        SOP Instance UID → SOP Class UID, '' where it was not told.
    whole : bool
        Those are all that it has.
    """

    keys: Keys
    instances: dict[str, str] = field(default_factory=dict)
    whole: bool = False


def asked_by(keys: Keys, level: Level, root: Level, *more: int, uids: list[str] | None = None) -> Asked:
    """A hierarchical identifier (PS3.4 C.4.1.3.1): `keys` above the level; `more` to be returned.

    `uids`: what the level's unique key may be; None for all, or for the one that is in `keys`.
    """
    wanted: dict[int, object] = dict.fromkeys(more)
    wanted |= {UNIQUE[Level(above)]: keys.get(UNIQUE[Level(above)], "") for above in range(root, level)}
    wanted[UNIQUE[level]] = keys.get(UNIQUE[level]) if uids is None else uids
    return asked_of(wanted, level, root)


def entities(association: Association, asked: Asked) -> list[Keys]:
    """The unique keys of each match. Raises as `exchange.matches`; RefusedError where one has none."""
    return [_keys_of(match, asked) for match in _found(association, asked)]


def series_of(association: Association, asked: Asked) -> Iterator[Series]:
    """Each series that matches, or of which a patient, study or instance matches. Raises as `entities`."""
    if asked.level < Level.SERIES:
        for keys in entities(association, asked):
            yield from _below(association, keys, asked.level, asked.root)
        return
    patients: dict[str, str] = {}
    found: dict[tuple[str, str], Series] = {}
    for match in list(_found(association, asked)):  # one question at a time
        keys = _keys_of(match, asked)
        uid = keys.pop(UNIQUE[Level.IMAGE], None)
        study = keys[UNIQUE[Level.STUDY]]
        if UNIQUE[Level.PATIENT] not in keys:
            if study not in patients:
                patients[study] = _patient_of(association, study)
            keys[UNIQUE[Level.PATIENT]] = patients[study]
        one = found.setdefault((study, keys[UNIQUE[Level.SERIES]]), Series(keys))
        if uid is not None:
            one.instances[uid] = str(match.get(_SOP_CLASS) or "")
    for one in found.values():
        yield one if asked.level is Level.IMAGE else _filled(association, one, asked.root)


def _below(association: Association, keys: Keys, level: Level, root: Level) -> Iterator[Series]:
    """The series below a patient or a study."""
    below = Level(level + 1)
    more = () if UNIQUE[Level.PATIENT] in keys else (UNIQUE[Level.PATIENT],)
    for found in entities(association, asked_by(keys, below, root, *more)):
        all_keys = {**keys, **found}
        if below is Level.SERIES:
            yield _filled(association, Series(all_keys), root)
        else:
            yield from _below(association, all_keys, below, root)


def _filled(association: Association, series: Series, root: Level) -> Series:
    asked = asked_by(series.keys, Level.IMAGE, root, _SOP_CLASS)
    for match in matches(association, asked):
        uid = _keys_of(match, asked)[UNIQUE[Level.IMAGE]]
        series.instances[uid] = str(match.get(_SOP_CLASS) or "")
    series.whole = True
    return series


def _patient_of(association: Association, study: str) -> str:
    asked = asked_of({UNIQUE[Level.STUDY]: study, UNIQUE[Level.PATIENT]: None}, Level.STUDY, Level.STUDY)
    return next((keys.get(UNIQUE[Level.PATIENT], "") for keys in entities(association, asked)), "")


def _found(association: Association, asked: Asked) -> Iterator[Dataset]:
    """Matches, asked for the unique keys above the level as well, and, at its own, the SOP class."""
    identifier = asked.identifier.copy()
    tags = [UNIQUE[Level(level)] for level in range(asked.root, asked.level)]
    if asked.level is Level.STUDY:
        tags.append(UNIQUE[Level.PATIENT])
    if asked.level is Level.IMAGE:
        tags.append(_SOP_CLASS)
    for tag in tags:
        if tag not in identifier:
            identifier[tag] = None
    return matches(association, asked._replace(identifier=identifier))


def _keys_of(match: Dataset, asked: Asked) -> Keys:
    """Its unique keys, those of the question where the match does not repeat them."""
    keys: Keys = {}
    for level in range(asked.level + 1):
        tag = UNIQUE[Level(level)]
        value = str(match.get(tag) or "").strip(" \0") or _only(values_of(asked.identifier, tag))
        if value:
            keys[tag] = value
        elif level == asked.level or level >= Level.STUDY:
            raise RefusedError("a match of the peer's does not say which it is", tag=tag)
    return keys


def _only(values: tuple[str, ...]) -> str:
    return values[0] if len(values) == 1 else ""


def names_entities(asked: Asked) -> bool:
    """Whether it names what is meant by nothing but unique keys, which is what a retrieval may have."""
    unique = {UNIQUE[Level(level)] for level in range(asked.root, asked.level + 1)}
    tags = {element.tag for element in asked.identifier} - {QUERY_RETRIEVE_LEVEL}
    return tags == unique and all(values_of(asked.identifier, tag) for tag in unique)
