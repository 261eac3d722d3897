"""Storage Commitment, push model: what its requests and results say (PS3.4 J.3, PS3.3 C.14)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from pacs_core._ext.tree import Sequence
from pacs_core.dicom.dataset import Dataset
from pacs_core.errors import InvalidArgumentError

SOP_CLASS = "1.2.840.10008.1.20.1"
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known instance that every request and every report is about (J.3.5)."""

REQUEST = 1
"""Action Type ID of a request (J.3.2)."""

SUCCESSFUL, FAILURES_EXIST = 1, 2
"""Event Type IDs of a result (J.3.3)."""

LONGEST_UID = 64

_TRANSACTION_UID = 0x0008_1195
_REFERENCED = 0x0008_1199
_FAILED = 0x0008_1198
_CLASS = 0x0008_1150
_INSTANCE = 0x0008_1155
_REASON = 0x0008_1197


class Reason(IntEnum):
    """Failure Reason (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION = 0x0131
    RESOURCE_LIMITATION = 0x0213

    @property
    def words(self) -> str:
        """The reason, for people."""
        return _WORDS[self]


_WORDS = {
    Reason.PROCESSING_FAILURE: "processing failure",
    Reason.NO_SUCH_INSTANCE: "no such object instance",
    Reason.CLASS_INSTANCE_CONFLICT: "class/instance conflict",
    Reason.CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    Reason.DUPLICATE_TRANSACTION: "duplicate Transaction UID",
    Reason.RESOURCE_LIMITATION: "resource limitation",
}


def reason_words(reason: int | None) -> str:
    """A Failure Reason for people, whoever gave it."""
    if reason is None:
        return "failed, without a reason"
    known = Reason.__members__.values()
    return next((one.words for one in known if one == reason), f"an unknown reason, {reason:04X}H")


class Reference(NamedTuple):
    """An instance that a commitment is about."""

    sop_class_uid: str
    sop_instance_uid: str


class Request(NamedTuple):
    """What is asked for: these instances are to be kept."""

    transaction_uid: str
    references: list[Reference]

    def to_dataset(self) -> Dataset:
        """The Action Information (table J.3-1)."""
        dataset = Dataset()
        _put_uid(dataset, _TRANSACTION_UID, self.transaction_uid)
        dataset._put(_REFERENCED, "SQ", Sequence(_item(one) for one in self.references))
        return dataset

    @classmethod
    def of(cls, dataset: Dataset) -> Request:
        """What an Action Information asks.

        Raises
        ------
        InvalidArgumentError
            It asks for nothing, does not say which transaction this is, names what is no UID, or is cut off.
        """
        return cls(_transaction_of(dataset), list(_references(dataset, _REFERENCED, required=True)))


class Result(NamedTuple):
    """What has become of a request.

    Attributes
    ----------
    committed : list of Reference
    failed : list of (Reference, int or None)
        With the Failure Reason.
    """

    transaction_uid: str
    committed: list[Reference]
    failed: list[tuple[Reference, int | None]]

    @property
    def event_type(self) -> int:
        """Event Type ID of the report of it."""
        return FAILURES_EXIST if self.failed else SUCCESSFUL

    def to_dataset(self) -> Dataset:
        """The Event Information (table J.3-2)."""
        dataset = Dataset()
        _put_uid(dataset, _TRANSACTION_UID, self.transaction_uid)
        if self.failed:
            dataset._put(_FAILED, "SQ", Sequence(_item(*failure) for failure in self.failed))
        if self.committed:
            dataset._put(_REFERENCED, "SQ", Sequence(_item(one) for one in self.committed))
        return dataset

    @classmethod
    def of(cls, dataset: Dataset) -> Result:
        """What an Event Information tells. Raises InvalidArgumentError as `Request.of`."""
        transaction = _transaction_of(dataset)
        reasons = [item.get(_REASON) for item in _items(dataset, _FAILED)]
        failed = zip(_references(dataset, _FAILED), reasons, strict=True)
        return cls(
            transaction,
            list(_references(dataset, _REFERENCED)),
            [(one, reason if isinstance(reason, int) else None) for one, reason in failed],
        )


def _put_uid(dataset: Dataset, tag: int, uid: str) -> None:
    # Of tens of thousands of items: without the checks of values that users give.
    dataset._put(tag, "UI", uid.encode())


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    _put_uid(item, _CLASS, reference.sop_class_uid)
    _put_uid(item, _INSTANCE, reference.sop_instance_uid)
    if reason is not None:
        item._put(_REASON, "US", reason.to_bytes(2, "little"))
    return item


def _transaction_of(dataset: Dataset) -> str:
    if dataset.truncated:  # the last UID may be the beginning of another one
        raise InvalidArgumentError("the data set ends in the middle of something")
    return _checked(dataset.get(_TRANSACTION_UID), _TRANSACTION_UID)


def _items(dataset: Dataset, tag: int) -> Sequence:
    items = dataset.get(tag)
    return items if isinstance(items, Sequence) else Sequence()


def _references(dataset: Dataset, tag: int, *, required: bool = False) -> Iterator[Reference]:
    items = _items(dataset, tag)
    if required and not len(items):
        raise InvalidArgumentError("no instances are named", tag=tag)
    for item in items:
        sop_class, sop_instance = item.pick(_CLASS, _INSTANCE)
        yield Reference(_checked(sop_class, _CLASS), _checked(sop_instance, _INSTANCE))


def _checked(uid: object, tag: int) -> str:
    """A UID that can be a key and be told again; that it obeys PS3.5 9.1 is not asked of others."""
    if not isinstance(uid, str) or not 0 < len(uid) <= LONGEST_UID or not uid.isascii():
        raise InvalidArgumentError("a UID is missing, or is none", tag=tag)
    return uid
