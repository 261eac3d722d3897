"""Searches: the walk that a plan chose, the records that match, and the responses that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pacs_core._ext import browse
from pacs_core._ext.lookup import Sieve, level_of
from pacs_core._ext.match import Matcher
from pacs_core.dicom.attributes import ITEMS
from pacs_core.dicom.dictionary import vr_of
from pacs_core.dicom.query import Matching, Query
from pacs_core.index.base import Located
from pacs_core.index.plan import Driver, choose
from pacs_core.index.ranges import walked

if TYPE_CHECKING:
    from pacs_core.index.reader import Reader

Items = tuple[tuple[int, str], ...]
Part = tuple[int, str, bytes | Items | None]
"""An element of a response: tag, VR, and what it holds, None for what is in the record; of a sequence, tags
and VRs of the elements of its items."""


class Search:
    """One query on the index as it is while it is walked.

    Every native call is one snapshot: what is stored or deleted meanwhile may be found or not, and is whole.

    Attributes
    ----------
    driver : Driver
        What is walked.
    tests : tuple of Key
        What the records are tested for.
    unsupported : frozenset of int
        Tags of keys that the index does not have at the level or above it.
    looked_at : int
        Records tested so far.
    """

    def __init__(self, reader: Reader, query: Query) -> None:
        self._reader = reader
        self.query = query
        filling = reader.filling()
        self._pending = query.tags & filling.tags if filling is not None else frozenset()
        self._env, self._layout = reader.environment, reader.layout
        self._asked = {key.tag: key for key in query.keys}
        self.unsupported = frozenset(tag for tag in query.tags if not self._has(tag))
        self.tests = tuple(
            key if all(map(self._has, key.tags)) else key.dates()
            for key in query.matching()
            if self._has(key.tag)
        )
        self.driver: Driver = choose(self._env, self._layout, query)
        self._plain = [key for key in self.tests if key.matching is not Matching.SEQUENCE]
        self._nested = [
            (key.tag, [one for one in key.keys if one.matching is not Matching.UNIVERSAL])
            for key in self.tests
            if key.matching is Matching.SEQUENCE
        ]
        tests = [*self._plain, *(one for _, inner in self._nested for one in inner)]
        self._matcher = Matcher([(key.vr, key.matching.value, key.values) for key in tests])
        self.looked_at = 0

    def _has(self, tag: int) -> bool:
        """Whether the index has an attribute, of a sequence all that is asked for of its items."""
        level = level_of(self._layout, tag)
        if level is None or level > self.query.level:
            return False
        asked = self._asked.get(tag)
        held = {inner for inner, _ in ITEMS.get(tag, ())}
        return asked is None or all(one.tag in held for one in asked.keys)

    def part(self, tag: int) -> Part:
        """What is told of an attribute that is asked for: of a sequence what is asked for of its items, or
        all that the index has if that is nothing (PS3.4 C.2.2.2.6)."""
        held = ITEMS.get(tag)
        if held is None:
            return tag, vr_of(tag), None
        asked = self._asked.get(tag)
        wanted = {one.tag for one in asked.keys} if asked is not None else ()
        return tag, "SQ", tuple(one for one in held if not wanted or one[0] in wanted)

    def ids(self) -> Iterator[list[int]]:
        """Ids that match, in chunks."""
        sieve = self._sieve(())
        for chunk in self._chunks():
            found = sieve.sift(self._env, chunk)
            if found:
                yield found

    def rows(self) -> Iterator[dict[int, str]]:
        """What is known of each match, as text by tag; no sequences."""
        for chunk in self.ids():
            for row in browse.matches(self._env, self._layout, self.query.level, chunk):
                if row is not None:
                    yield row

    def responses(self, parts: Sequence[Part], *, implicit: bool) -> Iterator[list[bytes]]:
        """Responses, in chunks: data sets in little endian, of elements as `Sieve` takes them.

        Where nothing matches chunks are empty: whoever reads them can break off at each.
        """
        sieve = self._sieve(parts)
        for chunk in self._chunks():
            yield sieve.responses(self._env, chunk, implicit)

    def located(self, parts: Sequence[Part], *, implicit: bool) -> Iterator[tuple[Located, bytes] | None]:
        """Each instance that matches, of a query at the level of images: where it is kept, its response.

        None now and then, whatever matches: whoever reads can break off.
        """
        sieve = self._sieve(parts)
        for chunk in self._chunks():
            for place in browse.places(self._env, self._layout, chunk):
                if place is None:
                    continue
                for response in sieve.responses(self._env, [place[0]], implicit):
                    yield Located._make(place), response
            yield None

    def explain(self) -> str:
        """The plan in words."""
        tests = ", ".join(map(str, self.tests)) or "nothing"
        lines = [f"walks {self.driver.why} (level {self.driver.level.name})", f"tests {tests}"]
        for what, tags in (
            ("not in the index", self.unsupported - self._pending),
            ("not in the index of all instances yet", self._pending),
        ):
            if tags:
                lines.append(f"{what}: " + ", ".join(f"{tag:08X}" for tag in sorted(tags)))
        return "\n".join(lines)

    def _sieve(self, parts: Sequence[Part]) -> Sieve:
        tags = [(key.tag, key.time) if key.time else key.tag for key in self._plain]
        nested = [(tag, [one.tag for one in inner]) for tag, inner in self._nested]
        return Sieve(self._layout, self.query.level, self._matcher, tags, parts, nested)

    def _chunks(self) -> Iterator[list[int]]:
        """Ids of the query's level that may match."""
        for chunk in self._reader.below(self.driver.level, self._driven(), self.query.level):
            self.looked_at += len(chunk)
            yield chunk

    def _driven(self) -> Iterator[list[int]]:
        driver = self.driver
        if driver.values:
            yield from self._reader.named(driver.level, driver.values)
        elif driver.ranges:
            yield from walked(self._env, driver)
        else:
            yield from self._reader.all_of(driver.level)
