"""Foreign peers of storage commitment for tests: pynetdicom as the SCU that asks and hears of results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"

Pairs = Iterable[tuple[str, str]]


class Told:
    """The reports that a peer heard: (event type, data set), and whether it was the requestor that did."""

    def __init__(self, status: int = 0x0000, wait: float = 0) -> None:
        self.status = status
        self.wait = wait
        self.reports: list[tuple[int, Dataset]] = []
        self.roles: list[bool] = []
        self.callers: list[tuple[str, str]] = []
        self._heard = threading.Condition()

    def __call__(self, event: evt.Event) -> tuple[int, None]:
        assoc = event.assoc
        with self._heard:
            self.reports.append((event.event_type, event.event_information))
            self.roles.append(assoc.is_requestor)
            self.callers.append((assoc.requestor.ae_title, assoc.acceptor.ae_title))
            self._heard.notify_all()
        time.sleep(self.wait)
        return self.status, None

    def wait_for(self, number: int, seconds: float = 20) -> bool:
        with self._heard:
            return self._heard.wait_for(lambda: len(self.reports) >= number, seconds)

    @property
    def transactions(self) -> list[str]:
        return [str(dataset.TransactionUID) for _, dataset in self.reports]


def asked(uid: str, pairs: Pairs) -> Dataset:
    """The Action Information of a request."""
    dataset = Dataset()
    dataset.TransactionUID = uid
    dataset.ReferencedSOPSequence = []
    for sop_class, instance in pairs:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        dataset.ReferencedSOPSequence.append(item)
    return dataset


def committed(dataset: Dataset) -> set[str]:
    return {str(item.ReferencedSOPInstanceUID) for item in dataset.get("ReferencedSOPSequence", [])}


def failed(dataset: Dataset) -> dict[str, int]:
    items = dataset.get("FailedSOPSequence", [])
    return {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in items}


@contextmanager
def associated(port: int, told: Told | None = None, aet: str = "CT1") -> Iterator[Any]:
    """An association of pynetdicom's as the SCU of Storage Commitment."""
    entity = AE(aet)
    entity.add_requested_context(COMMITMENT)
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, told)] if told is not None else []
    assoc = entity.associate("127.0.0.1", port, evt_handlers=handlers)
    assert assoc.is_established
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def ask(assoc: Any, pairs: Pairs, uid: str | None = None) -> str:
    """N-ACTION, which must succeed; its Transaction UID."""
    uid = uid or str(generate_uid())
    status, _ = assoc.send_n_action(asked(uid, pairs), 1, COMMITMENT, WELL_KNOWN)
    assert status.Status == 0x0000, status
    return uid


@contextmanager
def listening(told: Told, port: int, aet: str = "CT1") -> Iterator[None]:
    """pynetdicom listening for results, as the SCU that accepts."""
    entity = AE(aet)
    entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)]
    )
    try:
        yield
    finally:
        server.shutdown()
