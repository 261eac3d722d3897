"""Questions to the index. Each native call is one snapshot; iterations are resumed by id, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pacs_core._ext import browse, keys
from pacs_core._ext.kv import Environment
from pacs_core._ext.rows import Schema
from pacs_core.dicom.attributes import BY_TAG, Level
from pacs_core.dicom.query import Query
from pacs_core.errors import IdentifierError
from pacs_core.index import schema
from pacs_core.index.base import Addition, Filling, Located, Loss, Mark, Reading, Stats, Succession
from pacs_core.index.env import Opened
from pacs_core.index.search import Search

CHUNK: Final = 512

Keys = Mapping[str, str | Sequence[str]]

_INSTANCE_KIND: Final = 3
_STUDY_KIND: Final = 1


class Reader:
    """The questions; `Index` adds the changes."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def held(self, uid: str) -> bool:
        """Whether the instance is in the index."""
        return browse.held(self._opened.env, self._opened.schema, uid)

    def locate(self, uid: str) -> Located | None:
        """Where the instance is kept, None if it is not held."""
        env, layout = self._opened.env, self._opened.schema
        text = uid.encode()
        while (found := browse.lookup(env, layout, _INSTANCE_KIND, text)) is not None:
            (place,) = browse.places(env, layout, [found])
            if place is not None:  # else it was replaced between the two calls
                return Located._make(place)
        return None

    def instances(self, keys: Keys | None = None, *, after: int = 0) -> Iterator[Located]:
        """The instances that agree with unique `keys` (all of them without), ascending by id within their
        parent; without keys a later call resumes `after` the id of one."""
        return self._instances(_wanted(Level.IMAGE, keys), after)

    def members(self, level: Level, uid: str) -> list[int]:
        """Ids of the instances of every study, series or instance of that UID, those entered last first."""
        chunks = self._ids(Level.IMAGE, {level: frozenset([uid])})
        return sorted((one for chunk in chunks for one in chunk), reverse=True)

    def located(self, ids: Iterable[int]) -> list[Located]:
        """Where these instances are kept; those that are gone by now are left out."""
        places = browse.places(self._opened.env, self._opened.schema, ids)
        return [Located._make(place) for place in places if place is not None]

    def _instances(self, wanted: dict[Level, frozenset[str]], after: int) -> Iterator[Located]:
        env, layout = self._opened.env, self._opened.schema
        for chunk in self._ids(Level.IMAGE, wanted, after):
            ids = chunk
            if wanted:
                rows = browse.matches(env, layout, Level.IMAGE, chunk)
                ids = [
                    one
                    for one, row in zip(chunk, rows, strict=True)
                    if row is not None and _agrees(row, wanted)
                ]
            yield from self.located(ids)

    def find(self, level: Level, keys: Keys | None = None) -> Iterator[dict[int, str]]:
        """What is held at a level, by the unique keys of it and the levels above (PS3.4 C.6.1.1).

        Parameters
        ----------
        keys : Mapping[str, str | Sequence[str]]
            Values of PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID; empty ones match all,
            a sequence matches any of its values.

        Yields
        ------
        dict[int, str]
            Value by tag (several joined by a backslash) of all attributes held, also those of the levels
            above and the computed ones; no entry for an empty value.

        Raises
        ------
        IdentifierError
            A key is none of these, or belongs to a level below.
        """
        wanted = _wanted(level, keys)
        return self._find(level, wanted)

    def _find(self, level: Level, wanted: dict[Level, frozenset[str]]) -> Iterator[dict[int, str]]:
        for chunk in self._ids(level, wanted):
            for row in browse.matches(self._opened.env, self._opened.schema, level, chunk):
                if row is not None and _agrees(row, wanted):
                    yield row

    def _ids(self, level: Level, wanted: dict[Level, frozenset[str]], after: int = 0) -> Iterator[list[int]]:
        """Ids of a level in chunks: below the lowest key given, else all. The caller filters the rest."""
        if not wanted:
            return self.all_of(level, after)
        start = max(wanted)
        return self.below(start, self.named(start, sorted(wanted[start])), level)

    @property
    def environment(self) -> Environment:
        """LMDB, for the native calls of a search."""
        return self._opened.env

    @property
    def layout(self) -> Schema:
        """What the codes of the records mean."""
        return self._opened.schema

    def search(self, query: Query) -> Search:
        """A search for what a query asks, planned and ready to be walked."""
        return Search(self, query)

    @property
    def reading(self) -> Reading:
        """What the fields of an entry are made with."""
        state = self._opened.state
        return Reading(state.scanner, state.known)

    def additions(self) -> list[Addition]:
        """What the index holds beyond its own attributes, and those of its own that it does not hold yet of
        all instances: until then no query is answered from them."""
        state = self._opened.refresh()
        pending = state.filling.tags if state.filling is not None else frozenset()
        return [
            Addition(attribute, attribute.tag in pending)
            for attribute in state.attributes
            if attribute.tag in pending or attribute.tag not in BY_TAG
        ]

    def filling(self) -> Filling | None:
        """Which instances are still to be asked for attributes that came later; None if there are none."""
        return self._opened.refresh().filling

    def all_of(self, level: Level, after: int = 0) -> Iterator[list[int]]:
        """All ids of a level, in chunks."""
        return self._walk(schema.PATIENT + level, None, after)

    def below(self, start: Level, chunks: Iterator[list[int]], level: Level) -> Iterator[list[int]]:
        """The ids of a level that are below those of another."""
        for _ in range(start, level):
            chunks = self._children_of(chunks)
        return chunks

    def _children_of(self, chunks: Iterator[list[int]]) -> Iterator[list[int]]:
        room = CHUNK // 8  # who waits for the first does not wait for many
        for parents in chunks:
            after = [0] * len(parents)
            # Until nothing is left, as in `_walk`.
            while (found := browse.children(self._opened.env, parents, after, room))[0]:
                ids, after = found
                yield ids
                room = CHUNK

    def named(self, level: Level, values: Iterable[str]) -> Iterator[list[int]]:
        """The ids of the values that a unique key asks for; a patient's or series' may be several."""
        env, layout = self._opened.env, self._opened.schema
        seen: set[int] = set()
        for value in values:
            found: Iterable[int]
            text = value.encode()
            if level is Level.PATIENT:
                walks = (
                    self._walk(schema.KEY, key)
                    for key in keys.attribute_keys(keys.PATIENT_ID, keys.TEXT, text)
                )
                found = (one for walk in walks for chunk in walk for one in chunk)
            elif level is Level.SERIES:
                found = browse.series_named(env, layout, text)
            else:
                kind = _STUDY_KIND if level is Level.STUDY else _INSTANCE_KIND
                one = browse.lookup(env, layout, kind, text)
                found = () if one is None else (one,)
            for one in found:
                if one not in seen:
                    seen.add(one)
                    yield [one]

    def _children(self, parent: int) -> Iterator[list[int]]:
        return self._walk(schema.CHILD, parent.to_bytes(8, "little"))

    def _walk(self, table: int, key: bytes | None, after: int = 0) -> Iterator[list[int]]:
        """Until nothing is left: what is replaced meanwhile comes back with a higher id."""
        while chunk := browse.ids_of(self._opened.env, table, key, after, CHUNK):
            yield chunk
            after = chunk[-1]

    def stats(self) -> Stats:
        """How much is held."""
        entries = self._opened.env.entries()
        _, held, commits = self._opened.counters()
        return Stats(
            patients=entries[schema.PATIENT],
            studies=entries[schema.STUDY],
            series=entries[schema.SERIES],
            instances=entries[schema.INSTANCE],
            bytes=held,
            index_bytes=self._opened.env.info()["used"],
            commits=commits,
        )

    def marks(self) -> dict[int, Mark]:
        """The last mark of each writer."""
        rows = self._opened.env.walk(schema.META, after=b"mark", stop=b"marl", limit=1 << 20)
        return {
            (writer := int.from_bytes(key[4:], "little")): Mark(
                writer, *(int.from_bytes(value[i : i + 8], "little") for i in (0, 8, 16))
            )
            for key, value in rows
        }

    def succession(self, uids: Iterable[str]) -> Succession:
        """What patients, studies and series lose if these instances go, and which others may supply it.

        Meant to be called, with the removal or replacement that follows, under `exclusive`.
        """
        going = [place for uid in dict.fromkeys(uids) if (place := self.locate(uid)) is not None]
        gone = {place.id for place in going}
        stamps = {place.stamp for place in going}
        losses: list[Loss] = []
        below: set[int] = set()
        for series_id in sorted({place.series_id for place in going}):
            (record,) = self._records(Level.SERIES, [series_id])
            if record is not None and (tags := _supplied(record["values"], stamps)):
                losses.append(Loss(Level.SERIES, record["parent"], series_id, None, tags))
                below.add(series_id)
        for study_id in sorted({place.study_id for place in going}):
            (record,) = self._records(Level.STUDY, [study_id])
            if record is None:
                continue
            found = [Loss(Level.STUDY, study_id, None, None, _supplied(record["values"], stamps))]
            found += [
                Loss(Level.PATIENT, study_id, None, claim["number"], _supplied(claim["values"], stamps))
                for claim in record["claims"]
            ]
            found = [loss for loss in found if loss.tags]
            if found:
                losses += found
                below.update(one for chunk in self._children(study_id) for one in chunk)
        remaining = [
            place
            for series_id in sorted(below)
            for chunk in self._children(series_id)
            for place in self.located(one for one in chunk if one not in gone)
        ]
        remaining.sort(key=lambda place: (place.stamp, place.sop_instance_uid))
        return Succession(losses, remaining)

    def _records(self, level: Level, ids: Sequence[int]) -> list[browse.Record | None]:
        return browse.records(self._opened.env, self._opened.schema, level, ids)

    def reader_check(self) -> int:
        """Clear the reader slots of processes that died; how many there were."""
        return self._opened.env.reader_check()

    def reader_lag(self) -> int:
        """How many commits ago the oldest snapshot still read was taken."""
        return self._opened.env.info()["lag"]


def _supplied(values: Mapping[int, tuple[str, int]], stamps: set[int]) -> dict[int, int]:
    return {tag: stamp for tag, (_, stamp) in values.items() if stamp in stamps}


def _wanted(level: Level, given: Keys | None) -> dict[Level, frozenset[str]]:
    """The keys that ask for something, by level."""
    levels = {keyword: at for at, (keyword, _) in schema.UNIQUE_KEYS.items()}
    wanted: dict[Level, frozenset[str]] = {}
    for keyword, value in (given or {}).items():
        at = levels.get(keyword)
        if at is None or at > level:
            raise IdentifierError(f"{keyword} is no unique key of level {level.name} or above")
        values = frozenset([value] if isinstance(value, str) else value) - {""}
        if values:
            wanted[at] = values
    return wanted


def _agrees(row: Mapping[int, str], wanted: Mapping[Level, frozenset[str]]) -> bool:
    return all(row.get(schema.UNIQUE_KEYS[at][1], "") in values for at, values in wanted.items())
