"""What tests of every kind use: sample files, free ports, the tools of other people."""

import os
import socket
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from pynetdicom.association import Association

ROOT = Path(__file__).resolve().parent.parent

DCMTK = Path("/usr/bin")
"""Where Debian puts DCMTK's tools. By full path: other tools of these names exist (pynetdicom has some)."""

ORTHANC = Path("/usr/sbin/Orthanc")


_serve_request = Association._serve_request


def _give_back(self: Association, message: Any, context_id: int) -> None:
    """Let no response be lost between the threads of pynetdicom's SCU.

    Its reactor may have passed its checkpoint when a request is sent. It then takes the response off the
    queue, for a request that it did not expect, and the sender waits in vain: seen when responses are quick.
    """
    if self.is_requestor and getattr(message, "MessageIDBeingRespondedTo", None) is not None:
        self.dimse.msg_queue.put((context_id, message))
    else:
        _serve_request(self, message, context_id)


Association._serve_request = _give_back  # type: ignore[method-assign]


def shared_data() -> Path | None:
    """The folder of more sample files, if this machine has it: PACS_CORE_DATA says where."""
    folder = Path(os.environ.get("PACS_CORE_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


def is_dicom(path: Path) -> bool:
    """Whether a file has the preamble and prefix of PS3.10 7.1."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The shared sample data; the test is skipped where there is none."""
    folder = shared_data()
    if folder is None:
        pytest.skip("no sample data: set PACS_CORE_DATA to a folder of DICOM files")
    return folder


@pytest.fixture(scope="session")
def pydicom_files() -> list[Path]:
    """The Part 10 files that pydicom ships, sorted."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path))


@pytest.fixture(scope="session")
def sample_files(pydicom_files: list[Path]) -> list[Path]:
    """Every Part 10 file at hand: pydicom's, and the shared ones where there are some; sorted."""
    folder = shared_data()
    shared = sorted(p for p in folder.rglob("*") if p.is_file() and is_dicom(p)) if folder is not None else []
    return [*pydicom_files, *shared]


@pytest.fixture
def free_port() -> int:
    """A port that nobody listened on a moment ago: for programs that can't choose their own."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def tool(path: Path, package: str) -> Path:
    """A program, or a skipped test that says which package has it."""
    if not os.access(path, os.X_OK):
        pytest.skip(f"{path} is not installed: apt-get install {package}")
    return path


@pytest.fixture(scope="session")
def storescu() -> Path:
    """DCMTK's sender."""
    return tool(DCMTK / "storescu", "dcmtk")


@pytest.fixture(scope="session")
def dcmsend() -> Path:
    """DCMTK's other sender."""
    return tool(DCMTK / "dcmsend", "dcmtk")


@pytest.fixture(scope="session")
def echoscu() -> Path:
    """DCMTK's C-ECHO."""
    return tool(DCMTK / "echoscu", "dcmtk")


@pytest.fixture(scope="session")
def findscu() -> Path:
    """DCMTK's C-FIND."""
    return tool(DCMTK / "findscu", "dcmtk")


@pytest.fixture(scope="session")
def storescp() -> Path:
    """DCMTK's receiver."""
    return tool(DCMTK / "storescp", "dcmtk")


@pytest.fixture(scope="session")
def orthanc() -> Path:
    """The Orthanc server."""
    return tool(ORTHANC, "orthanc")
