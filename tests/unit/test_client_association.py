"""An association that we request: made, refused, lost, released (PS3.8 7, 9.3; CONFORMANCE 3 to 7, 9)."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt

from pacs_core._ext import associate, pdu
from pacs_core._ext.associate import UserIdentity
from pacs_core._ext.pdu import fragment
from pacs_core.client import VERIFICATION, Association, Client, Remote, Timeouts, part_of_file
from pacs_core.errors import AssociationError, PacsError, StorageError, UnparsableError
from tests import make
from tests.scripted import Caller, scripted

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ECHO = [(VERIFICATION, [IMPLICIT])]
CT = [(make.CT, [EXPLICIT])]
QUICK = Timeouts(connect=2, acse=0.3, dimse=0.3, write=2, artim=0.3)


def remote(port: int, **settings: object) -> Remote:
    return Remote("127.0.0.1", port, "THEM", "US", **settings)  # type: ignore[arg-type]


def why_not(
    script: object, contexts: list[tuple[str, list[str]]] = ECHO, **settings: object
) -> AssociationError:
    """The error of an association with a scripted peer."""
    with (
        scripted(script) as peer,  # type: ignore[arg-type]
        pytest.raises(AssociationError) as caught,
        Association(remote(peer.port, **settings), contexts) as association,
    ):
        association.echo()
    return caught.value


def test_echo_and_release_with_pynetdicom() -> None:
    released = threading.Event()
    ae = AE("THEM")
    ae.add_supported_context(VERIFICATION)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_RELEASED, lambda _: released.set())]
    )
    try:
        port = server.socket.getsockname()[1]
        assert 0 < Client("127.0.0.1", port, aec="THEM").echo() < 5
        assert released.wait(5)
        with Association(remote(port), ECHO) as association:
            assert [association.echo().status for _ in range(20)] == [0] * 20
            assert association.is_open
        assert not association.is_open
    finally:
        server.shutdown()


def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")

    def run() -> None:
        for number in range(2):
            sock, _ = listener.accept()
            with sock:
                Caller(sock, number).serve()

    thread = threading.Thread(target=run)
    thread.start()
    for host in ("::1", "[::1]"):
        client = Client(host, listener.getsockname()[1])
        assert "at [::1]:" in str(client.remote)
        assert client.echo() > 0
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("triple", "words"),
    [
        ((1, 1, 1), "rejected-permanent, no-reason-given, by the service-user [1/1/1]"),
        ((1, 1, 2), "application-context-name-not-supported"),
        ((1, 1, 3), "calling-AE-title-not-recognized"),
        ((1, 1, 7), "called-AE-title-not-recognized, by the service-user [1/1/7]"),
        ((1, 2, 1), "no-reason-given, by the service-provider (ACSE related function)"),
        ((1, 2, 2), "protocol-version-not-supported"),
        ((2, 3, 1), "temporary-congestion, by the service-provider (presentation related function)"),
        ((2, 3, 2), "rejected-transient, local-limit-exceeded"),
        ((1, 1, 9), "unknown reason"),
    ],
)
def test_a_rejection_is_said_in_the_words_of_the_standard(triple: tuple[int, int, int], words: str) -> None:
    def script(caller: Caller) -> None:
        request = caller.await_request()
        assert (request.called_ae_title, request.calling_ae_title) == ("THEM", "US")
        caller.send(associate.encode_reject(*triple))
        assert caller.event() is None  # PS3.8 9.2, AE-4: the requestor closes

    error = why_not(script)
    assert words in str(error)
    assert "THEM at 127.0.0.1:" in str(error)
    assert "called by US" in str(error)
    assert error.rejection == triple


def test_pynetdicom_rejects_us() -> None:
    ae = AE("OTHER")
    ae.require_called_aet = True
    ae.add_supported_context(VERIFICATION)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        with pytest.raises(AssociationError, match=r"called-AE-title-not-recognized.*\[1/1/7\]"):
            Client("127.0.0.1", server.socket.getsockname()[1], aec="THEM").echo()
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [(0, 0, "by the service-user"), (2, 2, "by the service-provider, unexpected-PDU"), (2, 6, "invalid-PDU")],
)
def test_a_request_that_is_aborted(source: int, reason: int, words: str) -> None:
    def script(caller: Caller) -> None:
        caller.await_request()
        caller.send(associate.encode_abort(source, reason))
        assert caller.event() is None

    error = why_not(script)
    assert "aborted the association" in str(error)
    assert words in str(error)
    assert error.rejection is None


def test_nobody_listens(free_port: int) -> None:
    with pytest.raises(AssociationError, match=f"no connection to .*:{free_port}.*refused"):
        Association(remote(free_port), ECHO)


def test_a_name_that_is_none() -> None:
    with pytest.raises(AssociationError, match="no connection to"):
        Client("host.invalid", 104).echo()


def test_a_peer_that_says_nothing() -> None:
    error = why_not(lambda caller: [None for _ in iter(caller.event, None)], timeouts=QUICK)
    assert "no answer in 0.3 seconds" in str(error)


def test_a_peer_that_is_a_web_server() -> None:
    error = why_not(lambda caller: caller.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), timeouts=QUICK)
    assert "protocol error of the peer" in str(error)


def test_a_peer_that_closes() -> None:
    assert "connection closed" in str(why_not(lambda caller: caller.await_request() and None))


def test_an_answer_that_is_malformed() -> None:
    def script(caller: Caller) -> None:
        caller.await_request()
        caller.send(struct.pack(">BxL", 2, 80) + bytes(68) + b"\x21\x00\xff\xff" + bytes(8))
        event = caller.event()
        assert event is not None
        assert (event.kind, event.source) == (pdu.ABORT, 2)

    assert "malformed" in str(why_not(script, timeouts=QUICK))


def test_contexts_that_are_not_accepted_say_why() -> None:
    ae = AE("THEM")
    ae.add_supported_context(make.CT, [IMPLICIT])
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        contexts = [(make.CT, [IMPLICIT]), (make.CT, [EXPLICIT]), (VERIFICATION, [IMPLICIT])]
        with Association(remote(server.socket.getsockname()[1]), contexts) as association:
            assert association.accepted == {(make.CT, IMPLICIT): 1}
            assert association.refused == {
                (make.CT, EXPLICIT): "transfer-syntaxes-not-supported",
                (VERIFICATION, IMPLICIT): "abstract-syntax-not-supported",
            }
            with pytest.raises(AssociationError, match="abstract-syntax-not-supported"):
                association.echo()
            with pytest.raises(
                AssociationError, match=r"CT Image Storage \(1.*Explicit VR Little.*transfer-syntaxes"
            ):
                association.store_bytes(make.part10(make.instance()))
            assert association.is_open
    finally:
        server.shutdown()


def test_one_transfer_syntax_of_several_is_chosen_by_the_peer() -> None:
    ae = AE("THEM")
    ae.add_supported_context(make.CT, [EXPLICIT])
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        contexts = [(make.CT, [JPEGBaseline8Bit, EXPLICIT, IMPLICIT])]
        with Association(remote(server.socket.getsockname()[1]), contexts) as association:
            assert association.accepted == {(make.CT, EXPLICIT): 1}
    finally:
        server.shutdown()


def test_what_can_be_proposed() -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        Association(remote(1), [])
    with pytest.raises(ValueError, match="not 129"):
        Association(remote(1), [(f"1.2.{n}", [IMPLICIT]) for n in range(129)])
    with pytest.raises(ValueError, match="AE title"):
        Association(Remote("127.0.0.1", 1, "SEVENTEEN LETTERS", "US"), ECHO)


def test_128_contexts() -> None:
    with scripted(Caller.serve) as peer:
        contexts = [(f"1.2.{n}", [IMPLICIT]) for n in range(1, 129)]
        with Association(remote(peer.port), contexts) as association:
            assert sorted(association.accepted.values()) == list(range(1, 256, 2))


def test_user_identity_and_our_maximum_are_sent() -> None:
    identity = UserIdentity(2, False, b"jane", b"secret")
    with scripted(Caller.serve) as peer:
        who = remote(peer.port, user_identity=identity, maximum_pdu=65536)
        with Association(who, ECHO):
            request = peer.callers[0].request
        assert request.user_identity == identity
        assert request.maximum_length == 65536
        assert "secret" not in repr(who)


@pytest.mark.parametrize(("maximum", "longest"), [(4096, 4096), (9001, 9000), (0, 1 << 20)])
def test_the_peers_maximum_is_kept_to(maximum: int, longest: int, tmp_path: Path) -> None:
    """CONFORMANCE 3."""
    lengths: list[int] = []
    received: list[bytes] = []

    def script(caller: Caller) -> None:
        caller.accept(maximum_length=maximum)
        caller.engine.trace = True
        while (event := caller.event()) is not None:
            if event.kind == pdu.PDU:
                lengths.append(len(event.raw or b"") - 6)
            elif event.kind == pdu.MESSAGE:
                received.append(bytes(event.data or b""))
                caller.answer(event)
            elif event.kind == pdu.RELEASE_RQ:
                caller.send(associate.RELEASE_RP)

    path = make.file(tmp_path, make.instance(size=3 << 20))
    part = part_of_file(path)
    data = path.read_bytes()[part.offset :]
    with scripted(script) as peer, Association(remote(peer.port), CT) as association:
        assert association.store_file(path).status == 0
        assert association.store_bytes(path.read_bytes()).status == 0
    assert received == [data, data]
    assert max(lengths) <= longest
    assert max(lengths) > longest - 8


def test_an_impossible_maximum() -> None:
    assert "leaves no room" in str(why_not(lambda caller: caller.accept(maximum_length=6), timeouts=QUICK))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.2"])
def test_the_data_set_of_a_file_crosses_as_it_is(syntax: str, tmp_path: Path) -> None:
    received: list[bytes] = []

    def script(caller: Caller) -> None:
        caller.accept()
        while (event := caller.message()) is not None:
            received.append(bytes(event.data or b""))
            caller.answer(event, 0xB006, comment="elements\ndiscarded")

    path = make.file(tmp_path, make.instance(size=1001 * 2), syntax)
    part = part_of_file(path)
    assert (part.sop_class_uid, part.transfer_syntax_uid) == (make.CT, syntax)
    with scripted(script) as peer, Association(remote(peer.port), [(make.CT, [syntax])]) as association:
        answer = association.store_file(path)
        assert answer.status == 0xB006
        assert answer.comment == "elements?discarded"
        association.store_bytes(path.read_bytes())
    assert received == [path.read_bytes()[part.offset :]] * 2


def test_a_deflated_data_set_of_odd_length_is_padded(tmp_path: Path) -> None:
    """PS3.5 A.5; DCMTK aborts at a fragment of odd length."""
    received: list[bytes] = []

    def script(caller: Caller) -> None:
        caller.accept()
        while (event := caller.message()) is not None:
            received.append(bytes(event.data or b""))
            caller.answer(event)

    syntax = DeflatedExplicitVRLittleEndian
    path = make.file(tmp_path, make.instance(), syntax)
    even = path.read_bytes()
    start = part_of_file(path).offset
    even += bytes((len(even) - start) & 1)
    odd = even + b"\0"
    contents = (even, odd)
    with scripted(script) as peer, Association(remote(peer.port), [(make.CT, [syntax])]) as association:
        for content in contents:
            path.write_bytes(content)
            association.store_file(path)
            association.store_bytes(content)
    assert received == [even[start:]] * 2 + [odd[start:] + b"\0"] * 2


def test_a_sub_operation_names_its_move(tmp_path: Path) -> None:
    path = make.file(tmp_path, make.instance())
    seen: list[tuple[str, int | None, int | None]] = []

    def script(caller: Caller) -> None:
        caller.accept()
        while (event := caller.message()) is not None:
            command = event.command
            assert command is not None
            seen.append(
                (command.move_originator_ae_title, command.move_originator_message_id, command.priority)
            )
            caller.answer(event)

    with scripted(script) as peer, Association(remote(peer.port), CT) as association:
        association.store(part_of_file(path), originator=("MOVER", 7), priority=1)
    assert seen == [("MOVER", 7, 1)]


def lost(script: object, **settings: object) -> tuple[AssociationError, float]:
    """How a store fails with that peer, and after how long."""
    with scripted(script) as peer:  # type: ignore[arg-type]
        begun = time.monotonic()
        association = Association(remote(peer.port, **settings), CT)
        with pytest.raises(AssociationError) as caught:
            association.store_bytes(make.part10(make.instance()))
        seconds = time.monotonic() - begun
        assert not association.is_open
    with pytest.raises(AssociationError, match="is over"):
        association.store_bytes(make.part10(make.instance()))
    association.release()
    association.abort()
    return caught.value, seconds


def aborts(caller: Caller) -> None:
    caller.accept()
    caller.message()
    caller.send(associate.encode_abort(0, 0))
    assert caller.event() is None


def releases(caller: Caller) -> None:
    caller.accept()
    caller.message()
    caller.send(associate.RELEASE_RQ)
    caller.engine.phase = pdu.RELEASING
    event = caller.event()
    assert event is not None
    assert event.kind == pdu.RELEASE_RP


def answers_another(caller: Caller) -> None:
    caller.accept()
    event = caller.message()
    assert event is not None
    caller.answer(event, to=77)
    end = caller.event()
    assert end is not None
    assert (end.kind, end.source) == (pdu.ABORT, 0)


def breaks_off(caller: Caller) -> None:
    caller.accept()
    caller.message()


def breaks_the_protocol(caller: Caller) -> None:
    caller.accept()
    caller.message()
    caller.send(b"".join(fragment(99, b"x" * 20, False, 16384)))
    end = caller.event()
    assert end is not None
    assert (end.kind, end.source, end.reason) == (pdu.ABORT, 2, 6)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (aborts, "THEM at .* aborted the association: by the service-user"),
        (releases, "released the association"),
        (answers_another, "instead of the answer to message 1"),
        (breaks_off, "lost: connection closed"),
        (breaks_the_protocol, "protocol error of the peer: .*not accepted"),
    ],
)
def test_a_lost_association_says_how(script: object, words: str) -> None:
    error, _ = lost(script)
    assert re.search(words, str(error)), error


def test_no_answer_in_time_is_an_abort() -> None:
    ended: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        caller.message()
        event = caller.event()
        ended.append(event.kind if event is not None else 0)

    error, seconds = lost(script, timeouts=QUICK)
    assert "no answer in time" in str(error)
    assert 0.2 < seconds < 3
    assert ended == [pdu.ABORT]


def test_an_interrupt_ends_the_wait_with_an_abort() -> None:
    ended: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        caller.message()
        threading.Timer(0.1, association[0].interrupt).start()
        event = caller.event()
        ended.append(event.kind if event is not None else 0)

    association: list[Association] = []
    with scripted(script) as peer:
        association.append(Association(remote(peer.port), CT))
        with pytest.raises(AssociationError, match="interrupted"):
            association[0].store_bytes(make.part10(make.instance()))
    assert ended == [pdu.ABORT]


def test_a_peer_that_takes_nothing(tmp_path: Path) -> None:
    done = threading.Event()

    def script(caller: Caller) -> None:
        caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.accept()
        done.wait(10)

    path = make.file(tmp_path, make.instance(size=16 << 20))
    with scripted(script) as peer:
        association = Association(remote(peer.port, timeouts=QUICK._replace(write=0.3)), CT)
        with pytest.raises(AssociationError, match="does not take what we send"):
            association.store_file(path)
        done.set()


def test_a_release_collision() -> None:
    """CONFORMANCE 9, PS3.8 9.2: the requestor answers (Sta9) and waits for the answer to its own (Sta11)."""
    kinds: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        event = caller.event()
        assert event is not None
        kinds.append(event.kind)
        caller.engine.phase = pdu.RELEASING
        caller.send(associate.RELEASE_RQ)
        event = caller.event()
        assert event is not None
        kinds.append(event.kind)
        caller.send(associate.RELEASE_RP)
        assert caller.event() is None

    with scripted(script) as peer:
        Association(remote(peer.port), ECHO).release()
    assert kinds == [pdu.RELEASE_RQ, pdu.RELEASE_RP]


def test_a_release_that_is_not_answered() -> None:
    ended: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        ended.extend(event.kind for event in iter(caller.event, None))

    with scripted(script) as peer:
        Association(remote(peer.port, timeouts=QUICK), ECHO).release()
    assert ended == [pdu.RELEASE_RQ, pdu.ABORT]


def test_an_error_in_the_block_aborts() -> None:
    ended: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        ended.extend(event.kind for event in iter(caller.event, None))

    with (
        scripted(script) as peer,
        pytest.raises(KeyError),
        Association(remote(peer.port, timeouts=QUICK), ECHO),
    ):
        raise KeyError
    assert ended == [pdu.ABORT]


def test_a_file_that_shrinks_under_us(tmp_path: Path) -> None:
    ended: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        ended.extend(event.kind for event in iter(caller.event, None))

    path = make.file(tmp_path, make.instance(size=100_000))
    part = part_of_file(path)
    with path.open("r+b") as file:
        file.truncate(50_000)
    with scripted(script) as peer:
        association = Association(remote(peer.port, timeouts=QUICK), CT)
        with pytest.raises(StorageError, match=f"{path}: the file is shorter"):
            association.store(part)
        assert not association.is_open
    assert ended == [pdu.ABORT]


def test_a_file_that_is_gone_costs_nothing_but_itself(tmp_path: Path) -> None:
    path = make.file(tmp_path, make.instance())
    part = part_of_file(path)
    path.unlink()
    with scripted(Caller.serve) as peer, Association(remote(peer.port), CT) as association:
        with pytest.raises(StorageError, match="No such file"):
            association.store(part)
        assert association.store_bytes(make.part10(make.instance())).status == 0


def test_message_ids_go_round() -> None:
    with scripted(Caller.serve) as peer, Association(remote(peer.port), ECHO) as association:
        association._message_id = 0xFFFE
        assert [association.echo().status for _ in range(3)] == [0, 0, 0]
        assert association._message_id == 2


# -- what is in a file --------------------------------------------------------------------------------------


def test_meta_information_around_the_size_of_the_first_look(tmp_path: Path) -> None:
    ds = make.instance()
    whole = make.part10(ds)
    start = part_of_file(make.file(tmp_path, ds)).offset
    path = tmp_path / "long.dcm"
    for pad in range(4096 - start - 40, 4096 - start + 40, 2):
        private = struct.pack("<HH2sxxL", 2, 0x102, b"OB", pad) + bytes(pad)
        path.write_bytes(whole[:start] + private + whole[start:])
        part = part_of_file(path)
        assert part.offset == start + len(private)
        assert part.length == len(whole) - start
        assert part.sop_instance_uid == ds.SOPInstanceUID


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, EXPLICIT])
def test_a_bare_data_set_says_what_it_is_itself(syntax: str, tmp_path: Path) -> None:
    """CONFORMANCE 37: no preamble, no meta information."""
    ds = make.instance(size=20_000)
    whole = make.file(tmp_path, ds, syntax)
    data = whole.read_bytes()[part_of_file(whole).offset :]
    bare = tmp_path / "bare"
    bare.write_bytes(data)
    part = part_of_file(bare)
    assert part[:3] == (make.CT, ds.SOPInstanceUID, syntax)
    assert (part.offset, part.length) == (0, len(data))


def with_another_uid(ds: pydicom.Dataset, meta: bytes) -> bytes:
    """Meta information that says the instance is 1.2.3."""
    uid = ds.SOPInstanceUID.encode()
    assert uid in meta
    return meta.replace(uid, b"1.2.3".ljust(len(uid), b"\0"))


def test_the_data_set_knows_best_who_it_is(tmp_path: Path) -> None:
    """PS3.4 B.2.3: the peer compares the request with the data set, not with the meta of a file."""
    ds = make.instance(1)
    whole = make.part10(ds)
    path = make.file(tmp_path, ds)
    start = part_of_file(path).offset
    path.write_bytes(with_another_uid(ds, whole[:start]) + whole[start:])
    assert part_of_file(path).sop_instance_uid == ds.SOPInstanceUID


def test_a_uid_across_the_end_of_the_first_look(tmp_path: Path) -> None:
    ds = make.instance(1)
    whole = make.part10(ds)
    path = make.file(tmp_path, ds)
    start = part_of_file(path).offset
    seen = set()
    for pad in range(4096 - start - 140, 4096 - start + 20, 2):
        private = struct.pack("<HH2sxxL", 2, 0x102, b"OB", pad - 12) + bytes(pad - 12)
        path.write_bytes(with_another_uid(ds, whole[:start]) + private + whole[start:])
        seen.add(part_of_file(path).sop_instance_uid)
    # The whole UID, or, where the data set's is not seen, that of the meta information; never half of one.
    assert seen == {ds.SOPInstanceUID, "1.2.3"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty file"), (b"GIF89a" * 100, "not a DICOM file"), (bytes(128) + b"DICM", "no data set")],
)
def test_what_is_no_dicom_file_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(UnparsableError, match=words) as caught:
        part_of_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_a_data_set_that_does_not_say_what_it_is(keyword: str, tmp_path: Path) -> None:
    ds = make.instance()
    whole = make.file(tmp_path, ds)
    delattr(ds, keyword)
    bare = tmp_path / "bare"
    pydicom.dcmwrite(bare, ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
    data = bare.read_bytes()
    assert whole.exists()
    bare.write_bytes(data[data.index(b"\x08\x00") :])
    with pytest.raises(UnparsableError, match=r"no SOP (Class|Instance) UID"):
        part_of_file(bare)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PacsError, match="No such file"):
        part_of_file(tmp_path / "none")
