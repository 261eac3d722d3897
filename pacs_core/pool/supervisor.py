"""The supervisor: owns the listening sockets and gives each connection to the least busy child.

It knows nothing of what is spoken on a connection. Connections are counted, in all and per
address; one beyond the limits still goes to a child, marked, so that it is refused in the words
of its protocol; far beyond them it is closed at once. Those to be refused count apart: whoever
opens too many takes no place of anybody else. A child that dies is replaced and loses only its
own connections.

Not SO_REUSEPORT: the kernel spreads few long connections unevenly, closing one listener resets
what is queued on it, and a second server would bind unseen.
"""

import contextlib
import errno
import heapq
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pacs_core.errors import ConfigError, OutOfResourcesError
from pacs_core.logs import get_logger
from pacs_core.pool.channel import LONGEST, Channel, Kind, Message, interpreter
from pacs_core.pool.child import OVER_LIMIT, start_payload

log = get_logger("pool.supervisor")

_BACKLOG = 1024
_ACCEPTS_A_TURN = 64
_GRACE = 5.0
"""Seconds a child has, over the drain, before it is killed."""
_STABLE = 30.0
"""A child that lived so long, in seconds, is started again without delay when it dies."""
_HOPELESS = 5
"""Children in a row that died before any was ever ready: then the server can't start."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections at a time.

    Attributes
    ----------
    total, per_peer
        Beyond these a connection is passed on as over the limit, to be refused.
    spare, spare_per_peer
        So many wait to be refused that way, in all and from one address; whoever comes then is
        closed at once.
    """

    total: int
    per_peer: int
    spare: int = 64
    spare_per_peer: int = 8


class _Count:
    """Connections at a time, in all and by address."""

    def __init__(self) -> None:
        self.total = 0
        self.of: Counter[str] = Counter()

    def reached(self, total: int, per_peer: int, address: str) -> bool:
        """Whether one more from this address is one too many."""
        return self.total >= total or self.of[address] >= per_peer

    def add(self, address: str) -> None:
        self.total += 1
        self.of[address] += 1

    def remove(self, address: str) -> None:
        self.total -= 1
        self.of[address] -= 1
        if not self.of[address]:
            del self.of[address]


@dataclass(slots=True, eq=False)
class _Child:
    """One child process, from its start to the end of its channel."""

    slot: int
    process: subprocess.Popen[bytes]
    channel: Channel
    started: float
    ready: bool = False
    report: bytes = b""
    connections: dict[int, tuple[_Count, str]] = field(default_factory=dict)  # number: counted as, address


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for a host, one for each of its addresses, all on one port.

    Raises
    ------
    ConfigError
        The host is unknown, is not of this machine, or the port is taken.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if len(sockets) > 1:  # port 0 is chosen once
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sock.bind(address)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
    except OSError as exc:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"can't listen on {host} port {port}: {exc.strerror or exc}") from exc
    return sockets


class Supervisor:
    """Children, listening sockets, and the loop between them.

    Parameters
    ----------
    listeners
        Listening sockets, not blocking; a connection says the index of its own. Closed at the end.
    target
        ``module:function``, called in each child with its `Inbox` and `argument`. It calls
        `Inbox.ready`, takes connections until there are no more, drains and returns.
    argument
        Small and picklable.
    processes
        Children.
    drain_seconds
        What the children have to finish in once `stop` was called.
    listening
        Called once, when every child is ready.
    reported
        Called with what each child said last (`Inbox.report`), nothing of one that is gone or has not said
        anything yet, when that changes.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        *,
        target: str,
        argument: object,
        processes: int,
        limits: Limits,
        drain_seconds: float,
        listening: Callable[[], None] = lambda: None,
        reported: Callable[[Sequence[bytes]], None] = lambda _: None,
    ) -> None:
        self._listeners = list(listeners)
        self._payload = start_payload(target, argument)
        if len(self._payload) > LONGEST // 2:
            raise ValueError(f"argument of {len(self._payload)} bytes is too long to pass to a child")
        self._limits = limits
        self._drain_seconds = drain_seconds
        self._listening = listening
        self._reported = reported
        self._slots = range(processes)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._failures: Counter[int] = Counter()  # slot: early deaths in a row
        self._restarts: list[tuple[float, int]] = [(0.0, slot) for slot in range(processes)]
        self._served = _Count()
        self._refused = _Count()
        self._numbers = 0
        self._ever_ready = False
        self._accepting = False
        self._accept_after = 0.0
        self._stops = 0
        self._deadline: float | None = None
        self._untold: list[_Child] = []  # that they are to drain: they have not read yet what came before
        self._failed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    def stop(self) -> None:
        """Accept no more and drain the children; called again: end them at once. From any thread."""
        self._stops += 1
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it is over
            os.write(self._wake_write, b"!")

    def run(self) -> int:
        """Serve until stopped; SIGTERM and SIGINT stop.

        Returns
        -------
        int
            0 when every child ended by itself; 1 when some had to be killed or none could start.
        """
        with self._signals():
            try:
                while self._turn():
                    pass
            finally:
                self._kill()
                for sock in self._listeners:
                    sock.close()
                self._selector.close()
                os.close(self._wake_read)
                os.close(self._wake_write)
        return int(self._failed)

    def _turn(self) -> bool:
        """One round of the loop; whether there is another."""
        now = time.monotonic()
        if self._stops and self._deadline is None:
            self._drain(now)
        if self._deadline is not None and self._untold:
            self._tell_to_drain(self._deadline - _GRACE - now)
        if self._deadline is not None and (self._stops > 1 or now > self._deadline) and self._children:
            log.warning("ending children at once", children=len(self._children))
            self._failed = True
            self._kill()
        if self._deadline is not None and not self._children:
            return False
        while self._restarts and self._restarts[0][0] <= now:
            self._start(heapq.heappop(self._restarts)[1])
        self._watch_listeners(now)
        for key, _ in self._selector.select(self._patience(now)):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 64)
            elif isinstance(key.data, _Child):
                self._hear(key.data)
            elif self._accepting:
                self._accept(key.data)
        return True

    def _patience(self, now: float) -> float | None:
        """How long nothing is due."""
        due = [at for at, _ in self._restarts[:1]]
        if self._deadline is not None:
            due.append(self._deadline)
        if self._untold:
            due.append(now + 0.1)
        if now < self._accept_after:
            due.append(self._accept_after)
        return max(0.0, min(due) - now) + 0.001 if due else None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {
            number: signal.signal(number, lambda *_: self.stop())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    # Listening

    def _watch_listeners(self, now: float) -> None:
        """Accept only while somebody can serve: until then connections wait in the kernel's queue."""
        wanted = (
            self._deadline is None
            and now >= self._accept_after
            and any(child.ready for child in self._children.values())
        )
        if wanted == self._accepting:
            return
        self._accepting = wanted
        for index, sock in enumerate(self._listeners):
            if wanted:
                self._selector.register(sock, selectors.EVENT_READ, index)
            else:
                self._selector.unregister(sock)

    def _accept(self, listener: int) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, address = self._listeners[listener].accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("can't accept", error=exc.strerror)
                    self._accept_after = time.monotonic() + 0.1
                    return
                continue  # this one connection failed before it was ours
            with sock:
                self._hand_over(sock, listener, address[0], address[1])

    def _hand_over(self, sock: socket.socket, listener: int, address: str, port: int) -> None:
        """Give a connection to the child with the fewest; ours is closed by the caller."""
        limits = self._limits
        count = self._served
        if count.reached(limits.total, limits.per_peer, address):
            about = {"address": address, "of_address": count.of[address], "connections": count.total}
            count = self._refused
            if count.reached(limits.spare, limits.spare_per_peer, address):
                log.warning("connection closed, far over the limit", **about)
                return
            log.info("connection over the limit", **about)
        self._numbers += 1
        message = Message(
            Kind.CONNECTION,
            flags=OVER_LIMIT if count is self._refused else 0,
            listener=listener,
            number=self._numbers,
            payload=f"{address} {port}".encode(),
            descriptor=sock.fileno(),
        )
        ready = [child for child in self._children.values() if child.ready]
        for child in sorted(ready, key=lambda child: len(child.connections)):
            try:
                child.channel.send(message)
            except OSError:
                continue  # it does not read or is gone: the next one
            child.connections[self._numbers] = count, address
            count.add(address)
            return
        log.warning("connection closed, no child takes it", address=address)

    # Children

    def _start(self, slot: int) -> None:
        ours, theirs = Channel.pair()
        with theirs:
            try:
                process = subprocess.Popen(
                    interpreter("pacs_core.pool.child", f"acceptor-{slot}", str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # With an arena for every few threads glibc keeps what hundreds of them once had.
                    env={"MALLOC_ARENA_MAX": "2", **os.environ},
                )
            except OSError as exc:
                ours.close()
                self._retry(slot, OutOfResourcesError(f"can't start a process: {exc.strerror}"))
                return
        channel = Channel(ours)
        channel.set_blocking(False)
        child = _Child(slot, process, channel, time.monotonic())
        self._children[slot] = child
        self._selector.register(channel, selectors.EVENT_READ, child)
        with contextlib.suppress(OSError):  # dead already: its end of file comes next
            channel.send(Message(Kind.START, payload=self._payload))
        log.debug("child started", child=slot, pid=process.pid)

    def _hear(self, child: _Child) -> None:
        while True:
            try:
                message = child.channel.receive()
            except BlockingIOError:
                return
            if message is None:
                self._bury(child)
                return
            if message.kind is Kind.CLOSED:
                counted = child.connections.pop(message.number, None)
                if counted is not None:
                    count, address = counted
                    count.remove(address)
            elif message.kind is Kind.REPORT:
                child.report = message.payload
                self._tell_reports()
            elif message.kind is Kind.READY:
                child.ready = True
                # Stopped while it was starting, it listens no more.
                if not self._ever_ready and self._deadline is None and self._all_ready():
                    self._ever_ready = True
                    self._listening()

    def _tell_reports(self) -> None:
        found = (self._children.get(slot) for slot in self._slots)
        self._reported([b"" if child is None else child.report for child in found])

    def _all_ready(self) -> bool:
        return not self._restarts and all(child.ready for child in self._children.values())

    def _bury(self, child: _Child) -> None:
        """The channel has ended: so has the process, or it is made to."""
        self._selector.unregister(child.channel)
        child.channel.close()
        del self._children[child.slot]
        self._tell_reports()
        try:
            code = child.process.wait(1.0)
        except subprocess.TimeoutExpired:
            child.process.kill()
            code = child.process.wait()
        for count, address in child.connections.values():
            count.remove(address)
        if self._deadline is not None:
            self._failed = self._failed or code != 0
            return
        log.error(
            "child died", child=child.slot, pid=child.process.pid, code=code, lost=len(child.connections)
        )
        if time.monotonic() - child.started >= _STABLE:
            self._failures[child.slot] = 0
        self._retry(child.slot, None)

    def _retry(self, slot: int, error: Exception | None) -> None:
        """Start a child of that slot again, later and later if they die young."""
        self._failures[slot] += 1
        if error is not None:
            log.error("child not started", child=slot, error=str(error))
        if not self._ever_ready and self._failures[slot] >= _HOPELESS:
            log.error("children die before they are ready; giving up", deaths=self._failures[slot])
            self._failed = True
            self.stop()
            return
        delay = 0.0 if self._failures[slot] == 1 else min(10.0, 0.1 * 2.0 ** self._failures[slot])
        heapq.heappush(self._restarts, (time.monotonic() + delay, slot))

    # The end

    def _drain(self, now: float) -> None:
        self._deadline = now + self._drain_seconds + _GRACE
        self._restarts.clear()
        self._watch_listeners(now)
        for sock in self._listeners:
            sock.close()
        log.info("draining", connections=self._served.total, seconds=self._drain_seconds)
        self._untold = list(self._children.values())

    def _tell_to_drain(self, seconds: float) -> None:
        told, self._untold = self._untold, []
        for child in told:
            try:
                child.channel.send(Message(Kind.DRAIN, seconds=max(0.0, seconds)))
            except BlockingIOError:
                self._untold.append(child)
            except OSError:
                continue  # it is gone

    def _kill(self) -> None:
        for child in self._children.values():
            child.process.kill()
        for child in list(self._children.values()):
            child.process.wait()
            self._selector.unregister(child.channel)
            child.channel.close()
        self._children.clear()
