"""The engine without sockets: framing, assembly, limits (PS3.8 9.3, Annex E; CONFORMANCE 3, 4)."""

from __future__ import annotations

import gc
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_core._ext import command, pdu
from pacs_core._ext.buffer import Budget, Buffer
from pacs_core._ext.link import Link
from pacs_core._ext.pdu import Engine, Event, fragment
from tests.crash.faults import Faults

STORE = command.encode_store_rq(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")
ECHO = command.encode_echo_rq(1)


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def p_data(*items: bytes) -> bytes:
    body = b"".join(items)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def engine(phase: int = pdu.TRANSFER, **settings: object) -> Engine:
    made = Engine(phase, **settings)  # type: ignore[arg-type]
    made.accept_contexts([1, 3])
    return made


def only(events: list[Event]) -> Event:
    assert len(events) == 1, events
    return events[0]


def message(context_id: int, command_set: bytes, data: bytes | None, maximum: int) -> bytes:
    out = fragment(context_id, command_set, True, maximum)
    if data is not None:
        out += fragment(context_id, data, False, maximum)
    return b"".join(out)


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=9000), min_size=1, max_size=4),
    st.integers(8, 4096),
    st.lists(st.integers(1, 3000), min_size=1, max_size=20),
    st.booleans(),
)
def test_whatever_the_cuts_the_messages_come_out(
    data_sets: list[bytes], maximum: int, cuts: list[int], trace: bool
) -> None:
    wire = b"".join(message(1, STORE, data, maximum) for data in data_sets)
    receiver = engine(read_size=4096)
    receiver.trace = trace
    events: list[Event] = []
    at = 0
    turn = 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        events += receiver.feed(wire[at : at + size])
        at += size
        turn += 1
    messages = [e for e in events if e.kind == pdu.MESSAGE]
    assert [b"" if e.data is None else bytes(e.data) for e in messages] == data_sets
    assert all(e.command is not None and e.command.encoded == STORE for e in messages)
    if trace:
        assert b"".join(e.raw or b"" for e in events if e.kind == pdu.PDU) == wire


@given(st.binary(max_size=5000), st.integers(8, 4000))
def test_fragments_keep_to_the_maximum_and_are_even(data: bytes, maximum: int) -> None:
    pieces = fragment(5, data, False, maximum)
    assert b"".join(p[12:] for p in pieces) == data
    for piece in pieces:
        kind, _, length, item, context_id, control = struct.unpack(">BBLLBB", piece[:12])
        assert (kind, context_id, length, item) == (4, 5, len(piece) - 6, len(piece) - 10)
        assert length <= maximum
        assert control == (2 if piece is pieces[-1] else 0)
        assert len(piece) % 2 == 0 or piece is pieces[-1]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600), st.integers(1, 5))
def test_arbitrary_bytes_never_do_harm(noise: bytes, phase: int) -> None:
    receiver = engine(phase)
    events = receiver.feed(b"\x04\x00" + noise)
    events += receiver.feed(noise)
    assert all(isinstance(e.kind, int) for e in events[:100])


def test_command_and_data_in_one_pdu() -> None:
    event = only(engine().feed(p_data(pdv(1, 3, STORE), pdv(1, 0, b"ab"), pdv(1, 2, b"cd"))))
    assert event.kind == pdu.MESSAGE
    assert event.data is not None
    assert bytes(event.data) == b"abcd"


def test_a_zero_length_last_fragment() -> None:
    event = only(engine().feed(p_data(pdv(1, 3, STORE), pdv(1, 0, b"ab")) + p_data(pdv(1, 2, b""))))
    assert event.data is not None
    assert bytes(event.data) == b"ab"


def test_two_messages_in_one_pdu() -> None:
    events = engine().feed(p_data(pdv(1, 3, ECHO), pdv(3, 3, ECHO)))
    assert [(e.kind, e.context_id) for e in events] == [(pdu.MESSAGE, 1), (pdu.MESSAGE, 3)]


@pytest.mark.parametrize(
    ("wire", "reason", "what"),
    [
        (b"\x08\x00\x00\x00\x00\x00", 1, "unknown type"),
        (b"\x01\x00\x00\x00\x00\x44", 2, "state"),
        (b"\x06\x00\x00\x00\x00\x04", 2, "state"),
        (b"\x05\x00\x00\x00\x00\x05", 6, "fixed length"),
        (b"\x04\x00\xff\xff\xff\xff", 6, "longer than the maximum"),
        (b"\x04\x00\x00\x00\x10\x01", 6, "longer than the maximum"),
        (b"\x04\x00\x00\x00\x00\x00", 6, "without a PDV"),
        (b"\x04\x00\x00\x00\x00\x05", 6, "without context ID"),
        (p_data(struct.pack(">LBB", 1, 1, 3)), 6, "does not fit"),
        (p_data(struct.pack(">LBB", 3, 1, 3)), 6, "does not fit"),
        (p_data(struct.pack(">LBB", 0xFFFFFFFF, 1, 3)), 6, "does not fit"),
        (p_data(pdv(5, 3, ECHO)), 6, "not accepted"),
        (p_data(pdv(5, 3, STORE)), 6, "not accepted"),
        (p_data(pdv(5, 0, b"ab")), 6, "not accepted"),
        (p_data(pdv(2, 3, ECHO)), 6, "not accepted"),
        (p_data(pdv(0, 3, ECHO)), 6, "not accepted"),
        (p_data(pdv(1, 1, ECHO), pdv(3, 3, ECHO)), 5, "interleaved"),
        (p_data(pdv(1, 3, STORE), pdv(3, 2, b"ab")), 5, "interleaved"),
        (p_data(pdv(1, 3, STORE), pdv(1, 3, ECHO)), 5, "data set goes on"),
        (p_data(pdv(1, 2, b"ab")), 5, "before the command"),
        (p_data(pdv(1, 3, b"garbage!")), 0, "decoded"),
        (p_data(pdv(1, 3, STORE)) + b"\x05\x00\x00\x00\x00\x04", 2, "middle of a message"),
    ],
)
def test_protocol_errors(wire: bytes, reason: int, what: str) -> None:
    receiver = engine(maximum_pdu=4096)
    error = receiver.next_event() or _first_error(receiver, wire)
    assert (error.kind, error.source, error.reason) == (pdu.PROTOCOL_ERROR, 2, reason)
    assert what in (error.text or "")


def _first_error(receiver: Engine, wire: bytes) -> Event:
    space = receiver.get_buffer()
    space[: len(wire)] = wire
    receiver.buffer_updated(len(wire))
    event = receiver.next_event()
    assert event is not None
    again = receiver.next_event()
    assert again is not None, "an engine that met an error stays there"
    assert again.kind == pdu.PROTOCOL_ERROR
    return event


def test_a_command_set_is_bounded() -> None:
    receiver = engine()
    piece = p_data(pdv(1, 1, b"\x00" * 16000))
    for _ in range(4):
        assert receiver.feed(piece) == []
    assert _first_error(receiver, piece).kind == pdu.PROTOCOL_ERROR


def test_an_association_pdu_is_bounded() -> None:
    receiver = Engine(pdu.AWAIT_REQUEST)
    assert _first_error(receiver, b"\x01\x00\x00\x20\x00\x00").reason == 6


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (pdu.AWAIT_REQUEST, pdu.ASSOCIATE_RQ),
        (pdu.AWAIT_REPLY, pdu.ASSOCIATE_AC),
        (pdu.TRANSFER, pdu.RELEASE_RQ),
        (pdu.RELEASING, pdu.RELEASE_RP),
        (pdu.TRANSFER, pdu.ABORT),
    ],
)
def test_association_pdus_come_whole(phase: int, kind: int) -> None:
    body = b"\x00\x01\x02\x05" + (b"\x00" * 300 if kind <= 2 else b"")
    wire = struct.pack(">BBL", kind, 0, len(body)) + body
    receiver = engine(phase)
    assert receiver.feed(wire[:9]) == []
    event = only(receiver.feed(wire[9:]))
    assert (event.kind, event.raw) == (kind, wire)
    if kind == pdu.ABORT:
        assert (event.source, event.reason) == (2, 5)


def test_a_cancel_may_come_on_any_context() -> None:
    cancel = command.encode({0x0100: 0x0FFF, 0x0120: 7, 0x0800: 0x0101})
    event = only(engine().feed(p_data(pdv(7, 3, cancel))))
    assert (event.kind, event.context_id) == (pdu.MESSAGE, 7)


def test_reserved_control_bits_are_not_looked_at() -> None:
    assert only(engine().feed(p_data(pdv(1, 0xFF, ECHO)))).kind == pdu.MESSAGE


def test_closing_throws_everything_away() -> None:
    receiver = engine(pdu.CLOSING)
    assert receiver.feed(p_data(pdv(1, 3, ECHO)) + b"nonsense" * 100) == []


def test_a_large_data_set_comes_in_chunks() -> None:
    data = bytes(range(256)) * 256 * 5  # 320 KiB
    receiver = engine(spool_at=65536, chunk=16384)
    events = receiver.feed(message(1, STORE, data, 10000) + message(1, STORE, b"xy", 10000))
    chunks = events[:-1]
    assert [e.kind for e in chunks[:-1]] == [pdu.CHUNK] * (len(chunks) - 1)
    assert chunks[-1].kind == pdu.MESSAGE
    assert all(e.streamed for e in chunks)
    sizes = [0 if e.data is None else len(e.data) for e in chunks]
    assert sizes[0] == 65536
    assert set(sizes[1:-1]) == {16384}
    assert b"".join(b"" if e.data is None else bytes(e.data) for e in chunks) == data
    assert events[-1].kind == pdu.MESSAGE
    assert not events[-1].streamed
    assert events[-1].data is not None
    assert bytes(events[-1].data) == b"xy"


def test_the_rest_of_a_streamed_message_can_be_discarded() -> None:
    receiver = engine(spool_at=65536, chunk=16384)
    pieces = fragment(1, STORE, True, 10000) + fragment(1, b"z" * 300_000, False, 10000)
    events = receiver.feed(b"".join(pieces[:9]))
    assert [e.kind for e in events] == [pdu.CHUNK]
    receiver.discard_message()
    end = only(receiver.feed(b"".join(pieces[9:])))
    assert (end.kind, end.data, end.streamed) == (pdu.MESSAGE, None, True)
    assert only(receiver.feed(message(1, ECHO, None, 10000))).kind == pdu.MESSAGE


def test_memory_follows_the_bytes_not_the_lengths() -> None:
    budget = Budget(1 << 30)
    receiver = engine(budget=budget)
    header = struct.pack(">BBL", 4, 0, 16 << 20) + struct.pack(">LBB", (16 << 20) - 4, 1, 0)
    assert receiver.feed(p_data(pdv(1, 3, STORE)) + header + b"abc") == []
    assert budget.used <= 65536


def test_a_new_message_waits_for_the_budget_and_goes_on_with_it() -> None:
    budget = Budget(100_000)
    first, second = engine(budget=budget), engine(budget=budget)
    held = only(first.feed(message(1, STORE, b"a" * 1000, 10000)))
    wire = message(1, STORE, b"b" * 1000, 10000)
    space = second.get_buffer()
    space[: len(wire)] = wire
    second.buffer_updated(len(wire))
    assert second.next_event() is None
    assert second.stalled
    assert held.data is not None
    held.data.release()
    event = second.next_event()
    assert event is not None
    assert event.kind == pdu.MESSAGE
    assert not second.stalled
    del event
    assert budget.used == 0


def test_what_is_thrown_away_does_not_wait_for_the_budget() -> None:
    """The engine went on but said that it waited: over TLS nothing more was read."""
    budget = Budget(100_000)
    first = engine(budget=budget)
    held = only(first.feed(message(1, STORE, b"a" * 1000, 10000)))
    discarding, closing = engine(budget=budget), engine(budget=budget)
    wire = message(1, STORE, b"b" * 1000, 10000)
    for receiver in (discarding, closing):
        receiver.get_buffer()[: len(wire)] = wire
        receiver.buffer_updated(len(wire))
        assert receiver.next_event() is None
        assert receiver.stalled
    discarding.discard_message()
    assert not discarding.stalled
    end = discarding.next_event()
    assert end is not None
    assert (end.kind, end.data) == (pdu.MESSAGE, None)
    closing.phase = pdu.CLOSING
    assert closing.next_event() is None
    assert not closing.stalled
    assert held.data is not None


def test_a_message_that_may_not_grow_is_handed_over_early() -> None:
    budget = Budget(150_000)
    receiver = engine(budget=budget, spool_at=1 << 20, chunk=65536)
    data = b"q" * 400_000
    events = []
    parts = []
    for piece in fragment(1, STORE, True, 10000) + fragment(1, data, False, 10000):
        for event in receiver.feed(piece):
            events.append(event.kind)
            assert event.data is not None
            parts.append(bytes(event.data))
            event.data.release()
    assert events.count(pdu.CHUNK) > 1
    assert events[-1] == pdu.MESSAGE
    assert b"".join(parts) == data
    assert budget.peak <= 150_000


def test_a_buffer_in_use_is_not_given_back() -> None:
    event = only(engine().feed(message(1, STORE, b"abc", 100)))
    assert event.data is not None
    view = memoryview(event.data)
    assert view.readonly
    with pytest.raises(BufferError):
        event.data.release()
    view.release()
    event.data.release()
    assert len(event.data) == 0


class OwnEngine(Engine):
    me: Engine


class OwnLink(Link):
    me: Engine


def engine_that_refers_to_itself(budget: Budget) -> None:
    made = OwnEngine(pdu.TRANSFER, budget=budget)
    made.me = made
    made.accept_contexts([1])
    made.feed(message(1, STORE, b"abc", 100)[:-1])


def link_that_refers_to_itself(budget: Budget) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = OwnLink(pdu.TRANSFER, fd=ours.fileno(), budget=budget)
        made.me = made
        made.accept_contexts([1])
        theirs.sendall(message(1, STORE, b"abc", 100)[:-1])
        assert made.receive(0.05).kind == pdu.TIMEOUT


def engine_in_a_cycle(budget: Budget) -> None:
    made = engine(budget=budget)
    made.feed(message(1, STORE, b"abc", 100)[:-1])
    cycle: list[object] = [made]
    cycle.append(cycle)


def message_in_a_cycle(budget: Budget) -> None:
    cycle: list[object] = engine(budget=budget).feed(message(1, STORE, b"abc", 100))  # type: ignore[assignment]
    cycle.append(cycle)


def buffer_in_a_frame_whose_exception_is_kept(budget: Budget) -> None:
    def handler(data: Buffer | None) -> Exception:  # noqa: ARG001 - held by the frame
        try:
            raise ValueError
        except ValueError as exc:
            kept = exc
        return kept

    handler(only(engine(budget=budget).feed(message(1, STORE, b"abc", 100))).data)


@pytest.mark.parametrize(
    "drop",
    [
        engine_that_refers_to_itself,
        link_that_refers_to_itself,
        engine_in_a_cycle,
        message_in_a_cycle,
        buffer_in_a_frame_whose_exception_is_kept,
    ],
)
def test_what_the_garbage_collector_finds_is_given_back_to_the_budget(drop: Callable[[Budget], None]) -> None:
    """The collector took the budget off it first."""
    budget = Budget(1 << 20)
    gc.collect()
    gc.disable()
    try:
        drop(budget)
        assert budget.used
    finally:
        gc.enable()
    gc.collect()
    assert budget.used == 0


@pytest.mark.parametrize("ids", [[0], [2], [257], [-1]])
def test_context_ids_are_odd_bytes(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="presentation context"):
        Engine().accept_contexts(ids)


STUCK = """
import os, socket, threading, time
from pacs_core._ext import pdu
from pacs_core._ext.link import Link
ours, theirs = socket.socketpair()
link = Link(pdu.TRANSFER, fd=ours.fileno())
threading.Thread(target=link.send_raw, args=(bytes(16 << 20),), daemon=True).start()
time.sleep(0.2)
print(link.send_now(b"abort"), flush=True)
os._exit(0)
"""


def test_a_clock_that_jumps_keeps_no_last_word_waiting(tmp_path: Path) -> None:
    faults = Faults(tmp_path / "faults")
    faults.clock(10**9)
    done = subprocess.run(
        [sys.executable, "-c", STUCK],
        env={**os.environ, **faults.environment},
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    assert done.stdout == b"False\n"
