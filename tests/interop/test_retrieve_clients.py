"""Other people's programs retrieve from us, and are sent what they or others ask for."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

import pacs_core
from pacs_core.config import PeerFile
from tests.conftest import DCMTK, ORTHANC
from tests.interop import orthanc_node
from tests.interop.files import data_set, digests, mixed
from tests.make import uid
from tests.serving import Serving, serving

COUNT = 60
DESTINATIONS = ("MOVESCU", "STORESCP", "ORTHANC")


class Node(NamedTuple):
    """A server that holds `COUNT` instances, where its destinations listen; by study the data sets that it
    holds, and how many of them are deflated."""

    server: Serving
    ports: dict[str, int]
    sent: dict[str, Counter[str]]
    deflated: Counter[str]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    (folder / "files").mkdir()
    by_study: dict[str, list[bytes]] = {}
    deflated: Counter[str] = Counter()
    with pacs_core.Archive.open(folder / "archive") as archive:
        for path in mixed(folder / "files", COUNT):
            archive.store(path)
            study = uid(int(path.name.split(".")[len(uid().split("."))]))
            by_study.setdefault(study, []).append(data_set(path))
            syntax = read_file_meta_info(path).TransferSyntaxUID
            deflated[study] += syntax == DeflatedExplicitVRLittleEndian
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        ports = {}
        for name, sock in zip(DESTINATIONS, (one, two, three), strict=True):
            sock.bind(("127.0.0.1", 0))
            ports[name] = sock.getsockname()[1]
    peers = PeerFile(folder / "archive")
    for name, port in ports.items():
        peers.add(name, host="127.0.0.1", port=port)
    with serving(folder / "archive") as server:
        yield Node(server, ports, {study: digests(data) for study, data in by_study.items()}, deflated)
        assert server.stop() == 0


def run(name: str, *arguments: object, folder: Path | None = None) -> str:
    """A program of DCMTK, run in a folder; what it said."""
    program = DCMTK / name
    if not program.exists():
        pytest.skip(f"{program} is not installed: apt-get install dcmtk")
    command = [str(program), "-v", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def received(folder: Path) -> Counter[str]:
    return digests(data_set(path) for path in folder.iterdir())


def keys(study: str) -> list[str]:
    return ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]


def test_getscu_gets_every_study(node: Node, tmp_path: Path) -> None:
    """It takes explicit VR little endian where it can choose: what is stored otherwise is converted."""
    for number, (study, sent) in enumerate(node.sent.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        run("getscu", "-S", "+B", "-od", folder, *keys(study), "127.0.0.1", node.server.port)
        assert len(list(folder.iterdir())) == sent.total()


@pytest.mark.parametrize(("model", "level"), [("-P", "PATIENT"), ("-O", "PATIENT")])
def test_getscu_gets_a_patient(node: Node, tmp_path: Path, model: str, level: str) -> None:
    wanted = sum(sent.total() for study, sent in node.sent.items() if int(study.split(".")[-1]) % 5 == 2)
    asked = ["-k", f"QueryRetrieveLevel={level}", "-k", "PatientID=P2"]
    run("getscu", model, "-od", tmp_path, *asked, "127.0.0.1", node.server.port)
    assert len(list(tmp_path.iterdir())) == wanted > 0


def test_movescu_receives_what_it_moves(node: Node, tmp_path: Path) -> None:
    for number, (study, sent) in enumerate(node.sent.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        said = run(
            *("movescu", "-d", "-S", "-aem", "MOVESCU", "+B", "+P", node.ports["MOVESCU"]),
            *(*keys(study), "127.0.0.1", node.server.port),
            folder=folder,  # with +B its option for that is ignored
        )
        assert re.search(rf"Completed Suboperations\s+: {sent.total()}\b", said), said[-3000:]
        got = received(folder)
        # It takes no deflated ones: those, and no others, are converted.
        assert (got.total(), (got - sent).total()) == (sent.total(), node.deflated[study])
    assert node.deflated.total() > 0


def test_movescu_moves_to_storescp(node: Node, tmp_path: Path) -> None:
    port = node.ports["STORESCP"]
    program = DCMTK / "storescp"
    if not program.exists():
        pytest.skip(f"{program} is not installed: apt-get install dcmtk")
    storescp = subprocess.Popen(
        [program, "+xa", "+B", "-od", tmp_path, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(port)
        for study in node.sent:
            run("movescu", "-S", "-aem", "STORESCP", *keys(study), "127.0.0.1", node.server.port)
    finally:
        storescp.terminate()
        storescp.wait(10)
    assert received(tmp_path) == sum(node.sent.values(), Counter())


def _await(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_orthanc_retrieves_and_is_moved_to(node: Node, tmp_path: Path, free_port: int) -> None:
    if not ORTHANC.exists():
        pytest.skip(f"{ORTHANC} is not installed: apt-get install orthanc")
    port = node.ports["ORTHANC"]
    first, *others = node.sent
    with orthanc_node.orthanc(
        ORTHANC, tmp_path / "orthanc", free_port, node.server.port, dicom_port=port
    ) as running:
        assert running.retrieve("Study", {"StudyInstanceUID": first}) == node.sent[first].total()
        for study in others:
            run("movescu", "-S", "-aem", "ORTHANC", *keys(study), "127.0.0.1", node.server.port)
        assert running.call("/statistics")["CountInstances"] == COUNT
