"""The supervisor: connections reach children, limits hold, children die alone, the end is orderly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs_core.errors import ConfigError
from pacs_core.pool.channel import Channel, Kind, Message
from pacs_core.pool.supervisor import listen

SCRIPT = """
import json, sys
from pacs_core.config import LogSettings
from pacs_core.logs import configure
from pacs_core.pool.supervisor import Limits, Supervisor, listen
options = json.loads(sys.argv[1])
configure(LogSettings(level="debug"))
sockets = listen("127.0.0.1", 0)
def listening():
    print(sockets[0].getsockname()[1], flush=True)
supervisor = Supervisor(
    sockets, target="pool_targets:" + options.pop("target", "serve"), argument={"greeting": "hello"},
    limits=Limits(**options.pop("limits", {"total": 100, "per_peer": 100})),
    listening=listening, **{"processes": 2, "drain_seconds": 10, **options})
sys.exit(supervisor.run())
"""


class Served:
    """A supervisor in a process of its own."""

    def __init__(self, log: Path, **options: object) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, json.dumps(options)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line) if line else None
        self.clients: list[Client] = []

    def connect(self, source: str = "127.0.0.1") -> "Client":
        assert self.port is not None
        client = Client(self.port, source)
        self.clients.append(client)
        return client

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Client:
    """A connection, and what its child said first."""

    def __init__(self, port: int, source: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
        self.file = self.socket.makefile("rwb", buffering=0)
        words = self.file.readline().split()
        self.child = int(words[0]) if words else None
        self.over_limit = words[1] == b"True" if words else None
        self.address = words[2].decode() if words else None

    def echo(self, data: bytes) -> bytes:
        self.socket.sendall(data)
        return self.socket.recv(len(data))

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(**options: object) -> Served:
        started.append(Served(tmp_path / f"log{len(started)}", **options))
        return started[-1]

    yield start
    for served in started:
        served.end()


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_connections_are_spread_evenly_and_work(serve: Callable[..., Served]) -> None:
    served = serve()
    clients = [served.connect() for _ in range(10)]
    assert Counter(Counter(c.child for c in clients).values()) == {5: 2}
    assert all(c.echo(b"ping") == b"ping" for c in clients)
    assert {c.address for c in clients} == {"127.0.0.1"}


def test_the_child_with_the_fewest_is_chosen_once_connections_are_closed(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    clients = [served.connect() for _ in range(6)]
    first = clients[0].child
    for client in clients:
        if client.child == first:
            client.close()

    def freed() -> bool:
        probe = served.connect()
        probe.close()
        return probe.child == first

    wait_until(freed)


def test_beyond_a_limit_connections_are_marked_and_far_beyond_closed(serve: Callable[..., Served]) -> None:
    served = serve(limits={"total": 3, "per_peer": 100, "spare": 2})
    clients = [served.connect() for _ in range(6)]
    assert [c.over_limit for c in clients] == [False, False, False, True, True, None]
    assert clients[0].echo(b"still") == b"still"


def test_the_limit_for_one_address_frees_up(serve: Callable[..., Served]) -> None:
    served = serve(limits={"total": 100, "per_peer": 2})
    clients = [served.connect() for _ in range(3)]
    assert [c.over_limit for c in clients] == [False, False, True]
    for client in clients:
        client.close()
    wait_until(lambda: served.connect().over_limit is False)


def test_one_address_far_over_its_limit_leaves_the_others_their_places(serve: Callable[..., Served]) -> None:
    served = serve(limits={"total": 4, "per_peer": 2, "spare": 10, "spare_per_peer": 3})
    greedy = [served.connect() for _ in range(8)]
    assert [c.over_limit for c in greedy] == [False] * 2 + [True] * 3 + [None] * 3
    assert [served.connect("127.0.0.2").over_limit for _ in range(3)] == [False, False, True]
    for client in greedy[2:5]:
        client.close()
    wait_until(lambda: served.connect().over_limit is True)


def test_a_killed_child_loses_only_its_own_connections_and_is_replaced(serve: Callable[..., Served]) -> None:
    served = serve()
    one, other = served.connect(), served.connect()
    assert one.child is not None
    assert one.child != other.child
    os.kill(one.child, signal.SIGKILL)
    assert one.socket.recv(1) == b""
    assert other.echo(b"fine") == b"fine"
    children = {other.child}

    def two_again() -> bool:
        children.add(served.connect().child)
        return len(children) == 2

    wait_until(two_again)
    assert one.child not in children
    wait_until(lambda: "child died" in served.log.read_text())
    assert "code=-9" in served.log.read_text()


def test_a_thousand_bare_connects_leave_no_count_and_no_descriptor(serve: Callable[..., Served]) -> None:
    """CONFORMANCE 2: a load balancer's probes leak nothing."""
    served = serve(limits={"total": 40, "per_peer": 40, "spare": 1000})
    descriptors = Path(f"/proc/{served.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(1000):
        socket.create_connection(("127.0.0.1", served.port), timeout=10).close()
    wait_until(lambda: served.connect().over_limit is False)
    # The last of them may still be on its way to a child.
    wait_until(lambda: len(list(descriptors.iterdir())) == before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(serve: Callable[..., Served], number: signal.Signals) -> None:
    served = serve()
    client = served.connect()
    served.process.send_signal(number)
    wait_until(lambda: "draining" in served.log.read_text())
    assert client.echo(b"finishing") == b"finishing"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)
    assert served.process.poll() is None
    client.close()
    assert served.process.wait(10) == 0
    assert client.child is not None
    assert gone(client.child)


def test_the_drain_ends_at_its_deadline(serve: Callable[..., Served]) -> None:
    served = serve(drain_seconds=1)
    client = served.connect()
    begun = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(10) == 0
    assert time.monotonic() - begun >= 0.9
    assert client.socket.recv(1) == b""


def test_a_second_signal_ends_at_once(serve: Callable[..., Served]) -> None:
    served = serve(drain_seconds=60)
    client = served.connect()
    served.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "draining" in served.log.read_text())
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(5) == 1
    assert client.socket.recv(1) == b""


def test_a_child_that_does_not_drain_is_killed(serve: Callable[..., Served]) -> None:
    served = serve(target="deaf", processes=1, drain_seconds=0)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(15) == 1


def test_a_child_that_is_late_in_reading_is_told_to_drain(serve: Callable[..., Served]) -> None:
    served = serve(target="late", processes=1, drain_seconds=20, limits={"total": 1000, "per_peer": 1000})
    while "no child takes it" not in served.log.read_text():
        socket.create_connection(("127.0.0.1", served.port), timeout=5).close()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(10) == 0


def test_a_child_without_threads_serves_one_after_the_other_and_drains(serve: Callable[..., Served]) -> None:
    served = serve(target="crowded", processes=1, drain_seconds=1)
    first, second = served.connect(), served.connect()
    waiting = socket.create_connection(("127.0.0.1", served.port), timeout=0.5)
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    assert second.echo(b"serving") == b"serving"
    first.close()
    waiting.settimeout(10)
    assert waiting.recv(100)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(10) == 0
    waiting.close()


def test_children_end_when_the_supervisor_is_killed(serve: Callable[..., Served]) -> None:
    served = serve()
    children = {served.connect().child for _ in range(4)}
    assert len(children) == 2
    served.process.kill()
    wait_until(lambda: all(child is not None and gone(child) for child in children))


def test_children_ignore_the_signals_of_their_group(serve: Callable[..., Served]) -> None:
    served = serve()
    client = served.connect()
    assert client.child is not None
    os.kill(client.child, signal.SIGTERM)
    os.kill(client.child, signal.SIGINT)
    assert client.echo(b"alive") == b"alive"


def test_children_that_never_become_ready_end_the_server(serve: Callable[..., Served]) -> None:
    served = serve(target="never_ready", processes=1)
    assert served.port is None
    assert served.process.wait(30) == 1
    assert "giving up" in served.log.read_text()


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    [taken] = listen("127.0.0.1", 0)
    with taken, pytest.raises(ConfigError, match=r"can't listen on 127\.0\.0\.1 port .*in use"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_all_addresses_of_a_name_share_one_port() -> None:
    sockets = listen("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


def test_a_channel_carries_messages_whole_and_descriptors() -> None:
    one, two = (Channel(sock) for sock in Channel.pair())
    read, write = os.pipe()
    one.send(Message(Kind.CONNECTION, 1, 2, 3, 4.5, b"payload", read))
    one.send(Message(Kind.DRAIN, seconds=1.0))
    os.close(read)
    message = two.receive()
    assert message is not None
    assert message[:6] == (Kind.CONNECTION, 1, 2, 3, 4.5, b"payload")
    assert message.descriptor is not None
    os.write(write, b"x")
    assert os.read(message.descriptor, 1) == b"x"
    assert not os.get_inheritable(message.descriptor)
    os.close(message.descriptor)
    os.close(write)
    assert two.receive() == Message(Kind.DRAIN, seconds=1.0)
    one.close()
    assert two.receive() is None
    two.close()


def test_a_connection_without_a_descriptor_is_given_back(serve: Callable[..., Served]) -> None:
    """A process that is out of descriptors gets the message without one: the place is freed."""
    served = serve(target="poor", processes=1, limits={"total": 1, "per_peer": 1, "spare": 0})

    def closed_far_over_the_limit() -> bool:
        before = served.log.read_text().count("far over")
        assert served.connect().child is None
        return served.log.read_text().count("far over") > before

    assert not closed_far_over_the_limit()
    wait_until(lambda: not closed_far_over_the_limit())
