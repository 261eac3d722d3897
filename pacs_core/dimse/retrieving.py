"""C-GET and C-MOVE without pynetdicom's objects (PS3.7 9.1.3, 9.1.4; PS3.4 C.4.2, C.4.3).

What a request names is known before the first C-STORE sub-operation: the counters need the total. C-GET's
sub-operations go out here, on the association of the request; C-MOVE's are a `Sender`'s. Either way their
outcomes are counted, told in Pending responses and summed up in the final one.

Pending responses are optional (C.4.2.3, C.4.3.3): one goes out after the first sub-operation, then no more
than ten a second, and one now and then while a sub-operation takes its time. A C-CANCEL is looked for after
each sub-operation.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pacs_core._ext.command import encode, encode_store_rq
from pacs_core.archive import Held, Outgoing
from pacs_core.dicom.dataset import Dataset
from pacs_core.dimse.identifier import (
    GET,
    MOVE,
    NO_DATA_SET,
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
    SOME_FAILED,
    SUCCESS,
    UNABLE_TO_COUNT,
    UNABLE_TO_PERFORM,
    UNKNOWN_DESTINATION,
)
from pacs_core.errors import CorruptError, InvalidValueError, PacsError
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

log = get_logger("dimse.retrieve")

C_GET_RQ = 0x0010
C_MOVE_RQ = 0x0021
_RESPONSE = 0x8000
_SOP_CLASSES: dict[int, Container[str]] = {C_GET_RQ: GET, C_MOVE_RQ: MOVE}
_PACE = 0.1  # seconds between two Pending responses, at least
_SILENCE = 5.0  # seconds after which there is one though nothing has changed
_MOST = 0xFFFF  # a counter is a US
_FAILED_LIST = "FailedSOPInstanceUIDList"


class Outcome(Protocol):
    """What became of one sub-operation; `status`: the response, None if there was none."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error(self) -> PacsError | None:
        """Why it failed; None where the status tells, and of one that did not fail."""


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


class Delivered(NamedTuple):
    """The outcome of a sub-operation of C-GET."""

    sop_instance_uid: str
    status: int | None = None
    error: PacsError | None = None


class Tally:
    """The counters of a retrieval (C.4.2.1.6 to .9), and the SOP Instance UIDs that failed."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.completed = 0
        self.warning = 0
        self.failed: list[str] = []
        self._why: Counter[str] = Counter()

    @property
    def remaining(self) -> int:
        """Sub-operations without an outcome."""
        return self.total - self.completed - self.warning - len(self.failed)

    def count(self, outcome: Outcome) -> None:
        """Count one by its status (PS3.4 B.2.3)."""
        status = outcome.status
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and status >> 12 == 0xB:
            self.warning += 1
        else:
            self.failed.append(outcome.sop_instance_uid)
            self._why[_reason(outcome)] += 1

    def status(self) -> int:
        """That of the final response of a retrieval that was not cancelled (C.4.2.1.5, C.4.3.1.4)."""
        if not self.failed and not self.warning:
            return SUCCESS
        return SOME_FAILED if self.completed or self.warning else UNABLE_TO_PERFORM

    def elements(self, *, remaining: bool) -> dict[int, int | None]:
        """The counters as elements of the command set; above 65,535 they stay there."""
        counts = {
            0x1020: self.remaining if remaining else None,
            0x1021: self.completed,
            0x1022: len(self.failed),
            0x1023: self.warning,
        }
        return {element: None if n is None else min(n, _MOST) for element, n in counts.items()}

    def tell(self) -> None:
        """Say in the log what failed and why, one line for each reason."""
        for why, times in self._why.most_common(8):
            log.warning("sub-operations failed", number=times, of=self.total, why=why)


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome.error, PacsError):
        return str(outcome.error.args[0])
    return "no answer" if outcome.status is None else f"the peer answered {outcome.status:04X}"


def is_native_retrieve(assoc: Association, event: Event) -> bool:
    """Whether a request is one for the retrieve handler."""
    field = event.command.command_field if event.command is not None else 0
    classes = _SOP_CLASSES.get(field)
    return (
        assoc.wire.retrievals is not None and classes is not None and is_native(assoc, event, field, classes)
    )


def serve_retrieve(assoc: Association, event: Event, body: Any) -> None:
    """Serve one C-GET or C-MOVE request to its final response."""
    request = request_of(assoc, event)
    tally: Tally | None = None
    comment = None
    try:
        begun = _begin(assoc, request, identifier_of(assoc, event, body))
        if begun is None:
            status, comment = UNKNOWN_DESTINATION, "the move destination is not known"
            log.warning("request refused", why=comment, destination=request.move_destination)
        else:
            tally, outcomes, stop = begun
            status = _perform(assoc, event.context_id, request, tally, outcomes, stop)
    except Exception as exc:  # noqa: BLE001 - whatever fails is answered
        status, comment = refusal(exc, log)
        if status == OUT_OF_RESOURCES:
            status = UNABLE_TO_COUNT
    _conclude(assoc, event.context_id, request, status, comment, tally)


def _begin(
    assoc: Association, request: QueryRequest, identifier: Dataset
) -> tuple[Tally, Iterable[Outcome | None], threading.Event] | None:
    """What is to be done, and what does it; None if nobody knows where to send it."""
    handler = assoc.wire.retrievals
    assert handler is not None
    handler.permit(request)
    stop = threading.Event()
    if request.command_field == C_GET_RQ:
        instances = handler.select(request, identifier)
        return Tally(len(instances)), _here(assoc, handler, request, instances, stop), stop
    send = handler.sender(request)
    if send is None:
        return None
    instances = handler.select(request, identifier)
    return Tally(len(instances)), send(instances, request, stop), stop


def _perform(
    assoc: Association,
    context_id: int,
    request: QueryRequest,
    tally: Tally,
    outcomes: Iterable[Outcome | None],
    stop: threading.Event,
) -> int:
    """Count outcomes until there are no more; the final status."""
    told = time.monotonic() - _PACE
    for outcome in outcomes:
        if outcome is not None:
            tally.count(outcome)
        pause = _SILENCE if outcome is None else _PACE
        if assoc.dimse.is_cancelled(request.message_id) or assoc.dul.is_over():
            stop.set()
        elif tally.remaining and time.monotonic() - told >= pause:
            told = time.monotonic()
            assoc.dul.send_message(context_id, _response(request, PENDING, tally))
    return CANCELLED if stop.is_set() and tally.remaining else tally.status()


def _conclude(
    assoc: Association,
    context_id: int,
    request: QueryRequest,
    status: int,
    comment: str | None,
    tally: Tally | None,
) -> None:
    """The final response: its identifier lists what failed (C.4.2.1.4.2, C.4.3.1.3.2)."""
    failed = None
    if tally is not None:
        tally.tell()
        if tally.failed:
            failed = Dataset({_FAILED_LIST: tally.failed}).to_bytes(assoc.transfer_syntaxes[context_id])
    command = _response(request, status, tally, comment, identifier=failed is not None)
    assoc.dul.send_message(context_id, command, failed)


def _response(
    request: QueryRequest,
    status: int,
    tally: Tally | None,
    comment: str | None = None,
    *,
    identifier: bool = False,
) -> bytes:
    counters = {} if tally is None else tally.elements(remaining=status in (PENDING, CANCELLED))
    return encode(
        {
            0x0002: request.sop_class_uid,
            0x0100: request.command_field | _RESPONSE,
            0x0120: request.message_id,
            0x0800: 0x0001 if identifier else NO_DATA_SET,
            0x0900: status,
            0x0902: comment or None,
            **counters,
        }
    )


# -- sub-operations of C-GET ------------------------------------------------------------------------------


def _here(
    assoc: Association,
    handler: RetrieveHandler,
    request: QueryRequest,
    instances: Sequence[Held],
    stop: threading.Event,
) -> Iterator[Delivered]:
    """Send instances on the association of the request, one at a time (PS3.7 D.3.3.3: window 1,1)."""
    contexts = _as_scu(assoc)
    for number, held in enumerate(instances, request.message_id):
        if stop.is_set():
            return
        accepted = contexts.get(held.sop_class_uid, {})
        try:
            command = encode_store_rq(
                number % _MOST + 1, held.sop_class_uid, held.sop_instance_uid, request.priority
            )
            with handler.outgoing(held, accepted) as outgoing:
                _send(assoc, accepted[outgoing.transfer_syntax_uid], command, outgoing)
                outcome = _delivered(assoc, held, outgoing, number % _MOST + 1)
        except PacsError as exc:
            outcome = Delivered(held.sop_instance_uid, error=exc)
        except ValueError as exc:  # a UID that no command set can have
            outcome = Delivered(held.sop_instance_uid, error=InvalidValueError(str(exc)))
        yield outcome


def _as_scu(assoc: Association) -> dict[str, dict[str, int]]:
    """The contexts on which the peer takes C-STORE requests of ours, by SOP class and transfer syntax."""
    contexts: dict[str, dict[str, int]] = {}
    for ident, sop_class, result, syntax, as_scu, _ in assoc.results:
        if result == 0 and as_scu:
            contexts.setdefault(sop_class, {}).setdefault(syntax, ident)
    return contexts


def _send(assoc: Association, context_id: int, command: bytes, outgoing: Outgoing) -> None:
    """Send one instance, from file to socket unless it was converted."""
    if outgoing.data is not None:
        assoc.dul.send_message(context_id, command, outgoing.data)
        return
    try:
        assoc.dul.send_file(context_id, command, outgoing.fd, outgoing.offset, outgoing.length)
    except EOFError as exc:  # half a message is out: there is no way back
        assoc.abort(block=False)
        raise CorruptError("kept bytes end before their time") from exc


def _delivered(assoc: Association, held: Held, outgoing: Outgoing, message_id: int) -> Delivered:
    """What the peer says about an instance that was sent."""
    answer = assoc.dimse.store_answer(message_id)
    if answer is None:
        if not assoc.dul.is_over():  # what it answers later could be taken for another answer
            assoc.log_warning("no answer to a sub-operation within %s s", assoc.dimse_timeout)
            assoc.abort(block=False)
        return Delivered(held.sop_instance_uid)
    outgoing.check_current()
    return Delivered(held.sop_instance_uid, answer.status)
