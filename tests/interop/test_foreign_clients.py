"""Other people's clients send what they have and ask for it, over plain connections and TLS.

What is acknowledged is what `stats` counts; `verify` is clean; and the data sets that are kept are those that
crossed the wire, seen by a proxy in between. A client that sends over TLS sends the same as without: there
the plain run says what it is.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pydicom
import pytest

from tests.interop import clients, orthanc_node
from tests.interop.certificates import Authority, Identity, Trust, server_settings
from tests.interop.clients import Send
from tests.interop.files import Sample, assert_kept, data_set, digests, mixed, sendable
from tests.serving import Serving, serving, until
from tests.wiretap import Wiretap

pytestmark = pytest.mark.filterwarnings("ignore")  # the samples are odd on purpose; pydicom says so

ANY_CLASS = ("--set", "wire.accept_unknown_sop_classes=true")
MIXED = 240
"""Generated files, beside the sample files."""


class Sent(NamedTuple):
    """What a client sent over a plain connection."""

    send: Send
    without_tls: bool
    with_certificate: bool
    """It speaks TLS only with a certificate of its own."""
    archive: Path
    acknowledged: int
    crossed: Counter[str]


class Authorities(NamedTuple):
    """Who signs whom: `ours` signs server and clients; nobody trusts `other`."""

    ours: Authority
    server: Identity
    client: Trust
    anonymous: Trust
    stranger: Trust


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, sample_files: list[Path]) -> list[Sample]:
    """Hundreds of mixed files."""
    found = sendable([*sample_files, *mixed(tmp_path_factory.mktemp("mixed"), MIXED)])
    assert len(found) > 300
    return found


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """Keys and certificates; the test is skipped without `openssl`."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    folder = tmp_path_factory.mktemp("certificates")
    ours = Authority(Path(program), folder / "ours")
    other = Authority(Path(program), folder / "other")
    return Authorities(
        ours,
        ours.issue("server"),
        Trust(ours.certificate, ours.issue("client")),
        Trust(ours.certificate),
        Trust(ours.certificate, other.issue("stranger")),
    )


@pytest.fixture(scope="module", params=["storescu", "dcmsend", "pynetdicom", "pynetdicom_chunked", "orthanc"])
def sent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]
) -> Iterator[Sent]:
    """All the files, sent by one client through a proxy."""
    folder = tmp_path_factory.mktemp(request.param)
    send = _client(request, folder)
    archive = folder / "archive"
    with serving(archive, *ANY_CLASS) as server:
        tap = Wiretap(server.port)
        acknowledged = send(tap.port, None, samples)
        tap.close()
        assert server.stop() == 0
    yield Sent(
        send,
        request.param == "dcmsend",
        request.param == "orthanc",
        archive,
        acknowledged,
        digests(tap.data_sets),
    )
    shutil.rmtree(folder)


def _client(request: pytest.FixtureRequest, folder: Path) -> Send:
    if request.param.startswith("pynetdicom"):
        in_process: Send = getattr(clients, request.param)
        return in_process
    program: Path = request.getfixturevalue(request.param)
    if request.param != "orthanc":
        return clients.bound(getattr(clients, request.param), program)

    def send(port: int, trust: Trust | None, samples: list[Sample]) -> int:
        place = folder / f"orthanc-{port}"
        with orthanc_node.orthanc(program, place, _free_port(), port, trust) as running:
            return orthanc_node.send(running, samples)

    return send


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.timeout(240)
def test_hundreds_of_mixed_files(sent: Sent, samples: list[Sample]) -> None:
    assert sent.acknowledged == sent.crossed.total() > 0.9 * len(samples)
    assert_kept(sent.archive, sent.crossed)
    if sent.send is clients.pynetdicom_chunked:
        assert sent.crossed == digests(data_set(sample.path) for sample in samples)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("client", ["required", "none"])
def test_the_same_over_tls(
    sent: Sent, samples: list[Sample], authorities: Authorities, tmp_path: Path, client: str
) -> None:
    if sent.without_tls:
        pytest.skip("this client speaks no TLS")
    shown = client == "required" or sent.with_certificate
    trust = authorities.client if shown else authorities.anonymous
    archive = tmp_path / "archive"
    settings = server_settings(authorities.ours, authorities.server, client=client)
    with serving(archive, *ANY_CLASS, *settings) as server:
        assert sent.send(server.port, trust, samples) == sent.acknowledged
        assert server.stop() == 0
    assert_kept(archive, sent.crossed)


def test_echoscu(tmp_path: Path, echoscu: Path) -> None:
    with serving(tmp_path / "archive") as server:
        assert echoes(echoscu, server, "--repeat", "20")
        assert echoes(echoscu, server, "-pdu", "4096", "--propose-ts", "3", "--propose-pc", "128")
        assert server.stop() == 0


def echoes(echoscu: Path, server: Serving, *options: str) -> bool:
    """Whether C-ECHO works with these options."""
    command = [echoscu, "-v", *options, "127.0.0.1", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    good = "Received Echo Response (Success)" in done.stdout + done.stderr
    assert (done.returncode == 0) == good
    return good


@pytest.mark.parametrize(
    ("client", "refused"),
    [
        ("required", ["anonymous", "stranger", "plain"]),
        ("optional", ["stranger", "plain"]),
        ("none", ["plain"]),
    ],
)
def test_certificates_decide_who_comes_in(
    tmp_path: Path, echoscu: Path, authorities: Authorities, client: str, refused: list[str]
) -> None:
    """Whoever is refused does not harm the others."""
    callers = {
        "anonymous": authorities.anonymous.dcmtk(),
        "stranger": authorities.stranger.dcmtk(),
        "plain": [],
        "certified": authorities.client.dcmtk(),
    }
    settings = server_settings(authorities.ours, authorities.server, client=client)
    with serving(tmp_path / "archive", *settings) as server:
        for name, options in callers.items():
            assert echoes(echoscu, server, *options) == (name not in refused), name
        assert until(lambda: len(refusals(server)) == len(refused)), server.lines
        assert server.stop() == 0


def refusals(server: Serving) -> list[str]:
    """What the log says about TLS handshakes that failed."""
    return [str(line["event"]) for line in server.lines if "TLS handshake failed" in str(line.get("event"))]


LEVELS = {
    "PATIENT": ("PatientID",),
    "STUDY": ("PatientID", "StudyInstanceUID"),
    "SERIES": ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    "IMAGE": ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}


def test_findscu_at_each_level(tmp_path: Path, storescu: Path, findscu: Path) -> None:
    """CONFORMANCE 15, 21, 23: what is there at each level, under the unique keys above it."""
    folder = tmp_path / "files"
    folder.mkdir()
    held = [pydicom.dcmread(path, stop_before_pixels=True) for path in mixed(folder, 60)]
    with serving(tmp_path / "archive") as server:
        clients.storescu(storescu, server.port, None, sendable(folder.iterdir()))
        for root, names in (("-P", list(LEVELS)), ("-S", list(LEVELS)[1:])):
            for level in names:
                above = LEVELS[names[names.index(level) - 1]] if level != names[0] else ()
                # In Study Root a patient's ID is a key of the study.
                above = above if root == "-P" else above[1:]
                key = LEVELS[level][-1]
                chosen = {keyword: str(held[7][keyword].value) for keyword in above}
                found = _find(findscu, server.port, root, level, chosen | {key: ""}, tmp_path)
                expected = {
                    str(ds[key].value)
                    for ds in held
                    if all(str(ds[keyword].value) == value for keyword, value in chosen.items())
                }
                assert {str(ds[key].value) for ds in found} == expected, (root, level)
                assert len(found) == len(expected)
                one = _find(findscu, server.port, root, level, chosen | {key: min(expected)}, tmp_path)
                assert [str(ds[key].value) for ds in one] == [min(expected)]
                assert _find(findscu, server.port, root, level, chosen | {key: "1.2.3"}, tmp_path) == []
        assert server.stop() == 0


def _find(
    findscu: Path, port: int, root: str, level: str, keys: dict[str, str], folder: Path
) -> list[pydicom.Dataset]:
    out = folder / "found"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    asked = [f"QueryRetrieveLevel={level}", *(f"{keyword}={value}" for keyword, value in keys.items())]
    done = subprocess.run(
        [findscu, "-v", root, "-X", "-od", out, *(part for key in asked for part in ("-k", key)), *_to(port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Received Final Find Response (Success)" in said
    return [pydicom.dcmread(path, force=True) for path in out.glob("rsp*.dcm")]


def _to(port: int) -> list[str]:
    return ["127.0.0.1", str(port)]
