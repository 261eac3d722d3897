"""The state of the workflow: decisions that are made one after the other, and stand when they return."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from pacs_core.archive import Archive
from pacs_core.archive.backup import backup, restore
from pacs_core.errors import ArchiveError
from pacs_core.workflow import State
from pacs_core.workflow.state import META, STEP, Change


def counted(change: Change) -> int:
    number = int(change.get(STEP, b"count") or b"0") + 1
    change.put(STEP, b"count", b"%d" % number)
    return number


def count(path: Path, times: int) -> None:
    state = State.open(path)
    for _ in range(times):
        state.change(counted)
    state.close()


def test_a_change_stands_when_it_returns(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    assert state.change(counted) == 1
    assert state.get(STEP, b"count") == b"1"
    state.close()
    state = State.open(tmp_path / "state")
    assert state.change(counted) == 2
    assert state.get_many(STEP, [b"count", b"none"]) == [b"2", None]
    state.change(lambda change: change.delete(STEP, b"count"))
    assert state.get(STEP, b"count") is None
    state.close()


def test_what_raises_changes_nothing_and_others_in_its_batch_stand(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    inside, go = threading.Event(), threading.Event()

    def slow(_: Change) -> None:
        inside.set()
        go.wait(10)

    def wrong(change: Change) -> None:
        counted(change)
        raise ValueError("no")

    threads = [threading.Thread(target=state.change, args=(slow,))]
    failed: list[Exception] = []

    def fail() -> None:
        try:
            state.change(wrong)
        except ValueError as exc:
            failed.append(exc)

    threads[0].start()
    inside.wait(10)
    threads += [threading.Thread(target=fail), threading.Thread(target=state.change, args=(counted,))]
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(failed) == 1
    assert state.get(STEP, b"count") == b"1"
    state.close()


def test_decisions_of_threads_and_processes_come_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "state"
    State.open(path).close()
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=count, args=(path, 100)) for _ in range(2)]
    threads = [threading.Thread(target=count, args=(path, 100)) for _ in range(2)]
    for one in (*others, *threads):
        one.start()
    for one in (*others, *threads):
        one.join(60)
    state = State.open(path)
    assert state.get(STEP, b"count") == b"400"
    state.close()


def test_a_scan_sees_what_the_change_has_done(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    keys = [b"a", b"a\0", b"a1", b"a2", b"b"]
    state.change(lambda change: [change.put(STEP, key, key) for key in keys])
    assert [key for key, _ in state.scan(STEP, b"a")] == keys[:-1]
    assert [key for key, _ in state.scan(STEP)] == keys
    assert [key for key, _ in state.scan(STEP, b"a", after=b"a\0", stop=b"a2")] == [b"a1"]

    def change(change: Change) -> list[tuple[bytes, bytes]]:
        change.delete(STEP, b"a1")
        change.put(STEP, b"a3", b"new")
        return change.scan(STEP, b"a")

    assert [key for key, _ in state.change(change)] == [b"a", b"a\0", b"a2", b"a3"]
    state.close()


def test_a_scan_goes_on_past_its_chunks(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    keys = [b"k%05d" % number for number in range(2500)]
    state.change(lambda change: [change.put(STEP, key, b"") for key in keys])
    assert [key for key, _ in state.scan(STEP, b"k")] == keys
    assert state.entries(STEP) == 2500
    state.close()


def test_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    state.change(lambda change: change.put(META, b"schema", b"\2\0\0\0"))
    state.close()
    with pytest.raises(ArchiveError, match="newer"):
        State.open(tmp_path / "state")


def test_closed_it_takes_nothing(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    state.close()
    with pytest.raises(ArchiveError):
        state.change(counted)


def test_a_backup_has_the_state(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.state.change(counted)
        backup(archive, tmp_path / "backup")
        archive.state.change(counted)
        backup(archive, tmp_path / "backup")
        archive.state.change(counted)
    restore(tmp_path / "backup", tmp_path / "restored")
    with Archive.open(tmp_path / "restored") as archive:
        assert archive.state.get(STEP, b"count") == b"2"
