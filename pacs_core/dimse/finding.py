"""C-FIND without pynetdicom's objects: what a native query handler gets and gives (PS3.7 9.1.2, PS3.4 C.4.1).

A server offers each C-FIND request of the SOP classes that its `FindHandler` answers to that. Responses are
encoded as they come and written many at a time; between two writes a C-CANCEL is looked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pacs_core._ext.command import encode
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset
from pacs_core.dimse.status import CANCELLED, PENDING, SUCCESS, comment_of, status_of
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
_BATCH = 65536  # bytes of responses in one write
_PATIENCE = 0.01  # seconds that a response waits for others, if more than that are looked for
_LARGEST = 1 << 24  # bytes that an identifier may inflate to


class FindRequest(NamedTuple):
    """One C-FIND request, as a handler sees it."""

    message_id: int
    sop_class_uid: str
    calling_ae_title: str
    called_ae_title: str
    address: str


class FindHandler(Protocol):
    """Answers queries: an identifier for each match. A PacsError is the failure that it maps to."""

    sop_classes: frozenset[str]

    def find(self, request: FindRequest, identifier: Dataset) -> Iterator[Dataset]: ...


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
        assoc.calling_ae_title,
        assoc.called_ae_title,
        assoc.peer_address,
    )
    syntax = assoc.transfer_syntaxes[event.context_id]
    comment = None
    try:
        identifier = read_dataset(bytes(body or b""), syntax, inflate_limit=_LARGEST)
        matches = handler.find(request, identifier)
        status = _send(assoc, event.context_id, request, matches, syntax)
    except Exception as exc:
        status, comment = status_of(exc), comment_of(exc)
        if isinstance(exc, PacsError):
            log.warning("query refused", why=str(exc))
        else:
            log.error("query failed", why=type(exc).__name__)
            LOGGER.debug("the failure in full", exc_info=exc)
    assoc.dul.send_message(event.context_id, _response(request, status, comment))


def _send(
    assoc: Association, context_id: int, request: FindRequest, matches: Iterator[Dataset], syntax: str
) -> int:
    """Send the pending responses; the status of the final one."""
    pending = _response(request, PENDING, None, identifier=True)
    batch: list[tuple[bytes, bytes]] = []
    size, written = 0, time.monotonic()
    for match in matches:
        data = match.to_bytes(syntax)
        batch.append((pending, data))
        size += len(data)
        if size >= _BATCH or time.monotonic() - written > _PATIENCE:
            assoc.dul.send_batch(context_id, batch)
            batch, size, written = [], 0, time.monotonic()
            if assoc.dimse.is_cancelled(request.message_id) or assoc.dul.is_over():
                return CANCELLED
    if batch:
        assoc.dul.send_batch(context_id, batch)
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
