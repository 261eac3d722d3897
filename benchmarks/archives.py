"""The archives that instances are retrieved from: ours, dcmqrscp, Orthanc, pynetdicom's qrscp.

Each is started as in `peers`, holds nothing, and knows one destination of C-MOVE: `DESTINATION`, at the port
that `receiver` listens on.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import peers
from peers import AE_TITLE, Peer, Receiver

from pacs_core.config import PeerFile

DESTINATION = "DESTINATION"

Start = Callable[[Path], Iterator[Receiver]]


@contextmanager
def receiver() -> Iterator[int]:
    """DCMTK's storescp, a process for each association, which forgets what it receives; its port."""
    port = peers.free_port()
    command = [str(peers.STORESCP), "--fork", "--ignore", "-pdu", "131072", str(port)]
    with peers.running(command, stderr=subprocess.DEVNULL, env=peers.no_delay()) as process:
        peers.await_port(process, port)
        yield port


def _ours(destination: int, associations: int) -> Start:
    @contextmanager
    def start(folder: Path) -> Iterator[Receiver]:
        PeerFile(folder / "archive").add(
            DESTINATION, host="127.0.0.1", port=destination, associations=associations
        )
        with peers.ours(Path(__file__).resolve().parent.parent, ())(folder) as running:
            yield running

    return start


def _dcmqrscp(destination: int) -> Start:
    @contextmanager
    def start(folder: Path) -> Iterator[Receiver]:
        port = peers.free_port()
        storage = folder / "storage"
        storage.mkdir()
        configuration = folder / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 64\n"
            f"HostTable BEGIN\nto = ({DESTINATION}, localhost, {destination})\nHostTable END\n"
            f"AETable BEGIN\n{AE_TITLE} {storage} RW (500, 1024gb) ANY\nAETable END\n"
        )
        command = [str(peers.DCMQRSCP), "--config", str(configuration)]
        with peers.running(command, stderr=subprocess.DEVNULL, env=peers.no_delay()) as process:
            peers.await_port(process, port)
            yield Receiver(port, process.pid)

    return start


def _orthanc(destination: int) -> Start:
    @contextmanager
    def start(folder: Path) -> Iterator[Receiver]:
        port = peers.free_port()
        configuration = {
            "Name": "benchmark",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "Plugins": [],
            "HttpServerEnabled": False,
            "DicomAet": AE_TITLE,
            "DicomPort": port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {"to": [DESTINATION, "127.0.0.1", destination]},
            "MaximumPduLength": 131072,
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(configuration))
        command = [str(peers.ORTHANC), str(path)]
        with peers.running(command, stderr=subprocess.DEVNULL, env=peers.no_delay()) as process:
            peers.await_port(process, port)
            yield Receiver(port, process.pid)

    return start


def _qrscp(destination: int) -> Start:
    @contextmanager
    def start(folder: Path) -> Iterator[Receiver]:
        port = peers.free_port()
        (folder / "instances").mkdir()
        configuration = folder / "qrscp.ini"
        configuration.write_text(
            f"[DEFAULT]\nae_title: {AE_TITLE}\nport: {port}\nmax_pdu: 131072\nacse_timeout: 30\n"
            f"dimse_timeout: 30\nnetwork_timeout: 30\nbind_address: 127.0.0.1\n"
            f"instance_location: {folder}/instances\ndatabase_location: {folder}/instances.sqlite\n"
            f"log_identifier: False\n[{DESTINATION}]\naddress: 127.0.0.1\nport: {destination}\n"
        )
        command = [sys.executable, "-m", "pynetdicom", "qrscp", "-q", "--config", str(configuration)]
        with peers.running(command, stderr=subprocess.DEVNULL) as process:
            peers.await_port(process, port)
            yield Receiver(port, process.pid)

    return start


def archives(destination: int, associations: int = 1) -> list[Peer]:
    """Ours first, with that many associations for one C-MOVE."""
    known = {peer.name: peer for peer in peers.peers()}
    found = [
        replace(known["pacs_core"], start=_ours(destination, associations)),
        replace(known["dcmqrscp"], start=_dcmqrscp(destination)),
        replace(known["Orthanc"], start=_orthanc(destination)),
    ]
    if importlib.util.find_spec("sqlalchemy") is None:
        missing = "pynetdicom's qrscp needs SQLAlchemy (pip install -e '.[bench]')"
    else:
        missing = None
    return [*found, replace(known["pynetdicom"], name="qrscp", start=_qrscp(destination), missing=missing)]
