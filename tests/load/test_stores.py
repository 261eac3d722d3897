"""CONFORMANCE 10 to 13 under load: many associations, the same instance, aborts in mid-dataset.

PACS_CORE_ROUNDS=100 makes a long run of it.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from pacs_core._ext import associate
from pacs_core.archive import Archive
from pacs_core.dicom.part10 import split
from pacs_core.store import Locator
from tests.load.footprint import footprint, settled
from tests.make import encoded, instance, uid
from tests.raw import RawSender
from tests.serving import Serving, pacs_core, serving

ROUNDS = int(os.environ.get("PACS_CORE_ROUNDS", "10"))
ASSOCIATIONS = 200
EXPLICIT = "1.2.840.10008.1.2.1"
SIZES = (600, 2_000, 20_000, 150_000, 600_000)


def held(archive: Path) -> dict[str, bytes]:
    """Digest of the data set of each instance."""
    with Archive.open(archive, create=False) as opened:
        return {
            one.sop_instance_uid: sha256(split(opened.objects.read(Locator.unpack(one.locator)))[1]).digest()
            for one in opened.instances()
        }


def test_12_two_hundred_associations_at_once(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    acknowledged: dict[str, bytes] = {}

    def send(sender: RawSender, study: int) -> None:
        for number in range(1, 6):
            ds = instance(number, study=study, size=SIZES[(study + number) % len(SIZES)])
            data = encoded(ds)
            assert sender.store(str(ds.SOPInstanceUID), data).status == 0
            acknowledged[str(ds.SOPInstanceUID)] = sha256(data).digest()

    with serving(archive) as server:
        before = footprint(server)
        with ExitStack() as stack, ThreadPoolExecutor(ASSOCIATIONS) as pool:
            senders = [
                stack.enter_context(RawSender(server.port, EXPLICIT, timeout=120))
                for _ in range(ASSOCIATIONS)
            ]
            assert footprint(server).descriptors >= before.descriptors + ASSOCIATIONS
            list(pool.map(send, senders, range(1, ASSOCIATIONS + 1)))
        after = settled(server, lambda found: found.threads <= before.threads)
        assert after.threads <= before.threads
        assert server.stop() == 0
    assert len(acknowledged) == 5 * ASSOCIATIONS
    assert held(archive) == acknowledged
    pacs_core("verify", "--archive", str(archive))


@pytest.mark.timeout(60 + 3 * ROUNDS)
@pytest.mark.parametrize("policy", ["keep", "replace"])
def test_11_the_same_instances_from_eight_associations_round_after_round(tmp_path: Path, policy: str) -> None:
    """A segment's, a file's and one that is written as it arrives: one of each is there, and whole."""
    archive = tmp_path / "archive"
    sent: dict[str, set[bytes]] = {}
    start = threading.Barrier(8)

    def send(sender: RawSender, number: int) -> None:
        for round_number in range(ROUNDS):
            for series, size in enumerate((700, 90_000, 400_000), 1):
                ds = instance(round_number + 1, series=series, size=size, ImageComments=f"V{number}")
                data = encoded(ds)
                sent.setdefault(str(ds.SOPInstanceUID), set()).add(sha256(data).digest())
                start.wait(60)
                assert sender.store(str(ds.SOPInstanceUID), data).status == 0

    settings = ("--set", f"archive.duplicates={policy}", "--set", "wire.spool_at=200000")
    with serving(archive, *settings, "--set", "pool.acceptors=2") as server:
        with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
            senders = [stack.enter_context(RawSender(server.port, EXPLICIT)) for _ in range(8)]
            list(pool.map(send, senders, range(8)))
        assert server.stop() == 0
    found = held(archive)
    assert found.keys() == sent.keys()
    assert all(digest in sent[one] for one, digest in found.items())
    pacs_core("verify", "--archive", str(archive))


def abort(sender: RawSender) -> None:
    sender.send(associate.encode_abort(0, 0))


def reset(sender: RawSender) -> None:
    sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_close(sender: RawSender) -> None:
    sender.sock.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        while sender.sock.recv(65536):
            pass


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_12_associations_lost_in_mid_dataset_leave_nothing(tmp_path: Path) -> None:
    """While others store; more is broken off than the memory budget has room for."""
    archive = tmp_path / "archive"
    ends: tuple[Callable[[RawSender], None], ...] = (abort, reset, half_close)
    acknowledged: set[str] = set()
    over = threading.Event()

    def store(server: Serving, study: int) -> None:
        with RawSender(server.port, EXPLICIT) as sender:
            number = 0
            while not over.is_set():
                number += 1
                ds = instance(number, study=study, size=30_000)
                assert sender.store(str(ds.SOPInstanceUID), encoded(ds)).status == 0
                acknowledged.add(str(ds.SOPInstanceUID))

    def break_off(server: Serving, seed: int) -> None:
        random_ = random.Random(seed)
        for _ in range(5 * ROUNDS):
            data = encoded(instance(seed, study=9, size=random_.choice((40_000, 150_000, 600_000))))
            sender = RawSender(server.port, EXPLICIT)
            sender.begin(uid(9, 1, seed))
            sender.data(data[: random_.randrange(1, len(data))], last=False)
            random_.choice(ends)(sender)
            sender.sock.close()

    settings = ("--set", "wire.spool_at=262144", "--set", f"wire.memory_budget={2 << 20}")
    with serving(archive, *settings) as server:
        before = footprint(server)
        with ThreadPoolExecutor(8) as pool:
            storing = [pool.submit(store, server, study) for study in (1, 2)]
            list(pool.map(break_off, [server] * 6, range(1, 7)))
            over.set()
            for each in storing:
                each.result(60)
        after = settled(server, lambda found: found.threads <= before.threads)
        assert after.threads <= before.threads
        # Registered as a writer, it holds some files more than before its first instance.
        assert after.descriptors < before.descriptors + 10
        assert server.stop() == 0
    assert held(archive).keys() == acknowledged
    assert not list((archive / "objects").rglob("*.dcm"))  # only small ones were sent to their end
    pacs_core("verify", "--archive", str(archive))
