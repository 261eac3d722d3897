"""What an index says of itself in its `meta` table: version, codes of its attributes, what is pending."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from pacs_core._ext.kv import Environment
from pacs_core._ext.rows import Schema
from pacs_core.dicom.added import Asked
from pacs_core.dicom.attributes import ATTRIBUTES, Attribute
from pacs_core.dicom.header import Scanner, scanner
from pacs_core.errors import ArchiveError
from pacs_core.index import schema
from pacs_core.index.base import Filling

_VERSION: Final = struct.Struct("<I")

Change = tuple[int, bytes, bytes | None]
"""Of a table: key, and value or None for none."""


class State(NamedTuple):
    """What the index holds, as it was read last: its attributes, and what is needed to record them.

    Attributes
    ----------
    packed : tuple
        Of `meta`: codes and filling.
    attributes : tuple of Attribute
        Those that are recorded, the ones that are pending included.
    scanner : Scanner
        Finds them in data sets.
    known : int
        How many codes have been given: whoever was at work with fewer has to look again.
    """

    packed: tuple[bytes, bytes | None]
    schema: Schema
    attributes: tuple[Attribute, ...]
    filling: Filling | None
    scanner: Scanner
    known: int


@lru_cache(maxsize=16)
def _scanner(wanted: tuple[tuple[int, str], ...]) -> Scanner:
    return scanner(wanted)


def read(env: Environment) -> State:
    """The state as it is now.

    Raises
    ------
    ArchiveError
        It is no index of ours, or one of another version.
    """
    version, packed, secret, filling = env.read(schema.META, [b"schema", b"codes", b"secret", b"filling"])
    if version is None or packed is None or secret is None:
        raise ArchiveError(f"{env.path} holds no index of this program")
    found = _VERSION.unpack(version)[0]
    if found > schema.SCHEMA_VERSION:
        raise ArchiveError(
            f"index {env.path} has schema {found}, newer than this program's {schema.SCHEMA_VERSION}: "
            "use the program that wrote it, or a newer one"
        )
    if found < schema.SCHEMA_VERSION:
        raise ArchiveError(
            f"index {env.path} has schema {found}, this program needs {schema.SCHEMA_VERSION}: "
            "rebuild it with `pacs-core reindex`"
        )
    codes = schema.unpack_codes(packed)
    recorded = schema.recorded(codes)
    pending = schema.unpack_filling(filling)
    unknown = codes.keys() - {attribute.tag for attribute in recorded}
    untold = unknown if pending is None else unknown | pending.tags
    return State(
        (packed, filling),
        Schema(schema.native_rows(codes), secret, packed, untold),
        recorded,
        pending,
        _scanner(tuple((attribute.tag, attribute.vr) for attribute in recorded)),
        len(codes),
    )


def beginning(env: Environment) -> tuple[bool, list[Change]]:
    """Whether an index is new, and what is to be written before it is used: what it begins with, or what
    makes one of before ours. Nothing for one that `read` refuses."""
    version, secret = env.read(schema.META, [b"schema", b"secret"])
    current = _VERSION.pack(schema.SCHEMA_VERSION)
    if version not in (None, current, _VERSION.pack(schema.OLDEST_VERSION)):
        return False, []
    changes: list[Change] = []
    if version is None:
        changes.append((schema.META, b"counters", schema.COUNTERS.pack(1, 0, 0)))
    if secret is None:
        changes.append((schema.META, b"secret", os.urandom(16)))
    if version != current:
        changes.append((schema.META, b"schema", current))
    return version is None, [*changes, *additions(env, ATTRIBUTES)]


def additions(env: Environment, attributes: Iterable[Attribute]) -> list[Change]:
    """What gives attributes codes that have none; instances held are to be asked for them."""
    version, packed, filling, counters = env.read(schema.META, [b"schema", b"codes", b"filling", b"counters"])
    number = schema.SCHEMA_VERSION if version is None else _VERSION.unpack(version)[0]
    before = schema.unpack_codes(packed or b"", number)
    after = schema.assign_codes(before, attributes)
    codes = schema.pack_codes(after)
    if codes == packed:
        return []
    changes: list[Change] = [(schema.META, b"codes", codes)]
    fresh = frozenset(after.keys() - before.keys())
    if fresh and counters is not None and env.entries()[schema.INSTANCE]:
        pending = schema.unpack_filling(filling)
        tags = fresh if pending is None else fresh | pending.tags
        until, _, _ = schema.COUNTERS.unpack(counters)
        changes.append((schema.META, b"filling", schema.pack_filling(Filling(until, 0, tags))))
    return changes


def check_levels(state: State, wanted: Iterable[Asked]) -> None:
    """Raise ArchiveError if an attribute is held at another level than was given."""
    levels = {attribute.tag: attribute.level for attribute in state.attributes}
    for attribute, given in wanted:
        level = levels.get(attribute.tag, attribute.level)
        if given and level is not attribute.level:
            raise ArchiveError(
                f"{attribute.keyword} is in the index at level {level.name}, not "
                f"{attribute.level.name}: `pacs-core reindex` makes it anew, with what is asked for"
            )
