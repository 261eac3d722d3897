"""Ingest: from a received instance to bytes and index record that survive a power cut.

The order is bytes, then record, then answer. The bytes are durable then, and the record is with the index's
next checkpoint: what a crash leaves is instances without a record, which `archive/recover` adopts.

Duplicates (the same SOP Instance UID again) are settled by the archive's policy: the first is kept, the
new one replaces it, or the new one is refused. Whatever loses gets a tombstone before its bytes go, so
that a rebuilt index comes to the same outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from pacs_core.archive.heirs import heirs_of
from pacs_core.archive.recover import catch_up, finish_tombstones, stands
from pacs_core.archive.settle import Recovered, now_us
from pacs_core.dicom.header import Header, HeaderScan
from pacs_core.dicom.part10 import Reception, encode_meta
from pacs_core.errors import (
    DuplicateError,
    MismatchError,
    OutOfResourcesError,
    PacsError,
    StorageError,
    UnparsableError,
)
from pacs_core.index import Entry, Index, Mark, Outcome
from pacs_core.logs import get_logger
from pacs_core.pool.commit import GroupCommit
from pacs_core.store import Locator, Reason, Staged, Store, Stream, Tombstone, crc32c

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = get_logger("archive.ingest")

_NOWHERE = Locator(0, 0, 0).pack()


class Duplicates(Enum):
    """What happens to an instance whose SOP Instance UID is held already."""

    KEEP = "keep"
    REPLACE = "replace"
    REJECT = "reject"


class Kept(Enum):
    """What became of an instance that was accepted."""

    STORED = "stored"
    HELD = "held"  # the one received first stays; nothing was written
    REPLACED = "replaced"


class Arriving(NamedTuple):
    """What is known of an instance before its data set: the request (PS3.7 9.1.1.1) and its sender."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae: str = ""


class Stored(NamedTuple):
    """The acknowledgement: durable and findable when you hold this.

    Attributes
    ----------
    discarded : bool
        Elements of groups 0000 or 0002 inside the data set were left out (status B006).
    mismatch : bool
        The data set's SOP class differs from the request's, and the archive takes that (status B007).
    """

    kept: Kept
    sop_instance_uid: str
    discarded: bool = False
    mismatch: bool = False


@dataclass(slots=True)
class _Pending:
    """One instance on its way through a group commit."""

    staged: Staged
    entry: Entry
    uid: str
    kept: Kept | None = None
    error: PacsError | None = None
    locator: Locator | None = None
    tombstone: Tombstone | None = None


class Ingest:
    """The write path of one archive in one process; any number of threads may call it."""

    def __init__(
        self,
        store: Store,
        index: Index,
        *,
        duplicates: Duplicates = Duplicates.KEEP,
        accept_mismatch: bool = False,
        batch: int = 256,
        settled: bool = True,
    ) -> None:
        """Without `settled` the index may hold what was deleted: there was no room yet to carry that out."""
        self._store = store
        self._index = index
        self._duplicates = duplicates
        self._accept_mismatch = accept_mismatch
        self._settled = settled
        self._commit: GroupCommit[_Pending | None] = GroupCommit(self._work, limit=batch)
        self._claims = _Claims()
        self._doubtful: list[_Pending] = []
        self._undecided: list[Tombstone] = []
        self._went_back = False  # the index, and it does not hold again yet what came after its checkpoint

    def store(self, arriving: Arriving, data: Buffer) -> Stored:
        """Keep a data set that is whole in memory (bytes as they crossed the wire, no file meta).

        Raises
        ------
        MismatchError
            The data set's UIDs are not those of the request (PS3.4 B.2.3, A9xx).
        UnparsableError
            The data set can't be read as far as its UIDs.
        DuplicateError
            Held already, and the policy is to reject.
        OutOfResourcesError, StorageError
            It could not be kept; nothing of it stays.
        """
        reading = self._index.reading
        header = reading.scanner.scan(data, arriving.transfer_syntax_uid)
        mismatch = self._check(arriving, header)
        uid = header.sop_instance_uid
        with self._claims.claim(uid):
            if self._is_held(uid):
                return Stored(Kept.HELD, uid)
            if header.stray:
                data = _without(data, header.stray)
            reception = self._reception(arriving, crc32c(data), memoryview(data).nbytes)
            entry = self._entry(arriving, header, reception, reading.known)
            staged = self._store.stage(_meta(arriving, reception), data, header.fields, reception.stamp)
            kept = self._settle(uid, entry, staged)
        return Stored(kept, uid, discarded=bool(header.stray), mismatch=mismatch)

    def close(self) -> bool:
        """Take nothing more; returns when nothing is under way, and whether all is durably accounted for."""
        self._commit.close()
        try:
            self._mend()
            self._index.sync()
        except PacsError as exc:
            log.error("the next to open the archive settles what is left", why=str(exc))
            return False
        return True

    def remove(self, uids: Sequence[str]) -> list[Locator]:
        """Take instances out: tombstones first, then their records, then their bytes.

        Other writers wait for all but the last of it. Returns where the instances were.

        Raises
        ------
        OutOfResourcesError, StorageError
            All of them are held as before.
        """
        self._be_sound()
        with self._index.exclusive():
            if self._went_back:
                raise StorageError("the index does not hold again yet what came last")
            found = ((uid, self._index.locate(uid)) for uid in dict.fromkeys(uids))
            going = {uid: Locator.unpack(at.locator) for uid, at in found if at is not None}
            if not going:
                return []
            with self._store.carrying_out():
                self._bury(going)
        gone = list(going.values())
        self._store.remove(gone)
        return gone

    def _bury(self, going: Mapping[str, Locator]) -> None:
        """Tombstones, then the end of the records; with the index held exclusively."""
        tombstones = [Tombstone(at, None, Reason.DELETED, uid, now_us()) for uid, at in going.items()]
        before = self._undecided  # of another thread, whose removal failed a moment ago
        self._undecided = [*before, *tombstones]
        try:
            self._store.tombstone(tombstones)
        except PacsError:
            self._undecided = before  # the journal sees to it that none counts
            raise
        uids = list(going)
        self._index.remove(uids, heirs=heirs_of(self._index, self._store, uids))
        self._undecided = before

    def _be_sound(self) -> None:
        """Come back from what failed before. Raises what keeps it from that."""
        if self.unsound:
            self._commit.run(None)

    @property
    def unsound(self) -> bool:
        """Whether something failed that the next write has to mend first."""
        return bool(self._undecided or self._doubtful or self._went_back or self._index.condemned)

    def _mend(self) -> None:
        """After a failed commit, removal or sync: bring index and bytes together again.

        Only while nothing is published: by the leader of the group commit, or after its end.
        """
        if not self.unsound:
            return
        with self._index.exclusive():
            # Remembered until all of it is entered again: the next mark would hide the rest for ever.
            self._went_back = self._went_back or self._index.condemned
            self._index.reopen()
            self._drop_doubtful()
            # Until these are taken back nobody may be told that such an instance is held: it may be gone at
            # the next start.
            held = [t for t in self._undecided if self._went_back or stands(self._index, t)]
            if held:
                self._store.retract(held)
            self._undecided = []
            if self._went_back:
                catch_up(self._store, self._index, self._store.mark().writer)
                self._went_back = False

    def begin(self, arriving: Arriving) -> Arrival:
        """Keep a data set while it arrives; memory stays bounded whatever its size."""
        return Arrival(self, arriving)

    def _check(self, arriving: Arriving, header: Header) -> bool:
        """Whether the SOP class differs and may; CONFORMANCE 11."""
        uid = header.sop_instance_uid
        if not uid:
            if header.truncated:
                raise UnparsableError("the data set ends before its SOP Instance UID", tag=0x00080018)
            raise MismatchError("the data set has no SOP Instance UID", tag=0x00080018)
        if uid != arriving.sop_instance_uid:
            raise MismatchError(
                "the data set's SOP Instance UID is not the request's", tag=0x00080018, uid=uid
            )
        if header.sop_class_uid == arriving.sop_class_uid:
            return False
        if not self._accept_mismatch:
            raise MismatchError("the data set's SOP Class UID is not the request's", tag=0x00080016, uid=uid)
        return True

    def _is_held(self, uid: str) -> bool:
        self._be_sound()
        if self._duplicates is Duplicates.REPLACE or not self._index.held(uid):
            return False
        if not self._settled and self._is_buried(uid):
            raise OutOfResourcesError("no room to carry its deletion out, which comes first", uid=uid)
        if self._store.unfinished:
            self._finish_deletions()
            if not self._index.held(uid):
                return False
        if self._duplicates is Duplicates.REJECT:
            raise DuplicateError("held already", uid=uid)
        return True

    def _finish_deletions(self) -> None:
        """Wait for a deletion that is being carried out, and carry out what one who died has left.

        Until then nobody may be told that an instance is held: it might be gone at the next start.
        """
        with self._index.exclusive():
            if self._store.unfinished:
                finish_tombstones(self._store, self._index, Recovered())
                self._store.finished()

    def _is_buried(self, uid: str) -> bool:
        at = self._index.locate(uid)
        return at is not None and self._store.tombstone_of(Locator.unpack(at.locator)) is not None

    def _reception(self, arriving: Arriving, checksum: int, length: int) -> Reception:
        return Reception(
            stamp=self._store.next_stamp(), source_ae=arriving.source_ae, checksum=checksum, length=length
        )

    def _entry(self, arriving: Arriving, header: Header, reception: Reception, known: int) -> Entry:
        """What the index will hold; the locator is filled in once there is one."""
        entry = Entry(
            fields=header.fields,
            locator=_NOWHERE,
            stamp=reception.stamp,
            checksum=reception.checksum,
            transfer_syntax_uid=arriving.transfer_syntax_uid,
            source_ae=reception.source_ae,
            known=known,
        )
        self._index.check_entry(entry)
        return entry

    def _settle(self, uid: str, entry: Entry, staged: Staged) -> Kept:
        pending = _Pending(staged, entry, uid)
        self._commit.run(pending)
        if pending.error is not None:
            raise pending.error
        assert pending.kept is not None
        if pending.kept is Kept.HELD and self._duplicates is Duplicates.REJECT:
            raise DuplicateError("held already", uid=pending.uid)
        return pending.kept

    def _work(self, asked: Sequence[_Pending | None]) -> None:
        """One batch: bytes durable, then records entered, then what lost removed."""
        self._mend()
        batch = [pending for pending in asked if pending is not None]
        if not batch:
            return
        try:
            outcomes, position = self._store.publish([p.staged for p in batch])
        except PacsError as exc:
            for pending in batch:
                pending.error = exc
            return
        published = []
        for pending, locator in zip(batch, outcomes, strict=True):
            if isinstance(locator, PacsError):
                pending.error = locator
            else:
                pending.locator = locator
                pending.entry.locator = locator.pack()
                published.append(pending)
        try:
            losers = self._record(published, Mark(*position))
        except BaseException as exc:
            # Whether the records are there is only known once the index is open again.
            self._doubtful.extend(published)
            if not isinstance(exc, PacsError):
                raise
            for pending in published:
                pending.error = exc
            with suppress(PacsError):  # those who only ask are not to wait for the next who stores
                self._mend()
            return
        if losers:
            self._store.remove(losers)

    def _record(self, published: Sequence[_Pending], mark: Mark) -> list[Locator]:
        """Records of a batch; returns whose bytes have lost (their tombstones are durable)."""
        if self._duplicates is Duplicates.REPLACE:
            return self._record_replacing(published, mark)
        stored, losers = published, []
        results = self._index.commit([p.entry for p in published], all_new=True, mark=mark)
        if any(result.outcome is Outcome.HELD for result in results):
            with self._index.exclusive():
                # Another process was first with these. Their tombstones come before the mark that covers
                # them: nobody looks again at what lies before a mark.
                losers = [p for p in published if self._index.held(p.uid)]
                self._store.tombstone([_tombstone(p, Reason.DUPLICATE) for p in losers])
                for pending in losers:
                    pending.kept = Kept.HELD
                stored = [p for p in published if p.kept is None]
                results = self._index.commit([p.entry for p in stored], mark=mark)
        for pending, result in zip(stored, results, strict=True):
            pending.kept = Kept.STORED
            if result.conflicts:
                log.warning(
                    "conflict with what is held", conflict=str(result.conflicts.name), uid=pending.uid
                )
        return [p.locator for p in losers if p.locator is not None]

    def _record_replacing(self, published: Sequence[_Pending], mark: Mark) -> list[Locator]:
        with self._index.exclusive():
            held = [(p, self._index.locate(p.uid)) for p in published]
            replaced = [(p, located) for p, located in held if located is not None]
            old = [Locator.unpack(located.locator) for _, located in replaced]
            tombstones = [
                Tombstone(locator, p.locator, Reason.SUPERSEDED, p.uid, now_us())
                for locator, (p, _) in zip(old, replaced, strict=True)
            ]
            if tombstones:
                self._store.tombstone(tombstones)
            for tombstone, (p, _) in zip(tombstones, replaced, strict=True):
                p.tombstone = tombstone
            heirs = heirs_of(self._index, self._store, [p.uid for p, _ in replaced])
            self._index.commit([p.entry for p in published], replace=True, heirs=heirs, mark=mark)
        for pending, located in held:
            pending.kept = Kept.STORED if located is None else Kept.REPLACED
        return old

    def _drop_doubtful(self) -> None:
        """After a failed commit: drop the bytes of instances that have no record."""
        lost, void = [], []
        for pending in self._doubtful:
            located = self._index.locate(pending.uid)
            recorded = located is not None and Locator.unpack(located.locator) == pending.locator
            if pending.tombstone is not None:
                if recorded:
                    lost.append(pending.tombstone.locator)
                else:
                    void.append(pending.tombstone)
            if pending.locator is not None and not recorded:
                lost.append(pending.locator)
        if void:
            self._store.retract(void)
        self._store.remove(lost)
        self._doubtful.clear()


class Arrival:
    """An instance that is written while it arrives. Ends with `finish` or `discard`, once."""

    def __init__(self, ingest: Ingest, arriving: Arriving) -> None:
        self._ingest = ingest
        self._arriving = arriving
        self._reading = ingest._index.reading
        self._scan = HeaderScan(arriving.transfer_syntax_uid, self._reading.scanner)
        # The length of the file meta depends on UIDs and AE title only, so its room can be left free.
        self._stream: Stream = ingest._store.stream(
            len(_meta(arriving, Reception(0, arriving.source_ae, 0, 0)))
        )

    def write(self, chunk: Buffer) -> None:
        """The next bytes of the data set; of any length."""
        self._scan.feed(chunk)
        self._stream.write(chunk)

    def finish(self) -> Stored:
        """As `Ingest.store`; raises the same."""
        ingest, arriving = self._ingest, self._arriving
        try:
            header = self._scan.finish()
            mismatch = ingest._check(arriving, header)
            uid = header.sop_instance_uid
            with ingest._claims.claim(uid):
                if ingest._is_held(uid):
                    self._stream.discard()
                    return Stored(Kept.HELD, uid)
                if header.stray:
                    self._stream.strip(header.stray)
                reception = ingest._reception(arriving, self._stream.checksum, self._stream.length)
                entry = ingest._entry(arriving, header, reception, self._reading.known)
                staged = self._stream.finish(_meta(arriving, reception))
                kept = ingest._settle(uid, entry, staged)
        except BaseException:
            self.discard()
            raise
        return Stored(kept, uid, discarded=bool(header.stray), mismatch=mismatch)

    def discard(self) -> None:
        """Leave nothing of it; also after `finish` has failed."""
        self._stream.discard()


@dataclass(slots=True)
class _Claims:
    """SOP Instance UIDs on their way in: the second association with the same one waits for the first."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: dict[str, list[threading.Lock]] = field(default_factory=dict)

    def claim(self, uid: str) -> _Claim:
        return _Claim(self, uid)


class _Claim:
    __slots__ = ("_claims", "_uid")

    def __init__(self, claims: _Claims, uid: str) -> None:
        self._claims = claims
        self._uid = uid

    def __enter__(self) -> None:
        with self._claims._lock:
            waiting = self._claims._taken.get(self._uid)
            if waiting is None:
                self._claims._taken[self._uid] = []
                return
            turn = threading.Lock()
            turn.acquire()
            waiting.append(turn)
        turn.acquire()

    def __exit__(self, *exc: object) -> None:
        with self._claims._lock:
            waiting = self._claims._taken[self._uid]
            if waiting:
                waiting.pop(0).release()
            else:
                del self._claims._taken[self._uid]


def _meta(arriving: Arriving, reception: Reception) -> bytes:
    return encode_meta(
        arriving.sop_class_uid, arriving.sop_instance_uid, arriving.transfer_syntax_uid, reception
    )


def _tombstone(pending: _Pending, reason: Reason) -> Tombstone:
    if pending.locator is None:
        raise StorageError("a tombstone for an instance that has no bytes", uid=pending.uid)
    return Tombstone(pending.locator, None, reason, pending.uid, now_us())


def _without(data: Buffer, ranges: Sequence[tuple[int, int]]) -> bytes:
    """`data` without the byte ranges, which are ascending and do not overlap."""
    view = memoryview(data)
    pieces, at = [], 0
    for start, end in ranges:
        pieces.append(view[at:start])
        at = end
    pieces.append(view[at:])
    return b"".join(pieces)
