"""Functions that the tests of `pool` run in other processes."""

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from pacs_core.errors import NotFoundError
from pacs_core.pool.child import Connection, Inbox


def square(number: int) -> int:
    return number * number


def process_id(_: object = None) -> int:
    return os.getpid()


def slow_square(number: int) -> int:
    time.sleep(0.02 if number % 3 else 0.1)
    return number * number


def fail(number: int) -> int:
    if number % 2:
        raise NotFoundError("nothing there", uid=f"1.2.{number}", tag=0x00100020)
    return number


class Awkward(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_awkwardly(number: int) -> int:
    raise Awkward(number, number)


def unreadable(_: int) -> object:
    return _Unreadable()


class _Unreadable:
    def __reduce__(self) -> tuple[object, ...]:
        return (_explode, ())


def _explode() -> None:
    raise RuntimeError("not to be unpickled")


def die(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: str) -> str:
    """Dies the first time it is run with a marker, works the second time."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second"


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def serve(inbox: Inbox, argument: object) -> None:
    """Says who it is and the connection's flags, then echoes until the client closes or time is up."""
    assert argument == {"greeting": "hello"}
    under_way = set()

    def echo(connection: Connection) -> None:
        under_way.add(connection.number)
        _echo(inbox, connection)
        under_way.discard(connection.number)

    inbox.ready()
    inbox.serve(echo)
    while under_way and inbox.remaining:
        time.sleep(0.01)


def _echo(inbox: Inbox, connection: Connection) -> None:
    with connection.socket as sock:
        sock.sendall(f"{os.getpid()} {connection.over_limit} {connection.address}\n".encode())
        while data := sock.recv(4096):
            if data == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            sock.sendall(data)
    inbox.closed(connection.number)


def never_ready(inbox: Inbox, argument: object) -> None:  # noqa: ARG001
    sys.exit(3)


def deaf(inbox: Inbox, argument: object) -> None:  # noqa: ARG001
    """Does not end when it is told to drain."""
    inbox.ready()
    while True:
        time.sleep(1)


def late(inbox: Inbox, argument: object) -> None:  # noqa: ARG001
    """Reads nothing for a while."""
    inbox.ready()
    time.sleep(2)
    inbox.serve(lambda connection: connection.socket.close())


def crowded(inbox: Inbox, argument: object) -> None:
    """Has no thread beyond the two that wait first."""
    start, left = threading.Thread.start, [None] * 2

    def start_one(thread: threading.Thread) -> None:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    threading.Thread.start = start_one  # type: ignore[method-assign]
    serve(inbox, argument)


def poor(inbox: Inbox, argument: object) -> None:  # noqa: ARG001
    """Has no descriptor left for a connection."""
    used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    inbox.ready()
    inbox.serve(lambda connection: connection.socket.close())
