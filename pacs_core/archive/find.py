"""Hierarchical search on unique keys (PS3.4 C.4.1.3.1.1): enough to ask what is held.

The keys above the level name one entity each; the key of the level is a UID, a list of them, or nothing
for all. Other keys are returned, not matched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from pacs_core.dicom import query
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dictionary import keyword_of
from pacs_core.errors import IdentifierError
from pacs_core.index import Index

UNIQUE = {level: (tag, keyword_of(tag)) for level, tag in query.UNIQUE.items()}


def find(
    index: Index,
    level: Level,
    keys: Mapping[int, str],
    *,
    wanted: Set[int] | None = None,
    hierarchy: Level | None = None,
) -> Iterator[dict[int, str]]:
    """Matches at `level`, each {tag: value}.

    Parameters
    ----------
    keys : mapping
        Tag of a unique key to its value; several are joined by backslashes.
    wanted : set
        Tags to give back; all that are held if None.
    hierarchy : Level
        The top of an information model, `PATIENT` or `STUDY`: each level between it and `level` must then
        be named by exactly one value. None: any of the keys may be left out.

    Raises
    ------
    IdentifierError
        A unique key above the level is missing or names several.
    """
    for match in index.find(level, unique_keys(level, keys, hierarchy)):
        yield {tag: value for tag, value in match.items() if wanted is None or tag in wanted}


def unique_keys(level: Level, keys: Mapping[int, str], hierarchy: Level | None) -> dict[str, list[str]]:
    """The values of the unique keys of `level` and above, by keyword. Parameters and errors as `find`."""
    unique: dict[str, list[str]] = {}
    for at, (tag, keyword) in UNIQUE.items():
        values = [value for value in keys.get(tag, "").split("\\") if value]
        if at > level:
            continue
        if hierarchy is not None and hierarchy <= at < level and len(values) != 1:
            raise IdentifierError(f"level {level.name} needs one value in each unique key above it", tag=tag)
        unique[keyword] = values
    return unique
