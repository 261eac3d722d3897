"""The server: a supervisor that listens, and processes that serve associations on one archive."""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pacs_core.archive import Archive, Held
from pacs_core.archive.fill import Filling
from pacs_core.archive.place import Place
from pacs_core.client import Remote, Sent, Timeouts
from pacs_core.client.forwarding import forward
from pacs_core.client.reporting import reporting
from pacs_core.config import Decision, Peer, PeerBook, Peers, Refusal, Right, Settings
from pacs_core.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_core.dimse.commitment import CommitmentService
from pacs_core.dimse.find import FindService
from pacs_core.dimse.identifier import QueryRequest
from pacs_core.dimse.mpps import MppsService
from pacs_core.dimse.negotiation import LIMIT_EXCEEDED, Preferences, Rejection
from pacs_core.dimse.reporting import Call, Reporting
from pacs_core.dimse.retrieve import RetrieveService
from pacs_core.dimse.retrieving import Sender
from pacs_core.dimse.server import AssociationServer, Budget, Wire
from pacs_core.dimse.service import DimseService
from pacs_core.dimse.storage import Answer
from pacs_core.dimse.store import StoreService, failure_of
from pacs_core.dimse.worklist import WorklistService
from pacs_core.errors import ArchiveError, IndexSharedError
from pacs_core.lifecycle import Health, Service, Services, Watch
from pacs_core.logs import configure, get_logger
from pacs_core.pool.child import Connection, Inbox
from pacs_core.pool.profile import Workload, profile
from pacs_core.pool.supervisor import Limits, Supervisor, listen
from pacs_core.secure import accepting, calling
from pacs_core.workflow import Patience

log = get_logger("server")

LARGEST_IDENTIFIER = 12 << 20
"""Bytes of a data set that is not stored, such as a query's: it is held outside the memory budget. A storage
commitment request for 65,535 instances, with the longest UIDs, has 10.5 MB."""
_RESIGN_SECONDS = 1.0

# PS3.8 9.3.4; the address of a known AE title is part of recognising it.
_REJECTIONS = {Refusal.CALLED_AET: (1, 1, 7), Refusal.CALLING_AET: (1, 1, 3), Refusal.ADDRESS: (1, 1, 3)}


class Server:
    """A DICOM node on one archive, in processes of its own.

    >>> Server(Settings()).run()            # doctest: +SKIP
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._supervisor: Supervisor | None = None

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or `stop`; the exit code: 0 if all ended in order.

        Raises
        ------
        ConfigError
            An address can't be listened on, a certificate can't be used, the peers file is wrong.
        ArchiveError
            The archive can't be used, or another server has it.
        """
        settings = self.settings
        with ExitStack() as stack:
            place = Place.at(settings.archive.path, create=True)
            stack.enter_context(place.server_lock())
            place.health.unlink(missing_ok=True)
            stack.callback(place.health.unlink, missing_ok=True)
            # What is wrong is said here, once, and not by each process.
            with Archive.of(settings.archive) as archive:
                archive.state  # noqa: B018  opened
            PeerBook(settings)
            secure = accepting(settings.tls) is not None
            listeners = [] if settings.tls.only else listen(settings.server.host, settings.server.port)
            plain = len(listeners)
            if secure:
                listeners += listen(settings.server.host, settings.tls.port)
            processes = profile(Workload.INGEST, processes=settings.pool.acceptors).processes
            self._supervisor = Supervisor(
                listeners,
                target="pacs_core.server:serve_connections",
                argument=(settings, plain),
                processes=processes,
                limits=Limits(
                    settings.server.maximum_associations, settings.server.maximum_associations_per_peer
                ),
                drain_seconds=settings.server.drain_seconds,
                reported=lambda reports: _write_health(place, reports),
                listening=lambda: log.info(
                    "listening",
                    host=settings.server.host,
                    port=listeners[0].getsockname()[1] if plain else None,
                    tls_port=listeners[plain].getsockname()[1] if secure else None,
                    aet=settings.server.aet,
                    archive=str(place.root),
                    processes=processes,
                ),
            )
            return self._supervisor.run()

    def stop(self) -> None:
        """Drain and return from `run`; from any thread. Called again: at once."""
        if self._supervisor is not None:
            self._supervisor.stop()


def _write_health(place: Place, reports: Sequence[bytes]) -> None:
    """What the serving processes say of their services, for `health`; null of one that is not there."""
    partial = place.health.with_suffix(".part")
    with suppress(OSError):  # no room: it is old then, and the log says more
        partial.write_text(json.dumps([json.loads(report or b"null") for report in reports]))
        partial.replace(place.health)


def health(archive: str | os.PathLike[str]) -> dict[str, Health]:
    """How the services are of the server that runs on an archive: of each the worst that a process says.

    Raises
    ------
    ArchiveError
        There is no archive, or no server runs on it.
    """
    place = Place.at(archive, create=False)
    try:
        reports = json.loads(place.health.read_text())
    except FileNotFoundError:
        raise ArchiveError(f"no server is up on {place.root}") from None
    if not place.is_served():
        raise ArchiveError(f"no server runs on {place.root} any more")
    gone = sum(report is None for report in reports)
    found = {"processes": Health(not gone, f"{gone} of {len(reports)} are not there" if gone else "")}
    for report in filter(None, reports):
        for name, (well, words) in report.items():
            found[name] = min(found.get(name, Health(True, words)), Health(well, words), key=lambda h: h.well)
    return found


def serve_connections(inbox: Inbox, argument: tuple[Settings, int]) -> None:
    """One serving process: takes connections from the supervisor until it says that no more will come."""
    settings, plain = argument
    configure(settings.log)
    with Archive.of(settings.archive) as archive:
        node = Node(settings, archive, inbox)
        services = Services([*node.services, Filling(archive), node])
        watch = Watch(services, lambda found: inbox.report(json.dumps(found).encode()))
        with services, Services([watch]) as watched:
            inbox.ready()
            inbox.serve(lambda connection: node.serve(connection, secure=connection.listener >= plain))
            watched.stop()  # what is drained is not well any more, nor has it to be
            services.drain(time.monotonic() + inbox.remaining)


class Node(Service):
    """The edge of one serving process: its services, and the connections it was handed."""

    name = "associations"

    def __init__(self, settings: Settings, archive: Archive, inbox: Inbox) -> None:
        self._admission = Admission(settings)
        self._inbox = inbox
        may = self._admission.may
        storing = StoreService(archive, may, settings.wire.sop_classes)
        finding = FindService(archive, settings.server.aet, may)
        retrieving = RetrieveService(archive, may, Destinations(settings, archive, self._admission))
        scheduling = WorklistService(archive.worklist, may)
        performing = MppsService(archive.performed, may)
        stored = frozenset(offer.sop_class for offer in storing.offers())
        callers = Callers(settings, self._admission)
        kept = settings.commitment
        patience = Patience(kept.retry_first, kept.retry_factor, kept.retry_longest, kept.give_up_after)
        committing = CommitmentService(
            archive.commitments, Reporting(archive, stored, callers, patience, kept.keep), may
        )
        self.services: tuple[DimseService, ...] = (storing, finding, retrieving)
        self.services += (scheduling, performing, committing)
        wire = settings.wire
        shared: dict[str, Any] = {
            "storage": storing,
            "queries": [finding, scheduling],
            "retrievals": retrieving,
            "operations": [performing, committing],
            "established": committing.established,
            "admission": self._admission,
            "failure": self._failure,
            "preferences": Preferences(
                requestors_order=not wire.prefer_own_transfer_syntax,
                unknown_storage=wire.accept_unknown_sop_classes,
                unknown_transfer_syntaxes=wire.accept_unknown_transfer_syntaxes,
            ),
            "spool_at": wire.spool_at,
            "budget": Budget(wire.memory_budget),
            "largest_in_memory": LARGEST_IDENTIFIER,
            "may_echo": lambda calling, called, address: may(calling, called, address, Right.ECHO),
        }
        entity = application_entity(settings, self.services)
        context = accepting(settings.tls)
        self._servers = {
            secure: _Handed(
                entity,
                settings.server.aet,
                tls,
                [],
                _Counted(inbox, **shared),
            )
            for secure, tls in ((False, None), (True, context))
        }

    def serve(self, connection: Connection, *, secure: bool) -> None:
        """Serve a connection to its end; the supervisor hears when it is closed."""
        server = self._servers[secure]
        server.run_connection(connection.socket, (connection.address, connection.port), connection)

    def _failure(self, exc: Exception) -> Answer:
        if isinstance(exc, IndexSharedError):
            # Whoever comes last can go back: the others have to let go of the index first.
            log.error("this process ends, to be started again", why=str(exc))
            self._inbox.end(_RESIGN_SECONDS)
        return failure_of(exc)

    def drain(self, deadline: float) -> None:
        """Let messages in hand finish, then end all associations."""
        threads = [
            threading.Thread(target=server.drain, args=(deadline,)) for server in self._servers.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class Admission:
    """Who may come in, and what for: the known peers and the policy, as they are now."""

    def __init__(self, settings: Settings) -> None:
        self._book = PeerBook(settings)
        self._problem: str | None = None

    def __call__(self, calling: str, called: str, address: str) -> Rejection | None:
        """The rejection of an association request, None to let it in."""
        refusal = self._decide(calling, called, address)
        if refusal.refusal is None:
            return None
        return Rejection(
            *_REJECTIONS[refusal.refusal], f"{refusal.refusal.value}; to admit it: {refusal.hint}"
        )

    def may(self, calling: str, called: str, address: str, service: Right) -> bool:
        """Whether an admitted peer may use a service."""
        return self._decide(calling, called, address).may(service)

    def destination(self, aet: str) -> Peer | None:
        """The peer that a C-MOVE to that AE title sends to, None if there is none."""
        return self._current().destination(aet)

    def listener(self, aet: str) -> Peer | None:
        """The peer that is told on associations of ours what it asked for, None if it listens nowhere."""
        peer = self._current().get(aet)
        return peer if peer is not None and peer.host and Right.COMMIT in peer.may else None

    def _decide(self, calling: str, called: str, address: str) -> Decision:
        return _decision(self._current(), calling, called, address)

    def _current(self) -> Peers:
        peers = self._book.current()
        if self._book.problem != self._problem:
            self._problem = self._book.problem
            if self._problem is not None:
                log.error("the peers file is wrong; the peers of before stay", why=self._problem)
        return peers


@lru_cache(maxsize=4096)
def _decision(peers: Peers, calling: str, called: str, address: str) -> Decision:
    return peers.admit(calling, called, address)


class Destinations:
    """What sends to the destinations of C-MOVE: our client, to the known peers."""

    def __init__(self, settings: Settings, archive: Archive, admission: Admission) -> None:
        self._settings = settings
        self._archive = archive
        self._admission = admission

    def __call__(self, aet: str) -> Sender | None:
        """What sends to that AE title, None if it is no destination."""
        peer = self._admission.destination(aet)
        if peer is None:
            return None
        remote = remote_of(self._settings, peer, self._settings.server.aet)
        associations = peer.associations or self._settings.retrieve.move_associations

        def send(
            instances: Sequence[Held], request: QueryRequest, stop: threading.Event
        ) -> Iterator[Sent | None]:
            return forward(
                self._archive,
                remote,
                instances,
                originator=(request.calling_ae_title, request.message_id),
                priority=request.priority,
                associations=associations,
                stop=stop,
            )

        return send


class Callers:
    """What calls the peers that wait for results of storage commitment: our client."""

    def __init__(self, settings: Settings, admission: Admission) -> None:
        self._settings = settings
        self._admission = admission

    def __call__(self, calling: str, called: str) -> Call | None:
        """What calls the peer `calling`, as the AE title that it called us by; None if it listens nowhere."""
        peer = self._admission.listener(calling)
        return None if peer is None else partial(reporting, remote_of(self._settings, peer, called))


def remote_of(settings: Settings, peer: Peer, aet: str) -> Remote:
    """A known peer, to be called as `aet`."""
    wire = settings.wire
    timeouts = Timeouts(acse=wire.artim_timeout, dimse=wire.dimse_timeout, write=wire.network_timeout)
    tls = calling(settings.tls) if peer.tls else None
    return Remote(peer.host, peer.port, peer.aet.strip(), aet, tls, timeouts=timeouts)


class _Counted(Wire):
    """The associations of one server of a process, whose limits are the supervisor's."""

    def __init__(self, inbox: Inbox, **shared: Any) -> None:
        super().__init__(**shared)
        self._inbox = inbox

    def count(self, assoc: Any) -> Rejection | None:
        """Over the limit is what the supervisor found so when it accepted."""
        return LIMIT_EXCEEDED if assoc.handed.over_limit else None

    def ended(self, assoc: Any) -> None:
        super().ended(assoc)
        self._inbox.closed(assoc.handed.number)


class _Handed(AssociationServer):
    """A server that listens nowhere: its connections are handed to it."""

    def __init__(
        self, entity: AE, aet: str, tls: ssl.SSLContext | None, handlers: list[Any], counted: _Counted
    ) -> None:
        self.counted = counted
        super().__init__(
            entity, ("127.0.0.1", 0), aet, entity.supported_contexts, tls, handlers, wire=counted
        )

    def server_bind(self) -> None:
        """Nothing to bind."""

    def server_activate(self) -> None:
        """Nothing to listen on."""


def application_entity(settings: Settings, services: Iterable[DimseService]) -> AE:
    """Our AE: what it supports, its timeouts and limits. Whoever accepts counts connections, not it."""
    entity = AE(settings.server.aet)
    entity.maximum_pdu_size = settings.wire.maximum_pdu_length
    entity.acse_timeout = settings.wire.artim_timeout
    entity.dimse_timeout = settings.wire.dimse_timeout
    entity.network_timeout = settings.wire.network_timeout
    entity.maximum_associations = 1 << 30
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.add_supported_context(Verification)
    for service in services:
        for sop_class, syntaxes, both in service.offers():
            roles = {"scu_role": True, "scp_role": True} if both else {}
            entity.add_supported_context(UID(sop_class), list(syntaxes), **roles)
    return entity
