"""Walks of the key table by patterns: what a cursor finds key by key, wherever the pages end."""

from __future__ import annotations

import fnmatch
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_core._ext import keys
from pacs_core._ext.kv import Environment
from pacs_core._ext.lookup import key_ids
from pacs_core._ext.match import Matcher
from pacs_core.index import schema

HEAD, OTHER = b"\x1d\x01", b"\x1e\x01"
STOP = HEAD + b"\xff"
CUT = keys.CUT + len(HEAD)
NAMES = 12_000

Entries = list[tuple[bytes, int]]


@pytest.fixture(scope="module")
def entries() -> Entries:
    """Keys of all sizes, with one id, several, or more than a page holds, in order."""
    dice = random.Random(3)
    made: dict[bytes, int] = dict.fromkeys((HEAD, HEAD + b"x" * (CUT - 3), HEAD + b"smi" * 66 + b"zz"), 2)
    made |= {HEAD + b"many smiths": 2_000, HEAD + b"many others": 700}
    while len(made) < NAMES:
        size = dice.choice((1, 3, 8, 8, 8, 20, 60, 150))
        made[HEAD + bytes(dice.choices(b"aeimost^", k=size))] = dice.choice((1, 1, 3, 9))
    made |= {HEAD[:1] + b"\0": 5, OTHER + b"smi": 3, OTHER + b"smile": 1}
    numbers = iter(range(1, sum(made.values()) + 1))
    return [(key, next(numbers)) for key in sorted(made) for _ in range(made[key])]


@pytest.fixture(scope="module")
def env(entries: Entries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    opened = Environment(str(tmp_path_factory.mktemp("lookup")), schema.TABLES, map_size=1 << 28)
    shuffled = random.Random(4).sample(entries, len(entries))  # so that pages are split as they are by ingest
    opened.write([(schema.KEY, key, struct.pack("=Q", one)) for key, one in shuffled])
    yield opened
    opened.close()


def expected(entries: Entries, pattern: str) -> list[int]:
    return [
        one
        for key, one in entries
        if HEAD <= key < STOP
        and (len(key) == CUT or fnmatch.fnmatchcase(key[2:].decode(), pattern.replace("[", "[[]")))
    ]


def walked(env: Environment, pattern: str, limit: int, most: int) -> list[int]:
    matcher = Matcher([("LO", "wildcard", [pattern])])
    found: list[int] = []
    after, after_id = None, 0
    while True:
        ids, after, after_id = key_ids(
            env, HEAD, STOP, after=after, after_id=after_id, matcher=matcher, limit=limit, keys=most
        )
        assert len(ids) <= limit
        found += ids
        if after is None:
            return found


@pytest.mark.parametrize("pattern", ["*smi*", "*e", "*a*", "*zz*", "?", "*^^^^^^*", "many*", "*"])
@pytest.mark.parametrize(("limit", "most"), [(100_000, 100_000), (512, 20_000), (7, 3), (1, 50), (512, 1)])
def test_patterns_find_each_id_once_in_order(
    env: Environment, entries: Entries, pattern: str, limit: int, most: int
) -> None:
    assert walked(env, pattern, limit, most) == expected(entries, pattern)


def test_a_call_looks_at_so_many_keys(env: Environment, entries: Entries) -> None:
    names = sorted({key for key, _ in entries if HEAD <= key < STOP and len(key) < CUT})
    nothing = Matcher([("LO", "wildcard", ["*zz*"])])
    for most in (1, 2, 60, 500):
        start = HEAD + b"a"
        begin = next(number for number, key in enumerate(names) if key >= start)
        looked_at = names[begin : begin + most]
        assert key_ids(env, start, STOP, matcher=nothing, keys=most)[:2] == ([], looked_at[-1])
    with pytest.raises(ValueError, match="one key"):
        key_ids(env, HEAD, STOP, keys=0)


def test_walks_go_on_behind_a_key_that_has_gone(tmp_path: Path) -> None:
    names = [HEAD + b"%05d" % number for number in range(3_000)]
    with_ids = [(schema.KEY, name, struct.pack("=Q", 7)) for name in names]
    env = Environment(str(tmp_path), schema.TABLES, map_size=1 << 26)
    env.write(with_ids)
    nines = Matcher([("LO", "wildcard", ["*9"])])
    _, after, after_id = key_ids(env, HEAD, STOP, matcher=nines, keys=1_005)
    assert after == names[1_004]
    env.write([(schema.KEY, name, None) for name in names[900:1_100]])
    ids, after, _ = key_ids(env, HEAD, STOP, after=after, after_id=after_id, matcher=nines)
    assert (len(ids), after) == (190, None)
    env.close()
