"""SIGKILL to every process of the server while instances come in: what was acknowledged is there.

CONFORMANCE 12: no success before the instance is durable; an association that is lost in mid-dataset leaves
nothing.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from pacs_core.archive import Archive
from pacs_core.dicom.part10 import split
from pacs_core.index import Located
from pacs_core.store import Locator
from tests.make import encoded, instance, uid
from tests.raw import RawSender
from tests.serving import Serving, pacs_core, serving, stats, until

ROUNDS = int(os.environ.get("PACS_CORE_ROUNDS", "10"))
ASSOCIATIONS = (4, 16)
SIZES = (600, 2_000, 20_000, 150_000, 600_000, 6_000_000)
"""In segments, in files, and the last in one that is written while it arrives."""
WEIGHTS = (8, 8, 8, 8, 8, 1)
EXPLICIT = "1.2.840.10008.1.2.1"


class Load:
    """Associations that send until they are cut off, and remember what was acknowledged."""

    def __init__(self, port: int, round_number: int, associations: int) -> None:
        self.acknowledged: dict[str, bytes] = {}
        """The digest of each instance."""
        self._port = port
        self._threads = [
            threading.Thread(target=self._send, args=(round_number, number)) for number in range(associations)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, round_number: int, number: int) -> None:
        random_ = random.Random(round_number * 100 + number)
        try:
            with RawSender(self._port, EXPLICIT) as sender:
                for count in range(1, 100_000):
                    [size] = random_.choices(SIZES, WEIGHTS)
                    ds = instance(count, study=round_number + 1, series=number + 1, size=size)
                    data = encoded(ds)
                    if sender.store(str(ds.SOPInstanceUID), data).status == 0x0000:
                        self.acknowledged[str(ds.SOPInstanceUID)] = sha256(data).digest()
        except (OSError, EOFError, AssertionError):
            return  # cut off

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def digest_of(archive: Archive, located: Located) -> bytes:
    return sha256(split(archive.objects.read(Locator.unpack(located.locator)))[1]).digest()


def missing(archive: Path, acknowledged: dict[str, bytes]) -> list[str]:
    """Acknowledged instances that are not indexed, or not as they were sent."""
    wrong = []
    with Archive.open(archive, create=False) as opened:
        for one, digest in acknowledged.items():
            located = opened.index.locate(one)
            if located is None or digest_of(opened, located) != digest:
                wrong.append(one)
    return wrong


@pytest.mark.timeout(60 + 18 * ROUNDS)
def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    random_ = random.Random(12)
    acknowledged: dict[str, bytes] = {}
    for round_number in range(ROUNDS):
        server = Serving(archive)
        load = Load(server.port, round_number, random_.randint(*ASSOCIATIONS))
        time.sleep(random_.uniform(0.2, 1.5))
        server.kill()
        load.join()
        assert load.acknowledged, "the round was over before it began"
        acknowledged |= load.acknowledged
    assert missing(archive, acknowledged) == []
    pacs_core("verify", "--archive", str(archive))
    # What was whole but not acknowledged may be there as well; nothing torn is.
    assert stats(archive)["instances"] >= len(acknowledged)


def test_a_killed_serving_process_is_replaced_and_its_traces_are_settled(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with serving(archive, "--set", "pool.acceptors=2") as server:
        load = Load(server.port, 0, 4)
        time.sleep(0.5)
        children = subprocess.run(
            ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert until(lambda: server.said("child died"))

        def served() -> bool:
            ds = instance(1, study=77)
            try:
                with RawSender(server.port, EXPLICIT) as sender:
                    return sender.store(str(ds.SOPInstanceUID), encoded(ds)).status == 0
            except (OSError, EOFError, AssertionError):
                return False

        assert until(served)
        server.kill()
        load.join()
    assert missing(archive, load.acknowledged) == []
    pacs_core("verify", "--archive", str(archive))


def test_an_association_lost_in_mid_dataset_leaves_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    small, large = encoded(instance(1, size=50_000)), encoded(instance(2, size=9_000_000))
    with serving(archive) as server:
        for number, data in ((1, small), (2, large)):
            sender = RawSender(server.port, EXPLICIT)
            sender.begin(uid(1, 1, number))
            sender.data(data[: len(data) // 2], last=False)
            time.sleep(0.2)
            sender.sock.close()
        assert stats(archive)["instances"] == 0
        assert server.stop() == 0
    assert not [path for path in (archive / "objects").rglob("*") if path.suffix == ".dcm"]
    pacs_core("verify", "--archive", str(archive))


def test_a_restart_after_a_kill_then_query_and_reindex(tmp_path: Path) -> None:
    """The first milestone: C-STORE over the wire, SIGKILL, restart, query, reindex."""
    archive = tmp_path / "archive"
    ds = instance(1)
    with serving(archive) as server, RawSender(server.port, EXPLICIT) as sender:
        assert sender.store(str(ds.SOPInstanceUID), encoded(ds)).status == 0
        server.kill()
        sender.released = lambda: None  # type: ignore[method-assign]  # nobody is there to answer
    with serving(archive) as server:
        assert stats(archive)["instances"] == 1
        assert server.stop() == 0
    (archive / "index" / "data.mdb").unlink()
    pacs_core("reindex", "--archive", str(archive))
    assert stats(archive)["instances"] == 1
