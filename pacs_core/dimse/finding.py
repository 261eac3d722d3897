"""C-FIND without pynetdicom's objects: what a native query handler gets and gives (PS3.7 9.1.2, PS3.4 C.4.1).

A server offers each C-FIND request of the SOP classes that its `FindHandler` answers to that. Responses come
in chunks, each written at once; between two of them a C-CANCEL is looked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pacs_core._ext.command import encode
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset
from pacs_core.dimse.status import CANCELLED, SUCCESS, comment_of, status_of
from pacs_core.errors import PacsError
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

log = get_logger("dimse.find")
LOGGER = logging.getLogger("pacs_core.dimse")

C_FIND_RQ = 0x0020
_C_FIND_RSP = 0x8020
_NO_DATA_SET = 0x0101
_LARGEST_IDENTIFIER = 1 << 24  # bytes that an identifier may inflate to


class FindRequest(NamedTuple):
    """One C-FIND request, as a handler sees it."""

    message_id: int
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    address: str


class Matches(NamedTuple):
    """What a query is answered: the status of the pending responses, FF00 or FF01, and their identifiers.

    Those are encoded in the transfer syntax of the request, in chunks.
    """

    status: int
    chunks: Iterator[list[bytes]]


class FindHandler(Protocol):
    """Answers queries. A PacsError, also one raised between two chunks, is the failure that it maps to."""

    sop_classes: frozenset[str]

    def find(self, request: FindRequest, identifier: Dataset) -> Matches: ...


def is_native_find(assoc: Association, event: Event) -> bool:
    """Whether a request is one for the query handler."""
    command, handler = event.command, assoc.wire.queries
    return (
        handler is not None
        and command is not None
        and command.command_field == C_FIND_RQ
        and command.has_data_set
        and command.message_id is not None
        and command.affected_sop_class_uid in handler.sop_classes
        and assoc.abstract_syntax(event.context_id) == command.affected_sop_class_uid
    )


def serve_find(assoc: Association, event: Event, body: Any) -> None:
    """Let the query handler have one C-FIND request, and send what it answers."""
    command, handler = event.command, assoc.wire.queries
    assert command is not None
    assert handler is not None
    request = FindRequest(
        command.message_id or 0,
        command.affected_sop_class_uid,
        assoc.transfer_syntaxes[event.context_id],
        assoc.calling_ae_title,
        assoc.called_ae_title,
        assoc.peer_address,
    )
    comment = None
    try:
        identifier = read_dataset(
            bytes(body or b""), request.transfer_syntax_uid, inflate_limit=_LARGEST_IDENTIFIER
        )
        status = _send(assoc, event.context_id, request, handler.find(request, identifier))
    except Exception as exc:  # whatever a handler raises is answered
        status, comment = status_of(exc), comment_of(exc)
        if isinstance(exc, PacsError):
            log.warning("query refused", why=str(exc))
        else:
            log.error("query failed", why=type(exc).__name__)
            LOGGER.debug("the failure in full", exc_info=exc)
    assoc.dul.send_message(event.context_id, _response(request, status, comment))


def _send(assoc: Association, context_id: int, request: FindRequest, matches: Matches) -> int:
    """Send the pending responses, a chunk at a time; the status of the final one."""
    pending = _response(request, matches.status, None, identifier=True)
    for chunk in matches.chunks:
        assoc.dul.send_batch(context_id, [(pending, identifier) for identifier in chunk])
        if assoc.dimse.is_cancelled(request.message_id) or assoc.dul.is_over():
            return CANCELLED
    return SUCCESS


def _response(request: FindRequest, status: int, comment: str | None, *, identifier: bool = False) -> bytes:
    return encode(
        {
            0x0002: request.sop_class_uid,
            0x0100: _C_FIND_RSP,
            0x0120: request.message_id,
            0x0800: 0x0001 if identifier else _NO_DATA_SET,
            0x0900: status,
            0x0902: comment or None,
        }
    )
