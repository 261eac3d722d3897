"""C-GET byte by byte: counters in each response, cancel, peers that misbehave, instances that go."""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import pacs_core
from pacs_core._ext.command import Command, encode, encode_store_rsp
from pacs_core.dicom.reading import read_dataset
from tests.flows.rawpeer import Peer, p_data, pdv
from tests.load.footprint import footprint, forget_peak
from tests.make import CT, encoded, instance, part10, uid
from tests.raw import RawSender
from tests.serving import Serving, serving

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
QUERY, STORE = 1, 3
LARGE = 60 << 20
PENDING, CANCELLED, SOME_FAILED = 0xFF00, 0xFE00, 0xB000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    archive = tmp_path_factory.mktemp("retrieve") / "archive"
    with pacs_core.Archive.open(archive) as kept:
        for number in range(1, 5):
            kept.store(part10(instance(number, study=1)))
            kept.store(part10(instance(number, study=4)))
        kept.store(part10(instance(1, study=5, size=LARGE)))
        kept.store(part10(instance(2, study=5)))
        kept.store(part10(instance(1, study=7, size=LARGE // 8)))
    with serving(archive, *("--set", "wire.dimse_timeout=2")) as server:
        yield server
        assert server.stop() == 0


class Message(NamedTuple):
    """What came: the context it came on, its command, and its data set."""

    context_id: int
    command: Command
    data: bytes


class Getter(Peer):
    """A requestor of C-GET that answers sub-operations as the test says."""

    def __init__(self, server: Serving, syntax: str = EXPLICIT) -> None:
        super().__init__(server, timeout=20)
        contexts = [(QUERY, GET, [EXPLICIT]), (STORE, CT, [syntax])]
        self.associated(contexts=contexts, roles={CT: (False, True)}, maximum_length=0)

    def get(self, study: int, message_id: int = 9) -> None:
        identifier = pacs_core.Dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid(study))
        command = encode({0x0002: GET, 0x0100: 0x10, 0x0110: message_id, 0x0700: 1, 0x0800: 1})
        self.send(p_data(pdv(QUERY, 3, command), pdv(QUERY, 2, identifier.to_bytes(EXPLICIT))))

    def cancel(self, message_id: int = 9) -> None:
        self.send(p_data(pdv(QUERY, 3, encode({0x0100: 0x0FFF, 0x0120: message_id, 0x0800: 0x0101}))))

    def messages(self) -> Iterator[Message]:
        """What the server sends; its fragments may share PDUs."""
        command, data = b"", bytearray()
        while True:
            pdu = self.pdu()
            assert pdu[0] == 4, pdu[:10]
            at = 6
            while at < len(pdu):
                length = int.from_bytes(pdu[at : at + 4], "big")
                context_id, control = pdu[at + 4], pdu[at + 5]
                piece = memoryview(pdu)[at + 6 : at + 4 + length]
                at += 4 + length
                if control & 1:
                    command += piece
                else:
                    data += piece
                if control & 2 and (control == 2 or not Command.decode(command).has_data_set):
                    yield Message(context_id, Command.decode(command), bytes(data))
                    command, data = b"", bytearray()

    def answer(self, message: Message, status: int = 0) -> None:
        request = message.command
        response = encode_store_rsp(request.message_id or 0, CT, request.affected_sop_instance_uid, status)
        self.send(p_data(pdv(message.context_id, 3, response)))


def counters(command: Command) -> tuple[int | None, ...]:
    return command.remaining, command.completed, command.failed, command.warning


def failed(message: Message) -> list[str]:
    """The SOP Instance UIDs that a response lists."""
    if not message.command.has_data_set:
        return []
    found = read_dataset(message.data, EXPLICIT).FailedSOPInstanceUIDList
    return [found] if isinstance(found, str) else list(found)


def test_26_27_counters_of_every_response(server: Serving) -> None:
    statuses = [0, 0xA700, 0xB000, 0]
    with Getter(server) as peer:
        peer.get(1)
        messages = peer.messages()
        said = []
        asked = []
        for status in statuses:
            message = next(messages)
            while message.command.is_response:
                said.append(message)
                message = next(messages)
            asked.append(message.command)
            time.sleep(0.11)  # a Pending response is due after each
            peer.answer(message, status)
        final = next(messages)
        peer.released()
    assert [command.affected_sop_instance_uid for command in asked] == [uid(1, 1, n) for n in range(1, 5)]
    assert {(command.command_field, command.priority) for command in asked} == {(1, 1)}
    assert len({command.message_id for command in asked}) == 4
    assert [counters(message.command) for message in said] == [(3, 1, 0, 0), (2, 1, 1, 0), (1, 1, 1, 1)]
    assert all(message.command.status == PENDING and not message.data for message in said)
    assert final.command.message_id_being_responded_to == 9
    assert (final.command.status, counters(final.command)) == (SOME_FAILED, (None, 2, 1, 1))
    assert failed(final) == [uid(1, 1, 2)]


def test_pending_responses_keep_a_pace(server: Serving) -> None:
    with Getter(server) as peer:
        peer.get(1)
        kinds = []
        for message in peer.messages():
            kinds.append((message.command.command_field, message.command.status))
            if message.command.is_response and message.command.status != PENDING:
                break
            if not message.command.is_response:
                peer.answer(message)
        peer.released()
    assert kinds.count((0x8010, PENDING)) == 1
    assert kinds[-1] == (0x8010, 0)


def test_8_26_a_cancel_leaves_the_rest(server: Serving) -> None:
    with Getter(server) as peer:
        for _ in range(2):  # what cancelled the first has no effect on the second
            peer.get(1)
            messages = peer.messages()
            first = next(messages)
            peer.cancel(message_id=8)
            peer.cancel()
            peer.answer(first, 0xA700)
            final = next(messages)
            assert (final.command.status, counters(final.command)) == (CANCELLED, (3, 0, 1, 0))
            assert failed(final) == [uid(1, 1, 1)]
            peer.cancel()
        peer.released()


def test_an_answer_that_never_comes_ends_the_association(server: Serving) -> None:
    with Getter(server) as peer:
        peer.get(1)
        next(peer.messages())
        assert peer.pdu()[0] == 7  # A-ABORT


def test_an_answer_to_nothing_is_no_answer(server: Serving) -> None:
    with Getter(server) as peer:
        peer.get(1)
        messages = peer.messages()
        first = next(messages)
        stray = {0x0002: CT, 0x0100: 0x8001, 0x0800: 0x0101, 0x0900: 0}
        peer.send(p_data(pdv(STORE, 3, encode(stray)), pdv(STORE, 3, encode({**stray, 0x0120: 4711}))))
        peer.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            next(messages)
        peer.sock.settimeout(5)
        peer.answer(first)
        assert peer.pdu()[0] == 4


def test_a_peer_that_goes_away_ends_its_retrieval_alone(server: Serving) -> None:
    with Getter(server) as peer:
        peer.get(1)
        next(peer.messages())
    test_pending_responses_keep_a_pace(server)


def test_requests_that_come_meanwhile_are_served_afterwards(server: Serving) -> None:
    with Getter(server) as peer:
        peer.get(1, message_id=9)
        peer.get(9, message_id=10)
        finals = []
        for message in peer.messages():
            if not message.command.is_response:
                peer.answer(message)
            elif message.command.status != PENDING:
                finals.append((message.command.message_id_being_responded_to, counters(message.command)))
                if len(finals) == 2:
                    break
        peer.released()
    assert finals == [(9, (None, 4, 0, 0)), (10, (None, 0, 0, 0))]


def test_what_is_removed_meanwhile_fails_alone(server: Serving) -> None:
    with Getter(server) as peer, pacs_core.Archive.open(server.archive) as archive:
        peer.get(4)
        messages = peer.messages()
        first = next(messages)
        # Its bytes, in a segment, may have been zeros when they were sent.
        archive.delete(instance=uid(4, 1, 1))
        archive.delete(instance=uid(4, 1, 3))
        peer.answer(first)
        final = first
        for message in messages:
            final = message
            if message.command.is_response and message.command.status != PENDING:
                break
            if not message.command.is_response:
                peer.answer(message)
        peer.released()
    assert (final.command.status, counters(final.command)) == (SOME_FAILED, (None, 2, 2, 0))
    assert failed(final) == [uid(4, 1, 1), uid(4, 1, 3)]


def test_a_file_that_is_removed_while_it_is_sent_arrives_whole(server: Serving) -> None:
    with Getter(server) as peer, pacs_core.Archive.open(server.archive) as archive:
        peer.get(7)
        time.sleep(0.3)  # the server is in the middle of it, and nobody reads
        archive.delete(instance=uid(7, 1, 1))
        messages = peer.messages()
        message = next(messages)
        assert message.data == encoded(instance(1, study=7, size=LARGE // 8))
        peer.answer(message)
        assert next(messages).command.status == 0


def test_38_a_large_instance_takes_little_memory(server: Serving) -> None:
    with Getter(server) as peer:
        forget_peak(server)
        before = footprint(server)
        peer.get(5)
        for message in itertools.islice(peer.messages(), 4):
            if not message.command.is_response:
                peer.answer(message)
            elif message.command.status != PENDING:
                assert counters(message.command) == (None, 2, 0, 0)
                break
        peer.released()
    assert footprint(server).peak - before.peak < 16 << 20


def odd(study: int, syntax: str) -> bytes:
    """A data set of an odd length, without padding."""
    for size in range(2, 100, 2):
        data = encoded(instance(1, study=study, size=size))
        if syntax == EXPLICIT:
            return data + b"\0"
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(data) + deflate.flush()
        if len(data) & 1:
            return data
    raise AssertionError("all of even length")


@pytest.mark.parametrize(("study", "syntax", "padding"), [(11, EXPLICIT, b""), (12, DEFLATED, b"\0")])
def test_13_what_came_with_an_odd_length_goes_out_so(
    server: Serving, study: int, syntax: str, padding: bytes
) -> None:
    """But a deflated stream, which has to be padded (PS3.5 A.5)."""
    data = odd(study, syntax)
    with RawSender(server.port, syntax) as sender:
        assert sender.store(uid(study, 1, 1), data).status == 0
    with Getter(server, syntax) as peer:
        peer.get(study)
        messages = peer.messages()
        message = next(messages)
        assert message.data == data + padding
        peer.answer(message)
        assert next(messages).command.status == 0
        peer.released()
