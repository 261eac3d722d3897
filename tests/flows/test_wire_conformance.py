"""CONFORMANCE 1 to 9: the upper layer and DIMSE rules, with a peer that sends bytes (PS3.7, PS3.8)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind
from rawpeer import CT, EXPLICIT, IMPLICIT, Kept, Peer, echo, p_data, pdv, request, serving, store, until

from pacs_core._ext import associate
from pacs_core._ext.buffer import Budget
from pacs_core._ext.command import encode, encode_store_rq
from pacs_core.dimse.negotiation import Preferences, Rejection
from pacs_core.dimse.storage import Answer

FIND = str(PatientRootQueryRetrieveInformationModelFind)


# -- 1 --------------------------------------------------------------------------------------------------


def rejection(peer: Peer, wire: bytes) -> tuple[int, int, int]:
    peer.send(wire)
    answer = peer.pdu()
    assert answer[:6] == b"\x03\x00\x00\x00\x00\x04"
    return answer[7], answer[8], answer[9]


def test_1_reserved_bytes_and_higher_version_bits_are_ignored() -> None:
    wire = bytearray(request())
    wire[1] = 0xFF
    wire[6:8] = b"\xff\xff"
    wire[8:10] = b"\xaa\xaa"
    wire[42:74] = b"\x55" * 32
    with serving() as server, Peer(server) as peer:
        peer.send(bytes(wire))
        assert peer.pdu()[0] == 2
        peer.send(echo())
        assert peer.response().status == 0
        peer.released()


def test_1_version_bit_0_missing_is_1_2_2() -> None:
    wire = bytearray(request())
    wire[6:8] = b"\x00\x02"
    with serving() as server, Peer(server) as peer:
        assert rejection(peer, bytes(wire)) == (1, 2, 2)


def test_1_called_and_calling_titles() -> None:
    ae = AE("PACSCORE")
    ae.require_called_aet = True
    ae.require_calling_aet = ["FRIEND"]
    with serving(ae) as server:
        with Peer(server) as peer:
            assert rejection(peer, request(called="OTHER")) == (1, 1, 7)
        with Peer(server) as peer:
            assert rejection(peer, request(calling="STRANGER")) == (1, 1, 3)
        with Peer(server) as peer:
            peer.associated(calling="FRIEND")


def test_1_another_application_context_is_1_1_2() -> None:
    with serving() as server, Peer(server) as peer:
        assert rejection(peer, request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9")) == (
            1,
            1,
            2,
        )


def test_1_local_limit_is_2_3_2_and_gone_when_others_leave() -> None:
    ae = AE("PACSCORE")
    ae.maximum_associations = 1
    with serving(ae) as server:
        with Peer(server) as first:
            first.associated()
            with Peer(server) as second:
                assert rejection(second, request()) == (2, 3, 2)
            first.released()
        until(lambda: server.active == 0)
        with Peer(server) as third:
            third.associated()


def test_1_the_limit_per_peer_is_2_3_2() -> None:
    with serving(peer_limit=1) as server, Peer(server) as first, Peer(server) as second:
        first.associated()
        assert rejection(second, request()) == (2, 3, 2)


def test_1_admission_decides_and_the_log_says_how_to_get_in(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def admission(calling: str, called: str, address: str) -> Rejection | None:
        asked.append((calling, called, address))
        return Rejection(1, 1, 3, "pacs-core peers add RAWPEER")

    with serving(admission=admission) as server, Peer(server) as peer:
        assert rejection(peer, request()) == (1, 1, 3)
    assert asked == [("RAWPEER", "PACSCORE", "127.0.0.1")]
    for word in ("RAWPEER", "PACSCORE", "127.0.0.1", "pacs-core peers add RAWPEER"):
        assert word in caplog.text


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- 2 --------------------------------------------------------------------------------------------------


def test_2_artim_ends_half_open_connections_however_slow_they_write() -> None:
    ae = AE("PACSCORE")
    ae.acse_timeout = 0.3
    with serving(ae) as server, Peer(server) as silent, Peer(server) as slow:
        wire = request()
        started = time.monotonic()
        for i in range(20):
            try:
                slow.send(wire[i : i + 1])
            except OSError:
                break
            time.sleep(0.02)
        assert silent.at_end()
        assert slow.at_end()
        assert time.monotonic() - started < 2
        until(lambda: server.active == 0)


def test_2_two_thousand_bare_connects_leak_nothing() -> None:
    with serving() as server:
        Peer(server).sock.close()
        until(lambda: server.active == 0)
        before = open_descriptors(), threading.active_count()
        for i in range(2000):
            probe = socket.create_connection(server.server_address)
            if i % 20:  # most by reset: thousands of ports in TIME_WAIT would slow the client, not us
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            probe.close()
        until(lambda: server.active == 0, 20)
        until(lambda: threading.active_count() <= before[1])
        # The last ones may still have been waiting to be accepted just now.
        until(lambda: open_descriptors() <= before[0])


# -- 3 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", [0, 64, 4096])
def test_3_the_peers_maximum_is_honoured(maximum: int) -> None:
    find = [(1, FIND, [IMPLICIT])]
    answer = Dataset()
    answer.PatientName = "A" * 64
    answer.PatientComments = "B" * 9000

    def handle(_: Any) -> Any:
        yield 0xFF00, answer

    ae = AE("PACSCORE")
    ae.add_supported_context(FIND)
    with serving(ae, handlers=[(evt.EVT_C_FIND, handle)]) as server, Peer(server) as peer:
        peer.associated(contexts=find, maximum_length=maximum)
        command = encode({0x0002: FIND, 0x0100: 0x20, 0x0110: 1, 0x0700: 0, 0x0800: 1})
        peer.send(p_data(pdv(1, 3, command), pdv(1, 2, b"\x10\x00\x10\x00\x00\x00\x00\x00")))
        data = b""
        while True:
            received = peer.pdu()
            assert maximum == 0 or len(received) - 6 <= maximum
            if not received[11] & 1:
                data += received[12:]
                if received[11] & 2:
                    break
        assert data.count(b"B") == 9000


def test_3_a_pdu_longer_than_ours_is_refused_before_it_comes() -> None:
    with serving() as server, Peer(server) as peer:
        peer.associated()
        peer.send(struct.pack(">BBL", 4, 0, 0xFFFFFFF0))
        assert peer.pdu()[6:] == b"\x00\x00\x02\x06"
        peer.sock.close()


def test_3_lying_lengths_cost_no_memory() -> None:
    budget = Budget(1 << 30)
    ae = AE("PACSCORE")
    ae.maximum_pdu_size = 0
    with serving(ae, storage=Kept(), budget=budget) as server, Peer(server) as peer:
        peer.associated()
        peer.send(p_data(pdv(3, 3, encode_store_rq(1, CT, "1.2.3"))))
        peer.send(struct.pack(">BBLLBB", 4, 0, 16 << 20, (16 << 20) - 4, 3, 0) + b"abc")
        time.sleep(0.05)
        assert budget.peak <= 65536


def test_3_an_association_request_of_gigabytes() -> None:
    with serving() as server, Peer(server) as peer:
        peer.send(b"\x01\x00\xff\xff\xff\xff")
        assert peer.pdu()[0] == 7


# -- 4 --------------------------------------------------------------------------------------------------


def test_4_pdvs_in_every_arrangement() -> None:
    kept = Kept()
    command = encode_store_rq(1, CT, "1.2.3")
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        peer.send(p_data(pdv(3, 3, command), pdv(3, 0, b"ab"), pdv(3, 2, b"cd")))
        peer.send(p_data(pdv(3, 1, command[:20])) + p_data(pdv(3, 3, command[20:]), pdv(3, 0, b"")))
        peer.send(p_data(pdv(3, 0, b"abcd")) + p_data(pdv(3, 2, b"")))
        peer.send(p_data(pdv(3, 3, command), pdv(3, 2, b"")))
        assert [peer.response().status for _ in range(3)] == [0, 0, 0]
        assert kept.data == [b"abcd", b"abcd", b""]
        peer.released()


def test_4_fragments_of_two_contexts_are_never_mixed() -> None:
    kept = Kept()
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        peer.send(p_data(pdv(3, 3, encode_store_rq(1, CT, "1.2.3")), pdv(3, 0, b"ab")))
        peer.send(echo())
        assert peer.pdu() == b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x05"
        assert kept.data == []


def test_4_a_slow_writer_gets_its_answer() -> None:
    kept = Kept()
    with serving(storage=kept) as server, Peer(server) as peer:
        for byte in request():
            peer.send(bytes([byte]))
        assert peer.pdu()[0] == 2
        for byte in store(3, 1, b"x" * 300, 70):
            peer.send(bytes([byte]))
        assert peer.response().status == 0
        assert kept.data == [b"x" * 300]
        peer.released()


# -- 5 --------------------------------------------------------------------------------------------------


def test_5_a_hundred_and_twenty_eight_contexts_one_transfer_syntax_each() -> None:
    contexts = [(i, CT, [EXPLICIT, IMPLICIT]) for i in range(1, 257, 2)]
    with serving() as server, Peer(server) as peer:
        accepted = associate.decode_accept(peer.associated(contexts=contexts))
        assert len(accepted.results) == 128
        assert {result for result, _ in accepted.results.values()} == {0}


@pytest.mark.parametrize(("ours", "chosen"), [(False, EXPLICIT), (True, IMPLICIT)])
def test_5_the_order_of_preference_is_a_setting(ours: bool, chosen: str) -> None:
    ae = AE("PACSCORE")
    ae.add_supported_context(CT, [IMPLICIT, EXPLICIT])
    preferences = Preferences(requestors_order=not ours)
    with serving(ae, preferences=preferences) as server, Peer(server) as peer:
        answer = peer.associated(contexts=[(1, CT, [EXPLICIT, IMPLICIT])])
        assert associate.decode_accept(answer).results == {1: (0, chosen)}


def test_5_roles_are_answered_only_when_asked() -> None:
    ae = AE("PACSCORE")
    ae.add_supported_context(CT, [IMPLICIT], scu_role=True, scp_role=True)
    with serving(ae) as server:
        with Peer(server) as peer:
            assert associate.decode_accept(peer.associated(contexts=[(1, CT, [IMPLICIT])])).roles == {}
        with Peer(server) as peer:
            answer = peer.associated(contexts=[(1, CT, [IMPLICIT])], roles={CT: (True, True)})
            assert associate.decode_accept(answer).roles == {CT: (True, True)}


def test_5_unknown_classes_and_syntaxes_by_configuration() -> None:
    contexts = [(1, "1.2.3.4.5", ["1.2.3.4.6"]), (3, CT, ["1.2.3.4.7"])]
    kept = Kept()
    with serving() as server, Peer(server) as peer:
        results = associate.decode_accept(peer.associated(contexts=contexts)).results
        assert [result for result, _ in results.values()] == [3, 4]
    preferences = Preferences(unknown_storage=True, unknown_transfer_syntaxes=True)
    with serving(storage=kept, preferences=preferences) as server, Peer(server) as peer:
        results = associate.decode_accept(peer.associated(contexts=contexts)).results
        assert results == {1: (0, "1.2.3.4.6"), 3: (0, "1.2.3.4.7")}
        peer.send(p_data(pdv(1, 3, encode_store_rq(1, "1.2.3.4.5", "7.8")), pdv(1, 2, b"data")))
        assert peer.response().status == 0
        assert kept.requests[0].transfer_syntax_uid == "1.2.3.4.6"


def test_5_unknown_storage_reaches_a_pynetdicom_handler_too() -> None:
    got = []

    def handle(event: Any) -> int:
        got.append(event.request.DataSet.getvalue())
        return 0

    handlers = [(evt.EVT_C_STORE, handle)]
    preferences = Preferences(unknown_storage=True)
    with serving(handlers=handlers, preferences=preferences) as server, Peer(server) as peer:
        peer.associated(contexts=[(1, "1.2.3.4.5", [IMPLICIT])])
        peer.send(p_data(pdv(1, 3, encode_store_rq(1, "1.2.3.4.5", "7.8")), pdv(1, 2, b"data")))
        assert peer.response().status == 0
    assert got == [b"data"]


# -- 6 --------------------------------------------------------------------------------------------------


def test_6_a_pipelining_peer_is_answered_in_order() -> None:
    kept = Kept()
    with serving(storage=kept) as server, Peer(server) as peer:
        answer = peer.associated(async_ops=(8, 8))
        assert associate.decode_accept(answer).async_ops == (1, 1)
        peer.send(b"".join((store(3, i, bytes([i]) * 100) if i % 3 else echo(1, i)) for i in range(60)))
        assert [peer.response().message_id_being_responded_to for _ in range(60)] == list(range(60))
        assert kept.data == [bytes([i]) * 100 for i in range(60) if i % 3]


# -- 7 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("asked", [False, True])
def test_7_user_identity_is_answered_if_asked(kind: int, asked: bool) -> None:
    identity = associate.UserIdentity(kind, asked, b"someone", b"secret" if kind == 2 else b"")

    def verify(event: Any) -> tuple[bool, bytes | None]:
        assert event.user_id_type == kind
        return True, b"ticket"

    with serving(handlers=[(evt.EVT_USER_ID, verify)]) as server, Peer(server) as peer:
        answer = associate.decode_accept(peer.associated(user_identity=identity))
        wanted = b"ticket" if asked and kind > 2 else None
        assert answer.identity_response == wanted


def test_7_a_failed_identity_is_1_1_1() -> None:
    identity = associate.UserIdentity(2, True, b"someone", b"wrong")
    with serving(handlers=[(evt.EVT_USER_ID, lambda _: (False, None))]) as server, Peer(server) as peer:
        assert rejection(peer, request(user_identity=identity)) == (1, 1, 1)


# -- 8 --------------------------------------------------------------------------------------------------


def cancel(message_id: int, context_id: int = 1) -> bytes:
    return p_data(pdv(context_id, 3, encode({0x0100: 0x0FFF, 0x0120: message_id, 0x0800: 0x0101})))


def test_8_a_cancel_for_nothing_is_ignored() -> None:
    with serving(storage=Kept()) as server, Peer(server) as peer:
        peer.associated()
        peer.send(cancel(99) + echo() + cancel(1))
        assert peer.response().status == 0
        peer.send(echo(1, 2))
        assert peer.response().message_id_being_responded_to == 2
        peer.released()


def test_8_a_cancel_during_a_query_is_seen_at_once() -> None:
    def handle(event: Any) -> Any:
        for _ in range(1000):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            answer = Dataset()
            answer.PatientID = "1"
            yield 0xFF00, answer
            time.sleep(0.002)

    ae = AE("PACSCORE")
    ae.add_supported_context(FIND)
    with serving(ae, handlers=[(evt.EVT_C_FIND, handle)]) as server, Peer(server) as peer:
        peer.associated(contexts=[(1, FIND, [IMPLICIT])])
        command = encode({0x0002: FIND, 0x0100: 0x20, 0x0110: 7, 0x0700: 0, 0x0800: 1})
        peer.send(p_data(pdv(1, 3, command), pdv(1, 2, b"\x10\x00\x10\x00\x00\x00\x00\x00")))
        pending = 0
        status = 0xFF00
        while status == 0xFF00:
            response = peer.response()
            status = response.status or 0
            if response.has_data_set:
                peer.pdu()
            pending += 1
            if pending == 5:
                peer.send(cancel(7))
        assert status == 0xFE00
        assert pending < 100


# -- 9 --------------------------------------------------------------------------------------------------


def test_9_an_abort_closes_at_once() -> None:
    with serving() as server, Peer(server) as peer:
        peer.associated()
        peer.send(associate.encode_abort(0, 0))
        assert peer.at_end()
        until(lambda: server.active == 0)


def test_9_an_abort_in_the_middle_of_an_instance_leaves_nothing() -> None:
    kept = Kept()
    with serving(storage=kept, spool_at=65536) as server, Peer(server) as peer:
        peer.associated()
        wire = store(3, 1, b"x" * 3_000_000)
        peer.send(wire[:2_000_000])
        until(lambda: kept.chunks)
        peer.sock.close()
        until(lambda: server.active == 0)
        assert kept.discarded == 1
        assert kept.data == []


@pytest.mark.parametrize("last_word", ["release", "reject", "abort"])
def test_9_after_our_last_word_the_peer_closes_or_artim_does(last_word: str) -> None:
    ae = AE("PACSCORE")
    ae.acse_timeout = 0.4
    ae.require_called_aet = last_word == "reject"
    with serving(ae) as server, Peer(server) as peer:
        if last_word == "reject":
            assert rejection(peer, request(called="OTHER")) == (1, 1, 7)
        else:
            peer.associated()
            peer.send(associate.RELEASE_RQ if last_word == "release" else b"\x99" * 6)
            assert peer.pdu()[0] == (6 if last_word == "release" else 7)
        started = time.monotonic()
        peer.send(b"what is still under way " * 100)
        assert server.active == 1
        assert peer.at_end()
        assert 0.2 < time.monotonic() - started < 2


def test_9_release_collision() -> None:
    with serving() as server, Peer(server) as peer:
        peer.associated()
        ours = threading.Thread(target=server.active_associations[0].release)
        ours.start()
        assert peer.pdu() == associate.RELEASE_RQ
        # PS3.8 7.2.2.7: the requestor answers first, then the acceptor.
        peer.send(associate.RELEASE_RQ)
        peer.send(associate.RELEASE_RP)
        assert peer.pdu() == associate.RELEASE_RP
        peer.sock.close()
        ours.join(5)
        until(lambda: server.active == 0)


@pytest.mark.parametrize(
    "title", [b"PACSCORE\x00\x00\x00\x00\x00\x00\x00\x00", b"PACSCORE" + b" " * 8, b" PACSCORE" + b" " * 7]
)
def test_9_titles_with_nul_or_control_characters_get_in_and_do_not_come_out(title: bytes) -> None:
    ae = AE("PACSCORE")
    ae.require_called_aet = True
    wire = bytearray(request())
    wire[10:26] = title
    wire[26:42] = b"RAW\x07PEER\n".ljust(16, b"\x00")
    with serving(ae, storage=Kept()) as server, Peer(server) as peer:
        peer.send(bytes(wire))
        answer = peer.pdu()
        assert answer[0] == 2
        assert all(0x20 <= c < 0x7F for c in answer[10:42])


def test_9_the_answer_carries_what_the_handler_said() -> None:
    kept = Kept()
    kept.answer = Answer(0xA900, "not what it says", (0x00080018,))
    with serving(storage=kept) as server, Peer(server) as peer:
        peer.associated()
        peer.send(store(3, 5, b"data"))
        response = peer.response()
        assert (response.status, response.error_comment) == (0xA900, "not what it says")
        assert response.offending_elements == (0x00080018,)
        assert response.affected_sop_instance_uid == "1.2.3"
