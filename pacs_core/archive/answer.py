"""Answers to queries: from the index, and for images also from the instances, where it has no attribute.

At the other levels a key that the index does not hold is not supported (PS3.4 C.4.1.1.3.2). Bulk data, such
as Pixel Data, is at none: that is what retrieval is for.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping

from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset, Sequence
from pacs_core.dicom.dictionary import vr_of
from pacs_core.dicom.query import Filter, Key
from pacs_core.dicom.reading import read, read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import InvalidValueError, NotFoundError, UnparsableError
from pacs_core.index import Located, Part, Search
from pacs_core.store import Locator, Store

_HEAD = 1 << 18  # bytes of an instance in which what is asked for lies nearly always
_CHUNK = 16  # instances that are read before what they say is told
_LONGEST = 1 << 16  # bytes of a value that is told from an instance
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})

Constants = Mapping[int, tuple[str, bytes]]
"""Elements that every response has, whatever matches: VR and value by tag."""


class Answer:
    """What is held and matches a query, found as it is asked for.

    Attributes
    ----------
    unsupported : frozenset of int
        Tags of keys that are neither matched nor told.
    """

    def __init__(self, search: Search, objects: Store) -> None:
        self._search = search
        self._objects = objects
        image = search.query.level is Level.IMAGE
        self._from_instances = frozenset(
            tag for tag in search.unsupported if image and vr_of(tag) not in _BULK
        )
        self.unsupported = search.unsupported - self._from_instances

    def explain(self) -> str:
        """The plan in words."""
        return self._search.explain()

    def rows(self) -> Iterator[dict[int, str]]:
        """What the index knows of each match, as text by tag; no sequences."""
        return self._search.rows()

    def responses(self, constants: Constants, *, implicit: bool) -> Iterator[list[bytes]]:
        """An identifier for each match, in chunks: in little endian, text in UTF-8.

        It has the elements of the query, those of the levels above and the level's own, and `constants`.
        Where nothing matches chunks are empty: whoever reads them can break off at each.
        """
        told = self._search.query.tags - self._search.unsupported - constants.keys()
        parts = [self._search.part(tag) for tag in told]
        parts += [(tag, vr, value) for tag, (vr, value) in constants.items()]
        asked = self._from_instances - constants.keys()
        if not asked:
            return self._search.responses(sorted(parts), implicit=implicit)
        return self._detailed(sorted(parts), asked, implicit)

    def _detailed(self, parts: list[Part], asked: frozenset[int], implicit: bool) -> Iterator[list[bytes]]:
        keys = {key.tag: key for key in self._search.query.keys if key.tag in asked}
        matches = Filter(key for key in self._search.query.keys if not asked.isdisjoint(key.tags))
        syntax = IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN
        chunk: list[bytes] = []
        looked_at = 0
        for found in self._search.located(parts, implicit=implicit):
            if found is not None:
                located, response = found
                header = self._header(located, max(asked))
                if header is not None and matches(header):
                    chunk.append(_with(read_dataset(response, syntax), header, asked, keys, syntax))
                looked_at += 1
            if found is None or looked_at % _CHUNK == 0:
                yield chunk
                chunk = []

    def _header(self, located: Located, last: int) -> Dataset | None:
        """An instance as far as its tags up to `last`; None if it is gone, or can't be read."""
        try:
            with self._objects.open_instance(Locator.unpack(located.locator)) as opened:
                header = read(os.pread(opened.fd, min(opened.length, _HEAD), opened.offset))
                if not header.truncated or max((element.tag for element in header), default=0) > last:
                    return header
                before = opened.offset % mmap.ALLOCATIONGRANULARITY
                whole = mmap.mmap(
                    opened.fd, before + opened.length, prot=mmap.PROT_READ, offset=opened.offset - before
                )
                return read(memoryview(whole)[before:])
        except (NotFoundError, UnparsableError):
            return None


def _items(items: Sequence, key: Key) -> list[Dataset]:
    """The items that match, with what is asked for of them (PS3.4 C.2.2.2.6)."""
    matches = Filter(key.keys)
    found = []
    for item in filter(matches, items):
        told = Dataset()
        for one in key.keys:
            element = item.element(one.tag) if one.tag in item else None
            value = element.value if element is not None else None
            if isinstance(value, Sequence) and one.keys:
                value = _items(value, one)
            told.set(one.tag, value, one.vr if element is None else element.vr)
        found.append(told)
    return found


def _with(
    response: Dataset, header: Dataset, asked: frozenset[int], keys: Mapping[int, Key], syntax: str
) -> bytes:
    """A response with what the instance itself says.

    What it does not have, what is longer than a response can be expected to be, and what can't be written
    again is told without a value.
    """
    for tag in asked:
        element = header.element(tag) if tag in header else None
        vr = element.vr if element is not None else vr_of(tag) or "UN"
        told = element is not None and (element.length or 0) <= _LONGEST
        value = element.value if element is not None and told else None
        try:
            if isinstance(value, Sequence) and tag in keys and keys[tag].keys:
                value = _items(value, keys[tag])
            response.set(tag, value, vr)
        except InvalidValueError:
            response.set(tag, None, vr_of(tag) or "UN")
    try:
        return response.to_bytes(syntax)
    except InvalidValueError:  # something in an item of a sequence, as no other values are left
        for tag in asked:
            response.set(tag, None, vr_of(tag) or "UN")
        return response.to_bytes(syntax)
