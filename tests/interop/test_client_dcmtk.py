"""`pacs-core store` and `echo` towards DCMTK's storescp and Orthanc, plain and over TLS."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs_core.client import part_of_file
from pacs_core.errors import PacsError
from tests import make
from tests.serving import pacs_core, until

NOT_FOR_ORTHANC = {
    # broken on purpose: its DCMTK can't parse them
    *("SC_rgb_jpeg.dcm", "UN_sequence.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm"),
    "explicit_VR-UN.dcm",
    # JPEG-LS that it does not like: out of resources (A700)
    *("JLSL_08_07_0_1F.dcm", "JLSL_16_15_1_1F.dcm"),
    *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"),
    *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm"),
}


def sendable(files: list[Path]) -> dict[str, Path]:
    """One file for each SOP instance: UID → path."""
    found: dict[str, Path] = {}
    for path in files:
        try:
            part = part_of_file(path)
        except PacsError:
            continue
        if part.sop_class_uid != "1.2.840.10008.1.3.10":
            found.setdefault(part.sop_instance_uid, path)
    return found


def data_set(path: Path) -> bytes:
    return path.read_bytes()[part_of_file(path).offset :]


def on_the_wire(path: Path) -> bytes:
    """The data set of a file; a deflated one padded to an even length (PS3.5 A.5)."""
    data = data_set(path)
    deflated = part_of_file(path).transfer_syntax_uid == DeflatedExplicitVRLittleEndian
    return data + b"\0" if deflated and len(data) & 1 else data


@pytest.fixture
def mixed(tmp_path: Path, sample_files: list[Path]) -> dict[str, Path]:
    """Hundreds of files: all samples, and some of ours in three transfer syntaxes."""
    folder = tmp_path / "made"
    folder.mkdir()
    made = [
        make.file(folder, make.instance(n, series=series, size=2 << (n % 18)), syntax)
        for series, syntax in enumerate(
            (ImplicitVRLittleEndian, make.ExplicitVRLittleEndian, ExplicitVRBigEndian)
        )
        for n in range(1, 61)
    ]
    files = sendable([*sample_files, *made])
    assert len(files) > 250
    return files


@contextmanager
def running(words: list[str], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from the moment it listens."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)

    def listens() -> bool:
        assert process.poll() is None, (folder / "server.log").read_text(errors="replace")[-2000:]
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert until(listens, 20), "it does not listen"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def store(port: int, *words: str, check: int | None = None) -> dict[str, Any]:
    """`pacs-core store --json`, and what it tells."""
    done = pacs_core("store", "127.0.0.1", str(port), "--json", *words, check=check)
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == (told["failed"] == 0)
    return told


def received(folder: Path) -> dict[str, Path]:
    """What storescp kept: SOP Instance UID → file, named MODALITY.UID."""
    return {path.name.partition(".")[2]: path for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("associations", [1, 4])
def test_storescp_receives_what_the_files_hold(
    associations: int, mixed: dict[str, Path], storescp: Path, free_port: int, tmp_path: Path
) -> None:
    """Byte for byte: what we send, storescp writes as it came (+B)."""
    kept = tmp_path / "kept"
    kept.mkdir()
    words = [str(storescp), "+xa", "-pm", "+B", "--fork", "-od", str(kept), str(free_port)]
    with running(words, free_port, tmp_path):
        assert "association" in pacs_core("echo", "127.0.0.1", str(free_port)).stdout
        told = store(free_port, "--associations", str(associations), *map(str, mixed.values()))
    refused = {failure["sop_instance_uid"]: failure["error"] for failure in told["failures"]}
    # DCMTK does not know every transfer syntax; that is all that may fail.
    assert all("transfer-syntaxes-not-supported" in error for error in refused.values()), refused
    assert len(refused) < 10
    assert told["stored"] == len(mixed) - len(refused)
    got = received(kept)
    assert set(got) == set(mixed) - set(refused)
    for uid, path in got.items():
        assert data_set(path) == on_the_wire(mixed[uid]), mixed[uid]


def test_a_storescp_that_is_killed_and_started_again(storescp: Path, free_port: int, tmp_path: Path) -> None:
    files = tmp_path / "files"
    kept = tmp_path / "kept"
    files.mkdir()
    kept.mkdir()
    for n in range(1, 151):
        make.file(files, make.instance(n, size=400_000))
    words = [str(storescp), "+xa", "-od", str(kept), str(free_port)]
    with running(words, free_port, tmp_path) as first:
        sending = subprocess.Popen(
            [sys.executable, "-m", "pacs_core", "store", "127.0.0.1", str(free_port), str(files), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert until(lambda: len(received(kept)) > 20, 20)
        first.kill()
        first.wait()
        time.sleep(0.3)
        with running(words, free_port, tmp_path):
            out, err = sending.communicate(timeout=60)
    assert sending.returncode == 0, err
    assert json.loads(out)["stored"] == 150
    assert len(received(kept)) == 150


# -- Orthanc ------------------------------------------------------------------------------------------------


class Orthanc:
    """A running Orthanc, with its REST API."""

    def __init__(self, port: int, http_port: int) -> None:
        self.port = port
        self._http = f"http://127.0.0.1:{http_port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._http + path, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def instances(self) -> dict[str, str]:
        """SOP Instance UID → Orthanc's own name."""
        found = json.loads(self.get("/instances?expand"))
        return {one["MainDicomTags"]["SOPInstanceUID"]: one["ID"] for one in found}


@pytest.fixture
def running_orthanc(orthanc: Path, tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc of the test's own, on ports that were free."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    port, http_port = (listener.getsockname()[1] for listener in listeners)
    for listener in listeners:
        listener.close()
    folder = tmp_path / "orthanc"
    folder.mkdir()
    settings = {
        "Name": "ORTHANC",
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http_port,
        "HttpServerEnabled": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomCheckCalledAet": True,
        "DicomScpTimeout": 2,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": True,
        "StorageCompression": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with running([str(orthanc), str(folder / "orthanc.json")], port, folder):
        yield Orthanc(port, http_port)


def test_orthanc_receives(running_orthanc: Orthanc, mixed: dict[str, Path]) -> None:
    pacs_core("echo", "127.0.0.1", str(running_orthanc.port), "--aec", "ORTHANC")
    words = ("--aec", "ORTHANC", "--associations", "2")
    told = store(running_orthanc.port, *words, *map(str, mixed.values()))
    refused = {failure["sop_instance_uid"]: failure for failure in told["failures"]}
    there = running_orthanc.instances()
    assert set(there) == set(mixed) - set(refused)
    names = {Path(f["path"]).name for f in told["failures"] if "no presentation context" not in f["error"]}
    assert names <= NOT_FOR_ORTHANC, told["failures"]


def test_orthanc_rejects_another_ae_title(running_orthanc: Orthanc, tmp_path: Path) -> None:
    path = make.file(tmp_path, make.instance())
    done = pacs_core(
        "store", "127.0.0.1", str(running_orthanc.port), str(path), "--aec", "NOBODY", check=None
    )
    assert done.returncode == 1
    assert "called-AE-title-not-recognized" in done.stderr


# -- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server.pem, client.pem and their keys; the server's is for pacs.test."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificates for TLS")
    folder = tmp_path_factory.mktemp("tls")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2")
    for name, host in (("server", "pacs.test"), ("client", "scu.test")):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={host}")
        (folder / "ext").write_text(f"subjectAltName=DNS:{host}\n")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)
    return folder


@pytest.fixture
def secure_storescp(
    storescp: Path, certificates: Path, free_port: int, tmp_path: Path
) -> Iterator[Callable[[], dict[str, Path]]]:
    """A storescp that speaks TLS and wants our certificate; what it received."""
    kept = tmp_path / "kept"
    kept.mkdir()
    words = [
        *(str(storescp), "+xa", "-pm", "+B", "--fork", "-od", str(kept)),
        *("+tls", str(certificates / "server.key"), str(certificates / "server.pem")),
        *("+cf", str(certificates / "ca.pem"), str(free_port)),
    ]
    with running(words, free_port, tmp_path):
        yield lambda: received(kept)


def test_over_tls(
    secure_storescp: Callable[[], dict[str, Path]],
    certificates: Path,
    free_port: int,
    mixed: dict[str, Path],
) -> None:
    ours = ("--tls-cert", str(certificates / "client.pem"), "--tls-key", str(certificates / "client.key"))
    trusted = (*ours, "--tls-ca", str(certificates / "ca.pem"), "--tls-name", "pacs.test")
    echo = ("echo", "127.0.0.1", str(free_port))
    pacs_core(*echo, *trusted)
    pacs_core(*echo, *ours, "--tls-insecure")
    told = store(free_port, *trusted, "--associations", "2", *map(str, mixed.values()))
    refused = {failure["sop_instance_uid"]: failure["error"] for failure in told["failures"]}
    assert all("transfer-syntaxes-not-supported" in error for error in refused.values()), refused
    got = secure_storescp()
    assert set(got) == set(mixed) - set(refused)
    for uid, path in got.items():
        assert data_set(path) == on_the_wire(mixed[uid]), mixed[uid]


def test_tls_that_is_not_to_be_trusted(
    secure_storescp: Callable[[], dict[str, Path]], certificates: Path, free_port: int
) -> None:
    ours = ("--tls-cert", str(certificates / "client.pem"), "--tls-key", str(certificates / "client.key"))
    ca = ("--tls-ca", str(certificates / "ca.pem"))
    echo = ("echo", "127.0.0.1", str(free_port))
    for words, why in (
        ((*ours, *ca), "127.0.0.1"),  # the certificate is for another name
        ((*ours, "--tls", "--tls-name", "pacs.test"), "certificate"),
        ((*ca, "--tls-name", "pacs.test"), ""),  # without ours
        ((), ""),  # without TLS
    ):
        done = pacs_core(*echo, *words, check=1)
        assert "pacs-core: no" in done.stderr
        assert why in done.stderr
    assert secure_storescp() == {}
