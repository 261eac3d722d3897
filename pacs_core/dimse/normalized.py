"""The N-services without pynetdicom's objects: what a native handler gets and gives (PS3.7 10.1).

A server offers each N-CREATE, N-SET, N-GET, N-ACTION, N-DELETE and N-EVENT-REPORT request of the SOP classes
that one of its `NormalizedHandler`s answers to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pacs_core._ext.command import Command, encode
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Elements, Operation
from pacs_core.dimse.identifier import data_set_of, refusal
from pacs_core.dimse.status import SUCCESS, error_id_of, normalized_status_of
from pacs_core.errors import InvalidValueError, NotConvertibleError, PacsError
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

log = get_logger("dimse.normalized")


_OPERATIONS = frozenset(Operation)


class NormalizedRequest(NamedTuple):
    """One request of an N-service, as a handler sees it.

    Attributes
    ----------
    sop_instance_uid : str
        Affected or Requested SOP Instance UID; empty if an N-CREATE leaves it to us.
    type_id : int | None
        Event or Action Type ID.
    attributes : tuple of int
        Attribute Identifier List of an N-GET: the tags that are asked for; none: all.
    association
        That of the request, for those who have more to say on it.
    """

    operation: Operation
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int | None
    attributes: tuple[int, ...]
    calling_ae_title: str
    called_ae_title: str
    address: str
    association: Association


class Reply(NamedTuple):
    """What a request is answered.

    Attributes
    ----------
    dataset : Dataset | None
        Goes with the response.
    sop_instance_uid : str
        Of the response; empty: that of the request.
    status : int
        Success, or a warning (PS3.7 C.4).
    then : callable | None
        Called when the response is sent.
    """

    dataset: Dataset | None = None
    sop_instance_uid: str = ""
    status: int = SUCCESS
    then: Callable[[], None] | None = None


class NormalizedHandler(Protocol):
    """Performs operations. A PacsError is the failure that it maps to (`status.normalized_status_of`)."""

    sop_classes: frozenset[str]

    def perform(self, request: NormalizedRequest, dataset: Dataset) -> Reply:
        """Do what a request asks; `dataset` is empty if it came without one."""


def is_normalized(assoc: Association, event: Event) -> bool:
    """Whether a request is an operation for one of the handlers, on a context that is also that one's.

    The SOP class of the context need not be the request's (PS3.4 CC.3.1, F.8).
    """
    command = event.command
    if command is None or command.command_field not in _OPERATIONS or command.message_id is None:
        return False
    handler = assoc.wire.operations.get(_sop_class_of(command))
    return handler is not None and handler is assoc.wire.operations.get(
        assoc.abstract_syntax(event.context_id)
    )


def _sop_class_of(command: Command) -> str:
    affected = Operation(command.command_field).is_of_affected
    return command.affected_sop_class_uid if affected else command.requested_sop_class_uid


def serve_normalized(assoc: Association, event: Event, body: Any) -> None:
    """Let the handler have one request, and send what it answers."""
    request = _request_of(assoc, event)
    failure: Elements = {}
    data = None
    try:
        handler = assoc.wire.operations[request.sop_class_uid]
        reply = handler.perform(request, data_set_of(assoc, event, body))
        if reply.dataset is not None:
            data = _said(reply.dataset, assoc.transfer_syntaxes[event.context_id])
    except Exception as exc:  # noqa: BLE001 - whatever a handler raises is answered
        reply = Reply(status=normalized_status_of(exc))
        failure = {
            0x0902: refusal(exc, log)[1],
            0x0903: error_id_of(exc),
            0x1005: (exc.tag,) if isinstance(exc, PacsError) and exc.tag is not None else None,
        }
    elements = request.operation.response(
        *(request.message_id, reply.status, request.sop_class_uid),
        reply.sop_instance_uid or request.sop_instance_uid,
        type_id=request.type_id,
        has_data_set=data is not None,
    )
    assoc.dul.send_message(event.context_id, encode(elements | failure), data)
    if reply.then is not None:
        reply.then()


def _said(dataset: Dataset, syntax: str) -> bytes:
    """What goes with a response. NotConvertibleError if it can't be said in that transfer syntax."""
    try:
        return dataset.to_bytes(syntax)
    except InvalidValueError as exc:  # not the peer's: 0106 is about what it sent
        raise NotConvertibleError(str(exc.args[0]), tag=exc.tag) from exc


def _request_of(assoc: Association, event: Event) -> NormalizedRequest:
    command = event.command
    assert command is not None
    operation = Operation(command.command_field)
    affected = operation.is_of_affected
    return NormalizedRequest(
        operation,
        command.message_id or 0,
        _sop_class_of(command),
        command.affected_sop_instance_uid if affected else command.requested_sop_instance_uid,
        command.event_type_id if operation is Operation.N_EVENT_REPORT else command.action_type_id,
        command.attribute_identifiers,
        assoc.calling_ae_title,
        assoc.called_ae_title,
        assoc.peer_address,
        assoc,
    )
