"""Requests of the peer: answered natively, handed to pynetdicom's service classes, or refused (PS3.7 C)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pacs_core._ext.command import encode, encode_echo_rsp
from pacs_core.dimse.finding import is_native_find, serve_find
from pacs_core.dimse.messages import C_ECHO_RQ, C_STORE_RQ, primitive_of
from pacs_core.dimse.negotiation import Kind, serves
from pacs_core.dimse.normalized import is_normalized, serve_normalized
from pacs_core.dimse.retrieving import is_native_retrieve, serve_retrieve
from pacs_core.dimse.status import (
    MISTYPED_ARGUMENT,
    NOT_AUTHORIZED,
    OUT_OF_RESOURCES,
    UNRECOGNIZED_OPERATION,
)
from pacs_core.dimse.storage import Joined, Streamed, serve_store
from pacs_core.errors import UnparsableError

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association

VERIFICATION = "1.2.840.10008.1.1"


def sink_for(assoc: Association, event: Any) -> Any:
    """What takes a data set that comes in chunks."""
    if _is_native_store(assoc, event):
        return Streamed(assoc, event)
    return Joined(assoc.wire.largest_in_memory, assoc.dul.channel.discard_message)


def _is_native_store(assoc: Association, event: Any) -> bool:
    return (
        assoc.storage is not None
        and event.command.command_field == C_STORE_RQ
        and assoc.kinds[event.context_id] is not Kind.OTHER
    )


def serve(assoc: Association, event: Any, body: Any) -> None:
    """Answer a request, or let the service that it is for."""
    assoc.serving = event.command.message_id
    try:
        _serve(assoc, event, body)
    finally:
        assoc.dimse.served(assoc.serving)
        assoc.serving = None


def _serve(assoc: Association, event: Any, body: Any) -> None:
    command = event.command
    if _is_native_store(assoc, event) and not isinstance(body, Joined):
        serve_store(assoc, event, body)
    elif isinstance(body, Joined) and body.too_large:
        _refuse(assoc, event, OUT_OF_RESOURCES, "the data set is too large")
    elif is_native_find(assoc, event):
        serve_find(assoc, event, assoc.dimse.joined(body))
    elif is_native_retrieve(assoc, event):
        serve_retrieve(assoc, event, assoc.dimse.joined(body))
    elif is_normalized(assoc, event):
        serve_normalized(assoc, event, assoc.dimse.joined(body))
    elif command.command_field == C_ECHO_RQ and not assoc.wire.may_echo(
        assoc.calling_ae_title, assoc.called_ae_title, assoc.peer_address
    ):
        _refuse(assoc, event, NOT_AUTHORIZED, "this peer may not use C-ECHO")
    elif (
        command.command_field == C_ECHO_RQ
        and assoc.plain_echo
        and not command.has_data_set
        and command.message_id is not None
        and command.affected_sop_class_uid == VERIFICATION
    ):
        assoc.dul.send_message(
            event.context_id, encode_echo_rsp(command.message_id, command.affected_sop_class_uid)
        )
    else:
        try:
            primitive = primitive_of(assoc, event, assoc.dimse.joined(body))
        except UnparsableError as exc:
            assoc.dul.protocol_error(0, str(exc))
            return
        named = command.affected_sop_class_uid or command.requested_sop_class_uid
        if not primitive.is_valid_request:
            _refuse(assoc, event, MISTYPED_ARGUMENT, "something that is mandatory is missing")
        elif not all(
            serves(uid, primitive) for uid in (named, assoc._accepted_cx[event.context_id].abstract_syntax)
        ):
            _refuse(assoc, event, UNRECOGNIZED_OPERATION, "no operation of this SOP class")
        else:
            assoc._serve_request(primitive, event.context_id)


def _refuse(assoc: Association, event: Any, status: int, why: str) -> None:
    """Answer a request that no service sees; without a Message ID to answer to the association ends."""
    command = event.command
    assoc.log_warning("request %04X refused with %04X: %s", command.command_field, status, why)
    if command.message_id is None:
        assoc.abort()
        return
    elements = {
        0x0002: command.affected_sop_class_uid or command.requested_sop_class_uid or None,
        0x0100: command.command_field | 0x8000,
        0x0120: command.message_id,
        0x0800: 0x0101,
        0x0900: status,
        0x0902: why,
    }
    assoc.dul.send_message(event.context_id, encode(elements))
