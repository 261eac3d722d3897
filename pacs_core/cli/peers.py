"""`pacs-core peers`: add, change, remove, list and call the peers of an archive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import msgspec

from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.options import Invocation, common
from pacs_core.config import Peer, PeerFile, Right
from pacs_core.errors import ConfigError, NotFoundError, PacsError
from pacs_core.secure import calling


@click.group
def command() -> None:
    """Known peers: who may call, from where, what for.

    They are kept in ARCHIVE/peers.toml; a running server sees a change within a second. A peer
    there counts over a [[peer]] of the settings file with the same AE title.
    """


@command.command("add")
@click.argument("aet")
@click.argument("host", required=False)
@click.argument("port", required=False, type=click.IntRange(1, 65535))
@click.option("--may", metavar="SERVICES", help=f"What it may ask for, of {','.join(Right)}; default: all.")
@click.option(
    "--from",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="Address or network (CIDR) it calls from; may be repeated. Default: HOST, if that is an address.",
)
@click.option(
    "--associations",
    type=click.IntRange(0, 64),
    help="Associations at a time for a C-MOVE to it; 0, the default: retrieve.move_associations.",
)
@click.option("--tls/--no-tls", default=None, help="Whether we call it with TLS, as the settings of tls say.")
@common()
def add(
    call: Invocation,
    aet: str,
    host: str | None,
    port: int | None,
    may: str | None,
    addresses: tuple[str, ...],
    associations: int | None,
    tls: bool | None,
) -> None:
    """Add a peer, or change one in what is given.

    Without HOST it can call us, but we can't call it. With HOST, and `move` among what it may, it is a
    destination of C-MOVE.
    """
    changes: dict[str, Any] = {}
    if host is not None:
        changes["host"] = host
    if port is not None:
        changes["port"] = port
    if may is not None:
        changes["may"] = [service.strip() for service in may.split(",")]
        unknown = set(changes["may"]) - set(Right)
        if unknown:
            raise ConfigError(f"--may: no service {', '.join(sorted(unknown))}; there are {', '.join(Right)}")
    if associations is not None:
        changes["associations"] = associations
    if tls is not None:
        changes["tls"] = tls
    if addresses:
        changes["from"] = list(addresses)
    peer = PeerFile(call.archive).add(aet, **changes)
    call.show(msgspec.to_builtins(peer), _line(peer))


@command.command("remove")
@click.argument("aet")
@common()
def remove(call: Invocation, aet: str) -> None:
    """Remove a peer."""
    PeerFile(call.archive).remove(aet)
    call.show({"removed": aet}, f"{aet} removed")


@command.command("list")
@common()
def list_peers(call: Invocation) -> None:
    """List the known peers, of the archive and of the settings file."""
    peers = _known(call)
    lines = [_line(peer) for peer in peers.values()] or ["no peers known"]
    call.show([msgspec.to_builtins(peer) for peer in peers.values()], "\n".join(lines))


@command.command("test")
@click.argument("aets", metavar="[AET]...", nargs=-1)
@tls_options
@common(aet="server.aet")
def test(call: Invocation, aets: tuple[str, ...], tls: Tls) -> int:
    """C-ECHO to known peers: those of these AE titles, or all that have a host.

    Exit code 1 when one does not answer as it should.
    """
    peers = _known(call)
    unknown = [aet for aet in aets if aet.strip() not in peers]
    if unknown:
        raise NotFoundError(f"no peer {', '.join(unknown)}; pacs-core peers list shows those there are")
    chosen = [peers[aet.strip()] for aet in aets] if aets else [p for p in peers.values() if p.host]
    outcomes: list[dict[str, Any]] = []
    lines: list[str] = []
    for peer in chosen:
        milliseconds: float | None = None
        error: str | None = None
        try:
            if not peer.host:
                raise NotFoundError("it has no host: it calls us, we can't call it")
            client = client_for(call, peer.host, peer.port, peer.aet, tls)
            if peer.tls and client.remote.tls is None:
                client.remote = replace(client.remote, tls=calling(call.settings.tls))
            milliseconds = round(client.echo() * 1e3, 3)
        except ConfigError:
            raise
        except PacsError as exc:
            error = str(exc)
        outcomes.append({"aet": peer.aet, "milliseconds": milliseconds, "error": error})
        lines.append(f"{peer.aet:<16}  {error or f'answers in {milliseconds} ms'}")
    call.show(outcomes, "\n".join(lines) or "no peer with a host")
    return 1 if any(outcome["error"] for outcome in outcomes) else 0


def _known(call: Invocation) -> dict[str, Peer]:
    """The peers of the settings and, over them, those of the archive, by AE title."""
    return {peer.aet.strip(): peer for peer in (*call.settings.peers, *PeerFile(call.archive).read())}


def _line(peer: Peer) -> str:
    where = f"{peer.host}:{peer.port}{' TLS' if peer.tls else ''}" if peer.host else "-"
    may = "all" if set(peer.may) == set(Right) else ",".join(peer.may)
    at_once = f"  associations {peer.associations}" if peer.associations else ""
    return (
        f"{peer.aet:<16}  {where:<24}  may {may}  from {','.join(peer.networks()) or 'any address'}{at_once}"
    )
