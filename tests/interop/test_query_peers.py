"""`pacs-core find`, `get` and `move` towards our own server, DCMTK's dcmqrscp and Orthanc."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs_core import Archive, Client, read
from pacs_core.client import Received
from pacs_core.config import PeerFile
from tests import make
from tests.conftest import DCMTK, tool
from tests.interop.test_client_dcmtk import running
from tests.scripted import Scripted
from tests.serving import pacs_core, serving, until
from tests.unit.test_client import Kept

SERIES = 4
EACH = 6


@pytest.fixture(scope="module")
def instances() -> dict[str, bytes]:
    """Files of two studies, UID → bytes; one instance is larger than what is held in memory."""
    made = {}
    for study in (1, 2):
        for series in range(1, SERIES + 1):
            for number in range(1, EACH + 1):
                size = 9 << 20 if (study, series, number) == (1, 1, 1) else 3000
                image = make.instance(
                    number, study=study, series=series, size=size, patient="P/1", PatientName="Doe^Jane"
                )
                syntax = ImplicitVRLittleEndian if series == 2 else ExplicitVRLittleEndian
                made[str(image.SOPInstanceUID)] = make.part10(image, syntax)
    return made


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Node:
    """A PACS that holds the instances, and a destination that it knows as DEST."""

    def __init__(self, port: int, destination: Scripted, kept: Kept) -> None:
        self.client = Client("127.0.0.1", port, aec="QR", aet="US")
        self.words = ("127.0.0.1", str(port), "--aec", "QR", "--aet", "US")
        self.destination = destination
        self.kept = kept


@contextmanager
def dcmqrscp(program: Path, folder: Path, destination: int) -> Iterator[int]:
    [port] = free_ports(1)
    (folder / "storage").mkdir()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\ndest = (DEST, 127.0.0.1, {destination})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {folder}/storage RW (500, 1024mb) ANY\nAETable END\n"
    )
    with running([str(program), "-c", str(folder / "dcmqrscp.cfg")], port, folder):
        yield port


@contextmanager
def orthanc_node(program: Path, folder: Path, destination: int) -> Iterator[int]:
    port, http_port = free_ports(2)
    settings = {
        "DicomAet": "QR",
        "DicomPort": port,
        "HttpPort": http_port,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"dest": ["DEST", "127.0.0.1", destination]},
        "DefaultEncoding": "Utf8",
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with running([str(program), str(folder / "orthanc.json")], port, folder):
        yield port


@contextmanager
def ours(folder: Path, destination: int) -> Iterator[int]:
    Archive.open(folder / "archive").close()
    PeerFile(folder / "archive").add("DEST", host="127.0.0.1", port=destination)
    with serving(folder / "archive") as server:
        yield server.port


@pytest.fixture(scope="module", params=["ours", "dcmqrscp", "orthanc"])
def node(
    request: pytest.FixtureRequest, instances: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp(request.param)
    kept = Kept()
    destination = Scripted(kept)
    if request.param == "dcmqrscp":
        started = dcmqrscp(tool(DCMTK / "dcmqrscp", "dcmtk"), folder, destination.port)
    elif request.param == "orthanc":
        started = orthanc_node(request.getfixturevalue("orthanc"), folder, destination.port)
    else:
        started = ours(folder, destination.port)
    with started as port:
        node = Node(port, destination, kept)
        assert all(sent.stored for sent in node.client.store(list(instances.values())))
        yield node
    destination.close()


def fetched(outcomes: list[Received]) -> dict[str, Path]:
    assert not [one for one in outcomes if one.failed], outcomes
    return {one.sop_instance_uid: one.path for one in outcomes if one.path is not None}


def assert_same(got: dict[str, Path], instances: dict[str, bytes]) -> None:
    """The same elements. (dcmqrscp tells no SOP classes: it gets one context for each, and converts.)"""
    for uid, path in got.items():
        assert read(path).to_bytes(ExplicitVRLittleEndian) == read(instances[uid]).to_bytes(
            ExplicitVRLittleEndian
        )


def of_study(number: int) -> dict[str, str]:
    return {"StudyInstanceUID": make.uid(number)}


def test_find(node: Node) -> None:
    found = list(node.client.find(None, {"PatientName": "Doe*", "StudyDate": "20240101-"}))
    assert {study.StudyInstanceUID for study in found} == {make.uid(1), make.uid(2)}
    assert all(study.PatientName == "Doe^Jane" for study in found)
    series = list(node.client.find("SERIES", StudyInstanceUID=make.uid(1), Modality=None))
    assert [one.Modality for one in series] == ["CT"] * SERIES
    done = pacs_core("find", *node.words, "patient", "PatientID=P/1", "PatientName", "--format", "csv")
    assert done.stdout.splitlines() == ["PatientID,PatientName", "P/1,Doe^Jane"]


@pytest.mark.parametrize("associations", [1, 3])
def test_get(node: Node, instances: dict[str, bytes], associations: int, tmp_path: Path) -> None:
    """Whatever their size and transfer syntax."""
    got = fetched(node.client.get(tmp_path / "out", PatientID="P/1", associations=associations))
    assert set(got) == set(instances)
    assert_same(got, instances)
    assert len({path.parent for path in got.values()}) == 2 * SERIES
    assert {path.relative_to(tmp_path / "out").parts[1] for path in got.values()} == {
        make.uid(1),
        make.uid(2),
    }


def test_get_again_fetches_what_is_missing(node: Node, instances: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = fetched(node.client.get(out, **of_study(1)))
    for path in sorted(first.values())[: EACH + 2]:
        path.unlink()
    sorted(first.values())[-1].write_bytes(b"half")
    again = node.client.get(out, **of_study(1))
    assert fetched(again) == first
    assert sum(not one.present for one in again) == EACH + 3
    assert_same(first, instances)
    told = json.loads(
        pacs_core("get", *node.words, f"StudyInstanceUID={make.uid(1)}", "--out", str(out), "--json").stdout
    )
    assert (told["received"], told["present"], told["failed"]) == (0, len(first), 0)


def test_get_of_series_and_instances(node: Node, tmp_path: Path) -> None:
    keys = {**of_study(1), "SeriesInstanceUID": make.uid(1, 2)}
    assert len(fetched(node.client.get(tmp_path / "series", **keys))) == EACH
    wanted = [make.uid(1, 2, 1), make.uid(1, 2, 3)]
    got = fetched(node.client.get(tmp_path / "images", None, {**keys, "SOPInstanceUID": wanted}))
    assert sorted(got) == wanted
    assert node.client.get(tmp_path / "none", StudyInstanceUID="1.2.3") == []


def test_ctrl_c_leaves_no_half_file(node: Node, instances: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "pacs_core", "get", *node.words, "PatientID=P/1", "--out", str(out)]
    process = subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert until(lambda: any(out.rglob("*.dcm")) or process.poll() is not None, 30)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert not list(out.rglob(".*"))
    got = {path.stem: path for path in out.rglob("*.dcm")}
    assert_same(got, instances)
    assert set(fetched(node.client.get(out, PatientID="P/1"))) == set(instances)


def test_move(node: Node, instances: dict[str, bytes]) -> None:
    node.kept.data.clear()
    [moved] = node.client.move("DEST", **of_study(1))
    assert (moved.status, moved.completed, moved.failed, moved.error) == (0, SERIES * EACH, 0, None)
    assert until(lambda: len(node.kept.data) == SERIES * EACH)
    told = json.loads(
        pacs_core(
            "move", *node.words, "DEST", "study", "PatientName=Doe*", "--json", "--associations", "2"
        ).stdout
    )
    assert (told["completed"], told["failed"], told["requests"]) == (len(instances), 0, 2)
    assert until(lambda: set(node.kept.data) == set(instances))


def test_move_to_nobody(node: Node) -> None:
    [moved] = node.client.move("NOBODY", **of_study(1))
    assert moved.error is not None
    assert moved.completed == 0
    done = pacs_core("move", *node.words, "NOBODY", f"StudyInstanceUID={make.uid(1)}", check=1)
    assert "answered" in done.stderr
