"""The DIMSE service provider of an accepted association, in the place of pynetdicom's.

Command sets are decoded and encoded natively; pynetdicom's primitives are built only for those messages
that its service classes or a handler are going to see.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from pydicom.datadict import tag_for_keyword
from pynetdicom import evt
from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE
from pynetdicom.dimse_messages import (
    _COMMAND_SET_KEYWORDS,
    _DATASET_KEYWORDS,
    _MESSAGE_TYPES,
    DIMSEMessage,
)
from pynetdicom.dimse_primitives import C_GET, N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA

from pacs_core._ext import command
from pacs_core._ext.command import Command
from pacs_core._ext.pdu import Event
from pacs_core.errors import UnparsableError

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
C_CANCEL_RQ = 0x0FFF
C_STORE_RSP = 0x8001
_PENDING = (0xFF00, 0xFF01)
_MOST_CANCELS = 10

_FIELD_OF = {name: number for number, (name, _) in _MESSAGE_TYPES.items()}
_ELEMENTS = {
    name: [
        (keyword, (tag_for_keyword(keyword) or 0) & 0xFFFF)
        for keyword in keywords
        if keyword not in ("CommandGroupLength", "CommandField", "CommandDataSetType")
    ]
    for name, keywords in _COMMAND_SET_KEYWORDS.items()
}
_LISTS = frozenset({0x0901, 0x1005})


def primitive_of(assoc: Association, event: Event, data: Any) -> Any:
    """pynetdicom's primitive for a received message.

    Raises UnparsableError for a message that pynetdicom does not know.
    """
    message: Any = DIMSEMessage()
    carrier = P_DATA()
    encoded = event.command.encoded if event.command is not None else b""
    carrier.presentation_data_value_list.append((event.context_id, b"\x03" + encoded))
    try:
        message.decode_msg(carrier, assoc)
        if data is not None and len(data):
            if message._data_set_file is not None:  # pynetdicom's STORE_RECV_CHUNKED_DATASET
                message._data_set_file.write(data)
                message._data_set_file.file.flush()
            else:
                message.data_set.write(data)
        if assoc.hears(evt.EVT_DIMSE_RECV):
            evt.trigger(assoc, evt.EVT_DIMSE_RECV, {"message": message})
        return message.message_to_primitive()
    except Exception as exc:
        raise UnparsableError(f"a message that can't be decoded ({type(exc).__name__})") from exc


def command_of(primitive: Any, name: str, has_data: bool) -> bytes:
    """The command set of one of pynetdicom's primitives, as the message `name` ("C-FIND-RSP")."""
    elements: dict[int, Any] = {0x0100: _FIELD_OF[name], 0x0800: 0x0001 if has_data else 0x0101}
    for keyword, element in _ELEMENTS[name]:
        value = getattr(primitive, keyword, None)
        if value is not None and element in _LISTS and isinstance(value, int):
            value = (value,)
        elements[element] = value
    return command.encode(elements)


class MessageProvider:
    """Sends and receives DIMSE messages for one association.

    `msg_queue` holds responses, and what a C-GET that we requested brings, for the caller who waits for
    them; requests go to the association's own loop.
    """

    def __init__(self, assoc: Association) -> None:
        self.assoc = assoc
        self.msg_queue: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.message: Any = None
        self._cancels: dict[int, Any] = {}
        self._getting = False
        self._awaited: tuple[int, int] | None = None  # command field and message ID
        self._answer: Command | None = None

    @property
    def dul(self) -> Any:
        return self.assoc.dul

    @property
    def dimse_timeout(self) -> float | None:
        timeout: float | None = self.assoc.dimse_timeout
        return timeout

    @property
    def maximum_pdu_size(self) -> int:
        """The peer's maximum PDU length, 0 for unlimited."""
        return self.assoc.request_item.maximum_length

    @property
    def cancel_req(self) -> dict[int, Any]:
        """C-CANCEL requests by the message ID they want cancelled, those that arrive right now included."""
        self.assoc.dul.look()
        return self._cancels

    @cancel_req.setter
    def cancel_req(self, value: dict[int, Any]) -> None:
        self._cancels = value

    def _is_open(self, message_id: int | None) -> bool:
        """Whether a request is being served, or waits for that."""
        waiting = (event.command for event, _ in self.assoc.dul.requests)
        return message_id == self.assoc.serving or any(
            command is not None and command.message_id == message_id for command in waiting
        )

    def is_cancelled(self, message_id: int) -> bool:
        """Whether the peer has cancelled a request by now."""
        return message_id in self.cancel_req

    def answer_to(self, message_id: int, field: int) -> Command | None:
        """The response of that kind to a request sent here; None: none in time, or the association ends.

        What else the peer says meanwhile is sorted as always: a C-CANCEL, an abort, requests for later.
        """
        self._awaited, self._answer = (field, message_id), None
        timeout = self.dimse_timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._answer is None and not self.dul.to_user_queue and self.dul.pump(deadline=deadline):
            pass
        self._awaited = None
        return self._answer

    def store_answer(self, message_id: int) -> Command | None:
        """The response to a C-STORE request, as `answer_to`."""
        return self.answer_to(message_id, C_STORE_RSP)

    def _awaits(self, command: Command) -> bool:
        return self._awaited == (command.command_field, command.message_id_being_responded_to)

    def served(self, message_id: int | None) -> None:
        """A request has been answered: what cancelled it is over, too."""
        self._cancels.pop(message_id or 0, None)

    def take(self, event: Event, body: Any) -> None:
        """Sort a message that has just been read; `body` is its data set, or the sink that took it."""
        received: Command | None = event.command
        assert received is not None
        field = received.command_field
        if field == C_CANCEL_RQ:
            # PS3.7 9.3.2.3: one for an unknown or finished operation has no effect.
            if self._is_open(received.message_id_being_responded_to) and len(self._cancels) < _MOST_CANCELS:
                with contextlib.suppress(UnparsableError):
                    self._cancels[received.message_id_being_responded_to or 0] = primitive_of(
                        self.assoc, event, None
                    )
        elif self._awaits(received):
            self._answer, self._awaited = received, None
        elif field & 0x8000 or (self._getting and field == C_STORE_RQ):
            primitive = self._primitive(event, body)
            if primitive is not None:
                self.msg_queue.put((event.context_id, primitive))
        elif field == N_EVENT_REPORT_RQ and threading.get_ident() != self.assoc._thread:
            # Whoever reads here waits for a response of his own, and the peer may want this answered first.
            primitive = self._primitive(event, body)
            if primitive is not None:
                threading.Thread(
                    target=self.assoc._serve_request, args=(primitive, event.context_id), daemon=True
                ).start()
        else:
            self.assoc.dul.requests.append((event, body))

    def _primitive(self, event: Event, body: Any) -> Any:
        try:
            return primitive_of(self.assoc, event, self.joined(body))
        except UnparsableError as exc:
            self.assoc.dul.protocol_error(0, str(exc))
            return None

    @staticmethod
    def joined(body: Any) -> Any:
        """The data set in one piece. Raises UnparsableError for one that is too large for it."""
        if getattr(body, "too_large", False):
            raise UnparsableError("a data set larger than may be held in memory")
        return body.data if hasattr(body, "data") else body

    def get_msg(self, block: bool = False) -> tuple[Any, Any]:
        """The next response as (context ID, primitive), or (None, None): none in time, or no association."""
        timeout = self.dimse_timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self.msg_queue.get_nowait()
            except queue.Empty:
                if not block or not self.assoc.dul.pump(deadline=deadline):
                    break
        try:
            return self.msg_queue.get_nowait()
        except queue.Empty:
            return None, None

    def peek_msg(self) -> tuple[Any, Any]:
        """Nothing to see before `get_msg` reads it."""
        return None, None

    def receive_primitive(self, primitive: Any) -> None:
        """Take P-DATA primitives from whoever has some, as pynetdicom's provider does."""
        if self.message is None:
            self.message = DIMSEMessage()
        if self.message.decode_msg(primitive, self.assoc):
            message, self.message = self.message, None
            if self.assoc.hears(evt.EVT_DIMSE_RECV):
                evt.trigger(self.assoc, evt.EVT_DIMSE_RECV, {"message": message})
            self.msg_queue.put((message.context_id, message.message_to_primitive()))

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Encode and send one of pynetdicom's DIMSE primitives."""
        is_request = primitive.MessageIDBeingRespondedTo is None
        kind = (_RQ_TO_MESSAGE if is_request else _RSP_TO_MESSAGE)[type(primitive)]
        name = kind.__name__.replace("_", "-")
        if is_request:
            self._getting = isinstance(primitive, C_GET)
        if self.assoc.hears(evt.EVT_DIMSE_SENT):
            message = kind()
            message.primitive_to_message(primitive)
            message.context_id = context_id
            evt.trigger(self.assoc, evt.EVT_DIMSE_SENT, {"message": message})
        path = getattr(primitive, "_dataset_path", None)
        if path:
            self._send_path(primitive, name, context_id, path)
        else:
            keyword = _DATASET_KEYWORDS.get(kind.__name__)
            stream = getattr(primitive, keyword) if keyword else None
            data = None if stream is None else stream.getbuffer()
            self.assoc.dul.send_message(context_id, command_of(primitive, name, data is not None), data)
        if not is_request and primitive.Status in _PENDING:
            self.assoc.dul.look()

    def _send_path(self, primitive: Any, name: str, context_id: int, path: tuple[Any, int]) -> None:
        fd = os.open(path[0], os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = os.fstat(fd).st_size - path[1]
            self.assoc.dul.send_file(context_id, command_of(primitive, name, True), fd, path[1], length)
        finally:
            os.close(fd)


__all__ = ["N_EVENT_REPORT", "MessageProvider", "command_of", "primitive_of"]
