"""Power loss: what the page cache holds is gone, so the order of writes and syncs is what counts.

The trace of system calls is replayed against a disk that keeps only what was synced: the bytes of a file by
fdatasync of it, a name by fsync of its folder. At each promise all that it rests on must be synced.
"""

# ruff: noqa: ARG002 - every step is given the same arguments

import random
from pathlib import Path

import pytest
from faults import Named, Watched

from pacs_core.store import Reason, Store, Tombstone
from pacs_core.store.reading import container_path

META = bytes(128) + b"DICM" + bytes(60)


class CarefulDisk:
    """What would be there after a power cut, folders and names as paths."""

    def __init__(self, trace):
        self.unsynced_bytes = set()
        self.names = {}  # path → file; as running processes see it
        self.durable = set()  # paths whose name is in a synced folder
        self.file_of = {}  # fd → file number
        self.folder_of = {}
        self.linked_dirty = []
        self.files = 0
        for step, args, result in trace:
            getattr(self, step, lambda *_: None)(args, result)

    def open_tmpfile(self, args, result):
        self.files += 1
        self.file_of[result] = self.files
        self.folder_of.pop(result, None)

    def create(self, args, result):
        self.open_tmpfile(args, result)
        self.names[args[0]] = self.files

    def open_folder(self, args, result):
        self.folder_of[result] = args[0]
        self.file_of.pop(result, None)

    def mkdir(self, args, result):
        self.names[args[0]] = 0

    def pwritev(self, args, result):
        self.unsynced_bytes.add(self.file_of[args[0]])

    def fdatasync(self, args, result):
        self.unsynced_bytes.discard(self.file_of[args[0]])

    def link(self, args, result):
        self._name(f"{self.folder_of[args[2]]}/{args[1]}", self.file_of[args[0]])

    def rename(self, args, result):
        self._name(f"{self.folder_of[args[2]]}/{args[1]}", self.names.pop(args[0]))

    def _name(self, path, file):
        self.names[path] = file
        if file in self.unsynced_bytes:
            self.linked_dirty.append(path)

    def fsync_dir(self, args, result):
        folder = self.folder_of[args[0]]
        self.durable |= {path for path in self.names if str(Path(path).parent) == folder}

    def holds(self, path, root):
        parents = [
            str(parent) for parent in Path(path).parents if parent.is_relative_to(root) and parent != root
        ]
        return self.names[path] not in self.unsynced_bytes and {path, *parents} <= self.durable


@pytest.mark.parametrize("system", [Watched, Named])
def test_all_is_synced_before_the_promise(tmp_path, system):
    syscalls = system()
    store = Store.open(tmp_path, small=4096, segment_size=8192, syscalls=syscalls)
    dice = random.Random(4)
    promised = []
    for round_ in range(8):
        stream = store.stream(len(META))
        stream.write(dice.randbytes(5000))
        sizes = [dice.choice((100, 2000, 3500, 5000, 9000)) for _ in range(5)]
        batch = [store.stage(META, dice.randbytes(size), b"", 1) for size in sizes]
        promised += store.publish([*batch, stream.finish(META)]).outcomes
        disk = CarefulDisk(syscalls.trace)
        assert disk.linked_dirty == []
        for locator in promised:
            assert disk.holds(container_path(f"{tmp_path}/objects", locator), tmp_path)
        store.tombstone([Tombstone(promised[-1], None, Reason.DELETED, "1.2", round_)])
        disk = CarefulDisk(syscalls.trace)
        logs = [path for path in disk.names if path.endswith(".log")]
        assert logs
        assert all(disk.holds(path, tmp_path) for path in logs)
    assert len({locator.container for locator in promised if locator.is_segment}) > 1
    store.close()


def test_one_sync_for_the_small_and_one_for_the_names(tmp_path):
    syscalls = Watched()
    with Store.open(tmp_path, small=4096, syscalls=syscalls) as store:
        for _ in range(2):  # the first time folders and a segment are made
            batch = [store.stage(META, bytes(size), b"", 1) for size in (100, 9000, 200, 9000, 300)]
            begun = len(syscalls.trace)
            store.publish(batch)
            steps = [step for step, _, _ in syscalls.trace[begun:]]
        assert steps.count("fdatasync") == steps.count("fsync_dir") == steps.count("pwritev") == 1
        assert steps.index("link") < steps.index("fsync_dir")


def test_bytes_are_marked_dead_before_they_are_punched(tmp_path):
    syscalls = Watched()
    with Store.open(tmp_path, small=65536, syscalls=syscalls) as store:
        (locator,) = store.publish([store.stage(META, bytes(20000), b"", 1)]).outcomes
        store.remove([locator])
    steps = [step for step, _, _ in syscalls.trace]
    assert steps.index("pwrite") < steps.index("punch_hole")
