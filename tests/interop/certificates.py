"""Keys and certificates for TLS tests, made by the `openssl` command."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_EXTENSIONS = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Identity:
    """A private key and the certificate for it; PEM files."""

    key: Path
    certificate: Path


@dataclass(frozen=True)
class Trust:
    """What one side of a connection has: the certificates it trusts and, perhaps, an identity."""

    authority: Path
    identity: Identity | None = None

    def context(self) -> ssl.SSLContext:
        """The client's side, for Python clients."""
        context = ssl.create_default_context(cafile=str(self.authority))
        if self.identity is not None:
            context.load_cert_chain(self.identity.certificate, self.identity.key)
        return context

    def dcmtk(self) -> list[str]:
        """The options of DCMTK's clients."""
        own = ["+tla"] if self.identity is None else ["+tls", *map(str, _files(self.identity))]
        return [*own, "+cf", str(self.authority)]


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, openssl: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._openssl = openssl
        self._folder = folder
        self._own = self._make("authority", "-x509")
        self.certificate = self._own.certificate

    def issue(self, name: str) -> Identity:
        """A key, and a certificate signed by this authority."""
        signed_by = ("-CA", self._own.certificate, "-CAkey", self._own.key)
        return self._make(name, "-x509", "-addext", _EXTENSIONS, *signed_by)

    def _make(self, name: str, *options: str | Path) -> Identity:
        made = Identity(self._folder / f"{name}.key", self._folder / f"{name}.pem")
        subprocess.run(
            [
                *(
                    self._openssl,
                    "req",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    f"/CN={name}",
                ),
                *("-keyout", made.key, "-out", made.certificate, *options),
            ],
            check=True,
            capture_output=True,
        )
        return made


def _files(identity: Identity) -> tuple[Path, Path]:
    return identity.key, identity.certificate


def server_settings(authority: Authority, identity: Identity, *, client: str) -> list[str]:
    """Arguments of `pacs-core serve` for TLS on a free port, and only there."""
    settings = {
        "certificate": identity.certificate,
        "key": identity.key,
        "ca": authority.certificate,
        "client": client,
        "port": 0,
        "only": "true",
    }
    return [part for key, value in settings.items() for part in ("--set", f"tls.{key}={value}")]
