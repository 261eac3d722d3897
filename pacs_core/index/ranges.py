"""Walks of the ranges of keys that a plan chose, by several threads where few of many keys count.

A native call has no GIL and looks at so many keys at most. What is left is split where the keys differ in a
byte, and the parts are walked side by side.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from pacs_core._ext.kv import Environment
from pacs_core._ext.lookup import key_ids
from pacs_core._ext.match import Matcher
from pacs_core.index.plan import Driver

_FIRST: Final = 64  # ids of the first chunk: whoever waits for the first match does not wait long
_CHUNK: Final = 512
_KEYS: Final = 20_000  # looked at in a call: 1 ms of a plain pattern
_THREADS: Final = min(4, os.cpu_count() or 1)

_Found = tuple[list[int], bytes | None, int]


class _Part(NamedTuple):
    """Keys that begin with the same `common` bytes, from `start` up to `stop`, behind a key and id."""

    start: bytes
    stop: bytes
    common: int
    after: bytes | None = None
    after_id: int = 0


def walked(env: Environment, driver: Driver) -> Iterator[list[int]]:
    """The ids under the ranges of a driver in chunks, each once, though several values of it may be there."""
    seen: set[int] = set()
    for ids in _chunks(env, driver):
        fresh = [one for one in ids if one not in seen]
        seen.update(fresh)
        if fresh:
            yield list(dict.fromkeys(fresh))


def _chunks(env: Environment, driver: Driver) -> Iterator[list[int]]:
    limit = _FIRST
    for start, stop in driver.ranges:
        part = _Part(start, stop, len(start))  # of a pattern: all that begins with `start`
        while True:
            ids, after, after_id = _call(env, driver.matcher, part, limit)
            yield ids
            if after is None:
                break
            part = part._replace(after=after, after_id=after_id)
            if driver.matcher is not None and len(ids) < limit and _THREADS > 1:
                # Many keys, and few that count.
                yield from _side_by_side(env, driver.matcher, part)
                break
            limit = _CHUNK
        limit = _CHUNK


def _call(env: Environment, matcher: Matcher | None, part: _Part, limit: int) -> _Found:
    return key_ids(
        env,
        part.start,
        part.stop,
        after=part.after,
        after_id=part.after_id,
        matcher=matcher,
        limit=limit,
        keys=_KEYS,
    )


def _side_by_side(env: Environment, matcher: Matcher | None, whole: _Part) -> Iterator[list[int]]:
    """The ids of a part by several threads, which are a few calls ahead of whoever reads."""
    parts = deque([whole])
    calls: deque[tuple[_Part, Future[_Found]]] = deque()
    with ThreadPoolExecutor(_THREADS, "keys") as threads:
        while parts or calls:
            if len(parts) + len(calls) < _THREADS and parts:
                parts.extend(_split(env, parts.popleft()))
            while parts and len(calls) < 2 * _THREADS:
                part = parts.popleft()
                calls.append((part, threads.submit(_call, env, matcher, part, _CHUNK)))
            part, call = calls.popleft()
            ids, after, after_id = call.result()
            if after is not None:
                parts.append(part._replace(after=after, after_id=after_id))
            yield ids


def _split(env: Environment, part: _Part) -> Iterator[_Part]:
    """What is left of a part, by the first byte that its keys need not have in common."""
    at, key = part.common, part.after
    if key is None or len(key) <= at or key[at] == 0xFF:
        yield part
        return
    end = b""
    while key is not None:
        start, end = end, key[:at] + bytes((key[at] + 1,))
        # The first is behind the key that was come to, and each other begins where the one before ends.
        yield part._replace(stop=end, common=at + 1) if not start else _Part(start, end, at + 1)
        _, key, _ = key_ids(env, end, part.stop, limit=1)
    yield _Part(end, part.stop, at)
