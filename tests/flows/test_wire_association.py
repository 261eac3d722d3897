"""An association as handlers, other threads and a storage handler see it."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification
from rawpeer import CT, ECHO, IMPLICIT, Kept, Peer, echo, p_data, pdv, serving, store, until

from pacs_core._ext import associate, pdu
from pacs_core._ext.buffer import Budget
from pacs_core._ext.command import encode, encode_store_rq
from pacs_core._ext.link import Link
from pacs_core.dimse.secure import SecureLink
from pacs_core.errors import OutOfResourcesError

COMMITMENT = str(StorageCommitmentPushModel)


def test_the_storage_handler_sees_the_request() -> None:
    kept = Kept()
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        peer.send(store(3, 77, b"data" * 1000, uid="9.8.7"))
        assert peer.response().status == 0
        (request,) = kept.requests
        assert request.message_id == 77
        assert (request.sop_class_uid, request.sop_instance_uid) == (CT, "9.8.7")
        assert request.transfer_syntax_uid == IMPLICIT
        assert (request.calling_ae_title, request.called_ae_title) == ("RAWPEER", "PACSCORE")
        assert request.address == "127.0.0.1"
        assert request.association_id
        assert kept.data == [b"data" * 1000]


def test_an_unknown_exception_is_0110_and_the_association_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.fail = RuntimeError("DOE^JOHN")
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        peer.send(store(3, 1, b"data"))
        assert peer.response().status == 0x0110
        kept.fail = None
        peer.send(store(3, 2, b"data"))
        assert peer.response().status == 0
        peer.released()
    assert "RuntimeError" in caplog.text
    assert "DOE" not in "".join(r.getMessage() for r in caplog.records if r.levelname != "DEBUG")


def test_the_server_says_what_an_exception_means() -> None:
    from pacs_core.dimse.storage import Answer

    kept = Kept()
    kept.fail = OutOfResourcesError("disk full")
    with serving(storage=kept, failure=lambda _: Answer(0xA700, "no room")) as server, Peer(server) as peer:
        peer.associated()
        peer.send(store(3, 1, b"data"))
        assert peer.response().status == 0xA700


@pytest.mark.parametrize("where", ["nowhere", "begin", "write"])
def test_a_large_instance_is_streamed_and_a_failure_discards_its_rest(where: str) -> None:
    kept = Kept()
    budget = Budget(8 << 20)
    data = bytes(range(256)) * 80_000
    if where != "nowhere":
        setattr(kept, f"fail_{where}", RuntimeError("no"))
    with serving(storage=kept, spool_at=1 << 20, budget=budget) as server, Peer(server) as peer:
        peer.associated()
        peer.send(store(3, 1, data) + echo(1, 2))
        assert peer.response().status == (0 if where == "nowhere" else 0x0110)
        assert peer.response().status == 0
        if where == "nowhere":
            assert kept.data == [data]
        else:
            assert kept.data == []
            assert kept.discarded == (where == "write")
        peer.released()
    assert budget.peak <= 4 << 20
    kept.fail_begin = kept.fail_write = None  # their tracebacks hold the chunk that was in hand
    assert budget.used == 0


def test_the_budget_slows_peers_and_all_get_through() -> None:
    kept = Kept()
    budget = Budget(200_000)
    with serving(storage=kept, budget=budget) as server:

        def send() -> None:
            with Peer(server, timeout=20) as peer:
                peer.associated()
                for i in range(20):
                    peer.send(store(3, i, b"x" * 60_000))
                    assert peer.response().status == 0
                peer.released()

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(kept.data) == 160
    assert budget.peak <= 200_000


def test_a_pynetdicom_handler_without_a_native_one() -> None:
    got = []

    def handle(event: Any) -> int:
        got.append((event.dataset.PatientID, event.request.MessageID, event.context.abstract_syntax))
        return 0xB000

    with serving(handlers=[(evt.EVT_C_STORE, handle)], spool_at=65536) as server, Peer(server) as peer:
        peer.associated()
        large = b"\x10\x00\x10\x00" + (200_000).to_bytes(4, "little") + b"\x20" * 200_000
        peer.send(store(3, 4, b"\x10\x00\x20\x00\x04\x00\x00\x00ABCD" + large))
        assert peer.response().status == 0xB000
    assert got == [("ABCD", 4, CT)]


@pytest.mark.parametrize("missing", ["class", "instance", "data"])
def test_requests_that_lack_something_are_answered(missing: str) -> None:
    kept = Kept()
    fields: dict[int, Any] = {0x0002: CT, 0x0100: 1, 0x0110: 5, 0x0700: 0, 0x0800: 1, 0x1000: "1.2"}
    del fields[{"class": 0x0002, "instance": 0x1000, "data": 0x0700}[missing]]
    if missing == "data":
        fields[0x0800] = 0x0101
    wire = [pdv(3, 3, encode(fields))] + ([] if missing == "data" else [pdv(3, 2, b"data")])
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        peer.send(p_data(*wire))
        assert peer.response().status == {"class": 0x0122, "instance": 0x0117, "data": 0xC000}[missing]
        assert kept.data == []
        peer.released()


def test_another_thread_reports_an_event_over_an_idle_association() -> None:
    ae = AE("PACSCORE")
    ae.add_supported_context(COMMITMENT, [IMPLICIT], scu_role=True, scp_role=True)
    ae.add_supported_context(ECHO)
    with serving(ae) as server, Peer(server) as peer:
        contexts = [(1, ECHO, [IMPLICIT]), (3, COMMITMENT, [IMPLICIT])]
        peer.associated(contexts=contexts, roles={COMMITMENT: (True, True)})
        (assoc,) = server.active_associations
        until(lambda: assoc.is_established)
        results: list[Any] = []
        information = Dataset()
        information.TransactionUID = "1.2.3"

        def report() -> None:
            results.append(assoc.send_n_event_report(information, 1, COMMITMENT, "1.2.840.10008.1.20.1.1"))

        reporter = threading.Thread(target=report)
        reporter.start()
        command = peer.response()
        assert (command.command_field, command.event_type_id) == (0x0100, 1)
        assert b"1.2.3" in peer.pdu()
        # A request that arrives while the report waits for its answer is queued, and answered after it.
        peer.send(echo(1, 9))
        fields = {0x0002: COMMITMENT, 0x0100: 0x8100, 0x0120: command.message_id, 0x0800: 0x0101, 0x0900: 0}
        peer.send(p_data(pdv(3, 3, encode(fields))))
        reporter.join(5)
        assert results[0][0].Status == 0
        assert peer.response().message_id_being_responded_to == 9
        peer.released()


def test_what_is_posted_is_done_between_messages_by_the_association() -> None:
    with serving() as server, Peer(server) as peer:
        peer.associated()
        (assoc,) = server.active_associations
        until(lambda: assoc.is_established)
        done: list[str] = []
        ran = threading.Event()

        def job() -> None:
            done.append(f"job {threading.get_ident() == assoc._thread}")
            ran.set()

        assoc.post(job, lambda: done.append("unmet"))
        assert ran.wait(5)
        peer.send(echo(1, 9))
        assert peer.response().message_id_being_responded_to == 9
        peer.released()
        peer.sock.close()
        until(lambda: server.active == 0)
        assoc.post(job, lambda: done.append("unmet"))
        assert done == ["job True", "unmet"]


def test_a_peer_that_waits_for_us_may_be_silent() -> None:
    ae = AE("PACSCORE")
    ae.network_timeout = 0.2
    ae.add_supported_context(ECHO)
    with serving(ae) as server, Peer(server) as peer:
        peer.associated(contexts=[(1, ECHO, [IMPLICIT])])
        (assoc,) = server.active_associations
        assoc.expected_until = time.monotonic() + 60
        time.sleep(0.7)
        peer.send(echo(1, 9))
        assert peer.response().message_id_being_responded_to == 9
        assoc.expected_until = 0.0
        assert peer.pdu()[0] == 7


def test_shutdown_with_two_hundred_idle_associations_is_quick() -> None:
    ae = AE("PACSCORE")
    ae.maximum_associations = 300
    with serving(ae) as server:
        peers = [Peer(server) for _ in range(200)]
        for peer in peers:
            peer.associated()
        assert server.active == 200
        for peer in peers[:100]:  # the others never close
            threading.Thread(target=lambda p=peer: (p.pdu(), p.sock.close()), daemon=True).start()
        started = time.monotonic()
        server.drain(time.monotonic() + 1)
        assert time.monotonic() - started < 2.5
        assert server.active == 0
        for peer in peers:
            peer.sock.close()


def test_a_drain_lets_the_message_in_hand_finish() -> None:
    kept = Kept()
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        wire = store(3, 1, b"x" * 100_000)
        peer.send(wire[:50_000])
        time.sleep(0.05)
        drained = threading.Thread(target=server.drain, args=(time.monotonic() + 5,))
        drained.start()
        time.sleep(0.05)
        peer.send(wire[50_000:])
        assert peer.response().status == 0
        assert peer.pdu()[0] == 7
        peer.sock.close()
        drained.join(5)
        assert not drained.is_alive()


def test_who_comes_while_others_are_drained_is_drained_too() -> None:
    with serving(storage=Kept()) as server, Peer(server) as peer:
        peer.associated()
        wire = store(3, 1, b"x" * 100_000)
        peer.send(wire[:50_000])
        time.sleep(0.05)
        drained = threading.Thread(target=server.drain, args=(time.monotonic() + 10,))
        drained.start()
        time.sleep(0.1)
        # A connection that somebody else accepted, and whose thread comes only now to serve it.
        ours, theirs = socket.socketpair()
        with theirs:
            late = threading.Thread(target=server.run_connection, args=(ours, ("127.0.0.1", 1), None))
            late.start()
            late.join(3)
            assert not late.is_alive()
        peer.send(wire[50_000:])
        assert peer.response().status == 0
        peer.sock.close()
        drained.join(5)
        assert not drained.is_alive()


def test_abort_from_another_thread_and_from_a_handler() -> None:
    aborted = []

    def handle(event: Any) -> int:
        event.assoc.abort()
        return 0

    handlers = [(evt.EVT_C_ECHO, handle), (evt.EVT_ABORTED, lambda e: aborted.append(e.assoc.id))]
    with serving(handlers=handlers) as server:
        with Peer(server) as peer:
            peer.associated()
            server.active_associations[0].abort()
            assert peer.pdu() == associate.encode_abort(0, 0)
        with Peer(server) as peer:
            peer.associated()
            peer.send(echo())
            assert peer.pdu() == associate.encode_abort(0, 0)
    assert len(aborted) == 2


def test_handlers_bound_at_run_time_see_every_pdu_from_then_on() -> None:
    seen: list[Any] = []
    states: list[Any] = []

    def see(event: Any) -> None:
        seen.append((event.event.name, type(event.pdu).__name__))

    with serving(storage=Kept()) as server, Peer(server) as peer:
        peer.associated()
        peer.send(echo())
        peer.response()
        server.bind(evt.EVT_PDU_RECV, see)
        server.bind(evt.EVT_PDU_SENT, see)
        server.bind(
            evt.EVT_FSM_TRANSITION, lambda e: states.append((e.current_state, e.fsm_event, e.next_state))
        )
        peer.send(echo())
        peer.response()
        until(lambda: len(seen) == 2)
        assert seen == [("EVT_PDU_RECV", "P_DATA_TF"), ("EVT_PDU_SENT", "P_DATA_TF")]
        server.unbind(evt.EVT_PDU_RECV, see)
        server.unbind(evt.EVT_PDU_SENT, see)
        peer.send(store(3, 1, b"x" * 40_000))
        peer.response()
        peer.released()
        assert len(seen) == 2
    assert states[:2] == [("Sta6", "Evt10", "Sta6"), ("Sta6", "Evt9", "Sta6")]
    assert states[-2:] == [("Sta8", "Evt14", "Sta13"), ("Sta13", "Evt17", "Sta1")]


def test_pynetdicoms_objects_are_there_for_those_who_look() -> None:
    got: list[Any] = []

    def established(event: Any) -> None:
        assoc = event.assoc
        got.append((assoc.requestor.ae_title, assoc.remote["ae_title"], assoc.acceptor.ae_title))
        got.append([str(c.abstract_syntax) for c in assoc.accepted_contexts])
        got.append(assoc.requestor.maximum_length)

    with serving(handlers=[(evt.EVT_ESTABLISHED, established)]) as server, Peer(server) as peer:
        peer.associated()
        peer.send(echo())
        assert peer.response().status == 0
    assert got == [("RAWPEER", "RAWPEER", "PACSCORE"), [str(Verification), CT], 16384]


def test_a_write_to_a_peer_that_does_not_read_ends() -> None:
    ae = AE("PACSCORE")
    ae.network_timeout = 0.5
    with serving(ae, storage=Kept()) as server, Peer(server) as peer:
        peer.associated()
        until(lambda: server.active == 1)
        peer.sock.setblocking(False)
        wire = echo() * 1000
        end = time.monotonic() + 10
        while server.active and time.monotonic() < end:
            try:
                peer.sock.send(wire)
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        until(lambda: server.active == 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
         "-subj", "/CN=localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, cert


def tls(certificate: tuple[Path, Path]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side, and a client's that trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return context, client


def test_the_same_over_tls(certificate: tuple[Path, Path]) -> None:
    context, client = tls(certificate)
    kept = Kept()
    ae = AE("PACSCORE")
    ae.acse_timeout = 1
    data = bytes(range(256)) * 30_000
    with serving(ae, ssl_context=context, storage=kept, spool_at=1 << 20) as server:
        silent = Peer(server)  # never shakes hands, and keeps nobody waiting
        with Peer(server, context=client) as peer:
            peer.associated()
            peer.send(store(3, 1, b"small") + store(3, 2, data) + echo(1, 3))
            assert [peer.response().status for _ in range(3)] == [0, 0, 0]
            assert kept.data == [b"small", data]
            peer.released()
        assert silent.at_end()
        silent.sock.close()


def test_a_mid_message_stall_ends_by_the_network_timeout() -> None:
    ae = AE("PACSCORE")
    ae.network_timeout = 0.3
    with serving(ae, storage=Kept()) as server, Peer(server) as peer:
        peer.associated()
        peer.send(p_data(pdv(3, 3, encode_store_rq(1, CT, "1.2"))))
        assert peer.pdu()[0] == 7


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("where", ["PDU header", "command", "data set"])
def test_who_drips_ends_by_the_network_timeout(
    certificate: tuple[Path, Path], where: str, secure: bool
) -> None:
    ae = AE("PACSCORE")
    ae.network_timeout = 0.3
    wire = store(3, 1, b"x" * 2000)
    start = {"PDU header": 0, "command": 30, "data set": len(wire) - 1500}[where]
    ours, theirs = tls(certificate) if secure else (None, None)
    with serving(ae, ssl_context=ours, storage=Kept()) as server, Peer(server, context=theirs) as peer:
        peer.associated()
        peer.send(wire[:start])
        for at in range(start, len(wire)):
            peer.send(wire[at : at + 1])
            if select.select([peer.sock], [], [], 0.02)[0]:
                break
        assert at < len(wire) - 1
        assert peer.pdu()[0] == 7


def test_who_is_slow_but_not_that_slow_is_heard_out() -> None:
    """Also who begins long after the last message, just before the timeout."""
    ae = AE("PACSCORE")
    ae.network_timeout = 0.4
    kept = Kept()
    data = b"x" * 12_000
    wire = store(3, 1, data)
    with serving(ae, storage=kept) as server, Peer(server) as peer:
        peer.associated()
        time.sleep(0.3)
        for at in range(0, len(wire), 200):  # 10 KB/s, three times the timeout in all
            peer.send(wire[at : at + 200])
            time.sleep(0.02)
        assert peer.response().status == 0
        peer.released()
    assert kept.data == [data]


def test_who_waits_for_room_in_our_memory_is_not_silent() -> None:
    ae = AE("PACSCORE")
    ae.network_timeout = 0.2
    kept = Kept()
    kept.hold.clear()
    with serving(ae, storage=kept, budget=Budget(100_000)) as server, Peer(server) as first:
        first.associated()
        first.send(store(3, 1, b"x" * 60_000))
        until(lambda: kept.requests)
        with Peer(server) as second:
            second.associated()
            second.send(store(3, 1, b"y" * 60_000))
            time.sleep(1)  # five times the timeout
            kept.hold.set()
            assert first.response().status == 0
            assert second.response().status == 0
            second.released()
        first.released()


@pytest.mark.parametrize("length", [0, 1, 300, 300_000])
def test_a_file_goes_out_over_tls_as_over_a_plain_socket(
    certificate: tuple[Path, Path], tmp_path: Path, length: int
) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"head" + bytes(range(256)) * (length // 256) + b"t" * (length % 256) + b"beyond")
    context, client = tls(certificate)
    command = encode_store_rq(1, CT, "1.2.3")
    sent = []
    for secure in (True, False):
        ours, theirs = socket.socketpair()
        received = bytearray()

        def receive(sock: socket.socket, tls: bool, into: bytearray) -> None:
            reader = context.wrap_socket(sock, server_side=True) if tls else sock
            while piece := reader.recv(65536):
                into += piece
            reader.close()

        thread = threading.Thread(target=receive, args=(theirs, secure, received))
        thread.start()
        link: Any
        if secure:
            ours = client.wrap_socket(ours)
            link = SecureLink(pdu.TRANSFER, sock=ours)
        else:
            link = Link(pdu.TRANSFER, fd=ours.fileno())
        link.maximum_send = 1000
        with path.open("rb") as file:
            link.send_file(3, command, file.fileno(), 4, length)
        ours.close()
        thread.join(5)
        sent.append(bytes(received))
    assert sent[0] == sent[1]
    (event,) = [e for e in _engine().feed(sent[1]) if e.kind == pdu.MESSAGE]
    assert (b"" if event.data is None else bytes(event.data)) == path.read_bytes()[4 : 4 + length]


def _engine() -> pdu.Engine:
    engine = pdu.Engine(pdu.TRANSFER)
    engine.accept_contexts([3])
    return engine
