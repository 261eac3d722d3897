"""Workers: results as outcomes, and nothing that a worker does hangs or breaks the pool."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pool_targets as targets
import pytest

from pacs_core.errors import NotFoundError, WorkerError
from pacs_core.pool.profile import Workload, cores, profile
from pacs_core.pool.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def test_map_ordered(workers: Workers) -> None:
    outcomes = list(workers.map(targets.slow_square, range(12), ordered=True))
    assert [o.item for o in outcomes] == list(range(12))
    assert [o.result() for o in outcomes] == [n * n for n in range(12)]


def test_map_unordered(workers: Workers) -> None:
    outcomes = list(workers.map(targets.slow_square, range(12)))
    assert sorted(o.result() for o in outcomes) == [n * n for n in range(12)]


def test_items_are_taken_only_as_there_is_room() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with Workers(1, waiting=3) as pool:
        results = pool.map(targets.square, items(), ordered=True)
        next(results)
        assert len(taken) <= 1 + 3 + 1
        results.close()  # type: ignore[attr-defined]  # map is a generator


def test_an_error_is_the_outcome_of_its_item_alone(workers: Workers) -> None:
    outcomes = list(workers.map(targets.fail, range(4), ordered=True))
    assert [o.value for o in outcomes] == [0, None, 2, None]
    error = outcomes[3].error
    assert isinstance(error, NotFoundError)
    assert (error.uid, error.tag) == ("1.2.3", 0x00100020)
    assert "in a worker" in error.__notes__[0]
    with pytest.raises(NotFoundError):
        outcomes[1].result()


def test_an_error_that_does_not_unpickle_still_arrives(workers: Workers) -> None:
    with pytest.raises(WorkerError, match="Awkward: 1 and 1"):
        workers.submit(targets.fail_awkwardly, 1).result(10)


def test_an_answer_that_does_not_unpickle_does_not_hang(workers: Workers) -> None:
    with pytest.raises(WorkerError, match="not to be unpickled"):
        workers.submit(targets.unreadable, 1).result(10)
    assert workers.submit(targets.square, 3).result(10) == 9


def test_a_task_whose_worker_died_is_tried_again(workers: Workers, tmp_path: Path) -> None:
    assert workers.submit(targets.die_once, str(tmp_path / "died")).result(20) == "second"


def test_a_task_that_kills_twice_fails_and_the_others_do_not(workers: Workers) -> None:
    doomed = workers.submit(targets.die)
    fine = [workers.submit(targets.square, n) for n in range(8)]
    with pytest.raises(WorkerError, match=r"died, twice, over pool_targets\.die: killed by signal 9"):
        doomed.result(20)
    assert [f.result(20) for f in fine] == [n * n for n in range(8)]


def test_a_worker_killed_while_idle_is_replaced() -> None:
    with Workers(1) as pool:
        first = pool.submit(targets.process_id).result(10)
        os.kill(first, signal.SIGKILL)
        second = pool.submit(targets.process_id).result(10)
        assert second != first


def test_a_task_that_takes_too_long_fails() -> None:
    with Workers(1, task_seconds=1.0) as pool:
        with pytest.raises(WorkerError, match=r"pool_targets.sleep took longer than 1 s, twice"):
            pool.submit(targets.sleep, 60.0).result(20)
        assert pool.submit(targets.square, 2).result(10) == 4


def test_stop_ends_what_runs_and_cancels_what_waits() -> None:
    pool = Workers(1, waiting=4)
    futures = [pool.submit(targets.sleep, 60.0) for _ in range(4)]
    time.sleep(0.5)
    begun = time.monotonic()
    pool.stop()
    assert time.monotonic() - begun < 5
    assert all(f.done() for f in futures)
    with pytest.raises(RuntimeError):
        pool.submit(targets.square, 1)


def test_stop_frees_who_waits_to_submit() -> None:
    pool = Workers(1, waiting=1)
    running = pool.submit(targets.sleep, 60.0)
    waiting = pool.submit(targets.sleep, 60.0)
    late = []
    thread = threading.Thread(target=lambda: late.append(pool.submit(targets.sleep, 60.0)))
    thread.start()
    time.sleep(0.3)
    pool.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert all(f.done() for f in (running, waiting, *late))


def test_a_function_that_workers_can_not_import_is_refused(workers: Workers) -> None:
    with pytest.raises(ValueError, match="can't be imported"):
        workers.submit(lambda: None)


def test_an_exception_in_the_parent_stops_the_pool() -> None:
    begun = time.monotonic()
    pool = Workers(2)
    with contextlib.suppress(KeyboardInterrupt), pool:
        future = pool.submit(targets.sleep, 60.0)
        time.sleep(0.3)
        raise KeyboardInterrupt
    assert isinstance(future.exception(), WorkerError)
    assert time.monotonic() - begun < 5


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, pool_targets\n"
        "from pacs_core.pool.workers import Workers\n"
        "pool = Workers(1)\n"
        "print(pool.submit(pool_targets.process_id).result(), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and not _is_zombie(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("workload", Workload)
@pytest.mark.parametrize("available", [0, 1, 2, 64])
def test_a_profile_is_sensible_on_any_machine(workload: Workload, available: int) -> None:
    sizes = profile(workload, available=available)
    assert 1 <= sizes.processes <= max(1, available)
    assert min(sizes.threads, sizes.queue, sizes.batch) >= 1
    assert profile(workload, processes=3).processes == 3


def test_cores() -> None:
    assert cores() >= 1
