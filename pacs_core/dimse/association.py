"""An accepted association: pynetdicom's interface, the native engine underneath.

One thread, blocked in the engine without the GIL, woken once per DIMSE message. C-ECHO and, where the server
has a storage handler, C-STORE are answered without pynetdicom's objects; every other request goes through
its service classes to the handlers bound to its events.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import os
import ssl
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom import association as pynetdicom_association
from pynetdicom import evt
from pynetdicom.association import ServiceUser
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import AddressInformation

from pacs_core._ext import pdu
from pacs_core._ext.associate import Request, Supported, decode_request
from pacs_core._ext.link import Link
from pacs_core.dimse.hearing import DEAF, Hearing, hearing_of, intervenes
from pacs_core.dimse.messages import MessageProvider
from pacs_core.dimse.negotiation import (
    Kind,
    Negotiation,
    Rejection,
    accept_primitive,
    as_context,
    kind_of,
    request_primitive,
    supported_by,
)
from pacs_core.dimse.requests import serve, sink_for
from pacs_core.dimse.secure import SecureLink
from pacs_core.dimse.storage import Answer
from pacs_core.dimse.upper_layer import Gone, UpperLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacs_core.dimse.server import Wire

LOGGER = logging.getLogger("pacs_core.dimse")
_SLOWEST = 1024
"""Bytes a second below which a peer in the middle of something counts as silent: one that sends now and then
a byte would keep its place for ever."""
_LAST_WORD = 1.0
"""Seconds a peer has to close in during a drain: a close of ours at once could take back what was sent."""
_READY = threading.Event()  # what pynetdicom waits for is so from the start
_READY.set()
_NUMBERS = itertools.count(1)
_PREFIX = f"{os.getpid():x}"


def plain(text: str) -> str:
    """Text of the peer for a log line: control characters escaped."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


class Checkpoint(threading.Event):
    """pynetdicom's reactor checkpoint: clearing it brings the association's thread out of its read."""

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self.set()

    def clear(self) -> None:
        super().clear()
        self._assoc.dul.channel.wake()


class Socket:
    """What handlers and ACSE use of pynetdicom's `AssociationSocket`."""

    def __init__(self, sock: Any, channel: Any) -> None:
        self.socket = sock
        self._channel = channel
        self._is_connected = True
        self._ready = _READY

    def shutdown(self) -> None:
        """End the connection both ways; whoever reads or writes it notices. The descriptor stays open."""
        if self.socket is not None:
            try:
                self.socket.shutdown(2)
            except OSError:
                return

    _shutdown_socket = shutdown

    def send(self, data: bytes) -> None:
        """Send bytes past everything else, as handlers that play tricks do."""
        self._channel.send_raw(data)

    def close(self) -> None:
        """Close the descriptor. Only for the thread that reads it."""
        sock, self.socket = self.socket, None
        self._channel = Gone()
        self._is_connected = False
        if sock is not None:
            sock.close()


# Its own annotations name the providers that ours replace.
_Base: Any = pynetdicom_association.Association


class Association(_Base):  # type: ignore[misc]
    """An association that a peer requested of us."""

    def __init__(self, ae: Any, wire: Wire, sock: Any, address: Any) -> None:
        # pynetdicom's constructor would start from a DUL thread of its own; this sets what it sets.
        threading.Thread.__init__(self, target=self.run_reactor, daemon=True)
        self.id = f"{_PREFIX}-{next(_NUMBERS)}"
        self.name = f"AcceptorThread@{self.id}"
        self._thread = 0  # which runs its loop: itself, or one that was there already
        self._ae = ae
        self.mode = "acceptor"
        self._server = wire.server
        self.wire = wire
        self.ae_title: str = wire.server.ae_title.strip()
        self.storage = wire.storage
        self.admission = wire.admission
        self.preferences = wire.preferences
        self.peer_address: str = address[0] if isinstance(address, tuple) and address else "local"
        self.address = address
        self.calling_ae_title = ""
        self.called_ae_title = ""
        self.request_item: Request
        self.transfer_syntaxes: dict[int, str] = {}
        self.kinds: dict[int, Kind] = {}
        self.extended: dict[str, bytes] = {}  # what was agreed to by extended negotiation, by SOP class
        self.serving: int | None = None  # the Message ID of the request in hand
        self.counts = False  # against the limits of associations
        self.expected_until = 0.0  # time.monotonic() until which the peer may wait for us in silence
        self.handed: Any = None  # what the server's owner knows the connection by

        self.is_established = False
        self.is_rejected = False
        self.is_aborted = False
        self.is_released = False
        self._sent_abort = False
        self._sent_release = False
        self.results: list[tuple[int, str, int, str, bool, bool]] = []
        self._contexts: dict[int, Any] | None = None
        self._users: tuple[ServiceUser, ServiceUser] | None = None
        self._kill = False
        self._draining = False
        self._jobs: deque[tuple[Callable[[], None], Callable[[], None]]] | None = deque()
        self._posting = threading.Lock()
        self._parked = False
        self._started_dul = True
        self._dul_ready = _READY
        self._timer_resolution = None
        self.network_timeout_response = "A-ABORT"
        self._handlers: dict[Any, Any] = {}
        self._shares_handlers = False
        self._hearing = DEAF

        self._reactor_checkpoint: Any = None
        self.acse = Negotiation(self)
        self.dul = UpperLayer(self)
        self.dimse = MessageProvider(self)
        self.acse_timeout = ae.acse_timeout
        self.connection_timeout = ae.connection_timeout
        self.dimse_timeout = ae.dimse_timeout
        self.network_timeout = ae.network_timeout
        self._reactor_checkpoint = Checkpoint(self)
        self.dul.state_machine.current_state = "Sta2"
        self.dul.channel = self._channel(sock)
        self.dul.socket = Socket(sock, self.dul.channel)

    @property
    def network_timeout(self) -> float | None:
        """Seconds of silence, or of too little, after which the association ends; None: any number."""
        return self._network_timeout

    @network_timeout.setter
    def network_timeout(self, value: float | None) -> None:
        self._network_timeout = value
        self.dul._idle_timer.timeout = value
        if self._reactor_checkpoint is not None:
            self.dul.channel.wake()

    def _channel(self, sock: Any) -> Any:
        settings = {
            "maximum_pdu": self.ae.maximum_pdu_size,
            "spool_at": self.wire.spool_at,
            "chunk": min(1 << 20, self.wire.spool_at),
            "budget": self.wire.budget,
        }
        if isinstance(sock, ssl.SSLSocket):
            return SecureLink(pdu.AWAIT_REQUEST, sock=sock, write_timeout=self.network_timeout, **settings)
        return Link(pdu.AWAIT_REQUEST, fd=sock.fileno(), write_timeout=self.network_timeout, **settings)

    # -- pynetdicom's objects, built for those who look at them -----------------------------------------

    @property
    def requestor(self) -> ServiceUser:
        """The peer."""
        return self._both_users()[0]

    @property
    def acceptor(self) -> ServiceUser:
        """Ourselves."""
        return self._both_users()[1]

    def _both_users(self) -> tuple[ServiceUser, ServiceUser]:
        if self._users is None:
            requestor, acceptor = ServiceUser(self, "requestor"), ServiceUser(self, "acceptor")
            self._users = requestor, acceptor
            acceptor.maximum_length = self.ae.maximum_pdu_size
            acceptor._ae_title = self.ae_title
            acceptor.implementation_class_uid = self.ae.implementation_class_uid
            acceptor.implementation_version_name = self.ae.implementation_version_name
            acceptor._contexts = list(self._server.contexts)
            if isinstance(self.address, tuple) and len(self.address) >= 2:
                acceptor.address_info = AddressInformation.from_tuple(self._server.server_address)
                requestor.address_info = AddressInformation.from_tuple(self.address)
            if self.dul.request_pdu:
                requestor.primitive = request_primitive(self.dul.request_pdu)
                requestor._ae_title = requestor.primitive.calling_ae_title
            if self.dul.accept_pdu:
                acceptor.primitive = accept_primitive(self.dul.accept_pdu)
        return self._users

    @property
    def _accepted_cx(self) -> dict[int, Any]:
        if self._contexts is None:
            self._contexts = {r[0]: as_context(r) for r in self.results if r[2] == 0}
        return self._contexts

    @_accepted_cx.setter
    def _accepted_cx(self, value: dict[int, Any]) -> None:
        self._contexts = value

    @property
    def _rejected_cx(self) -> list[Any]:
        return [as_context(r) for r in self.results if r[2] != 0]

    def supported(self) -> Supported:
        """What we support: the server's contexts, or those a handler has put in their place."""
        ours = self._server.contexts
        if self._users is not None and self._users[1]._contexts != ours:
            return supported_by(self._users[1]._contexts, self.preferences)
        return self.wire.supported(ours)

    @property
    def plain_echo(self) -> bool:
        """Whether nobody but the peer wants to know of a C-ECHO."""
        return self._hearing.plain_echo

    # -- handlers -------------------------------------------------------------------------------------

    def bind(self, event: Any, handler: Any, args: Any = None) -> None:
        self._own_handlers()
        super().bind(event, handler, args)
        self._handlers_changed()

    def unbind(self, event: Any, handler: Any) -> None:
        self._own_handlers()
        super().unbind(event, handler)
        self._handlers_changed()

    def hear(self, handlers: dict[Any, Any], hearing: Hearing) -> None:
        """Begin with the server's handlers, shared until some handler is bound or unbound here."""
        self._handlers = handlers
        self._shares_handlers = True
        self._hearing = hearing
        self.dul.channel.trace = hearing.trace

    def _own_handlers(self) -> None:
        if self._shares_handlers:
            self._shares_handlers = False
            self._handlers = {
                event: list(bound) if isinstance(bound, list) else bound
                for event, bound in self._handlers.items()
            }

    def _handlers_changed(self) -> None:
        """Those who want every PDU get them from the next one on."""
        self._hearing = hearing_of(self._handlers)
        self.dul.channel.trace = self._hearing.trace

    def intervenes(self, event: Any) -> bool:
        """Whether somebody bound an intervention event in place of pynetdicom's default."""
        return intervenes(self._handlers, event)

    def notify(self, event: Any, attributes: dict[str, Any]) -> None:
        """Trigger a notification event, if anybody wants it."""
        if self.hears(event):
            evt.trigger(self, event, attributes)

    def hears(self, event: Any) -> bool:
        """Whether a handler wants this notification event."""
        return event in self._hearing.events

    # -- what pynetdicom waits for ----------------------------------------------------------------------

    @property
    def _is_paused(self) -> bool:
        # The association's own thread never has to wait for itself.
        return self._parked or threading.get_ident() == self._thread

    @_is_paused.setter
    def _is_paused(self, value: bool) -> None:
        self._parked = value

    def _abort_blocking(self, block: bool = True) -> None:
        if self._sent_abort or self.is_released:
            return
        self._sent_abort = True
        self._reactor_checkpoint.set()
        self.acse.send_abort(0x00)
        evt.trigger(self, evt.EVT_ABORTED, {})
        if block:
            self.kill()

    def over_limit(self) -> Rejection | None:
        """The rejection that the limits of associations ask for, if this one is one too many."""
        return self.wire.count(self)

    # -- the thread -------------------------------------------------------------------------------------

    def run_reactor(self) -> None:
        """From the first byte to the last."""
        self._thread = threading.get_ident()
        # A context of its own: the thread may serve others after it.
        contextvars.Context().run(self._run)

    def _run(self) -> None:
        try:
            if self._handshake() and self._await_request():
                if not self.is_aborted and not self.is_rejected:
                    self.acse.negotiate_association()
                if self.is_established:
                    self.wire.established(self)
                    self._run_reactor()
        except Exception as exc:
            LOGGER.error("association failed: %s", type(exc).__name__, exc_info=exc, extra=self._extra())
            self.abort(block=False)
        finally:
            self._finish()

    def _handshake(self) -> bool:
        channel = self.dul.channel
        if not isinstance(channel, SecureLink):
            return True
        try:
            channel.handshake(time.monotonic() + (self.acse_timeout or 30))
        except OSError as exc:
            self.log_warning("TLS handshake failed: %s", plain(str(exc)))
            self.dul.closed = True
            return False
        return True

    def _await_request(self) -> bool:
        timeout = self.acse_timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        dul = self.dul
        while not dul.request_pdu:
            # A drain is for messages: who has not even an association has nothing to finish.
            if self._draining or not dul.pump(deadline=deadline) or self._kill:
                return False  # or ARTIM expired, or the peer is gone: PS3.8 9.2, AA-2, AA-5
        try:
            self.request_item = decode_request(dul.request_pdu)
            dul.channel.maximum_send = self.request_item.maximum_length
        except ValueError as exc:
            dul.protocol_error(0, plain(str(exc)))
            return False
        self.calling_ae_title = self.request_item.calling_ae_title
        self.called_ae_title = self.request_item.called_ae_title
        # Every line of this thread says whose it is, those of the archive too.
        structlog.contextvars.bind_contextvars(**self._extra())
        dul._show_pdu(evt.EVT_PDU_RECV, A_ASSOCIATE_RQ, dul.request_pdu)
        if self.hears(evt.EVT_ACSE_RECV):
            evt.trigger(self, evt.EVT_ACSE_RECV, {"primitive": self.requestor.primitive})
        self.notify(evt.EVT_REQUESTED, {})
        return True

    def accepted(self, results: list[tuple[int, str, int, str, bool, bool]]) -> None:
        """Get ready for messages on the contexts that were accepted."""
        self.results = results
        accepted = [(r[0], r[1], r[3]) for r in results if r[2] == 0]
        self.transfer_syntaxes = {context_id: syntax for context_id, _, syntax in accepted}
        self.kinds = {context_id: kind_of(abstract) for context_id, abstract, _ in accepted}
        self.dul.channel.accept_contexts(self.transfer_syntaxes)
        self.dul.channel.phase = pdu.TRANSFER

    def abstract_syntax(self, context_id: int) -> str:
        """The SOP class of a presentation context that was accepted."""
        return next(result[1] for result in self.results if result[0] == context_id)

    def _run_reactor(self) -> None:
        dul, dimse = self.dul, self.dimse
        while not self._kill:
            if not self._reactor_checkpoint.is_set():
                # Another thread has business with the peer; it does the reading meanwhile.
                self._parked = True
                self._reactor_checkpoint.wait()
                self._parked = False
                continue
            if dul.requests:
                serve(self, *dul.requests.popleft())
            elif not dimse.msg_queue.empty():
                context_id, message = dimse.msg_queue.get()
                if message is not None:
                    self._serve_request(message, context_id)
            elif dul.to_user_queue:
                self._association_event()
            elif self._draining and not dul.channel.in_message:
                self.abort(block=False)
                return
            elif dul.closed:
                return
            elif self._jobs:
                self._jobs.popleft()[0]()
            elif not self._hear() and not dul.closed:
                self._idle()

    def _hear(self) -> bool:
        """Wait for what the peer has to say; False when it says nothing, or says it too slowly."""
        timeout, channel = self.network_timeout, self.dul.channel
        if timeout is None:
            return self.dul.pump()
        least = 1.0  # what came may only have begun just now
        while True:
            before = channel.received
            if self.dul.pump(deadline=time.monotonic() + timeout):
                return True
            if self.dul.closed:
                return False
            if channel.stalled or time.monotonic() < self.expected_until:  # it is we who are slow
                continue
            if channel.received - before < least:
                return False
            least = _SLOWEST * timeout

    def _association_event(self) -> None:
        if self.acse.is_release_requested():
            self.is_released = True
            self.is_established = False
            self.notify(evt.EVT_RELEASED, {})
            self.acse.send_release(is_response=True)
            self.kill()
        elif self.acse.is_aborted():
            self.dul.receive_pdu(wait=False)
            if not self._sent_abort:
                self.is_aborted = True
                self.is_established = False
                evt.trigger(self, evt.EVT_ABORTED, {})
            self.kill()
        else:
            self.dul.to_user_queue.popleft()

    def _idle(self) -> None:
        self.log_warning("nothing, or too little, from the peer for %s s", self.network_timeout)
        if self.network_timeout_response == "A-RELEASE":
            self.release()
        else:
            self.abort(block=False)
        self.kill()

    def _finish(self) -> None:
        self._no_more_jobs()
        dul = self.dul
        if dul.await_close:
            self.wire.no_longer_counts(self)
            timeout = self.acse_timeout
            deadline = time.monotonic() + (30 if timeout is None else timeout)
            while not self.wire.hurry:
                if self._draining:
                    deadline = min(deadline, time.monotonic() + _LAST_WORD)
                if dul.channel.receive(deadline=deadline).kind != pdu.WAKE:
                    break
        dul.state_machine.step("Evt17")
        dul.socket.shutdown()
        dul.socket.close()
        dul.channel = Gone()
        dul._stopped = True
        self.is_established = False
        self.notify(evt.EVT_CONN_CLOSE, {"address": self.address})
        self.wire.ended(self)

    # -- what others want done --------------------------------------------------------------------------

    def post(self, job: Callable[[], None], unmet: Callable[[], None]) -> None:
        """Have this association's thread do something between two messages; from any thread.

        `unmet` is called in its place when the association is over before. Neither may raise.
        """
        with self._posting:
            if self._jobs is not None:
                self._jobs.append((job, unmet))
                if threading.get_ident() != self._thread:
                    self.dul.channel.wake()
                return
        unmet()

    def _no_more_jobs(self) -> None:
        with self._posting:
            jobs, self._jobs = self._jobs, None
        for _, unmet in jobs or ():
            unmet()

    def drain(self) -> None:
        """Let the message in hand finish, from any thread; then the association ends with an A-ABORT."""
        self._draining = True
        self.dul.channel.wake()

    # -- requests ---------------------------------------------------------------------------------------

    def sink_for(self, event: Any) -> Any:
        """What takes a data set that comes in chunks."""
        return sink_for(self, event)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """As pynetdicom's, and storage classes that it does not know."""
        if (
            isinstance(msg, C_STORE)
            and self.preferences.unknown_storage
            and self.kinds.get(context_id) is Kind.UNKNOWN
            and msg.is_valid_request
        ):
            try:
                StorageServiceClass(self).SCP(msg, self._accepted_cx[context_id])
            except Exception as exc:
                LOGGER.error("service failed: %s", type(exc).__name__, exc_info=exc, extra=self._extra())
                self.abort()
            return
        super()._serve_request(msg, context_id)

    def failure(self, exc: Exception) -> Answer:
        """What to answer when a storage handler raised; whoever decides that says it in the log too."""
        return self.wire.failure(exc)

    # -- logging ----------------------------------------------------------------------------------------

    def _extra(self) -> dict[str, str]:
        return {
            "association": self.id,
            "calling_ae_title": plain(self.calling_ae_title),
            "called_ae_title": plain(self.called_ae_title),
            "address": self.peer_address,
        }

    def log_warning(self, text: str, *args: Any) -> None:
        """Log with this association's identity; never with data of its messages."""
        LOGGER.warning(text, *args, extra=self._extra())

    def log_accepted(self) -> None:
        """Log that the association is made, and how many of its contexts were accepted."""
        contexts = f"{len(self.transfer_syntaxes)} of {len(self.results)}"
        LOGGER.info("association accepted", extra={**self._extra(), "contexts": contexts})
