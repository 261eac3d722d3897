"""A process killed at each step of the write path: what was promised is there, nothing is misread."""

import os
import pickle
import random
import signal
import tempfile
from pathlib import Path

import pytest
from faults import Killer

from pacs_core.store import Locator, Reason, State, Store, Tombstone

META = bytes(128) + b"DICM" + b"\x02" * 40
SMALL = 4096
SEGMENT = 12 << 10


def payload(key):
    """The data set of an instance: its size by its key's parity, even ones are large."""
    size = 9000 + key if key % 2 == 0 else 1500 + key
    return random.Random(key).randbytes(size)


EVERYTHING = {META + payload(key): key for key in range(40)}


def workload(store, promise):
    """Keep, stream, decide and remove; `promise` is told of each thing when it is durable."""

    def publish(keys):
        batch = [store.stage(META, payload(key), b"\x01%d" % key, store.next_stamp()) for key in keys]
        for key, locator in zip(keys, store.publish(batch).outcomes, strict=True):
            assert isinstance(locator, Locator)
            places[key] = locator
            promise("kept", key, locator)

    places = {}
    publish([0, 1, 3])
    publish([5, 2, 7, 4])
    stream = store.stream(len(META))
    data = payload(6)
    for piece in (data[:3000], b"stray", data[3000:]):
        stream.write(piece)
    stream.strip([(3000, 3005)])
    (places[6],) = store.publish([stream.finish(META)]).outcomes
    promise("kept", 6, places[6])
    buried = [
        Tombstone(places[1], None, Reason.DELETED, "1.1", 11),
        Tombstone(places[0], places[2], Reason.SUPERSEDED, "1.0", 12),
    ]
    store.tombstone(buried)
    promise("buried", buried)
    store.remove([places[1], places[0]])
    promise("removed")
    for first in (9, 15, 21):  # over the end of the segment
        publish([first, first + 2, first + 4])
    lost = Tombstone(places[3], None, Reason.DELETED, "1.3", 13)
    store.tombstone([lost])
    promise("buried", [lost])
    promise("wavering", lost)
    store.retract([lost])
    promise("retracted", lost)
    store.discard(store.stage(META, payload(8), b"", 1))
    publish([8])


def live_and_die(folder, syscalls):
    """Run the workload in a child; its promises, and how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        done = False
        try:
            with os.fdopen(writing, "wb", buffering=0) as told:
                store = Store.open(folder, small=SMALL, segment_size=SEGMENT, syscalls=syscalls)
                workload(store, lambda *what: told.write(pickle.dumps(what)))
                store.close()
                done = True
        finally:
            os._exit(0 if done else 1)
    os.close(writing)
    promises = []
    with os.fdopen(reading, "rb") as told:
        while True:
            try:
                promises.append(pickle.load(told))
            except EOFError:
                break
    _, status = os.waitpid(child, 0)
    return promises, status


def check(folder, promises):
    kept, buried, retracted = {}, [], []
    for what, *rest in promises:
        if what == "kept":
            kept[rest[0]] = rest[1]
        elif what == "buried":
            buried += rest[0]
        elif what == "wavering":
            buried.remove(rest[0])
        elif what == "retracted":
            retracted.append(rest[0])
    with Store.open(folder, small=SMALL, segment_size=SEGMENT) as store:
        standing = store.tombstones()
        assert set(buried) <= set(standing)
        assert not set(retracted) & set(standing)
        decided = {told.locator for told in standing}
        for key, locator in kept.items():
            if locator not in decided:
                assert bytes(store.read(locator)) == META + payload(key)
        walked = list(store.walk(check=True))
        whole = {each.locator for each in walked if each.state is not State.DAMAGED}
        assert whole >= {locator for locator in kept.values() if locator not in decided}
        assert not whole & {told.locator for told in buried}
        for each in walked:
            if each.state is State.DAMAGED:  # a torn write, after all that was promised
                assert each.locator not in kept.values()
                continue
            key = EVERYTHING[bytes(store.read(each.locator))]
            assert each.fields in (None, b"\x01%d" % key)

        for number in store.dead_writers():
            with store.recovering(number):
                pass
        assert store.dead_writers() == []
        assert not [name for _, _, names in os.walk(folder) for name in names if name.startswith("t-")]
        (after,) = store.publish([store.stage(META, payload(39), b"", store.next_stamp())]).outcomes
        assert after.writer not in {locator.writer for locator in kept.values()}
        assert bytes(store.read(after)) == META + payload(39)


@pytest.fixture
def fast_path(tmp_path):
    """In memory if there is such a folder: a SIGKILL leaves what was written, on a disk or not."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("nameless", [True, False], ids=["tmpfile", "named"])
@pytest.mark.parametrize("halfway", [False, True], ids=["before", "halfway"])
def test_killed_at_every_step(fast_path, nameless, halfway):
    killed = 0
    for at in range(1000):
        folder = fast_path / str(at)
        folder.mkdir()
        promises, status = live_and_die(folder, Killer(at, nameless=nameless, halfway=halfway))
        check(folder, promises)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert len([what for what, *_ in promises if what == "kept"]) == 18
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
    assert killed > 60
