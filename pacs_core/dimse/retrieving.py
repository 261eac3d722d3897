"""C-GET and C-MOVE without pynetdicom's objects (PS3.7 9.1.3, 9.1.4; PS3.4 C.4.2, C.4.3).

What a request names is known before the first C-STORE sub-operation: the counters need the total. C-GET's
sub-operations go out on the association of the request; C-MOVE's are a `Sender`'s. Either way their outcomes
are counted, told in Pending responses and summed up in the final one.

Pending responses are optional (C.4.2.3, C.4.3.3): one goes out after the first sub-operation, then no more
than ten a second, and one now and then while a sub-operation takes its time. A C-CANCEL is looked for after
each sub-operation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pacs_core._ext.command import encode
from pacs_core.archive import Held, Outgoing
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import NO_DATA_SET, RESPONSE
from pacs_core.dimse.identifier import (
    GET,
    MOVE,
    QueryRequest,
    identifier_of,
    is_native,
    refusal,
    request_of,
)
from pacs_core.dimse.status import (
    CANCELLED,
    OUT_OF_RESOURCES,
    PENDING,
    UNABLE_TO_COUNT,
    UNKNOWN_DESTINATION,
)
from pacs_core.dimse.suboperations import Outcome, Own, Tally
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

log = get_logger("dimse.retrieve")

C_GET_RQ = 0x0010
C_MOVE_RQ = 0x0021
_SOP_CLASSES: dict[int, Container[str]] = {C_GET_RQ: GET, C_MOVE_RQ: MOVE}
_PACE = 0.1  # seconds between two Pending responses, at least
_SILENCE = 5.0  # seconds after which there is one though nothing has changed
_FAILED_LIST = "FailedSOPInstanceUIDList"


class Sender(Protocol):
    """Sends instances to one destination of C-MOVE: outcomes, None when there are no more for the moment.

    Once `stop` is set no further sub-operation begins; those under way are told of, if they end soon.
    """

    def __call__(
        self, instances: Sequence[Held], request: QueryRequest, stop: threading.Event
    ) -> Iterator[Outcome | None]: ...


class RetrieveHandler(Protocol):
    """Knows what is held, and who may have it. A PacsError is the failure that it maps to."""

    def permit(self, request: QueryRequest) -> None:
        """Raises if the peer may not ask for this."""

    def select(self, request: QueryRequest, identifier: Dataset) -> Sequence[Held]:
        """The instances that a request names."""

    def outgoing(self, held: Held, accepted: Container[str]) -> Outgoing:
        """The data set of an instance, in a transfer syntax that is accepted."""

    def sender(self, request: QueryRequest) -> Sender | None:
        """What sends to the destination of a C-MOVE; None if that is unknown."""


def is_native_retrieve(assoc: Association, event: Event) -> bool:
    """Whether a request is one for the retrieve handler."""
    field = event.command.command_field if event.command is not None else 0
    classes = _SOP_CLASSES.get(field)
    return (
        assoc.wire.retrievals is not None and classes is not None and is_native(assoc, event, field, classes)
    )


def serve_retrieve(assoc: Association, event: Event, body: Any) -> None:
    """Serve one C-GET or C-MOVE request to its final response."""
    retrieval = Retrieval(assoc, event.context_id, request_of(assoc, event))
    try:
        outcomes = retrieval.begin(identifier_of(assoc, event, body))
        if outcomes is None:
            destination = retrieval.request.move_destination
            log.warning("request refused", why="the move destination is not known", destination=destination)
            retrieval.refuse(UNKNOWN_DESTINATION, "the move destination is not known")
            return
        retrieval.follow(outcomes)
    except Exception as exc:  # noqa: BLE001 - whatever fails is answered
        status, comment = refusal(exc, log)
        retrieval.refuse(UNABLE_TO_COUNT if status == OUT_OF_RESOURCES else status, comment)
    else:
        retrieval.conclude()


class Retrieval:
    """One C-GET or C-MOVE on its way, and the responses that tell of it."""

    def __init__(self, assoc: Association, context_id: int, request: QueryRequest) -> None:
        self.request = request
        self._assoc = assoc
        self._context_id = context_id
        self._stop = threading.Event()
        self._tally = Tally(0)

    def begin(self, identifier: Dataset) -> Iterable[Outcome | None] | None:
        """What performs the sub-operations while it is iterated; None: nobody knows where to send to."""
        handler, request = self._assoc.wire.retrievals, self.request
        assert handler is not None
        handler.permit(request)
        send: Sender | None = None
        if request.command_field == C_MOVE_RQ:
            send = handler.sender(request)
            if send is None:
                return None
        instances = handler.select(request, identifier)
        self._tally = Tally(len(instances))
        if send is not None:
            return send(instances, request, self._stop)
        own = Own(self._assoc, handler.outgoing, request.message_id, request.priority)
        return own.perform(instances, self._stop)

    def follow(self, outcomes: Iterable[Outcome | None]) -> None:
        """Count outcomes until there are no more, tell of them, look for a C-CANCEL."""
        told = time.monotonic() - _PACE
        for outcome in outcomes:
            if outcome is not None:
                self._tally.count(outcome)
            pause = _SILENCE if outcome is None else _PACE
            if self._assoc.dimse.is_cancelled(self.request.message_id) or self._assoc.dul.is_over():
                self._stop.set()
            elif self._tally.remaining and time.monotonic() - told >= pause:
                told = time.monotonic()
                self._send(PENDING, self._tally.elements(remaining=True))

    def conclude(self) -> None:
        """The final response: its identifier lists what failed (C.4.2.1.4.2, C.4.3.1.3.2)."""
        tally = self._tally
        cancelled = self._stop.is_set() and tally.remaining > 0
        tally.tell()
        failed = Dataset({_FAILED_LIST: tally.failed}) if tally.failed else None
        status = CANCELLED if cancelled else tally.status()
        log.info(
            "retrieval ended",
            operation="C-GET" if self.request.command_field == C_GET_RQ else "C-MOVE",
            destination=self.request.move_destination or None,
            status=f"{status:04X}",
            instances=tally.total,
            failed=len(tally.failed),
        )
        self._send(status, tally.elements(remaining=cancelled), identifier=failed)

    def refuse(self, status: int, comment: str) -> None:
        """The final response to what failed as a whole."""
        self._send(status, {0x0902: comment})

    def _send(
        self, status: int, elements: dict[int, int | str | None], *, identifier: Dataset | None = None
    ) -> None:
        command = encode(
            {
                0x0002: self.request.sop_class_uid,
                0x0100: self.request.command_field | RESPONSE,
                0x0120: self.request.message_id,
                0x0800: NO_DATA_SET if identifier is None else 0x0001,
                0x0900: status,
                **elements,
            }
        )
        data = None if identifier is None else identifier.to_bytes(self.request.transfer_syntax_uid)
        self._assoc.dul.send_message(self._context_id, command, data)
