"""CONFORMANCE 2, and peers that do nothing, or nearly: they cost nobody anything.

PACS_CORE_CONNECTS=100000 makes a long run of it.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pacs_core._ext.command import encode_store_rq
from tests.flows.rawpeer import CT, IMPLICIT, echo, p_data, pdv, request
from tests.load.footprint import footprint, settled
from tests.make import encoded, instance
from tests.raw import RawSender, echoes
from tests.serving import Serving, serving, stats, until

CONNECTS = int(os.environ.get("PACS_CORE_CONNECTS", "3000"))
RESET = struct.pack("ii", 1, 0)
DRIPPING = 60


def probe(server: Serving, number: int) -> None:
    """A load balancer's look: connect and close, most by reset (thousands in TIME_WAIT would slow us)."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        if number % 20:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@pytest.mark.timeout(120 + CONNECTS // 100)
def test_2_bare_connects_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "archive") as server:
        new = footprint(server)
        for number in range(max(1000, CONNECTS // 2)):  # until the most at a time were seen
            probe(server, number)
        before = settled(server, lambda found: found.fits(new))
        for number in range(CONNECTS):
            probe(server, number)
        after = settled(server, lambda found: found.fits(new))
        print(f"{CONNECTS:,} connects: {before} -> {after}")
        assert before.fits(new)
        assert after.fits(new)
        assert after.memory - before.memory < 2 << 20
        assert echoes(server.port)
        assert server.stop() == 0


def test_3_lengths_that_lie_take_no_memory(tmp_path: Path) -> None:
    """200 peers say that 4 GB come, 200 that a PDU as long as may be comes: nothing of it does."""
    with serving(tmp_path / "archive", "--set", "server.maximum_associations_per_peer=512") as server:
        new = footprint(server)
        with ExitStack() as stack:
            peers = [stack.enter_context(RawSender(server.port, IMPLICIT)) for _ in range(400)]
            before = footprint(server)
            for number, peer in enumerate(peers):
                peer.begin(f"1.2.{number}")
                length = 0xFFFFFFF0 if number % 2 else 131072
                peer.send(struct.pack(">BBLLBB", 4, 0, length, length - 4, 1, 0) + b"data")
                peer.released = lambda: None  # type: ignore[method-assign]
            for peer in peers[1::2]:
                assert peer.pdu()[:2] == b"\x07\0"
            assert echoes(server.port)
            assert footprint(server).memory - before.memory < 16 << 20
        assert settled(server, lambda found: found.threads <= new.threads).threads <= new.threads
        assert server.stop() == 0


@contextmanager
def dripping(server: Serving, *starts: Callable[[RawSender], bytes]) -> Iterator[list[RawSender]]:
    """Peers that send a byte a second of what each start leaves to be sent."""
    peers: list[tuple[RawSender, bytes]] = []
    over = threading.Event()

    def drip() -> None:
        at = 0
        while not over.wait(1):
            for peer, left in peers:
                with suppress(OSError):  # it was ended, as it should be in the end
                    peer.send(left[at : at + 1])
            at += 1

    thread = threading.Thread(target=drip)
    try:
        for number in range(DRIPPING):
            peer = RawSender.__new__(RawSender)
            peer.sock = socket.create_connection(("127.0.0.1", server.port), 30)
            peers.append((peer, starts[number % len(starts)](peer)))
        thread.start()
        yield [peer for peer, _ in peers]
    finally:
        over.set()
        thread.join()
        for peer, _ in peers:
            peer.sock.close()


def in_request(peer: RawSender) -> bytes:
    wire = request()
    peer.send(wire[:10])
    return wire[10:]


def in_header(peer: RawSender) -> bytes:
    peer.associated()
    wire = echo()
    peer.send(wire[:2])
    return wire[2:]


def in_data_set(peer: RawSender) -> bytes:
    peer.associated()
    peer.send(p_data(pdv(3, 3, encode_store_rq(1, CT, "1.2"))))
    wire = p_data(pdv(3, 0, bytes(100_000)))
    peer.send(wire[:50_000])
    return wire[50_000:]


def test_peers_that_send_a_byte_a_second_hold_nobody_up(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with serving(archive) as server, dripping(server, in_request, in_header, in_data_set):
        statuses: list[int | None] = []

        def send(study: int) -> None:
            with RawSender(server.port, IMPLICIT) as sender:
                for number in range(1, 51):
                    ds = instance(number, study=study, size=20_000)
                    statuses.append(sender.store(str(ds.SOPInstanceUID), encoded(ds, IMPLICIT)).status)

        threads = [threading.Thread(target=send, args=(study,)) for study in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert statuses == [0] * 200
        assert echoes(server.port)
        assert stats(archive)["instances"] == 200


def test_peers_that_send_a_byte_a_second_lose_their_places(tmp_path: Path) -> None:
    with serving(
        tmp_path / "archive",
        *("--set", "wire.artim_timeout=3", "--set", "wire.network_timeout=2"),
        *("--set", f"server.maximum_associations_per_peer={DRIPPING}"),
    ) as server:
        before = footprint(server)
        with dripping(server, in_request, in_header, in_data_set) as peers:
            ended = [peer.sock.recv(1) for peer in peers]
            assert set(ended) <= {b"", b"\x07"}  # a close, or an A-ABORT
            assert until(lambda: echoes(server.port))
        assert settled(server, lambda found: found.fits(before)).fits(before)
