"""The native binding of liblmdb: what is written is there, errors have their leaves, forks are refused."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_core._ext import kv
from pacs_core._ext.kv import Environment
from pacs_core.errors import ArchiveError, OutOfResourcesError, StorageError
from tests.crash.faults import Faults

TABLES = (("a", 0), ("many", kv.DUPSORT))


def opened(path: Path, map_size: int = 1 << 24, **more: bool) -> Environment:
    return Environment(str(path), TABLES, map_size=map_size, **more)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Environment]:
    made = opened(tmp_path)
    yield made
    made.close()


def test_write_and_read(env: Environment) -> None:
    env.write([(0, b"k", b"v"), (0, b"gone", b"x"), (1, b"d", b"2"), (1, b"d", b"1"), (0, b"gone", None)])
    assert env.read(0, [b"gone", b"k", b"none"]) == [None, b"v", None]
    assert env.walk(1) == [(b"d", b"1"), (b"d", b"2")]
    assert env.entries() == [1, 2]
    env.write([(0, b"never", None)])


def test_walks_are_resumed_by_key(env: Environment) -> None:
    pairs = [(b"%03d" % number, b"x" * number) for number in range(300)]
    env.write([(0, key, value) for key, value in pairs])
    assert env.walk(0, limit=1000) == pairs
    seen: list[tuple[bytes, bytes]] = []
    while chunk := env.walk(0, after=seen[-1][0] if seen else None, limit=7):
        seen += chunk
    assert seen == pairs
    assert env.walk(0, after=b"010", stop=b"013") == pairs[11:13]
    assert env.walk(0, after=b"0105", stop=b"012") == pairs[11:12]
    assert env.walk(0, after=b"299") == []


def test_one_environment_a_directory_in_a_process(tmp_path: Path, env: Environment) -> None:
    with pytest.raises(ArchiveError, match="open in this process"):
        opened(tmp_path)
    env.close()
    env.close()
    with pytest.raises(ArchiveError, match="closed"):
        env.read(0, [b"k"])
    opened(tmp_path).close()


def test_an_environment_that_nobody_closed_is_closed_with_its_object(tmp_path: Path) -> None:
    made = opened(tmp_path)
    made.write([(0, b"k", b"v")])
    del made
    again = opened(tmp_path)
    assert again.read(0, [b"k"]) == [b"v"]
    again.close()


def test_an_environment_that_the_garbage_collector_finds_is_closed_too(tmp_path: Path) -> None:
    """The collector took the register of what is open off it first."""
    cycle: list[object] = [opened(tmp_path)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    opened(tmp_path).close()


def test_a_process_that_closes_nothing_ends_quietly(tmp_path: Path) -> None:
    """At exit the module's own names may be gone before the environment is."""
    script = "\n".join(
        (
            "import sys",
            "from pacs_core._ext.kv import Environment",
            "env = Environment(sys.argv[1], (('a', 0),), map_size=1 << 24)",
        )
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True)
    assert run.stderr == b""


def test_missing_directory_and_readonly(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        opened(tmp_path / "none")
    with pytest.raises(ArchiveError):
        opened(tmp_path, readonly=True)
    made = opened(tmp_path)
    made.write([(0, b"k", b"v")])
    made.close()
    reading = opened(tmp_path, readonly=True)
    assert reading.read(0, [b"k"]) == [b"v"]
    with pytest.raises(ArchiveError, match="reading only"):
        reading.write([(0, b"k", b"w")])
    reading.close()


def test_a_full_map_is_out_of_resources_and_changes_nothing(tmp_path: Path) -> None:
    env = opened(tmp_path, map_size=1 << 16)
    env.write([(0, b"kept", b"v")])
    with pytest.raises(OutOfResourcesError):
        env.write([(0, b"%d" % number, b"x" * 1000) for number in range(200)])
    assert not env.condemned
    assert env.entries() == [1, 0]
    env.write([(0, b"more", b"v")])
    env.close()


def test_a_file_that_may_not_grow_condemns_until_reopened(tmp_path: Path) -> None:
    """A write refused by the system: the environment is not written again before it was reopened."""
    env = opened(tmp_path)
    env.write([(0, b"kept", b"v")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "data.mdb").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises((OutOfResourcesError, StorageError)):
            env.write([(0, b"%d" % number, b"x" * 2000) for number in range(100)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert env.condemned
    with pytest.raises(StorageError, match="reopen"):
        env.write([(0, b"k", b"v")])
    assert env.read(0, [b"kept"]) == [b"v"]
    env.reopen()
    assert not env.condemned
    assert env.entries() == [1, 0]
    env.write([(0, b"k", b"v")])
    env.close()


STORY = """
import os, pathlib, sys
from pacs_core._ext.kv import Environment
from pacs_core.errors import StorageError
switch = pathlib.Path(os.environ["FAULTS"], "index")
env = Environment(sys.argv[1], (("a", 0),), map_size=1 << 24)
env.write([(0, b"kept", b"v")])
switch.write_text("sync 5")
for attempt in range(2):
    try:
        env.write([(0, b"lost", b"v")])
        raise SystemExit("a failed sync was taken for a commit")
    except StorageError:
        assert env.condemned
try:
    env.reopen()
    raise SystemExit("a disk that fails was taken for a good one")
except StorageError:
    assert env.condemned
assert env.read(0, [b"kept", b"lost"]) == [b"v", None]
switch.unlink()
env.reopen()
assert env.read(0, [b"kept", b"lost"]) == [b"v", None]
env.write([(0, b"after", b"v")])
print("done")
"""


def test_after_a_failed_sync_nothing_is_written_before_a_sync_succeeds(tmp_path: Path) -> None:
    folder = tmp_path / "env"
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", STORY, str(folder)],
        env={**os.environ, **Faults(tmp_path / "faults").environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "done\n", run.stderr


def test_a_forked_child_is_refused_and_may_open_anew(tmp_path: Path, env: Environment) -> None:
    env.write([(0, b"k", b"v")])
    env.read(0, [b"k"])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                env.read(0, [b"k"])
                said = "read"
            except ArchiveError as exc:
                said = "fork" if "fork" in str(exc) else "other"
            env.close()
            again = opened(tmp_path)
            said += " " + str(again.read(0, [b"k"])[0])
            again.write([(0, b"child", b"v")])
            again.close()
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    assert said == "fork b'v'"
    assert env.read(0, [b"child"]) == [b"v"]
    env.write([(0, b"parent", b"v")])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_closes_though_a_thread_of_its_parent_is_in_a_call(
    tmp_path: Path, env: Environment
) -> None:
    """The child waited for the end of a call whose thread it does not have."""
    lock = tmp_path / "lock"
    with lock.open("w") as ours, lock.open("w") as theirs:
        fcntl.flock(ours, fcntl.LOCK_EX)
        writer = threading.Thread(
            target=env.write, args=([(0, b"k", b"v")],), kwargs={"lock_fd": theirs.fileno()}
        )
        writer.start()
        time.sleep(0.1)
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            try:
                env.reopen()
                env.read(0, [b"k"])
                env.close()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        fcntl.flock(ours, fcntl.LOCK_UN)
        writer.join()
    assert status == 0
    assert env.read(0, [b"k"]) == [b"v"]


KILLED = """
import os, sys
import lmdb
env = lmdb.open(sys.argv[1], max_dbs=16, map_size=1 << 24, readonly=False)
txn = env.begin()
print("reading", flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), 9)
"""


def test_readers_that_died_are_cleared(tmp_path: Path, env: Environment) -> None:
    env.write([(0, b"k", b"v")])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reading\n"
        for number in range(5):
            env.write([(0, b"%d" % number, b"v")])
        assert env.info()["lag"] == 5
        reader.communicate(b"x")
    assert env.reader_check() == 1
    assert env.info()["lag"] == 0


def test_snapshots_do_not_outlive_a_call(env: Environment) -> None:
    for number in range(50):
        env.write([(0, b"k", b"%d" % number)])
        env.read(0, [b"k"])
        env.walk(0)
        assert env.info()["lag"] == 0


def test_threads_share_it(env: Environment) -> None:
    failures: list[BaseException] = []

    def work(own: int) -> None:
        try:
            for number in range(20):
                env.write([(0, b"%d-%d" % (own, number), b"v")])
                assert env.read(0, [b"%d-%d" % (own, number)]) == [b"v"]
        except BaseException as exc:  # noqa: BLE001 - handed to the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert env.entries()[0] == 120


READER = """
import json, sys
import lmdb
env = lmdb.open(sys.argv[1], max_dbs=16, readonly=True, map_size=1 << 24)
with env.begin() as txn:
    found = []
    for name in (b"a", b"many"):
        db = env.open_db(name, txn=txn, create=False)
        found.append([[k.decode(), v.decode()] for k, v in txn.cursor(db)])
print(json.dumps(found))
"""


def test_an_independent_reader_agrees(tmp_path: Path, env: Environment) -> None:
    env.write([(0, b"k%04d" % n, b"v" * n) for n in range(500)])
    env.write([(1, b"d", b"%04d" % n) for n in range(500)])
    run = subprocess.run([sys.executable, "-c", READER, str(tmp_path)], capture_output=True, check=True)
    ours = [[[k.decode(), v.decode()] for k, v in env.walk(table)] for table in (0, 1)]
    assert json.loads(run.stdout) == ours


def test_copies(tmp_path: Path, env: Environment) -> None:
    env.write([(0, b"k%04d" % n, b"v" * 100) for n in range(500)])
    for compact in (False, True):
        folder = tmp_path / f"copy{compact}"
        folder.mkdir()
        env.copy(str(folder), compact=compact)
        copy = opened(folder)
        assert copy.walk(0) == env.walk(0)
        copy.close()


def test_arguments_are_checked(env: Environment) -> None:
    with pytest.raises(ValueError, match="no table"):
        env.read(2, [b"k"])
    with pytest.raises(StorageError):
        env.write([(0, b"x" * 512, b"v")])  # LMDB's limit of keys is 511 bytes
    with pytest.raises(StorageError):
        env.write([(0, b"", b"v")])
    assert kv.library_version() >= (0, 9, 21)
