"""C-FIND without pynetdicom's objects: what a native query handler gets and gives (PS3.7 9.1.2, PS3.4 C.4.1).

A server offers each C-FIND request of the SOP classes that its `FindHandler` answers to that. Responses come
in chunks, each written at once; between two of them a C-CANCEL is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pacs_core._ext.command import encode
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import NO_DATA_SET
from pacs_core.dimse.identifier import (
    QueryRequest,
    identifier_of,
    is_native,
    refusal,
    request_of,
)
from pacs_core.dimse.status import CANCELLED, SUCCESS
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

log = get_logger("dimse.find")

C_FIND_RQ = 0x0020
_C_FIND_RSP = 0x8020


class Matches(NamedTuple):
    """What a query is answered: the status of the pending responses, FF00 or FF01, and their identifiers.

    Those are encoded in the transfer syntax of the request, in chunks; empty ones where nothing matches for
    a while, so that a C-CANCEL is seen.
    """

    status: int
    chunks: Iterator[list[bytes]]


class FindHandler(Protocol):
    """Answers queries. A PacsError, also one raised between two chunks, is the failure that it maps to."""

    sop_classes: frozenset[str]

    def find(self, request: QueryRequest, identifier: Dataset) -> Matches: ...


def is_native_find(assoc: Association, event: Event) -> bool:
    """Whether a request is one for a query handler."""
    return is_native(assoc, event, C_FIND_RQ, assoc.wire.queries)


def serve_find(assoc: Association, event: Event, body: Any) -> None:
    """Let the handler of its SOP class have one C-FIND request, and send what it answers."""
    request = request_of(assoc, event)
    handler = assoc.wire.queries[request.sop_class_uid]
    comment = None
    try:
        matches = handler.find(request, identifier_of(assoc, event, body))
        status = _send(assoc, event.context_id, request, matches)
    except Exception as exc:  # noqa: BLE001 - whatever a handler raises is answered
        status, comment = refusal(exc, log)
    assoc.dul.send_message(event.context_id, _response(request, status, comment))


def _send(assoc: Association, context_id: int, request: QueryRequest, matches: Matches) -> int:
    """Send the pending responses, a chunk at a time; the status of the final one."""
    pending = _response(request, matches.status, None, identifier=True)
    for chunk in matches.chunks:
        assoc.dul.send_batch(context_id, [(pending, identifier) for identifier in chunk])
        if assoc.dimse.is_cancelled(request.message_id) or assoc.dul.is_over():
            return CANCELLED
    return SUCCESS


def _response(request: QueryRequest, status: int, comment: str | None, *, identifier: bool = False) -> bytes:
    return encode(
        {
            0x0002: request.sop_class_uid,
            0x0100: _C_FIND_RSP,
            0x0120: request.message_id,
            0x0800: 0x0001 if identifier else NO_DATA_SET,
            0x0900: status,
            0x0902: comment or None,
        }
    )
