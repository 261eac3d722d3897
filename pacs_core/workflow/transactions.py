"""One storage commitment transaction, and the keys under which it is kept and found.

What changes anything here is part of a decision (`state.Change`): all of it stands, or nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from msgspec import MsgspecError, Struct, msgpack, structs

from pacs_core.dicom.commitment import Reference
from pacs_core.errors import CorruptError, OutOfResourcesError
from pacs_core.workflow.state import COMMITMENT, OUTBOX, Change

MOST_PENDING: Final = 10_000_000
"""Instances of all transactions that are not finished: what peers may have us keep for them."""

# What a key of the table COMMITMENT begins with, and what follows it. In the table OUTBOX are those that
# nobody owns, by the moment that they are due and their number: the AE title that asked.
TRANSACTION = b"t"  # number
_REFERENCES = b"r"  # number
_FAILURES = b"f"  # number
_NAMED = b"u"  # AE title, 0, Transaction UID: the number
_WAITING = b"w"  # AE title, 0, number: of those that are not finished
OWNED = b"o"  # owner, number
FINISHED = b"d"  # microseconds, number
_COUNTERS = b"c"

NUMBER = struct.Struct(">Q")
PAIR = struct.Struct(">QQ")


class Stage(StrEnum):
    """Where a transaction is."""

    REQUESTED = "requested"
    VERIFIED = "verified"
    DELIVERED = "delivered"
    GIVEN_UP = "given up"


class Transaction(Struct, frozen=True):
    """One request and what has become of it.

    Attributes
    ----------
    number : int
        In the order of the requests.
    uid : str
        Transaction UID.
    calling, called, address : str
        Who asked, by which AE title of ours, and from where.
    digest : bytes
        Of the references.
    duplicate : bool
        Its Transaction UID was in use.
    instances, failed : int
        How many it is about, and how many of them could not be committed.
    requested, verified, finished, due : float
        Seconds since the epoch; 0: not yet. `due`: when it is to be worked on, if nobody owns it.
    attempts : int
        To work on it that failed, since it is in this stage.
    trouble : str
        Why the last one did.
    owner : int
        Who works on it, 0: nobody.
    """

    number: int
    uid: str
    calling: str
    called: str
    address: str
    digest: bytes
    instances: int
    requested: float
    due: float = 0.0
    stage: Stage = Stage.REQUESTED
    duplicate: bool = False
    failed: int = 0
    verified: float = 0.0
    finished: float = 0.0
    attempts: int = 0
    trouble: str = ""
    owner: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is done for it by itself."""
        return self.stage in (Stage.DELIVERED, Stage.GIVEN_UP)

    @property
    def key(self) -> bytes:
        """Its number, as keys have it."""
        return NUMBER.pack(self.number)

    @property
    def named(self) -> bytes:
        """The key of its AE title and Transaction UID."""
        return named(self.calling, self.uid)


class Counters(Struct):
    """Numbers given out so far, and `pending`: how many instances all that is not finished is about."""

    transactions: int = 0
    owners: int = 0
    pending: int = 0


def microseconds(seconds: float) -> int:
    """A moment as keys have it."""
    return max(0, int(seconds * 1e6))


def named(calling: str, uid: str) -> bytes:
    """The key of the transaction that an AE title calls by this Transaction UID."""
    return _NAMED + calling.encode() + b"\0" + uid.encode()


def waiting(calling: str) -> bytes:
    """What the keys of the unfinished transactions of an AE title begin with; their number follows."""
    return _WAITING + calling.encode() + b"\0"


def transaction_keys(number: int) -> tuple[bytes, bytes, bytes]:
    """The keys of a transaction, its references and its failures."""
    key = NUMBER.pack(number)
    return TRANSACTION + key, _REFERENCES + key, _FAILURES + key


def pack_references(references: Sequence[Reference]) -> bytes:
    """References in little room: the SOP classes once, and compressed."""
    classes = {sop_class: at for at, sop_class in enumerate(dict.fromkeys(one[0] for one in references))}
    pairs = [(classes[sop_class], uid) for sop_class, uid in references]
    return zlib.compress(msgpack.encode((list(classes), pairs)), 1)


def unpack_references(packed: bytes) -> list[Reference]:
    """What `pack_references` packed."""
    classes, pairs = msgpack.decode(zlib.decompress(packed), type=tuple[list[str], list[tuple[int, str]]])
    return [Reference(classes[at], uid) for at, uid in pairs]


def pack_failures(failures: Iterable[tuple[int, int]]) -> bytes:
    """Places in the request, and the Failure Reason of each."""
    return zlib.compress(msgpack.encode(sorted(failures)), 1)


def unpack_failures(packed: bytes) -> dict[int, int]:
    """What `pack_failures` packed."""
    return dict(msgpack.decode(zlib.decompress(packed), type=list[tuple[int, int]]))


def decoded(packed: bytes) -> Transaction:
    """A transaction as it is kept. CorruptError if that is none, or one of a newer version."""
    try:
        return msgpack.decode(packed, type=Transaction)
    except MsgspecError as exc:
        raise CorruptError(f"a commitment transaction that can't be read: {exc}") from exc


def counters_of(change: Change) -> Counters:
    """The counters as they stand."""
    packed = change.get(COMMITMENT, _COUNTERS)
    return Counters() if packed is None else msgpack.decode(packed, type=Counters)


def put_counters(change: Change, counters: Counters) -> None:
    """Let the counters stand so."""
    change.put(COMMITMENT, _COUNTERS, msgpack.encode(counters))


def find(change: Change, number: int) -> Transaction | None:
    """A transaction as it stands; None if it is not known."""
    packed = change.get(COMMITMENT, TRANSACTION + NUMBER.pack(number))
    return None if packed is None else decoded(packed)


def find_named(change: Change, calling: str, uid: str) -> Transaction | None:
    """The transaction of that Transaction UID, None if there is none."""
    key = change.get(COMMITMENT, named(calling, uid))
    return None if key is None else find(change, NUMBER.unpack(key)[0])


def add(change: Change, transaction: Transaction, references: bytes) -> None:
    """Keep a new transaction. One that is no duplicate has its Transaction UID from now on."""
    _count(change, transaction.instances)
    if not transaction.duplicate:
        change.put(COMMITMENT, transaction.named, transaction.key)
    change.put(COMMITMENT, _REFERENCES + transaction.key, references)
    change.put(COMMITMENT, waiting(transaction.calling) + transaction.key, b"")
    _place(change, transaction)


def move(change: Change, transaction: Transaction, **changes: object) -> Transaction:
    """The transaction as it is from now on."""
    _displace(change, transaction)
    moved = structs.replace(transaction, **changes)
    _place(change, moved)
    return moved


def finish(change: Change, transaction: Transaction, stage: Stage, now: float) -> Transaction:
    """Nothing more is to be done: what was asked and found is forgotten, unless it may yet be retried."""
    _count(change, -transaction.instances)
    if stage is Stage.DELIVERED:
        change.delete(COMMITMENT, _REFERENCES + transaction.key)
        change.delete(COMMITMENT, _FAILURES + transaction.key)
    change.delete(COMMITMENT, waiting(transaction.calling) + transaction.key)
    change.put(COMMITMENT, _finished(now, transaction), b"")
    return move(change, transaction, stage=stage, owner=0, finished=now)


def reopen(change: Change, transaction: Transaction, now: float, owner: int = 0) -> Transaction:
    """Go on with what was given up: its time begins anew."""
    _count(change, transaction.instances)
    change.delete(COMMITMENT, _finished(transaction.finished, transaction))
    change.put(COMMITMENT, waiting(transaction.calling) + transaction.key, b"")
    begun: dict[str, object] = {"requested": now, "stage": Stage.REQUESTED}
    if transaction.verified:
        begun = {"verified": now, "stage": Stage.VERIFIED}
    return move(change, transaction, finished=0.0, attempts=0, due=now, owner=owner, **begun)


def forget(change: Change, transaction: Transaction) -> None:
    """Keep nothing of it."""
    if not transaction.is_finished:
        _count(change, -transaction.instances)
    _displace(change, transaction)
    for key in (
        *transaction_keys(transaction.number),
        waiting(transaction.calling) + transaction.key,
        _finished(transaction.finished, transaction),
    ):
        change.delete(COMMITMENT, key)
    if change.get(COMMITMENT, transaction.named) == transaction.key:
        change.delete(COMMITMENT, transaction.named)


def _count(change: Change, instances: int) -> None:
    counters = counters_of(change)
    counters.pending += instances
    if instances > 0 and counters.pending > MOST_PENDING:
        raise OutOfResourcesError("too many commitments are pending")
    put_counters(change, counters)


def _place(change: Change, transaction: Transaction) -> None:
    change.put(COMMITMENT, TRANSACTION + transaction.key, msgpack.encode(transaction))
    if transaction.owner:
        change.put(COMMITMENT, _owned(transaction), b"")
    elif not transaction.is_finished:
        change.put(OUTBOX, _outbox(transaction), transaction.calling.encode())


def _displace(change: Change, transaction: Transaction) -> None:
    change.delete(COMMITMENT, _owned(transaction))
    change.delete(OUTBOX, _outbox(transaction))


def _owned(transaction: Transaction) -> bytes:
    return OWNED + PAIR.pack(transaction.owner, transaction.number)


def _outbox(transaction: Transaction) -> bytes:
    return PAIR.pack(microseconds(transaction.due), transaction.number)


def _finished(moment: float, transaction: Transaction) -> bytes:
    return FINISHED + PAIR.pack(microseconds(moment), transaction.number)
