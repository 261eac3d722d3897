"""Who may call and what for: peers as values, and the one decision about a caller.

Pure: no file, no clock, no resolver. `PeerBook` (peerfile.py) keeps a `Peers` current.
"""

import shlex
from collections.abc import Iterable, Iterator
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct, field

AE_TITLE = r"^ *[!-\[\]-~]([ -\[\]-~]*)$"
"""Printable ASCII without the backslash, not only spaces (PS3.5 6.2, VR AE); at most 16 of them."""


AE_TITLE_EXPECTED = "1 to 16 printable ASCII characters without a backslash"


class Right(StrEnum):
    """What a peer may ask us for."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    GET = "get"
    MOVE = "move"  # and to be sent what a C-MOVE, anybody's, sends to it
    WORKLIST = "worklist"
    MPPS = "mpps"
    COMMIT = "commit"


class Peer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another application entity: how it is called, where it listens, what it may do here."""

    aet: Annotated[
        str,
        Meta(max_length=16, pattern=AE_TITLE, description="AE title", extra={"expected": AE_TITLE_EXPECTED}),
    ]
    host: Annotated[str, Meta(description="Where it listens; empty: it only calls us")] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="Where it listens")] = 11112
    may: Annotated[tuple[Right, ...], Meta(description="What it may ask us for")] = tuple(Right)
    tls: Annotated[
        bool, Meta(description="We call it with TLS: our certificate and whom we trust are those of tls")
    ] = False
    associations: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="At a time, for a C-MOVE to it; 0: as retrieve.move_associations",
        ),
    ] = 0
    addresses: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses or networks it may call from; empty: its host if that is an address, "
            "else any"
        ),
    ] = field(default=(), name="from")

    def networks(self) -> tuple[str, ...]:
        """Addresses and networks this peer may call from; empty: any.

        Raises
        ------
        ValueError
            An entry of `from` is neither an address nor a network.
        """
        for entry in self.addresses:
            ip_network(entry, strict=False)
        if self.addresses:
            return self.addresses
        return (self.host,) if _parse(self.host) is not None else ()

    def calls_from(self, address: str) -> bool:
        """Whether a connection from `address` may be this peer."""
        networks = self.networks()
        if not networks:
            return True
        caller = _parse(address)
        return caller is not None and any(caller in ip_network(entry, strict=False) for entry in networks)


class Refusal(Enum):
    """Why a caller is not admitted; the edge says how its protocol puts it (PS3.8 9.3.4)."""

    CALLED_AET = "called AE title not recognised"
    CALLING_AET = "calling AE title not recognised"
    ADDRESS = "calling AE title not expected from this address"


class Decision(NamedTuple):
    """About one caller. `hint` names the command or key that would admit a refused one."""

    peer: Peer | None
    refusal: Refusal | None
    hint: str

    @property
    def admitted(self) -> bool:
        """Whether the association may be made."""
        return self.refusal is None

    def may(self, service: Right) -> bool:
        """Whether the caller may use a service; an unknown caller that was admitted may use all."""
        return self.refusal is None and (self.peer is None or service in self.peer.may)


class Peers:
    """The known peers and the policy for everybody else; immutable.

    Parameters
    ----------
    peers
        Of two with the same AE title the later one counts.
    aet
        Our own AE title.
    called
        ``any``: whatever AE title we are called by; ``own``: only `aet`.
    unknown
        ``any``: callers that are not listed are admitted; ``known``: they are refused.
    command
        What adds a peer, for hints.
    """

    __slots__ = ("_by_aet", "aet", "called", "command", "unknown")

    def __init__(
        self,
        peers: Iterable[Peer],
        *,
        aet: str,
        called: Literal["any", "own"] = "any",
        unknown: Literal["any", "known"] = "known",
        command: str = "pacs-core peers add",
    ) -> None:
        self._by_aet = {_title(peer.aet): peer for peer in peers}
        self.aet = _title(aet)
        self.called = called
        self.unknown = unknown
        self.command = command

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_aet.values())

    def __len__(self) -> int:
        return len(self._by_aet)

    def get(self, aet: str) -> Peer | None:
        """The peer of that AE title; padding is not significant (PS3.8 9.3.2)."""
        return self._by_aet.get(_title(aet))

    def destination(self, aet: str) -> Peer | None:
        """The peer that a C-MOVE to that AE title sends to: it listens somewhere, and may have `move`."""
        peer = self.get(aet)
        return peer if peer is not None and peer.host and Right.MOVE in peer.may else None

    def admit(self, calling_aet: str, called_aet: str, address: str) -> Decision:
        """Decide about a caller from what its A-ASSOCIATE-RQ says and where it comes from."""
        if self.called == "own" and _title(called_aet) != self.aet:
            return Decision(
                None,
                Refusal.CALLED_AET,
                f"call {shlex.quote(self.aet)}, or set server.aet to {_shown(called_aet)} "
                f'or server.called_aet to "any"',
            )
        peer = self.get(calling_aet)
        if peer is None:
            if self.unknown == "any":
                return Decision(None, None, "")
            return Decision(
                None,
                Refusal.CALLING_AET,
                f"{self.command} {_operand(calling_aet)} {_shown(address)}, "
                f'or set server.unknown_callers to "any"',
            )
        if not peer.calls_from(address):
            allowed = " ".join(f"--from {entry}" for entry in (*peer.networks(), address))
            words = (_shown(calling_aet), _printable(allowed))
            if _title(calling_aet).startswith("-"):
                words = (words[1], _operand(calling_aet))
            return Decision(peer, Refusal.ADDRESS, " ".join((self.command, *words)))
        return Decision(peer, None, "")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket that listens on `host`."""
    address = _parse(host)
    return address.is_loopback if address is not None else host == "localhost"


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address without its zone; an IPv4 one that came in IPv6 clothes as IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _title(aet: str) -> str:
    return aet.strip(" \0")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _operand(title: str) -> str:
    """An AE title as a word of a command that no dash in it makes an option."""
    return f"-- {_shown(title)}" if _title(title).startswith("-") else _shown(title)


def _shown(text: str) -> str:
    """Text from the wire, safe to print and to paste into a shell."""
    return shlex.quote(_printable(_title(text)))
