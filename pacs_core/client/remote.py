"""Whom we call."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import NamedTuple

from pacs_core._ext.associate import UserIdentity


class Timeouts(NamedTuple):
    """In seconds.

    `connect`: the connection, and the TLS handshake. `acse`: the answer to a request or a release. `dimse`:
    the answer to a message. `write`: for how long the peer may take nothing of what we send. `artim`: the
    peer's close after our abort (PS3.8 9.1.5).
    """

    connect: float = 10.0
    acse: float = 30.0
    dimse: float = 60.0
    write: float = 60.0
    artim: float = 5.0


@dataclass(frozen=True, slots=True)
class Remote:
    """Whom we call, as whom, and how.

    Attributes
    ----------
    host, port : str, int
        A name or an address, IPv4 or IPv6.
    aec, aet : str
        The AE title we call, and ours.
    tls : ssl.SSLContext | None
        Speak TLS, with this context.
    tls_name : str | None
        The name that the peer's certificate must be for; None: `host`.
    user_identity : UserIdentity | None
        To be sent with the request (PS3.7 D.3.3.7).
    maximum_pdu : int
        The longest P-DATA-TF we take, in bytes (PS3.8 D.1).
    timeouts : Timeouts
    """

    host: str
    port: int
    aec: str = "ANY-SCP"
    aet: str = "PACSCORE"
    tls: ssl.SSLContext | None = None
    tls_name: str | None = None
    user_identity: UserIdentity | None = field(default=None, repr=False)
    maximum_pdu: int = 131072
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.host[:1] != "[" else self.host
        return f"{self.aec} at {host}:{self.port} (called by {self.aet})"
