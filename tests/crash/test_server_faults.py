"""Faults in a running server, over the wire: each is answered A700 or 0110, loses nothing, and passes.

CONFORMANCE 10 and 12. The server is `pacs-core serve`; its system calls are those of `faults.py`.
"""

from __future__ import annotations

import errno
import itertools
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pacs_core.archive import Archive
from pacs_core.dicom.part10 import split
from pacs_core.store import Locator
from tests.crash.faults import CHANGES, Faults, Faulty, Killer, Short
from tests.crash.images import disk
from tests.flows.rawpeer import ECHO, IMPLICIT, echo
from tests.make import encoded, instance
from tests.raw import RawSender, echoes
from tests.serving import Serving, pacs_core, until

EXPLICIT = "1.2.840.10008.1.2.1"
SIZES = {"segment": 700, "file": 1_500_000, "streamed": 5_000_000}
STEPS = 14
"""Changes of the disk that three stores take, of each size one."""
REFUSED = {0xA700, 0x0110}
MAP = 16 << 20
"""Bytes of an index, so that those who open it next see the same; it fits on the small disk."""


class Node:
    """A server whose faults we hold, and what it acknowledged."""

    def __init__(self, archive: Path, faults: Faults, *settings: str) -> None:
        self.archive = archive
        self.faults = faults
        self.settings = settings
        self.acknowledged: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self.start()

    def start(self) -> None:
        self.server = Serving(self.archive, *self.settings, environment=self.faults.environment)

    def store(self, size: int) -> int:
        """Send one instance over an association of its own; the status."""
        with RawSender(self.server.port, EXPLICIT) as sender:
            return self.store_over(sender, size)

    def store_over(self, sender: RawSender, size: int) -> int:
        one = instance(1, study=next(self._numbers), size=size)
        data = encoded(one)
        status = sender.store(str(one.SOPInstanceUID), data).status
        assert status is not None
        if status == 0:
            self.acknowledged[str(one.SOPInstanceUID)] = data
        return status

    def serves(self) -> None:
        """The same server takes instances of all sizes."""
        assert self.server.process.poll() is None
        assert self.store_all() == [0] * len(SIZES)

    def store_all(self) -> list[int]:
        """One instance of each size."""
        return [self.store(size) for size in SIZES.values()]

    def held(self) -> dict[str, bytes]:
        """Every instance that the index has, with its data set."""
        with Archive.open(self.archive, create=False, map_size=MAP) as archive:
            return {
                one.sop_instance_uid: bytes(split(archive.objects.read(Locator.unpack(one.locator)))[1])
                for one in archive.instances()
            }

    def holds_what_it_acknowledged(self) -> None:
        """No less, no more, byte for byte, in an archive that verifies."""
        assert self.held() == self.acknowledged
        pacs_core("verify", "--archive", str(self.archive), *self.settings)


@pytest.fixture
def node(tmp_path: Path, faults: Faults) -> Iterator[Node]:
    made = Node(tmp_path / "archive", faults, *_map_of(MAP))
    yield made
    faults.off()
    made.server.kill()


def test_every_step_that_fails_is_answered_and_passes(node: Node) -> None:
    failed: dict[str, set[str]] = {}
    for step in CHANGES:
        for number in (errno.ENOSPC, errno.EIO):
            node.faults.steps(Faulty, step, number, 0, 1000)
            statuses = {kind: node.store(size) for kind, size in SIZES.items()}
            node.faults.off()
            failed.setdefault(step, set()).update(kind for kind, status in statuses.items() if status)
            assert set(statuses.values()) <= {0, *REFUSED}
            node.serves()
    # Those that each of them takes; others are for new folders and segments, or for tidying up.
    assert failed["pwritev"] == failed["fdatasync"] == {"segment", "file", "streamed"}
    assert failed["open_tmpfile"] == failed["link"] == failed["fsync_dir"] == {"file", "streamed"}
    assert node.server.stop() == 0
    node.holds_what_it_acknowledged()


def test_one_that_fails_spoils_no_other(node: Node) -> None:
    """A fault in the midst of 8 associations: each is answered for itself."""
    statuses: list[int] = []

    def send(size: int) -> None:
        with RawSender(node.server.port, EXPLICIT) as sender:
            statuses.extend(node.store_over(sender, size) for _ in range(20))

    for step, number in (("fdatasync", errno.EIO), ("pwritev", errno.ENOSPC), ("link", errno.EIO)):
        node.faults.steps(Faulty, step, number, 20, 3)
        threads = [threading.Thread(target=send, args=(size,)) for size in (700, 90_000) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(statuses) == 3 * 8 * 20
    assert set(statuses) <= {0, *REFUSED}
    assert 0 < len(node.acknowledged) < len(statuses)
    assert node.server.stop() == 0
    node.holds_what_it_acknowledged()


def test_short_writes_are_gone_on_with(node: Node) -> None:
    node.faults.steps(Short)
    node.serves()
    assert node.server.stop() == 0
    node.holds_what_it_acknowledged()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_an_index_that_fails_is_answered_and_passes(node: Node, number: int) -> None:
    node.serves()
    for call in ("write", "sync", "meta"):
        node.faults.index(call, number)
        if call == "sync":  # stores do not wait for it
            assert set(node.store_all()) == {0}
            assert until(lambda: node.server.said("no checkpoint of the index"))
        assert set(node.store_all()) <= REFUSED
        assert echoes(node.server.port)
        node.faults.off()
        node.serves()
    assert node.server.stop() == 0
    node.holds_what_it_acknowledged()


def test_several_acceptors_come_back_from_an_index_that_failed(tmp_path: Path, faults: Faults) -> None:
    """None of them can go back to the checkpoint while others have the index open."""
    node = Node(tmp_path / "archive", faults, *_map_of(MAP), "--set", "pool.acceptors=3")
    try:
        for _ in range(3):
            node.serves()
        faults.index("sync", errno.EIO)
        for _ in range(3):
            with suppress(OSError, EOFError, AssertionError):
                node.store_all()
        assert until(lambda: node.server.said("no checkpoint of the index"))
        faults.off()

        def is_well() -> bool:
            with suppress(OSError, EOFError, AssertionError):
                return node.store_all() == [0] * len(SIZES)
            return False

        assert until(lambda: all(is_well() for _ in range(9)), 60)
        assert node.server.stop() == 0
        # What lost its answer when a process ended may be there as well.
        node.acknowledged = node.held() | node.acknowledged
        node.holds_what_it_acknowledged()
    finally:
        faults.off()
        node.server.kill()


def test_a_full_index_is_a700_until_something_goes(tmp_path: Path, faults: Faults) -> None:
    node = Node(tmp_path / "archive", faults, *_map_of(1 << 20))
    try:
        with RawSender(node.server.port, EXPLICIT) as sender:
            while (status := node.store_over(sender, 700)) == 0:
                pass
            assert status == 0xA700
            assert [node.store_over(sender, size) for size in SIZES.values()] == [0xA700] * len(SIZES)
            kept, *going = node.acknowledged
            assert sender.store(kept, node.acknowledged[kept]).status == 0  # held already
            with Archive.open(node.archive, create=False, map_size=1 << 20) as archive:
                for one in going[:100]:
                    assert archive.delete(instance=one).instances == 1
                    del node.acknowledged[one]
            assert [node.store_over(sender, size) for size in SIZES.values()] == [0] * len(SIZES)
        assert node.server.stop() == 0
        node.settings = _map_of(MAP)  # a larger one is taken at a start
        node.start()
        node.serves()
        assert node.server.stop() == 0
        node.holds_what_it_acknowledged()
    finally:
        node.server.kill()


def _map_of(size: int) -> tuple[str, str]:
    return "--set", f"archive.map_size={size}"


@pytest.mark.parametrize("at", [*range(STEPS), "write", "sync", "meta"])
def test_killed_between_any_two_steps(node: Node, at: int | str) -> None:
    """A serving process that dies in one of three stores, of bytes or of the record, is replaced."""
    node.serves()
    if isinstance(at, int):
        node.faults.steps(Killer, at)
    else:
        node.faults.index(at, 0)
    with pytest.raises((OSError, EOFError)):  # one of these is not answered any more
        _store_until(node, 1 if isinstance(at, int) else 100)
    node.faults.off()
    assert until(lambda: node.server.said("child died"))
    assert until(lambda: echoes(node.server.port))
    node.serves()
    acknowledged = len(node.acknowledged)
    assert node.server.stop() == 0
    # What was whole and lost its answer may be there as well.
    node.acknowledged = node.held() | node.acknowledged
    assert len(node.acknowledged) <= acknowledged + 1
    node.holds_what_it_acknowledged()


def _store_until(node: Node, times: int) -> None:
    for _ in range(times):
        node.store_all()


def test_a_clock_that_jumps_ends_nothing(node: Node) -> None:
    """Associations last, and what came while the clock was wrong counts in a reindex as it did before."""
    year = 365.25 * 86400

    def stamped() -> list[int]:
        with Archive.open(node.archive, create=False, map_size=MAP) as archive:
            return sorted(one.stamp for one in archive.instances())

    with RawSender(node.server.port, EXPLICIT) as sender, RawSender(node.server.port, IMPLICIT, ECHO) as idle:
        for jump in (0, 10, -20, 3, 0):
            node.faults.clock(int(jump * year))
            assert [node.store_over(sender, size) for size in SIZES.values()] == [0] * len(SIZES)
            idle.send(echo())
            assert idle.response().status == 0
    now = time.time()
    years = [round((stamp / 4096e6 - now) / year) for stamp in stamped()]
    # What one process received is in order: after a time ahead it goes on from there.
    assert years == [0] * len(SIZES) + [10] * len(SIZES) * 4
    for jump in (-5, 5):  # also between one start and the next
        assert node.server.stop() == 0
        node.faults.clock(int(jump * year))
        node.start()
        node.serves()
    assert node.server.stop() == 0
    years = [round((stamp / 4096e6 - now) / year) for stamp in stamped()]
    assert (years.count(-5), years.count(5)) == (len(SIZES), len(SIZES))
    node.holds_what_it_acknowledged()
    with Archive.open(node.archive, create=False, map_size=MAP) as archive:
        before = archive.index.dump()
    (node.archive / "index" / "data.mdb").unlink()
    pacs_core("reindex", "--archive", str(node.archive), *node.settings)
    with Archive.open(node.archive, create=False, map_size=MAP) as archive:
        assert archive.index.dump() == before


@pytest.mark.parametrize("step", ["pwritev", "fdatasync"])
def test_a_step_that_hangs_keeps_only_its_own_waiting(node: Node, step: str) -> None:
    node.faults.hang(step)
    threads = [threading.Thread(target=node.store, args=(size,)) for size in SIZES.values()]
    for thread in threads:
        thread.start()
    assert echoes(node.server.port)
    assert node.acknowledged == {}
    assert all(thread.is_alive() for thread in threads)
    node.faults.off()
    for thread in threads:
        thread.join(30)
    assert len(node.acknowledged) == len(SIZES)
    assert node.server.stop() == 0
    node.holds_what_it_acknowledged()


@pytest.mark.parametrize("stopped", [False, True], ids=["thawed", "stopped"])
def test_a_disk_that_hangs(tmp_path: Path, faults: Faults, stopped: bool) -> None:
    """A frozen file system: bytes and index wait, who needs no disk does not, and then all is answered."""
    with disk(tmp_path) as (_, at):
        node = Node(at / "archive", faults, *_map_of(MAP), "--set", "server.drain_seconds=1")
        try:
            node.serves()
            subprocess.run(["fsfreeze", "-f", at], check=True)
            try:
                threads = [threading.Thread(target=_unless_cut, args=(node, size)) for size in SIZES.values()]
                for thread in threads:
                    thread.start()
                assert echoes(node.server.port)
                assert len(node.acknowledged) == len(SIZES)
                if stopped:
                    node.server.process.send_signal(signal.SIGTERM)
                    assert until(lambda: node.server.said("ending children at once"), 20)
            finally:
                subprocess.run(["fsfreeze", "-u", at], check=True)
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
            if stopped:
                assert node.server.process.wait(30) == 1
                node.acknowledged = node.held() | node.acknowledged
            else:
                assert len(node.acknowledged) == 2 * len(SIZES)
                node.serves()
                assert node.server.stop() == 0
            node.holds_what_it_acknowledged()
        finally:
            node.server.kill()


def _unless_cut(node: Node, size: int) -> None:
    with suppress(OSError, EOFError, AssertionError):
        node.store(size)
