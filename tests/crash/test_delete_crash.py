"""Deletion of a study that is killed or fails at each step: an instance is whole and counts, or is gone.

None comes back at a reindex, and none that is stored after a deletion goes with it.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pacs_core.archive import Archive, Kept
from pacs_core.archive import delete as delete_module
from pacs_core.archive.reindex import reindex
from pacs_core.archive.verify import verify
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.part10 import split
from pacs_core.errors import NotFoundError, PacsError
from pacs_core.store import Locator
from tests.crash.faults import CHANGES, Faults, Faulty, Killer
from tests.make import instance, part10, uid

SMALL, MAP = 4096, 1 << 28  # pages are used again only after the next checkpoint, on any disk
FILES = {
    uid(study, 1, number): part10(instance(number, study=study, size=9_000 if number % 3 == 0 else 300))
    for study in (1, 2)
    for number in range(1, 8)
}
GOING = {one for one in FILES if one.startswith(uid(1, 1))}
RECORD = -1
"""The step between the tombstones and the end of the records, which is no change of the store."""


def opened(root: Path, **settings: Any) -> Archive:
    return Archive.open(root, small=SMALL, map_size=MAP, **settings)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of two studies, each of three batches."""
    monkeypatch.setattr(delete_module, "BATCH", 3)
    with opened(tmp_path / "full") as archive:
        for file in FILES.values():
            archive.store(file)
    return tmp_path / "full"


def whole(archive: Archive) -> set[str]:
    """What is held; each as it was stored, all of them counted, and nothing to mend."""
    held = set()
    for one in archive.instances():
        kept = split(archive.objects.read(Locator.unpack(one.locator)))[1]
        assert bytes(kept) == bytes(split(FILES[one.sop_instance_uid])[1])
        held.add(one.sop_instance_uid)
    counts = {match[0x0020000D]: int(match[0x00201208]) for match in archive.find(Level.STUDY, {})}
    assert counts == {
        uid(study): count for study in (1, 2) if (count := sum(one.startswith(uid(study, 1)) for one in held))
    }
    assert held >= FILES.keys() - GOING
    assert verify(archive).findings == []
    return held


def stays_so(root: Path, held: set[str]) -> None:
    """What is held now is held after it was stored again, opened again and rebuilt, too."""
    gone = sorted(GOING - held)
    with opened(root) as archive:
        assert whole(archive) == held
        for one in gone[:2]:
            assert archive.store(FILES[one]).kept is Kept.STORED
    with opened(root) as archive:
        archive.sweep()
        files = len(list(archive.place.objects.rglob("*.dcm")))
        assert files == sum(int(one.rsplit(".", 1)[1]) % 3 == 0 for one in held | set(gone[:2]))
        before = archive.index.dump()
        place = archive.place
        assert whole(archive) == held | set(gone[:2])
    shutil.rmtree(place.index)
    assert reindex(place, map_size=MAP, small=SMALL).unreadable == 0
    with opened(root) as archive:
        assert archive.index.dump() == before


def deleted_in_a_child(root: Path, at: int) -> int:
    """Delete the study in a process that is killed at a step; how it ended."""
    child = os.fork()
    if child == 0:
        done = False
        try:
            with opened(root, syscalls=None if at == RECORD else Killer(at)) as archive:
                if at == RECORD:
                    archive.index.remove = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
                archive.delete(study=uid(1))
            done = True
        finally:
            os._exit(0 if done else 1)
    return os.waitpid(child, 0)[1]


def test_killed_at_every_step(tmp_path: Path, full: Path) -> None:
    left = []
    for at in range(RECORD, 200):
        root = tmp_path / "killed"
        shutil.copytree(full, root)
        status = deleted_in_a_child(root, at)
        with opened(root) as archive:
            held = whole(archive)
        stays_so(root, held)
        shutil.rmtree(root)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert not held & GOING
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        left.append(len(held & GOING))
    # The last of the study go first, and what was decided is carried out by who opens it next.
    assert left[0] == 4
    assert left[1:] == sorted(left[1:], reverse=True)
    assert set(left) == {7, 4, 1, 0}
    assert len(left) > 25


@pytest.mark.parametrize("call", ["write", "meta"])
def test_killed_as_the_index_is_written(full: Path, faults: Faults, call: str) -> None:
    faults.index(call, 0)
    words = ["delete", "--yes", "--study", uid(1), "--archive", str(full), "--set", f"archive.map_size={MAP}"]
    done = subprocess.run(
        [sys.executable, "-m", "pacs_core", *words], env=os.environ | faults.environment, check=False
    )
    faults.off()
    assert done.returncode == -signal.SIGKILL
    with opened(full) as archive:
        held = whole(archive)
    stays_so(full, held)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("step", [step for step in CHANGES if step not in ("open_tmpfile", "link", "append")])
def test_failing_at_every_step(tmp_path: Path, full: Path, step: str, number: int) -> None:
    failures = 0
    for at in range(40):
        root = tmp_path / "failing"
        shutil.copytree(full, root)
        faulty = Faulty(step, number, at)
        gone: list[int] = []
        with opened(root, syscalls=faulty) as archive:
            try:
                archive.delete(study=uid(1), progress=gone.append)
            except PacsError:
                failures += 1
            held = whole(archive)
            assert len(GOING - held) == sum(gone)
        hit = not faulty.left
        stays_so(root, held)
        shutil.rmtree(root)
        if not hit:
            break
    assert not hit
    assert failures or step not in ("pwritev", "fdatasync", "pwrite", "create", "mkdir")


def store_over_and_over(root: Path, until: float, acknowledged: Any) -> None:
    dice = random.Random(1)
    with opened(root) as archive:
        while time.time() < until:
            archive.store(FILES[dice.choice(sorted(GOING))])
    with opened(root) as archive:
        for one in sorted(GOING):
            archive.store(FILES[one])
            acknowledged.put(one)


def test_deleted_here_and_stored_there(full: Path) -> None:
    """Each instance is held whole or not at all at any moment; what is acknowledged last is held."""
    context = multiprocessing.get_context("spawn")
    acknowledged = context.Queue()
    until = time.time() + 4
    sender = context.Process(target=store_over_and_over, args=(full, until, acknowledged))
    sender.start()
    deletions = 0
    with opened(full) as archive:
        while time.time() < until:
            with suppress(NotFoundError):
                deletions += archive.delete(study=uid(1)).instances
            for match in archive.find(Level.STUDY, {0x0020000D: uid(2)}):
                assert match[0x00201208] == "7"
    held = {acknowledged.get(timeout=60) for _ in GOING}
    sender.join()
    assert sender.exitcode == 0
    assert deletions > len(GOING)
    assert held == GOING
    with opened(full) as archive:
        assert whole(archive) == set(FILES)
    stays_so(full, set(FILES))
