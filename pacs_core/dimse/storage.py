"""C-STORE without pynetdicom's objects: what a native storage handler gets and gives (PS3.4 Annex B).

A server offers each C-STORE request on a storage context to its `StorageHandler`. A data set of ordinary
size comes in one buffer; a large one is written piece by piece while it arrives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pacs_core._ext.buffer import Buffer
from pacs_core._ext.command import encode_store_rsp

if TYPE_CHECKING:
    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

LOGGER = logging.getLogger("pacs_core.dimse")
PROCESSING_FAILURE = 0x0110  # PS3.7 Annex C
INVALID_OBJECT_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3


class Answer(NamedTuple):
    """What a C-STORE response says: status, Error Comment (64 characters of it), Offending Elements."""

    status: int
    error_comment: str = ""
    offending_elements: tuple[int, ...] = ()


class StoreRequest(NamedTuple):
    """One C-STORE request, as a storage handler sees it."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    association_id: str


class Incoming(Protocol):
    """An instance on its way in. A chunk is valid during the call, longer if it is kept referenced."""

    def write(self, chunk: Buffer) -> None: ...
    def finish(self) -> Answer | int: ...
    def discard(self) -> None:
        """The association was lost, or `write` failed: leave nothing behind."""


class StorageHandler(Protocol):
    """Keeps instances. An answer of success means that the instance is durable."""

    def store(self, request: StoreRequest, data: Buffer | bytes) -> Answer | int: ...
    def begin(self, request: StoreRequest) -> Incoming: ...


def processing_failure(exc: Exception) -> Answer:
    """The answer to a failure that nobody gave a meaning (PS3.7 Annex C: 0110), and its line in the log."""
    LOGGER.error("instance not kept, status %04X: %s", PROCESSING_FAILURE, type(exc).__name__)
    LOGGER.debug("the failure in full", exc_info=exc)
    return Answer(PROCESSING_FAILURE, type(exc).__name__)


Failure = Callable[[Exception], Answer]


class Joined:
    """A large data set put together for a handler that wants it in one piece, if it is not too large."""

    def __init__(self, limit: int, discard_message: Callable[[], None]) -> None:
        self.data = bytearray()
        self.limit = limit
        self.too_large = False
        self._discard_message = discard_message

    def write(self, chunk: Buffer) -> None:
        if self.too_large:
            return
        if len(self.data) + len(chunk) > self.limit:
            # Its rest is read off the wire and thrown away; the request can be answered.
            self.too_large = True
            self.discard()
            self._discard_message()
            return
        self.data += chunk
        chunk.release()

    def end(self, chunk: Buffer | None) -> None:
        if chunk is not None:
            self.write(chunk)

    def discard(self) -> None:
        self.data = bytearray()


class Streamed:
    """A large data set on its way into the storage handler; a failure is kept for the answer."""

    def __init__(self, assoc: Association, event: Event) -> None:
        self.assoc = assoc
        self.incoming: Incoming | None = None
        self.failure: Answer | None = None
        self._attempt(lambda: self._begin(event))

    def _begin(self, event: Event) -> None:
        self.request = request_of(self.assoc, event)
        self.failure = _objection(self.request)
        if self.failure is None and self.assoc.storage is not None:
            self.incoming = self.assoc.storage.begin(self.request)
        else:
            self.assoc.dul.channel.discard_message()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is answered
            self.failure = self.assoc.failure(exc)
            # The rest of the instance is read off the wire and thrown away; the association lives on.
            self.assoc.dul.channel.discard_message()
            self.discard()

    def write(self, chunk: Buffer | None) -> None:
        incoming = self.incoming
        if incoming is not None and chunk is not None:
            self._attempt(lambda: incoming.write(chunk))

    def end(self, chunk: Buffer | None) -> None:
        self.write(chunk)

    def finish(self) -> Answer:
        """What to answer, once it is this request's turn."""
        if self.failure is not None or self.incoming is None:
            return self.failure or Answer(PROCESSING_FAILURE)
        incoming, self.incoming = self.incoming, None
        try:
            return _as_answer(incoming.finish())
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is answered
            return self.assoc.failure(exc)

    def discard(self) -> None:
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            try:
                incoming.discard()
            except Exception as exc:  # noqa: BLE001 - the association is over; say it and go on
                self.assoc.failure(exc)


def request_of(assoc: Association, event: Event) -> StoreRequest:
    """The request in a handler's terms."""
    command = event.command
    assert command is not None
    return StoreRequest(
        command.message_id or 0,
        command.affected_sop_class_uid,
        command.affected_sop_instance_uid,
        assoc.transfer_syntaxes[event.context_id],
        assoc.calling_ae_title,
        assoc.called_ae_title,
        assoc.peer_address,
        assoc.id,
    )


def _objection(request: StoreRequest) -> Answer | None:
    # Both UIDs are mandatory (PS3.7 9.3.1.1).
    if not request.sop_class_uid:
        return Answer(SOP_CLASS_NOT_SUPPORTED, "no Affected SOP Class UID")
    if not request.sop_instance_uid:
        return Answer(INVALID_OBJECT_INSTANCE, "no Affected SOP Instance UID")
    return None


def _as_answer(value: Any) -> Answer:
    return value if isinstance(value, Answer) else Answer(int(value))


def serve_store(assoc: Association, event: Event, body: Any) -> None:
    """Let the storage handler have one C-STORE request, and answer it."""
    command = event.command
    assert command is not None
    if isinstance(body, Streamed):
        answer = body.finish()
    else:
        request = request_of(assoc, event)
        objection = _objection(request)
        if objection is not None:
            answer = objection
        elif not command.has_data_set:
            answer = Answer(CANNOT_UNDERSTAND, "no data set")
        else:
            try:
                assert assoc.storage is not None
                answer = _as_answer(assoc.storage.store(request, b"" if body is None else body))
            except Exception as exc:  # noqa: BLE001 - whatever a handler raises is answered
                answer = assoc.failure(exc)
    assoc.dul.send_message(
        event.context_id,
        encode_store_rsp(
            command.message_id or 0,
            command.affected_sop_class_uid,
            command.affected_sop_instance_uid,
            answer.status,
            answer.error_comment or None,
            answer.offending_elements,
        ),
    )
