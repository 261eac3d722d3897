"""The index between checkpoints: killed, with a disk that fails, and at rest."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pacs_core.archive import Archive, Kept
from pacs_core.archive.verify import verify
from pacs_core.errors import IndexSharedError, StorageError
from pacs_core.index import Index
from pacs_core.index.checkpoint import Checkpoint
from tests.make import instance, part10, uid

MAP = 1 << 26

KILLED = """
import os, signal, sys
from pacs_core.archive import Archive
from tests.make import instance, part10
archive = Archive.open(sys.argv[1], map_size=1 << 26)
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    archive.store(part10(instance(number)))
os.kill(os.getpid(), signal.SIGKILL)
"""

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    readlink(link, path, sizeof path - 1);
    if (strstr(path, "data.mdb") && !access(getenv("FAIL"), F_OK)) {
        if (getenv("ONCE"))  /* as Linux does: it has told, and the pages count as clean */
            unlink(getenv("FAIL"));
        errno = EIO;
        return -1;
    }
    return real(fd);
}
"""

FAILING = """
import os, pathlib, sys, time
from pacs_core.archive import Archive
from pacs_core.archive.verify import verify
from pacs_core.errors import StorageError
from tests.make import instance, part10, uid
switch = pathlib.Path(os.environ["FAIL"])
with Archive.open(sys.argv[1], map_size=1 << 26) as archive:
    def store(first, last):
        for number in range(first, last):
            archive.store(part10(instance(number)))
    store(1, 20)
    archive.index.sync()
    store(20, 40)
    archive.ingest.remove([uid(1, 1, 5), uid(1, 1, 25)])
    switch.touch()
    while not archive.index.condemned:
        time.sleep(0.01)
    for number in (40, 41):
        try:
            archive.store(part10(instance(number)))
            raise SystemExit("kept, though the index can't be trusted")
        except StorageError as exc:
            pass
    switch.unlink()
    store(50, 60)
    held = [number for number in range(1, 60) if archive.holds(uid(1, 1, number))]
    assert held == [*range(1, 5), *range(6, 25), *range(26, 40), *range(50, 60)], held
    assert verify(archive).findings == []
print("done")
"""

FAILING_ONCE = """
import os, pathlib, sys, time
from pacs_core.archive import Archive
from pacs_core.archive.verify import verify
from pacs_core.errors import StorageError
from tests.make import instance, part10, uid
switch = pathlib.Path(os.environ["FAIL"])
os.environ["ONCE"] = "1"
file = pathlib.Path(sys.argv[1], "index", "checkpoint")
with Archive.open(sys.argv[1], map_size=1 << 26) as archive:
    archive.store(part10(instance(1)))
    archive.index.sync()
    for number in range(2, 20):
        archive.store(part10(instance(number)))
    switch.touch()
    before = file.read_bytes()
    while not archive.index.condemned or archive.index._opened._keeper is not None:
        time.sleep(0.01)
    assert not switch.exists()
    for change in (archive.index.sync, lambda: archive.index.remove([uid(1, 1, 1)])):
        try:
            change()
            raise SystemExit("went on, though the index can't be trusted")
        except StorageError:
            pass
    assert file.read_bytes() == before
    archive.store(part10(instance(20)))
    held = [number for number in range(1, 30) if archive.holds(uid(1, 1, number))]
    assert held == [*range(1, 21)], held
    assert verify(archive).findings == []
print("done")
"""

FAILING_AGAIN = """
import os, pathlib, subprocess, sys, time
from pacs_core.archive import Archive, ingest
from pacs_core.archive.verify import verify
from pacs_core.errors import StorageError
from tests.make import instance, part10, uid
switch = pathlib.Path(os.environ["FAIL"])
catch_up, failures = ingest.catch_up, [StorageError("no"), StorageError("still no")]
def fail(*arguments):
    if failures:
        raise failures.pop()
    catch_up(*arguments)
ingest.catch_up = fail
with Archive.open(sys.argv[1], map_size=1 << 26) as archive:
    archive.store(part10(instance(1)))
    archive.index.sync()
    for number in range(2, 20):
        archive.store(part10(instance(number)))
    switch.touch()
    while not archive.index.condemned:
        time.sleep(0.01)
    switch.unlink()
    opening = "import sys; from pacs_core.archive import Archive; Archive.open(sys.argv[1], map_size=1 << 26)"
    opened = subprocess.run([sys.executable, "-c", opening, sys.argv[1]], capture_output=True, text=True)
    assert "did not go back yet" in opened.stderr, opened.stderr
    stored = 0
    for number in range(20, 30):
        try:
            archive.store(part10(instance(number)))
            stored += 1
        except StorageError as exc:
            pass
    assert stored == 8, stored
    held = [number for number in range(1, 30) if archive.holds(uid(1, 1, number))]
    assert held == [*range(1, 20), *range(22, 30)], held
    assert verify(archive).findings == []
print("done")
"""


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def held(archive: Archive) -> int:
    return sum(archive.holds(uid(1, 1, number)) for number in range(1, 100))


def test_what_came_after_the_checkpoint_is_entered_again(tmp_path: Path) -> None:
    run(KILLED, str(tmp_path / "a"), "1")
    shutil.copytree(tmp_path / "a" / "index", tmp_path / "alone")
    with Index.open(tmp_path / "alone", map_size=MAP, create=False) as index:
        assert index.stats().instances < 20
        assert list(index.check()) == []
    with Archive.open(tmp_path / "a", map_size=MAP) as archive:
        assert held(archive) == 20
        assert verify(archive).findings == []


def test_nothing_goes_back_under_somebody_who_has_it_open(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "a", map_size=MAP) as archive:
        run(KILLED, str(tmp_path / "a"), "1")
        assert held(archive) == 20
        run(KILLED, str(tmp_path / "a"), "31")
        archive.store(part10(instance(80)))
        assert held(archive) == 41
        archive.recover()
        assert verify(archive).findings == []


def test_a_torn_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    data = tmp_path / "data.mdb"
    states = [bytes([number]) * 8192 for number in range(4)]
    data.write_bytes(states[0])
    first = Checkpoint(tmp_path)
    for number in (1, 2, 3):
        first.write(states[number])
    first.close()
    whole = (tmp_path / "checkpoint").read_bytes()
    for torn, expected in ((None, 3), (whole.rindex(states[3]) + 8191, 2), (whole.index(states[2]), 3)):
        raw = bytearray(whole)
        if torn is not None:
            raw[torn] ^= 1
        (tmp_path / "checkpoint").write_bytes(raw)
        data.write_bytes(states[0] + b"pages")
        opened = Checkpoint(tmp_path)
        opened.restore()
        assert data.read_bytes() == states[expected] + b"pages"
        second = Checkpoint(tmp_path)
        data.write_bytes(states[0])
        second.restore()
        assert data.read_bytes() == states[0]  # somebody has it open
        second.close()
        opened.close()


def test_a_checkpoint_that_was_not_synced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before stays until another is on disk, though the page cache shows the one that failed."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "injected")

    (tmp_path / "data.mdb").write_bytes(b"data")
    checkpoint = Checkpoint(tmp_path)
    checkpoint.write(b"1" * 8192)
    checkpoint.write(b"2" * 8192)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail)
            with pytest.raises(OSError, match="injected"):
                checkpoint.write(b"3" * 8192)
    assert b"2" * 8192 in (tmp_path / "checkpoint").read_bytes()
    checkpoint.write(b"4" * 8192)
    assert b"2" * 8192 in (tmp_path / "checkpoint").read_bytes()
    checkpoint.close()


def test_what_others_have_open_is_not_gone_back_from(tmp_path: Path) -> None:
    """Nor taken for sound because one of them made a checkpoint."""
    (tmp_path / "data.mdb").write_bytes(b"1" * 8192)
    failed, other = Checkpoint(tmp_path), Checkpoint(tmp_path)
    failed.restore()
    other.restore()
    other.write(b"2" * 8192)
    with pytest.raises(IndexSharedError, match="other processes"):
        failed.restore_after_failure()
    other.close()
    failed.restore_after_failure()
    assert (tmp_path / "data.mdb").read_bytes() == b"2" * 8192
    failed.close()


def test_a_way_back_that_fails_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "injected")

    (tmp_path / "data.mdb").write_bytes(b"1" * 8192)
    failed, other = Checkpoint(tmp_path), Checkpoint(tmp_path)
    failed.restore()
    failed.write(b"2" * 8192)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="injected"):
            failed.restore_after_failure()
    with pytest.raises(StorageError, match="did not go back"):
        other.restore()
    fcntl.flock(other._presence, fcntl.LOCK_SH | fcntl.LOCK_NB)
    failed.close()
    other.close()


def test_what_somebody_doubts_nobody_else_opens(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"1" * 8192)
    failed, other = Checkpoint(tmp_path), Checkpoint(tmp_path)
    failed.restore()
    failed.doubt()
    with pytest.raises(StorageError, match="did not go back"):
        other.restore()
    failed.restore_after_failure()
    other.restore()
    failed.doubt()
    failed.close()  # it ends, or is killed
    third = Checkpoint(tmp_path)
    with pytest.raises(StorageError, match="did not go back"):
        third.restore()
    other.restore_after_failure()
    third.restore()
    other.close()
    third.close()


@pytest.mark.parametrize(
    "program", [FAILING, FAILING_ONCE, FAILING_AGAIN], ids=["longer", "once", "while mending"]
)
def test_a_disk_that_fails_costs_nothing_that_was_kept(tmp_path: Path, program: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"], cwd=tmp_path, check=True
    )
    done = run(
        program, str(tmp_path / "a"), LD_PRELOAD=str(tmp_path / "shim.so"), FAIL=str(tmp_path / "fail")
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
    with Archive.open(tmp_path / "a", map_size=MAP) as archive:
        assert verify(archive).findings == []


def test_a_commit_needs_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Archive.open(tmp_path / "a", map_size=MAP) as archive:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none_left)
            assert archive.store(part10(instance(1))).kept is Kept.STORED
        archive.store(part10(instance(2)))
        assert archive.index._opened._keeper is not None
    with Archive.open(tmp_path / "a", map_size=MAP) as archive, monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        archive.store(part10(instance(3)))
    with Archive.open(tmp_path / "a", map_size=MAP) as archive:
        assert held(archive) == 3


def test_it_closes_when_its_keeper_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the keeper might unlock what has got the lock file's number since."""
    ending, ended = threading.Event(), threading.Event()
    flock = fcntl.flock
    archive = Archive.open(tmp_path / "a", map_size=MAP)

    def slow(fd: int, operation: int) -> None:
        is_keeper = threading.current_thread().name == "checkpoint"
        if not is_keeper or operation != fcntl.LOCK_UN or archive.index._opened._keeper is not None:
            flock(fd, operation)
            return
        ending.set()
        time.sleep(0.3)
        flock(fd, operation)
        ended.set()

    monkeypatch.setattr(fcntl, "flock", slow)
    archive.store(part10(instance(1)))
    assert ending.wait(30)
    archive.index.close()
    assert ended.is_set()
    archive.close()


def test_at_rest_no_page_is_kept_from_use(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "a", map_size=MAP) as archive:
        archive.store(part10(instance(1)))
        deadline = time.monotonic() + 30
        while archive.index._opened.env.pinned and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not archive.index._opened.env.pinned
        archive.store(part10(instance(2)))
        assert held(archive) == 2
