"""A pool of worker processes for work that is long or holds the GIL.

A task is a function that can be imported and small arguments that can be pickled: paths, ranges,
names; never data sets. A worker that dies takes nothing with it: it is replaced and its task,
known because a worker has one at a time, is tried once more, then fails with `WorkerError`.

Not `concurrent.futures.ProcessPoolExecutor`: there one death fails every task under way, no
matter whose fault, and its spawned children import the caller's `__main__` again.
"""

import contextlib
import pickle
import queue
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from pacs_core.errors import WorkerError, from_os_error
from pacs_core.pool.channel import interpreter

A = TypeVar("A")
R = TypeVar("R")

_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Outcome(Generic[A, R]):
    """What came of one item: a value, or an error."""

    item: A
    value: R | None
    error: Exception | None

    def result(self) -> R:
        """The value; raises the error if that is what came."""
        if self.error is not None:
            raise self.error
        return cast("R", self.value)


@dataclass(frozen=True, slots=True)
class _Task:
    name: str
    payload: bytes
    future: "Future[Any]"


class _Died(Exception):
    """The worker is gone; `code` is its exit code, negative for a signal."""

    def __init__(self, code: int, late: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.late = late


class Workers:
    """Worker processes, started when first needed. A context manager: `close` at a good end, else `stop`.

    Parameters
    ----------
    processes
        Workers side by side.
    waiting
        Tasks accepted and not begun; whoever submits more waits. By default as many as workers.
    task_seconds
        A task that takes longer loses its worker and is treated as if that had died. None: no limit.
    """

    def __init__(
        self, processes: int, *, waiting: int | None = None, task_seconds: float | None = None
    ) -> None:
        if processes < 1:
            raise ValueError(f"{processes} workers")
        self._window = processes + (waiting or processes)
        self._task_seconds = task_seconds
        self._tasks: queue.Queue[_Task | None] = queue.Queue(waiting or processes)
        self._lock = threading.Lock()
        self._living: set[_Worker] = set()
        self._stopping = False
        self._closed = False
        self._keepers = [
            threading.Thread(target=self._keep, name=f"worker-{number}", daemon=True)
            for number in range(processes)
        ]
        for keeper in self._keepers:
            keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.stop()

    def submit(self, function: Callable[..., R], *arguments: Any) -> "Future[R]":
        """Have ``function(*arguments)`` run in a worker; waits while too many tasks wait.

        Raises
        ------
        ValueError
            The function can't be imported by a worker: it is local, or of the main script.
        RuntimeError
            The pool is closed.
        """
        name = f"{function.__module__}.{function.__qualname__}"
        if function.__module__ == "__main__" or "<" in function.__qualname__:
            raise ValueError(f"{name} can't be imported by a worker")
        future: Future[R] = Future()
        task = _Task(name, pickle.dumps((function, arguments)), future)
        if self._closed:
            raise RuntimeError("the pool is closed")
        self._tasks.put(task)
        if self._stopping:
            future.cancel()
        return future

    def map(
        self, function: Callable[[A], R], items: Iterable[A], *, ordered: bool = False
    ) -> Iterator[Outcome[A, R]]:
        """One outcome for each item; items are taken only as there is room for them.

        Parameters
        ----------
        ordered
            Outcomes in the order of the items; otherwise as they are done.
        """
        source = iter(items)
        done: queue.SimpleQueue[tuple[A, Future[R]]] = queue.SimpleQueue()
        pending: deque[tuple[A, Future[R]]] = deque()
        under_way: set[Future[R]] = set()

        def collect(item: A, future: "Future[R]") -> None:
            done.put((item, future))

        def submit_next() -> None:
            for item in source:
                future = self.submit(function, item)
                under_way.add(future)
                if ordered:
                    pending.append((item, future))
                else:
                    future.add_done_callback(partial(collect, item))
                return

        try:
            for _ in range(self._window):
                submit_next()
            while under_way:
                item, future = pending.popleft() if ordered else done.get()
                outcome = _outcome(item, future)
                under_way.discard(future)
                submit_next()
                yield outcome
        finally:
            for future in under_way:
                future.cancel()

    def close(self) -> None:
        """Do what was submitted, then end the workers."""
        self._closed = True
        for _ in self._keepers:
            self._tasks.put(None)
        for keeper in self._keepers:
            keeper.join()

    def stop(self) -> None:
        """End the workers at once; tasks that did not finish are cancelled or fail."""
        self._closed = True
        with self._lock:
            self._stopping = True
            for worker in self._living:
                worker.process.kill()
        while any(keeper.is_alive() for keeper in self._keepers):
            with contextlib.suppress(queue.Empty):
                while (task := self._tasks.get_nowait()) is None or task.future.cancel():
                    pass
            with contextlib.suppress(queue.Full):
                self._tasks.put_nowait(None)
            for keeper in self._keepers:
                keeper.join(0.01)

    def _keep(self) -> None:
        """One keeper thread: a worker, and the tasks it gets."""
        worker: _Worker | None = None
        try:
            while (task := self._tasks.get()) is not None and not self._stopping:
                if not task.future.set_running_or_notify_cancel():
                    continue
                for attempt in range(1, _ATTEMPTS + 1):
                    try:
                        if worker is None or worker.process.poll() is not None:
                            self._retire(worker)
                            worker = self._hire()
                        value, error = worker.do(task.payload, self._task_seconds)
                    except _Died as death:
                        self._retire(worker)
                        worker = None
                        if attempt < _ATTEMPTS and not self._stopping:
                            continue
                        value, error = None, self._obituary(task, death)
                    except OSError as exc:
                        value, error = None, from_os_error(exc, "starting a worker")
                    break
                if error is None:
                    task.future.set_result(value)
                else:
                    task.future.set_exception(error)
            if task is not None:
                task.future.cancel()
        finally:
            self._retire(worker)

    def _obituary(self, task: _Task, death: _Died) -> WorkerError:
        if self._stopping:
            return WorkerError(f"the pool was stopped during {task.name}")
        if death.late:
            return WorkerError(f"{task.name} took longer than {self._task_seconds:g} s, twice")
        how = f"killed by signal {-death.code}" if death.code < 0 else f"exit code {death.code}"
        return WorkerError(f"the worker died, twice, over {task.name}: {how}")

    def _hire(self) -> "_Worker":
        with self._lock:
            if self._stopping:
                raise _Died(0)
            worker = _Worker()
            self._living.add(worker)
            return worker

    def _retire(self, worker: "_Worker | None") -> None:
        if worker is not None:
            with self._lock:
                self._living.discard(worker)
            worker.end()


class _Worker:
    """One worker process; used by its keeper alone, but for `process.kill`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = subprocess.Popen(
                interpreter("pacs_core.pool.worker", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
            self._connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # dead already: the first task will tell
            self._connection.send_bytes(pickle.dumps(list(sys.path)))

    def do(self, payload: bytes, seconds: float | None) -> tuple[Any, Exception | None]:
        """What came of a task.

        Raises
        ------
        _Died
            The worker is gone, or was killed because it took too long.
        """
        try:
            self._connection.send_bytes(payload)
            if not self._connection.poll(seconds):
                self.process.kill()
                raise _Died(self.process.wait(), late=True)
            answer = self._connection.recv_bytes()
        except (EOFError, ConnectionError):
            raise _Died(self.process.wait()) from None
        try:
            value, error = pickle.loads(answer)
        except Exception as exc:  # noqa: BLE001  a keeper that dies of an answer would hang its task
            return None, WorkerError(f"what a worker answered can't be read: {type(exc).__name__}: {exc}")
        return value, error

    def end(self) -> None:
        """Close its socket, which is what it waits for, and see it go."""
        self._connection.close()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _outcome(item: A, future: "Future[R]") -> Outcome[A, R]:
    try:
        return Outcome(item, future.result(), None)
    except CancelledError:
        return Outcome(item, None, WorkerError("the pool was stopped"))
    except Exception as exc:  # noqa: BLE001  whatever the task raised is its outcome
        return Outcome(item, None, exc)
