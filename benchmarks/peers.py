"""The receivers that are compared: each started in a temporary folder, stopped and cleaned up at the end.

``with peer.start(folder) as running:`` gives a `Receiver` that listens on a free port of 127.0.0.1. As a
program (``python peers.py FOLDER PORT``) this is the bare pynetdicom receiver.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pacs_core

STORESCP = Path("/usr/bin/storescp")
DCMQRSCP = Path("/usr/bin/dcmqrscp")
STORESCU = Path("/usr/bin/storescu")
ORTHANC = Path("/usr/sbin/Orthanc")
AE_TITLE = "ANY-SCP"

_START_SECONDS = 30
_STOP_SECONDS = 15
_TICKS = os.sysconf("SC_CLK_TCK")
_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Receiver:
    """A receiver that listens."""

    port: int
    pid: int

    def tree(self) -> list[int]:
        """Its process and all below it."""
        return process_tree(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time so far, of children that have ended too."""
        return sum(sum(int(n) for n in _stat(pid)[11:15]) for pid in self.tree()) / _TICKS

    def resident(self) -> int:
        """Bytes resident now, over all its processes."""
        return sum(_resident(pid) for pid in self.tree())


@dataclass(frozen=True)
class Peer:
    """A receiver that can be started; `missing` says why it can't."""

    name: str
    start: Callable[[Path], AbstractContextManager[Receiver]]
    version: str
    missing: str | None = None


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name; zeros for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X"] + ["0"] * 50


def _resident(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def process_tree(root: int) -> list[int]:
    """`root` and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, ()))
    return tree


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_port(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


@contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own, which is ended with the block."""
    process = subprocess.Popen(  # type: ignore[call-overload]
        command, stdout=subprocess.DEVNULL, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def program(*command: object) -> Iterator[Receiver]:
    """A Python program with its arguments, the last of which is the port that it listens on."""
    port = free_port()
    with running([sys.executable, *map(str, command), str(port)], stderr=subprocess.DEVNULL) as process:
        await_port(process, port)
        yield Receiver(port, process.pid)


def ours(repository: Path, settings: Sequence[str]) -> Callable[[Path], AbstractContextManager[Receiver]]:
    """`pacs-core serve` of a checkout that is built in place, with the given ``key=value`` settings."""

    @contextmanager
    def start(folder: Path) -> Iterator[Receiver]:
        command = [sys.executable, "-m", "pacs_core", "serve", "--archive", str(folder / "archive")]
        command += ["--port", "0", "--aet", AE_TITLE, "--set", "log.format=json"]
        for setting in settings:
            command += ["--set", setting]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PACS_CORE_")}
        environment["PYTHONPATH"] = str(repository)
        with running(command, stderr=subprocess.PIPE, env=environment, cwd=repository) as process:
            assert process.stderr is not None
            port = 0
            for line in process.stderr:
                if '"listening"' in line:
                    port = int(json.loads(line)["port"])
                    break
                sys.stderr.write(line)
            if not port:
                raise RuntimeError("pacs-core serve did not start")
            reader = threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True)
            reader.start()
            yield Receiver(port, process.pid)

    return start


def _pass_on(lines: Iterator[str]) -> None:
    """Show what a receiver complains about."""
    for line in lines:
        if '"level": "info"' not in line and '"level":"info"' not in line:
            sys.stderr.write(line)


@contextmanager
def storescp(folder: Path) -> Iterator[Receiver]:
    """DCMTK's storescp, a process for each association, files as received."""
    port = free_port()
    command = [str(STORESCP), "--fork", "--bit-preserving", "--aetitle", AE_TITLE]
    command += ["-od", str(folder), str(port)]
    with running(command, stderr=subprocess.DEVNULL, env=no_delay()) as process:
        await_port(process, port)
        yield Receiver(port, process.pid)


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[Receiver]:
    """DCMTK's dcmqrscp, a process for each association, with the largest quota that it takes."""
    port = free_port()
    storage = folder / "storage"
    storage.mkdir()
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 64\n"
        f"AETable BEGIN\n{AE_TITLE} {storage} RW (500, 1024gb) ANY\nAETable END\n"
    )
    command = [str(DCMQRSCP), "--config", str(configuration)]
    with running(command, stderr=subprocess.DEVNULL, env=no_delay()) as process:
        await_port(process, port)
        yield Receiver(port, process.pid)


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    """Orthanc as installed, without HTTP and plugins, anybody may store."""
    port = free_port()
    configuration = {
        "Name": "benchmark",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [],
        "HttpServerEnabled": False,
        "DicomServerEnabled": True,
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with running([str(ORTHANC), str(path)], stderr=subprocess.DEVNULL, env=no_delay()) as process:
        await_port(process, port)
        yield Receiver(port, process.pid)


@contextmanager
def qrscp(folder: Path) -> Iterator[Receiver]:
    """pynetdicom's query/retrieve application, with a database in the folder."""
    port = free_port()
    configuration = folder / "qrscp.ini"
    configuration.write_text(
        f"[DEFAULT]\nae_title: {AE_TITLE}\nport: {port}\nmax_pdu: 0\nacse_timeout: 30\ndimse_timeout: 30\n"
        f"network_timeout: 600\nbind_address: 127.0.0.1\ninstance_location: {folder / 'instances'}\n"
        f"database_location: {folder / 'instances.sqlite'}\nlog_identifier: False\n"
    )
    command = [sys.executable, "-m", "pynetdicom", "qrscp", "-q", "-c", str(configuration)]
    with running(command, stderr=subprocess.DEVNULL) as process:
        await_port(process, port)
        yield Receiver(port, process.pid)


@contextmanager
def bare_pynetdicom(folder: Path) -> Iterator[Receiver]:
    """pynetdicom's AE with a handler that writes the bytes as received, in a process of its own."""
    with program(Path(__file__).resolve(), folder) as receiver:
        yield receiver


def no_delay() -> dict[str, str]:
    """An environment in which DCMTK (and what is built with it) switches Nagle's algorithm off."""
    return {**os.environ, "TCP_NODELAY": "1"}


def _dcmtk_version(program: Path) -> str:
    if not program.exists():
        return "not installed"
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v(\d\S+)", said)
    return f"DCMTK {found[1]}" if found else "DCMTK, version unknown"


def _orthanc_version() -> str:
    if not ORTHANC.exists():
        return "not installed"
    said = subprocess.run([str(ORTHANC), "--version"], capture_output=True, text=True, check=False).stdout
    return f"Orthanc {said.split()[1]}" if said else "Orthanc, version unknown"


def query_peers() -> list[Peer]:
    """Those that answer queries, ours first."""
    by_name = {peer.name: peer for peer in peers()}
    missing = "SQLAlchemy is not installed (pip install -e '.[bench]')"
    present = importlib.util.find_spec("sqlalchemy") is not None
    version = f"qrscp of pynetdicom {importlib.metadata.version('pynetdicom')}"
    application = Peer("qrscp", qrscp, version, None if present else missing)
    return [by_name["pacs_core"], by_name["Orthanc"], by_name["dcmqrscp"], application]


def peers(settings: Sequence[str] = (), baseline: Path | None = None) -> list[Peer]:
    """Ours first, then a `baseline` of ours in another checkout, then everybody else."""
    version = f"pacs_core {pacs_core.__version__}"
    return [
        Peer("pacs_core", ours(_REPOSITORY, settings), version),
        *([Peer("baseline", ours(baseline.resolve(), ()), "pacs_core as before")] if baseline else []),
        Peer(
            "storescp",
            storescp,
            _dcmtk_version(STORESCP),
            None if STORESCP.exists() else "DCMTK is not installed (apt-get install dcmtk)",
        ),
        Peer(
            "dcmqrscp",
            dcmqrscp,
            _dcmtk_version(DCMQRSCP).replace("DCMTK", "dcmqrscp"),
            None if DCMQRSCP.exists() else "DCMTK is not installed (apt-get install dcmtk)",
        ),
        Peer(
            "Orthanc",
            orthanc,
            _orthanc_version(),
            None if ORTHANC.exists() else "Orthanc is not installed (apt-get install orthanc)",
        ),
        Peer("pynetdicom", bare_pynetdicom, f"pynetdicom {importlib.metadata.version('pynetdicom')}"),
    ]


def empty(folder: Path) -> None:
    """Remove what a receiver kept and let the disk settle, so that nobody's turn pays for it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def _serve_bare(folder: Path, port: int) -> None:
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    def keep(event: evt.Event) -> int:
        # The request's UID is the peer's: here the peer is the benchmark itself.
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE(AE_TITLE)
    entity.maximum_pdu_size = 0
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(Verification)
    entity.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, keep)])


if __name__ == "__main__":
    _serve_bare(Path(sys.argv[1]), int(sys.argv[2]))
