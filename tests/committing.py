"""Foreign peers of storage commitment for tests: pynetdicom as the SCU that asks and hears of results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt

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


class Provider:
    """pynetdicom as the SCP: commits to what it is told to, on the association of the request or on its own.

    Parameters
    ----------
    keeps
        The Failure Reason of an instance, None to commit to it.
    where
        ``same``, ``other`` (on an association to `port`), or ``never``.
    status
        Of the N-ACTION response.
    """

    def __init__(
        self,
        keeps: Callable[[str], int | None] = lambda _: None,
        where: str = "same",
        status: int = 0x0000,
        port: int = 0,
    ) -> None:
        self.requests: list[Dataset] = []
        self.answers: list[int] = []
        self._keeps, self._where, self._status, self._port = keeps, where, status, port
        self._threads: list[threading.Thread] = []
        self._entity = AE("PROVIDER")
        self._entity.add_supported_context(COMMITMENT)
        self._entity.supported_contexts = [*self._entity.supported_contexts, *AllStoragePresentationContexts]
        self._server: Any = None

    def _stored(self, _: evt.Event) -> int:
        return 0x0000

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self._status == 0 and self._where != "never":
            target = self._report if self._where == "same" else self._call
            thread = threading.Thread(target=target, args=(event.assoc, event.action_information))
            self._threads.append(thread)
            thread.start()
        return self._status, None

    def _result(self, request: Dataset) -> tuple[Dataset, int]:
        result = Dataset()
        result.TransactionUID = request.TransactionUID
        good, bad = [], []
        for item in request.ReferencedSOPSequence:
            reason = self._keeps(str(item.ReferencedSOPInstanceUID))
            if reason is None:
                good.append(item)
            else:
                item.FailureReason = reason
                bad.append(item)
        if good:
            result.ReferencedSOPSequence = good
        if bad:
            result.FailedSOPSequence = bad
        return result, 2 if bad else 1

    def _report(self, assoc: Any, request: Dataset) -> None:
        time.sleep(0.1)
        result, event = self._result(request)
        status, _ = assoc.send_n_event_report(result, event, COMMITMENT, WELL_KNOWN)
        self.answers.append(status.get("Status", -1))

    def _call(self, _: Any, request: Dataset) -> None:
        entity = AE("PROVIDER")
        entity.add_requested_context(COMMITMENT)
        role = build_role(COMMITMENT, scp_role=True)
        assoc = entity.associate("127.0.0.1", self._port, ext_neg=[role])
        assert assoc.is_established
        self._report(assoc, request)
        assoc.release()

    def __enter__(self) -> Provider:
        handlers = [(evt.EVT_N_ACTION, self._asked), (evt.EVT_C_STORE, self._stored)]
        self._server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(20)
        self._server.shutdown()

    @property
    def server_port(self) -> int:
        port: int = self._server.server_address[1]
        return port
