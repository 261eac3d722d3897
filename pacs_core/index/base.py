"""What every index takes and gives, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, Protocol

from pacs_core.dicom.added import Asked
from pacs_core.dicom.attributes import Attribute, Level
from pacs_core.dicom.header import Scanner

EVERYTHING: Final = 1 << 30
"""Of an entry: whatever the index wants to know of it is there."""


class Reading(NamedTuple):
    """What an index wants to know of data sets: who finds it, and how many attributes it has learned of."""

    scanner: Scanner
    known: int


class Filling(NamedTuple):
    """Attributes that came when instances were held already, and how far those have been asked for them.

    Instances up to the id `after`, and from `until` on, are recorded with `tags`.
    """

    until: int
    after: int
    tags: frozenset[int]


class Addition(NamedTuple):
    """An attribute that the index has beyond its own, or not of all instances yet (`pending`)."""

    attribute: Attribute
    pending: bool


@dataclass(slots=True)
class Entry:
    """One instance to be indexed, its bytes being durable already.

    Attributes
    ----------
    fields : bytes
        The packed index fields (layout: version u8, then tag u32, length u32, value of each, ascending).
    locator : bytes
        24 bytes: container, offset, length, each u64 little endian.
    stamp : int
        Order of reception, unique: microseconds since the epoch << 12 | writer.
    checksum : int
        CRC-32C of the data set.
    source_ae : str
        Who sent it; may be empty.
    known : int
        Of the `Reading` that `fields` were found with: what the index has learned since is looked for again.
    """

    fields: bytes
    locator: bytes
    stamp: int
    checksum: int
    transfer_syntax_uid: str
    source_ae: str = ""
    known: int = EVERYTHING


class Outcome(IntEnum):
    """What became of one entry or removal."""

    INSERTED = 0
    HELD = 1  # the UID was there already; nothing changed
    REPLACED = 2
    REMOVED = 3
    ABSENT = 4  # to be removed, but not there


class Conflict(IntFlag):
    """What is odd about an entry beside what is held."""

    NONE = 0
    PATIENT = 1  # its study belongs to another patient
    SERIES = 2  # the same SOP Instance UID is held in another study or series


class Result(NamedTuple):
    """What became of one entry or removal; `previous` is the locator of what was held before."""

    outcome: Outcome
    previous: bytes | None
    conflicts: Conflict


class Mark(NamedTuple):
    """All that `writer` wrote up to this file and this place in this segment is committed."""

    writer: int
    file: int
    segment: int
    offset: int


class Located(NamedTuple):
    """Where one instance is kept. The ids are the index's own and mean nothing after a rebuild; `id` resumes
    an iteration."""

    id: int
    series_id: int
    study_id: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    source_ae: str
    locator: bytes
    stamp: int
    checksum: int
    claim: int


class Stats(NamedTuple):
    """How much is held. `bytes` counts the instances, `index_bytes` the index's own file."""

    patients: int
    studies: int
    series: int
    instances: int
    bytes: int
    index_bytes: int
    commits: int


@dataclass(slots=True)
class Loss:
    """Attributes of one patient (as a study knows it), study or series whose supplier is to go.

    `tags`: each with the stamp of its supplier. What was received earlier has no value, or would supply it.
    """

    level: Level
    study_id: int
    series_id: int | None
    claim: int | None
    tags: dict[int, int]

    def covers(self, instance: Located) -> bool:
        """Whether `instance` could supply what is missing."""
        if not self.tags or instance.study_id != self.study_id:
            return False
        if instance.stamp < min(self.tags.values()):
            return False
        if self.series_id is not None:
            return instance.series_id == self.series_id
        return self.claim is None or instance.claim == self.claim


@dataclass(slots=True)
class Succession:
    """What some instances leave behind when they are removed or replaced, and who may take their place.

    Walk `candidates`, read the header of each, tell `supply` what it holds, and give the entries so made to
    `Index.remove` or `Index.commit` as heirs, all under one `Index.exclusive`.
    """

    losses: list[Loss] = field(default_factory=list)
    remaining: list[Located] = field(default_factory=list)

    def candidates(self) -> Iterator[Located]:
        """The remaining instances that may still supply something, first received first."""
        for instance in self.remaining:
            if any(loss.covers(instance) for loss in self.losses):
                yield instance

    def supply(self, instance: Located, fields: Mapping[int, bytes]) -> None:
        """Note the values that `instance` holds, by tag, so that they are looked for no further."""
        for loss in self.losses:
            if loss.covers(instance):
                for tag in [tag for tag in loss.tags if fields.get(tag)]:
                    del loss.tags[tag]


class IndexBackend(Protocol):
    """What the archive asks of an index."""

    def commit(
        self,
        entries: Sequence[Entry],
        *,
        replace: bool = False,
        heirs: Sequence[Entry] = (),
        mark: Mark | None = None,
    ) -> list[Result]: ...

    def remove(self, uids: Sequence[str], *, heirs: Sequence[Entry] = ()) -> list[Result]: ...

    def exclusive(self) -> AbstractContextManager[None]: ...

    def succession(self, uids: Iterable[str]) -> Succession: ...

    def held(self, uid: str) -> bool: ...

    def locate(self, uid: str) -> Located | None: ...

    def instances(
        self, keys: Mapping[str, str | Sequence[str]] | None = None, *, after: int = 0
    ) -> Iterator[Located]: ...

    def members(self, level: Level, uid: str) -> list[int]: ...

    def located(self, ids: Iterable[int]) -> list[Located]: ...

    def find(
        self, level: Level, keys: Mapping[str, str | Sequence[str]] | None = None
    ) -> Iterator[dict[int, str]]: ...

    def stats(self) -> Stats: ...

    @property
    def reading(self) -> Reading: ...

    def add(self, wanted: Sequence[Asked]) -> None: ...

    def additions(self) -> list[Addition]: ...

    def filling(self) -> Filling | None: ...

    def fill(self, filling: Filling, heirs: Sequence[Entry], after: int) -> bool: ...

    def close(self) -> None: ...
