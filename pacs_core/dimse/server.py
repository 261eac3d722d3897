"""Servers that accept associations: pynetdicom's `AssociationServer` interface, `Association` of ours.

`Wire` holds what all associations of a server share: limits, the storage handler, the memory budget.
`AssociationServer` listens for a pynetdicom AE; it can be given to `AE.make_server(server_class=…)`, or take
the place of `pynetdicom.ae.ThreadedAssociationServer`. `serve_connection` takes a connection that somebody
else accepted.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import evt, transport

from pacs_core._ext.associate import Supported
from pacs_core._ext.buffer import Budget as Budget
from pacs_core.dimse.association import LOGGER, Association
from pacs_core.dimse.finding import FindHandler
from pacs_core.dimse.hearing import Hearing, hearing_of, talk
from pacs_core.dimse.negotiation import (
    LIMIT_EXCEEDED,
    PEER_LIMIT_EXCEEDED,
    Admission,
    Preferences,
    Rejection,
    supported_by,
)
from pacs_core.dimse.normalized import NormalizedHandler
from pacs_core.dimse.retrieving import RetrieveHandler
from pacs_core.dimse.storage import Failure, StorageHandler, processing_failure

_MEMORY = 256 << 20
_budget_of_the_process = Budget(_MEMORY)


class Wire:
    """What the associations of one server share.

    Parameters
    ----
    storage
        Takes C-STORE requests on storage contexts; None leaves them to the handler of EVT_C_STORE.
    queries
        Take C-FIND requests of the SOP classes that they name; all others are the handler's of EVT_C_FIND.
    retrievals
        Takes C-GET and C-MOVE requests; None leaves them to the handlers of EVT_C_GET and EVT_C_MOVE.
    operations
        Take requests of the N-services on the SOP classes that they name; all others are the handlers' of
        EVT_N_CREATE and its like.
    admission
        Asked about each association request, see `negotiation.Admission`.
    failure
        The C-STORE answer that an exception of the storage handler means.
    peer_limit
        Associations that one address may have at a time; None: as many as there may be in all
        (`AE.maximum_associations`).
    spool_at, budget, largest_in_memory
        Bytes: from which size on a data set is handed over in chunks; what all received data sets together
        may hold; and the largest one that is put together for a handler that wants it whole.
    may_echo
        Whether a peer (calling and called AE title, address) may use C-ECHO.
    established
        Called with each association that was accepted, in its thread, before it hears anything more.
    """

    def __init__(
        self,
        *,
        storage: StorageHandler | None = None,
        queries: Sequence[FindHandler] = (),
        retrievals: RetrieveHandler | None = None,
        operations: Sequence[NormalizedHandler] = (),
        admission: Admission | None = None,
        failure: Failure = processing_failure,
        preferences: Preferences | None = None,
        peer_limit: int | None = None,
        spool_at: int = 4 << 20,
        budget: Budget | None = None,
        largest_in_memory: int = 2 << 30,
        may_echo: Callable[[str, str, str], bool] = lambda *_: True,
        established: Callable[[Association], None] = lambda _: None,
    ) -> None:
        self.storage = storage
        self.queries = {uid: handler for handler in queries for uid in handler.sop_classes}
        self.retrievals = retrievals
        self.operations = {uid: handler for handler in operations for uid in handler.sop_classes}
        self.admission = admission
        self.failure = failure
        self.preferences = preferences or Preferences()
        self.peer_limit = peer_limit
        self.spool_at = spool_at
        self.budget = budget or _budget_of_the_process
        self.largest_in_memory = largest_in_memory
        self.may_echo = may_echo
        self.established = established
        self.server: Any = None
        self.draining = False  # associations end as soon as their messages in hand are done
        self.hurry = False  # do not wait for peers to close any more
        self.live: set[Association] = set()
        self._supported: tuple[list[Any], Supported] | None = None
        self._changed = threading.Condition()
        self._counted = 0
        self._by_address: Counter[str] = Counter()

    def supported(self, contexts: list[Any]) -> Supported:
        """The index of the server's presentation contexts, built when they are first asked for."""
        index = self._supported
        if index is None or index[0] is not contexts:
            index = self._supported = (contexts, supported_by(contexts, self.preferences))
        return index[1]

    def began(self, assoc: Association) -> None:
        with self._changed:
            self.live.add(assoc)
        if self.draining:  # it was on its way when the others were told
            assoc.drain()

    def count(self, assoc: Association) -> Rejection | None:
        """Count an association that was requested against the limits; says if it is one too many."""
        with self._changed:
            if self._counted >= assoc.ae.maximum_associations:
                return LIMIT_EXCEEDED
            if self.peer_limit is not None and self._by_address[assoc.peer_address] >= self.peer_limit:
                return PEER_LIMIT_EXCEEDED
            assoc.counts = True
            self._counted += 1
            self._by_address[assoc.peer_address] += 1
            return None

    def no_longer_counts(self, assoc: Association) -> None:
        """The association is over, if not yet its connection."""
        with self._changed:
            if assoc.counts:
                assoc.counts = False
                self._counted -= 1
                self._by_address[assoc.peer_address] -= 1
                if not self._by_address[assoc.peer_address]:
                    del self._by_address[assoc.peer_address]

    def ended(self, assoc: Association) -> None:
        self.no_longer_counts(assoc)
        with self._changed:
            self.live.discard(assoc)
            self._changed.notify_all()

    def wait_until_empty(self, deadline: float) -> bool:
        """Wait until no connection is left, or until `deadline` of `time.monotonic()`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.live, max(0.0, deadline - time.monotonic()))


# Its own annotations name the associations that ours replace.
_Base: Any = transport.AssociationServer


class AssociationServer(_Base):  # type: ignore[misc]
    """Listens for associations; as pynetdicom's server of that name, and for its `start_server` too."""

    def __init__(
        self,
        ae: Any,
        address: Any,
        ae_title: str,
        contexts: list[Any],
        ssl_context: Any = None,
        evt_handlers: Any = None,
        request_handler: Any = None,
        *,
        wire: Wire | None = None,
    ) -> None:
        self.wire = wire or Wire()
        self.wire.server = self
        self._heard: tuple[tuple[bool, ...], Hearing] | None = None
        self.wire.draining = self.wire.hurry = False  # an earlier server's
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._stopped = threading.Event()
        self._stopped.set()
        super().__init__(ae, address, ae_title, contexts, ssl_context, evt_handlers, request_handler)

    request_queue_size = 128

    # -- accepting --------------------------------------------------------------------------------------

    def serve_forever(self, poll_interval: float | None = None) -> None:  # noqa: ARG002
        """Accept until `shutdown` or `drain`; waits without polling, whatever `poll_interval` says."""
        self._stopped.clear()
        listener = self.socket
        listener.setblocking(False)
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._stopping:
                poll.poll()
                while not self._stopping:
                    try:
                        sock, address = listener.accept()
                    except (BlockingIOError, InterruptedError):
                        break
                    except OSError as exc:
                        if self._stopping or listener.fileno() < 0:
                            return
                        # Out of descriptors or memory: the backlog waits, the processor does not spin.
                        LOGGER.error("can't accept connections: %s", exc.strerror)
                        select.select([self._wake], [], [], 0.1)
                        break
                    self._accepted(sock, address)
        finally:
            self._stopped.set()

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        try:
            sock.setblocking(True)
            self.serve_connection(sock, address)
        except Exception:  # noqa: BLE001 - one connection's failure does not end the others
            sock.close()
            self.handle_error(sock, address)

    def serve_connection(self, sock: socket.socket, address: Any) -> Association:
        """Start an association on a connected socket, which is the association's from now on.

        TLS, if the server has a context, is negotiated by the association's own thread.
        """
        assoc = self._begin(sock, address, None)
        try:
            assoc.start()
        except RuntimeError:  # no thread left
            self.wire.ended(assoc)
            raise
        return assoc

    def run_connection(self, sock: socket.socket, address: Any, handed: Any) -> None:
        """As `serve_connection`, in the calling thread and to the end of the association.

        `handed` is what the caller knows the connection by; it stays with the association.
        """
        self._begin(sock, address, handed).run_reactor()

    def _begin(self, sock: socket.socket, address: Any, handed: Any) -> Association:
        if self.ssl_context:
            sock = self.ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        assoc = Association(self.ae, self.wire, sock, address)
        assoc.handed = handed
        assoc.hear(self._handlers, self._hearing())
        assoc.notify(evt.EVT_CONN_OPEN, {"address": address})
        self.wire.began(assoc)
        return assoc

    # -- handlers ---------------------------------------------------------------------------------------

    def bind(self, event: Any, handler: Any, args: Any = None) -> None:
        super().bind(event, handler, args)
        self._heard = None

    def unbind(self, event: Any, handler: Any) -> None:
        super().unbind(event, handler)
        self._heard = None

    def _hearing(self) -> Hearing:
        """What the handlers come to; the answer is kept while they stay the same."""
        said = talk()
        if self._heard is None or self._heard[0] != said:
            self._heard = said, hearing_of(self._handlers)
        return self._heard[1]

    # -- associations -----------------------------------------------------------------------------------

    @property
    def active_associations(self) -> list[Any]:
        """The associations whose connection is not closed yet."""
        return list(self.wire.live)

    @property
    def active(self) -> int:
        """How many those are."""
        return len(self.wire.live)

    # -- ending -----------------------------------------------------------------------------------------

    def _stop_accepting(self) -> None:
        self._stopping = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        self._stopped.wait()

    def server_close(self) -> None:
        super().server_close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; associations go on."""
        self._stop_accepting()
        self.server_close()
        if self in self.ae._servers:
            self.ae._servers.remove(self)

    def drain(self, deadline: float) -> bool:
        """Stop accepting, let each association finish the message in hand, then end it.

        `deadline` is a moment of `time.monotonic()`; what is not finished then is aborted. Returns whether
        everything finished in time.
        """
        self.shutdown()
        self.wire.draining = True
        for assoc in list(self.wire.live):
            assoc.drain()
        finished = self.wire.wait_until_empty(deadline)
        if not finished:
            self.wire.hurry = True
            for assoc in list(self.wire.live):
                assoc.abort(block=False)
                assoc.dul.socket.shutdown()
            self.wire.wait_until_empty(time.monotonic() + 1)
        return finished


class ThreadedAssociationServer(AssociationServer):
    """The name under which pynetdicom's `AE.start_server` knows a server that does not block."""
