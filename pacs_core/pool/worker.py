"""A worker of `Workers`: started as ``python -m pacs_core.pool.worker DESCRIPTOR``.

It does one task after another and ends when its parent's end of the socket does.
"""

import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from pacs_core.errors import WorkerError


def main() -> None:
    """Take tasks and give back what came of them, until there are no more."""
    # Ctrl-C goes to the whole group of a terminal; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(int(sys.argv[1])) as parent:
        try:
            sys.path[:] = pickle.loads(parent.recv_bytes())
            while True:
                parent.send_bytes(_answer(parent.recv_bytes()))
        except (EOFError, ConnectionError):
            return


def _answer(task: bytes) -> bytes:
    """The pickled (value, error) of a pickled (function, arguments)."""
    try:
        function, arguments = pickle.loads(task)
        return pickle.dumps((function(*arguments), None))
    except Exception as exc:  # noqa: BLE001  whatever a task raises is its result
        return pickle.dumps((None, _portable(exc)))


def _portable(exc: Exception) -> Any:
    """An exception that the parent can unpickle; the traceback, which can't travel, as a note."""
    exc.add_note("in a worker: " + "".join(traceback.format_exception(exc)).rstrip())
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # noqa: BLE001  an __init__ or a value that pickle does not get along with
        return WorkerError(f"{type(exc).__name__}: {exc}")
    return exc


if __name__ == "__main__":
    main()
