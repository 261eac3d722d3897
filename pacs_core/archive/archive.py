"""The archive: what an embedding program, the server and the commands hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType

from pacs_core.archive.answer import Answer
from pacs_core.archive.delete import Deleted, delete
from pacs_core.archive.fill import Filled, asked_for, fill, reread
from pacs_core.archive.find import find
from pacs_core.archive.ingest import Arriving, Duplicates, Ingest, Stored
from pacs_core.archive.place import Place
from pacs_core.archive.recover import recover, stands
from pacs_core.archive.retrieve import Held, Outgoing, open_outgoing, retrieve
from pacs_core.archive.settle import Recovered
from pacs_core.config import ArchiveSettings
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.header import scan
from pacs_core.dicom.part10 import split
from pacs_core.dicom.query import UNIQUE, Query
from pacs_core.errors import NotFoundError, OutOfResourcesError, from_os_error
from pacs_core.index import Addition, Index, Located, Stats
from pacs_core.logs import get_logger
from pacs_core.store import Locator, Opened, Store, Syscalls
from pacs_core.workflow import Commitments, State, Worklist, worklist
from pacs_core.workflow.mpps import Performed

log = get_logger("archive")

CHUNK = 1 << 20
_LEAST_ROOM = 256 << 20


class Archive:
    """One archive, opened in this process. Others, a server among them, may have it open too.

    >>> with Archive.open("archive") as archive:            # doctest: +SKIP
    ...     archive.store("image.dcm")
    """

    def __init__(self, place: Place, store: Store, index: Index, ingest: Ingest, lease: ExitStack) -> None:
        self.place = place
        self._lease = lease
        self.ingest = ingest
        self.objects = store
        self.index = index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        duplicates: Duplicates = Duplicates.KEEP,
        accept_mismatch: bool = False,
        small: int = 1 << 20,
        map_size: int = 1 << 40,
        batch: int = 256,
        attributes: Sequence[str] = (),
        syscalls: Syscalls | None = None,
    ) -> Archive:
        """Open the archive at `path`; what a process that died has left there is settled first.

        Parameters
        ----------
        small : int
            Instances under this many bytes go to segments, larger ones to files of their own.
        map_size : int
            Bytes of address space for the index; the same for every opener.
        batch : int
            Most instances in one group commit.
        attributes : sequence of str
            What the index is to hold besides its own: `PatientAge`, `0018,1030`, `STUDY:AdmissionID`. Every
            process records them from now on, and they stay until a `reindex`. Of instances held already they
            are told once `fill` (or a server) has read those.
        syscalls : Syscalls
            What the write path calls the operating system by; tests give one that fails.

        Raises
        ------
        ArchiveError
            Not there, not an archive, being rebuilt, without its index, on a network file system, or of a
            newer schema; an attribute is in the index at another level.
        ConfigError
            An entry of `attributes` is none that an index can hold.
        """
        added = asked_for(attributes)
        place = Place.at(path, create=create)
        with ExitStack() as stack:
            stack.enter_context(place.in_use())
            store = Store.open(place.root, small=small, syscalls=syscalls)
            with place.recovery_lock():
                # Where something was kept once, an empty index would be a loss that nobody sees.
                index = Index.open(place.index, map_size=map_size, create=not store.writers())
                stack.callback(index.close)
                index.reread = reread(store, index)
                index.add(added)
                # A reader that died would keep every page that it might have read from being used again.
                index.reader_check()
                settled = True
                try:
                    recover(store, index)
                except OutOfResourcesError as exc:
                    settled = False
                    log.error("what a crash has left is settled when there is room", why=str(exc))
            ingest = Ingest(
                store,
                index,
                duplicates=duplicates,
                accept_mismatch=accept_mismatch,
                batch=batch,
                settled=settled,
            )
            return cls(place, store, index, ingest, stack.pop_all())

    @classmethod
    def of(cls, settings: ArchiveSettings, *, create: bool = True) -> Archive:
        """The archive that the settings describe; raises as `open`."""
        return cls.open(
            settings.path,
            create=create,
            duplicates=Duplicates(settings.duplicates),
            accept_mismatch=settings.mismatch == "warn",
            small=settings.small,
            map_size=settings.map_size,
            attributes=settings.attributes,
        )

    def close(self) -> None:
        """Let what is under way end, then give up files, locks and the index."""
        with self._lease:
            self.objects.close(clean=self.ingest.close())

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def store(self, source: str | os.PathLike[str] | bytes, *, source_ae: str = "") -> Stored:
        """Keep a DICOM file, or the bytes of one.

        Raises
        ------
        UnparsableError
            It is no DICOM object, or breaks off before its UIDs.
        MismatchError, DuplicateError, OutOfResourcesError, StorageError
            As `Ingest.store`.
        """
        try:
            meta, body = split(source if isinstance(source, bytes) else Path(source))
        except OSError as exc:
            raise from_os_error(exc, f"reading {source!s}") from exc
        # A file is no request: its data set says what it is, whatever its meta claims.
        header = scan(body, meta.transfer_syntax_uid)
        arriving = Arriving(
            header.sop_class_uid, header.sop_instance_uid, meta.transfer_syntax_uid, source_ae
        )
        if len(body) <= 4 * CHUNK:
            return self.ingest.store(arriving, body)
        arrival = self.ingest.begin(arriving)
        try:
            for at in range(0, len(body), CHUNK):
                arrival.write(body[at : at + CHUNK])
        except BaseException:
            arrival.discard()
            raise
        return arrival.finish()

    def holds(self, sop_instance_uid: str) -> bool:
        """Whether an instance is held, durable and indexed."""
        return self.index.held(str(sop_instance_uid))

    def find(
        self,
        level: Level,
        keys: Mapping[int, str],
        *,
        wanted: Set[int] | None = None,
        hierarchy: Level | None = None,
    ) -> Iterator[dict[int, str]]:
        """What is held at `level` under the unique keys given; see `archive.find`."""
        return find(self.index, level, keys, wanted=wanted, hierarchy=hierarchy)

    def search(self, query: Query) -> Answer:
        """What is held and matches, planned now and found as it is asked for."""
        return Answer(self.index.search(query), self.objects)

    def retrieve(
        self, level: Level, keys: Mapping[int, str], *, hierarchy: Level | None = None
    ) -> list[Held]:
        """The instances below what unique keys name; see `archive.retrieve`."""
        return retrieve(self.index, level, keys, hierarchy=hierarchy)

    def outgoing(self, held: Held, accepted: Container[str]) -> Outgoing:
        """The data set of an instance, to be sent; see `archive.retrieve.open_outgoing`."""
        return open_outgoing(self.objects, self.index, held, accepted)

    def open_instance(self, sop_instance_uid: str) -> Opened:
        """The kept bytes of an instance, as a Part 10 file.

        Raises
        ------
        NotFoundError
            It is not held.
        """
        located = self.index.locate(str(sop_instance_uid))
        if located is None:
            raise NotFoundError("not held", uid=sop_instance_uid)
        return self.objects.open_instance(Locator.unpack(located.locator))

    def instances(self) -> Iterator[Located]:
        """Every instance held, in the order of the index; changes made meanwhile may or may not show."""
        return self.index.instances()

    def delete(
        self,
        *,
        study: str | None = None,
        series: str | None = None,
        instance: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Deleted:
        """Remove what has this UID, durably, also while the archive is served: give one of the three.

        An instance is held, and counts, until it is gone, whatever happens. What is stored under the UID
        meanwhile stays. Files give their space back at once, segments what pages they can, and all of it when
        nothing in them lives.

        Parameters
        ----------
        series : str
            All series of this UID, in whatever studies.
        progress : callable
            Told, batch by batch, how many more instances are gone.

        Raises
        ------
        NotFoundError
            Nothing of that UID is held.
        OutOfResourcesError, StorageError
            What `progress` was told of is gone; all else is held as before.
        """
        named = {Level.STUDY: study, Level.SERIES: series, Level.IMAGE: instance}
        given = [(level, uid) for level, uid in named.items() if uid is not None]
        if len(given) != 1:
            raise TypeError("give one of study, series and instance")
        [(level, uid)] = given
        return delete(self.index, self.ingest, level, str(uid), progress)

    def sweep(self) -> int:
        """Free what was removed while a backup needed it; returns how many instances and segments went."""
        return self.objects.sweep(lambda tombstone: stands(self.index, tombstone))

    @cached_property
    def state(self) -> State:
        """What no instance tells: worklist, performed procedure steps, commitments; as `State.open`."""
        state = State.open(self.place.state)
        self._lease.callback(state.close)
        return state

    @cached_property
    def worklist(self) -> Worklist:
        """The scheduled procedure steps that modalities ask for; as `state`."""
        return Worklist(self.state)

    @cached_property
    def performed(self) -> Performed:
        """The performed procedure steps that modalities told of (MPPS)."""
        return Performed(self.state, advance=worklist.advance, series_of=self._series_of)

    def _series_of(self, study_uid: str) -> Iterator[str]:
        found = self.find(Level.SERIES, {UNIQUE[Level.STUDY]: study_uid})
        return (series[UNIQUE[Level.SERIES]] for series in found)

    @cached_property
    def commitments(self) -> Commitments:
        """Storage commitment transactions; raises as `State.open`."""
        return Commitments(self.state, self.place.state / "owners")

    def trouble(self) -> str:
        """Why nothing could be kept now, in words; empty if nothing is known of."""
        if self.ingest.unsound:
            return "a write failed; the next one tries to mend that first"
        room = os.statvfs(self.place.root)
        left = room.f_bavail * room.f_frsize
        return f"{left >> 20} MiB are left on the disk" if left < _LEAST_ROOM else ""

    def stats(self) -> Stats:
        """Counts and sizes, read from the index."""
        return self.index.stats()

    def additions(self) -> list[Addition]:
        """What the index holds beyond its own attributes, and what it does not hold yet of all instances."""
        return self.index.additions()

    def fill(self, *, progress: Callable[[int], None] = lambda _: None) -> Filled:
        """Ask the instances held before for what the index does not hold of them yet; see `archive.fill`."""
        return fill(self, progress=progress)

    def dead_bytes(self) -> int:
        """Bytes that deleted and replaced instances take up yet, in segments that they share with others."""
        return self.objects.dead_bytes()

    def recover(self) -> Recovered:
        """Settle what writers that died since this archive was opened have left."""
        with self.place.recovery_lock():
            return recover(self.objects, self.index)
