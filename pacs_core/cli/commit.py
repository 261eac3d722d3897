"""`pacs-core commit`: ask a peer whether it will keep instances."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.asking import aec_option, host_argument, port_argument
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.errors import AssociationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacs_core.client import Committed

timeout_option = click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0, 86400 * 7),
    metavar="SECONDS",
    help="How long to wait for the result of a commitment.",
)
listen_option = click.option(
    "--listen",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Take the result of a commitment also on an association that the peer makes to this port.",
)


@click.command
@host_argument
@port_argument
@click.argument("paths", nargs=-1, type=click.Path())
@click.option(
    "--uid",
    "uids",
    multiple=True,
    metavar="[CLASS:]UID",
    help="An instance by its UID; of one without its SOP class the archive (--archive) is asked for that.",
)
@aec_option
@timeout_option
@listen_option
@tls_options
@common(aet="server.aet")
def command(
    call: Invocation,
    host: str,
    port: int,
    paths: tuple[str, ...],
    uids: tuple[str, ...],
    aec: str,
    timeout: float,
    listen: int | None,
    tls: Tls,
) -> int:
    """Ask the peer at HOST PORT to commit to keeping what is in the files PATHS, or has these UIDs.

    PATHS are files, folders or patterns, as of `store`. Exit code 1 when it does not commit to all of
    them, or there were none.
    """
    if not paths and not uids:
        raise click.UsageError("name something: PATHS, or --uid")
    client = client_for(call, host, port, aec, tls)
    tally = Tally(call)
    with Progress("commit", unit="instance", quiet=call.json) as bar:
        client.commit(
            [*paths, *_references(call, uids)],
            timeout=timeout,
            listen=listen,
            progress=lambda outcome, known: tally.add(outcome, known, bar),
        )
    tally.show()
    return 1 if tally.failures or not tally.committed else 0


def _references(call: Invocation, uids: Sequence[str]) -> list[tuple[str, str]]:
    """The SOP class and instance of each."""
    pairs = [uid.rpartition(":") for uid in uids]
    classes = {uid: sop_class for sop_class, _, uid in pairs if sop_class}
    bare = [uid for sop_class, _, uid in pairs if not sop_class]
    if bare:
        with open_archive(call, create=False) as archive:
            for uid in bare:
                located = archive.index.locate(uid)
                if located is None:
                    raise NotFoundError("not held here: give its SOP class, as --uid CLASS:UID", uid=uid)
                classes[uid] = located.sop_class_uid
    return [(classes[uid], uid) for _, _, uid in pairs]


class Tally:
    """What the peer has said so far."""

    def __init__(self, call: Invocation) -> None:
        self.committed = 0
        self.failures: list[dict[str, Any]] = []
        self._call = call
        self._begun = time.perf_counter()
        self._said: set[str] = set()

    def add(self, outcome: Committed, known: int, bar: Progress) -> None:
        """Count one; say what is wrong with it."""
        bar.expect(known)
        bar.advance()
        if outcome.committed:
            self.committed += 1
            return
        failure = {"path": outcome.path and str(outcome.path), "sop_instance_uid": outcome.sop_instance_uid}
        self.failures.append({**failure, "reason": outcome.reason, "error": str(outcome.error)})
        text = str(outcome.error)
        # What is wrong with the peer is said once, not for each instance.
        if self._call.json or (isinstance(outcome.error, AssociationError) and text in self._said):
            return
        self._said.add(text)
        bar.note(f"{outcome.path or outcome.sop_instance_uid}: {text}")

    def show(self) -> None:
        """The summary."""
        seconds = time.perf_counter() - self._begun
        value = {
            "committed": self.committed,
            "failed": len(self.failures),
            "seconds": round(seconds, 3),
            "failures": self.failures,
        }
        text = f"{self.committed:,} committed, {len(self.failures):,} not, in {seconds:.1f} s"
        self._call.show(value, text)
