"""The upper layer service provider of an accepted association, without a thread of its own.

It stands where pynetdicom's `DULServiceProvider` stands and has the attributes that ACSE, the service classes
and handlers use of it. Whoever needs something from the peer reads the channel himself, one thread at a
time; everything read is sorted here: association primitives for ACSE, responses for the caller who waits
for one, requests for the association's own loop.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from pynetdicom import evt
from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
)
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.timer import Timer

from pacs_core._ext import pdu
from pacs_core._ext.associate import RELEASE_RP
from pacs_core._ext.pdu import Event, fragment
from pacs_core.dimse.negotiation import accept_primitive

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association

_MOST_WAITING = 16  # requests read ahead while one is being served


class Channel(Protocol):
    """What carries an association: `Link` over a plain socket, `SecureLink` over TLS."""

    phase: int
    trace: bool
    maximum_send: int

    @property
    def in_message(self) -> bool: ...
    @property
    def stalled(self) -> bool: ...
    @property
    def received(self) -> int: ...
    def accept_contexts(self, ids: Any) -> None: ...
    def discard_message(self) -> None: ...
    def wake(self) -> None: ...
    def receive(self, timeout: float | None = None, deadline: float | None = None) -> Event: ...
    def send_raw(self, data: Any) -> None: ...
    def send_now(self, data: Any) -> bool: ...
    def send_message(self, context_id: int, command: Any, data: Any = None) -> None: ...
    def send_batch(self, context_id: int, messages: Any) -> None: ...
    def send_file(self, context_id: int, command: Any, fd: int, offset: int, length: int) -> None: ...


class Gone:
    """The channel of an association that is over: its descriptors are given back, whoever still holds it."""

    phase = pdu.CLOSING
    trace = False
    maximum_send = 0
    in_message = False
    stalled = False
    received = 0

    def accept_contexts(self, ids: Any) -> None:
        """Nothing will come."""

    def discard_message(self) -> None:
        """Nothing is there."""

    def wake(self) -> None:
        """Nobody waits."""

    def receive(self, timeout: float | None = None, deadline: float | None = None) -> Event:  # noqa: ARG002
        return Event(pdu.CLOSED)

    def send_now(self, data: Any) -> bool:  # noqa: ARG002
        return False

    def _broken(self, *_: Any) -> None:
        raise BrokenPipeError("the association is over")

    send_raw = send_message = send_batch = send_file = _broken


# PDU kind: pynetdicom's class for it and the state machine's event (PS3.8 Table 9-10).
_RECEIVED: dict[int, tuple[Any, str]] = {
    pdu.ASSOCIATE_RQ: (A_ASSOCIATE_RQ, "Evt6"),
    pdu.ASSOCIATE_AC: (A_ASSOCIATE_AC, "Evt3"),
    pdu.ASSOCIATE_RJ: (A_ASSOCIATE_RJ, "Evt4"),
    pdu.PDU: (P_DATA_TF, "Evt10"),
    pdu.RELEASE_RQ: (A_RELEASE_RQ, "Evt12"),
    pdu.RELEASE_RP: (A_RELEASE_RP, "Evt13"),
    pdu.ABORT: (A_ABORT_RQ, "Evt16"),
}


class StateMachine:
    """The state of PS3.8 9.2, kept for those who look at it: the engine itself needs only its phase."""

    def __init__(self, assoc: Association) -> None:
        self.assoc = assoc
        self.current_state = "Sta1"

    def step(self, event: str) -> None:
        """Follow the transition that `event` means, if it means one here, and say so to handlers."""
        action = TRANSITION_TABLE.get((event, self.current_state))
        if action is None:
            return
        target = ACTIONS[action][2]
        if isinstance(target, tuple):  # AE-6: acceptable or not; AR-8: we requested or accepted
            state = target[0] if action == "AE-6" else target[self.assoc.is_acceptor]
        else:
            state = target
        if self.assoc.hears(evt.EVT_FSM_TRANSITION):
            attributes = {
                "action": action,
                "current_state": self.current_state,
                "fsm_event": event,
                "next_state": state,
            }
            evt.trigger(self.assoc, evt.EVT_FSM_TRANSITION, attributes)
        self.current_state = state


class UpperLayer:
    """The synchronous DUL provider of one accepted association."""

    def __init__(self, assoc: Association) -> None:
        self.assoc = assoc
        self.socket: Any = None
        self.channel: Channel
        self.artim_timer = Timer(30)
        self._idle_timer = Timer(60)
        self.state_machine = StateMachine(assoc)
        self.event_queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.to_provider_queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.to_user_queue: deque[Any] = deque()
        self.requests: deque[tuple[Event, Any]] = deque()
        """Requests not yet served: the event, and what holds or received the data set."""
        self.request_pdu = b""
        self.accept_pdu = b""
        self.closed = False  # the connection is at its end, or we want nothing more from it
        self.await_close = False  # ours was the last word: wait for the peer's close (Sta13)
        self._stopped = False
        self._reading = threading.Lock()
        self._sink: Any = None

    # -- what pynetdicom calls ------------------------------------------------------------------------

    def start(self) -> None:
        """Nothing to start: there is no thread."""

    def is_alive(self) -> bool:
        return not self._stopped

    def stop_dul(self) -> bool:
        """Let the association's loop end. Always at once."""
        self._stopped = True
        self.channel.wake()
        return True

    def kill_dul(self) -> None:
        self.stop_dul()

    def idle_timer_expired(self) -> bool:
        return bool(self._idle_timer.expired)

    def peek_next_pdu(self) -> Any:
        """The next association primitive, if one has arrived by now."""
        if not self.to_user_queue:
            self.look()
        return self.to_user_queue[0] if self.to_user_queue else None

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """The next association primitive; with `wait`, read for it up to `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.to_user_queue:
            if not wait or not self.pump(deadline=deadline):
                break
        if not self.to_user_queue:
            return None
        primitive = self.to_user_queue.popleft()
        if self.assoc.hears(evt.EVT_ACSE_RECV):
            evt.trigger(self.assoc, evt.EVT_ACSE_RECV, {"primitive": primitive})
        return primitive

    def send_pdu(self, primitive: Any) -> None:
        """Encode and send a primitive, now, from whatever thread asks for it."""
        if not isinstance(primitive, P_DATA) and self.assoc.hears(evt.EVT_ACSE_SENT):
            evt.trigger(self.assoc, evt.EVT_ACSE_SENT, {"primitive": primitive})
        if isinstance(primitive, P_DATA):
            self._send(P_DATA_TF(primitive), "Evt9")
        elif isinstance(primitive, A_ASSOCIATE):
            if primitive.result == 0:
                self._send(A_ASSOCIATE_AC(primitive), "Evt7")
            else:
                self._send(A_ASSOCIATE_RJ(primitive), "Evt8")
                self._last_word()
        elif isinstance(primitive, A_RELEASE):
            if primitive.result is None:
                self.channel.phase = pdu.RELEASING
                self._send(A_RELEASE_RQ(primitive), "Evt11")
            else:
                self._send_encoded(RELEASE_RP, A_RELEASE_RP, "Evt14")
                if self.state_machine.current_state != "Sta11":
                    self._last_word()
        elif isinstance(primitive, A_ABORT | A_P_ABORT):
            self._send(A_ABORT_RQ(primitive), "Evt15", now=True)
            self._last_word()
        else:
            raise ValueError(f"Unknown primitive type '{type(primitive).__name__}' received")

    # -- sending --------------------------------------------------------------------------------------

    def send_accept(self, encoded: bytes) -> None:
        """Send an A-ASSOCIATE-AC that is encoded already."""
        self.accept_pdu = encoded
        if self.assoc.hears(evt.EVT_ACSE_SENT):
            evt.trigger(self.assoc, evt.EVT_ACSE_SENT, {"primitive": accept_primitive(encoded)})
        self._send_encoded(encoded, A_ASSOCIATE_AC, "Evt7")

    def _send_encoded(self, encoded: bytes, kind: Any, event: str) -> None:
        """Send a PDU; it becomes pynetdicom's, of class `kind`, only for those who look at it."""
        try:
            self.channel.send_raw(encoded)
        except OSError:
            self.lost()
            return
        self._show(evt.EVT_DATA_SENT, {"data": encoded})
        self._show_pdu(evt.EVT_PDU_SENT, kind, encoded)
        self.state_machine.step(event)

    def _send(self, item: Any, event: str, *, now: bool = False) -> None:
        encoded = item.encode()
        try:
            if not now:
                self.channel.send_raw(encoded)
            elif not self.channel.send_now(encoded):
                # Another thread is stuck in a write, or the peer takes nothing: there is no polite way.
                self.socket.shutdown()
        except OSError:
            self.lost()
            return
        self._show(evt.EVT_DATA_SENT, {"data": encoded})
        self._show(evt.EVT_PDU_SENT, {"pdu": item})
        self.state_machine.step(event)

    def send_message(self, context_id: int, command: bytes, data: Any = None) -> None:
        """Send one message; a failing connection is told to the association, not raised."""
        try:
            if self.channel.trace:
                self._send_shown(context_id, command, data)
            else:
                self.channel.send_message(context_id, command, data)
        except OSError:
            self.lost()

    def send_batch(self, context_id: int, messages: Any) -> None:
        """Send several messages with few writes; a failing connection is told to the association."""
        try:
            if self.channel.trace:
                for command, data in messages:
                    self._send_shown(context_id, command, data)
            else:
                self.channel.send_batch(context_id, messages)
        except OSError:
            self.lost()

    def send_file(self, context_id: int, command: bytes, fd: int, offset: int, length: int) -> None:
        """Send a message whose data set lies in an open file."""
        try:
            self.channel.send_file(context_id, command, fd, offset, length)
        except OSError:
            self.lost()

    def _send_shown(self, context_id: int, command: bytes, data: Any) -> None:
        maximum = self.channel.maximum_send
        pieces = fragment(context_id, command, True, maximum)
        if data is not None:
            pieces += fragment(context_id, data, False, maximum)
        for encoded in pieces:
            self.channel.send_raw(encoded)
            self._show(evt.EVT_DATA_SENT, {"data": encoded})
            self._show_pdu(evt.EVT_PDU_SENT, P_DATA_TF, encoded)
            self.state_machine.step("Evt9")

    def _show(self, event: Any, attributes: dict[str, Any]) -> None:
        if self.assoc.hears(event):
            evt.trigger(self.assoc, event, attributes)

    def _show_pdu(self, event: Any, kind: Any, encoded: bytes) -> None:
        if self.assoc.hears(event):
            item = kind()
            item.decode(encoded)
            evt.trigger(self.assoc, event, {"pdu": item})

    def _last_word(self) -> None:
        # PS3.8 9.2, Sta13: the peer closes; what it still sends is not read any more.
        self.channel.phase = pdu.CLOSING
        self.await_close = True
        self.closed = True
        self.channel.wake()

    # -- receiving ------------------------------------------------------------------------------------

    def pump(
        self, timeout: float | None = None, deadline: float | None = None, *, block: bool = True
    ) -> bool:
        """Read and sort one event. False when time is up, another thread reads, or nothing more comes."""
        if self.closed:
            return False
        if not self._reading.acquire(blocking=block):
            return False
        try:
            if self.is_over():  # in the meantime
                return False
            event = self.channel.receive(timeout, deadline)
            kind = event.kind
            if kind == pdu.TIMEOUT:
                return False
            if kind == pdu.WAKE:
                return True
            self._idle_timer.restart()
            self._sort(event, kind)
            return True
        finally:
            self._reading.release()

    def is_over(self) -> bool:
        """Whether nothing more is read: the connection ended, or ours was the last word."""
        return self.closed

    def look(self) -> None:
        """Take what has arrived by now, without waiting: a C-CANCEL, an abort, requests for later."""
        while len(self.requests) < _MOST_WAITING and self.pump(timeout=0, block=False):
            pass

    def _sort(self, event: Event, kind: int) -> None:
        if kind == pdu.MESSAGE:
            if event.streamed:
                sink, self._sink = self._sink, None
                sink.end(event.data)
                self.assoc.dimse.take(event, sink)
            else:
                self.assoc.dimse.take(event, event.data)
        elif kind == pdu.CHUNK:
            if self._sink is None:
                self._sink = self.assoc.sink_for(event)
            self._sink.write(event.data)
        elif kind == pdu.PDU:
            self._show(evt.EVT_DATA_RECV, {"data": event.raw})
            self._show_pdu(evt.EVT_PDU_RECV, P_DATA_TF, event.raw or b"")
            self.state_machine.step("Evt10")
        elif kind == pdu.CLOSED:
            self.lost()
        elif kind == pdu.PROTOCOL_ERROR:
            self.protocol_error(event.reason, event.text or "")
        else:
            self._association_pdu(event, kind)

    def _association_pdu(self, event: Event, kind: int) -> None:
        item_class, fsm_event = _RECEIVED[kind]
        raw = event.raw or b""
        self._show(evt.EVT_DATA_RECV, {"data": raw})
        if kind == pdu.ASSOCIATE_RQ:
            self.request_pdu = raw
            self.state_machine.step(fsm_event)
            return
        self._show_pdu(evt.EVT_PDU_RECV, item_class, raw)
        if kind == pdu.RELEASE_RQ:
            self.to_user_queue.append(A_RELEASE())
        elif kind == pdu.RELEASE_RP:
            answer = A_RELEASE()
            answer.result = "affirmative"
            self.to_user_queue.append(answer)
        elif kind == pdu.ABORT:
            received = A_ABORT_RQ()
            received.decode(raw)
            self._over(received.to_primitive())
        self.state_machine.step(fsm_event)
        if self.state_machine.current_state == "Sta1":
            self.closed = True

    def protocol_error(self, reason: int, text: str) -> None:
        """The peer broke the protocol: A-ABORT from the provider, with the reason of PS3.8 Table 9-26."""
        self.assoc.log_warning("protocol error of the peer: %s", text)
        refusal = A_P_ABORT()
        refusal.provider_reason = reason
        self._send(A_ABORT_RQ(refusal), "Evt19", now=True)
        self._last_word()
        self._over(refusal)

    def lost(self) -> None:
        """The connection has gone: an A-P-ABORT for whoever asks (PS3.8 9.2, AA-4)."""
        if self.closed:
            return
        self.state_machine.step("Evt17")
        gone = A_P_ABORT()
        gone.provider_reason = 0
        self._over(gone)

    def _over(self, primitive: Any) -> None:
        self.closed = True
        if self._sink is not None:
            self._sink.discard()
            self._sink = None
        for _, body in self.requests:
            if hasattr(body, "discard"):
                body.discard()
        self.requests.clear()
        self.to_user_queue.append(primitive)
        self.assoc.dimse.msg_queue.put((None, None))
        self.channel.wake()
