"""Orthanc as a storage client, told what to do through its REST API."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.interop.certificates import Trust
from tests.interop.files import Sample

STARTUP_SECONDS = 30
_DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"
"""Orthanc 1.10 takes it in but can't send it: its job fails before a byte of the instance is on the wire."""


class Orthanc:
    """A running Orthanc that knows one modality, named ``pacs``."""

    def __init__(self, http_port: int) -> None:
        self._url = f"http://127.0.0.1:{http_port}"

    def call(self, path: str, data: bytes | None = None) -> Any:
        """GET, or POST where there is something to send; the JSON that comes back."""
        with urllib.request.urlopen(self._url + path, data=data, timeout=120) as answer:
            return json.load(answer)

    def upload(self, path: Path) -> str | None:
        """Give it a file; its identifier there, None if Orthanc can't read it."""
        try:
            identifier: str = self.call("/instances", path.read_bytes())["ID"]
        except urllib.error.HTTPError:  # without the identifiers that it needs, or not DICOM to it
            return None
        return identifier

    def echo(self) -> None:
        """C-ECHO to the modality; raises HTTPError when it fails."""
        self.call("/modalities/pacs/echo", b"{}")

    def store(self, identifiers: Sequence[str]) -> dict[str, Any]:
        """C-STORE to the modality; what became of it."""
        order = {"Resources": list(identifiers), "Synchronous": True}
        answer: dict[str, Any] = self.call("/modalities/pacs/store", json.dumps(order).encode())
        return answer

    def retrieve(self, level: str, keys: dict[str, str]) -> int:
        """C-FIND, then C-MOVE of each match to itself; how many instances it has then."""
        order = json.dumps({"Level": level, "Query": keys}).encode()
        query = self.call("/modalities/pacs/query", order)["ID"]
        self.call(f"/queries/{query}/retrieve", b'{"Synchronous": true}')
        return int(self.call("/statistics")["CountInstances"])


@contextmanager
def orthanc(
    program: Path,
    folder: Path,
    http_port: int,
    modality_port: int,
    trust: Trust | None = None,
    dicom_port: int | None = None,
) -> Iterator[Orthanc]:
    """An Orthanc for the length of the block, with its files in `folder`; `dicom_port`: where it listens."""
    folder.mkdir()
    settings: dict[str, Any] = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": http_port,
        "DicomServerEnabled": dicom_port is not None,
        "DicomPort": dicom_port or 4242,
        "DicomAlwaysAllowStore": True,
        "SaveJobs": False,
        "DicomModalities": {
            "pacs": {
                "AET": "PACSCORE",
                "Host": "127.0.0.1",
                "Port": modality_port,
                "UseDicomTls": trust is not None,
            }
        },
    }
    if trust is not None:
        assert trust.identity is not None  # Orthanc 1.10 refuses to speak TLS without one
        settings |= {
            "DicomTlsCertificate": str(trust.identity.certificate),
            "DicomTlsPrivateKey": str(trust.identity.key),
            "DicomTlsTrustedCertificates": str(trust.authority),
        }
    config = folder / "orthanc.json"
    config.write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, config], stdout=log, stderr=log)
    try:
        running = Orthanc(http_port)
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                running.call("/system")
                break
            except OSError:
                said = (folder / "log").read_text(errors="replace")[-2000:]
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def send(running: Orthanc, samples: Sequence[Sample]) -> int:
    """Upload files and have them sent on, in one job; how many were acknowledged.

    Files whose UIDs have the VR UN are left out, as by `clients.dcmsend`, and for the same reason.
    """
    files = [
        sample.path
        for sample in samples
        if not sample.uid_of_unknown_vr and sample.transfer_syntax_uid != _DEFLATED_IMAGE_FRAME
    ]
    identifiers = [identifier for path in files if (identifier := running.upload(path))]
    assert len(set(identifiers)) == len(identifiers) >= 0.95 * len(files)
    running.echo()
    outcome = running.store(identifiers)
    assert outcome["FailedInstancesCount"] == 0, outcome
    assert outcome["InstancesCount"] == len(identifiers)
    return len(identifiers)
