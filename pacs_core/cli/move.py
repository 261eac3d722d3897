"""`pacs-core move`: have a peer send what it has to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.asking import (
    KEYS_HELP,
    aec_option,
    associations_option,
    host_argument,
    keys_argument,
    port_argument,
    question,
    retries_option,
    root_option,
)
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress

if TYPE_CHECKING:
    from pacs_core.client import Moved

_COUNTS = ("completed", "failed", "warning", "remaining")


@click.command(
    epilog=f"""{KEYS_HELP}

\b
Examples:
  pacs-core move 127.0.0.1 11112 WORKSTATION StudyInstanceUID=1.2.3
  pacs-core move pacs.example 104 ARCHIVE study StudyDate=20260101- ModalitiesInStudy=MR --aec PACS"""
)
@host_argument
@port_argument
@click.argument("destination", metavar="DEST")
@keys_argument
@aec_option
@root_option
@associations_option
@retries_option
@tls_options
@common(aet="server.aet")
def command(
    call: Invocation,
    host: str,
    port: int,
    destination: str,
    words: tuple[str, ...],
    aec: str,
    root: str | None,
    associations: int,
    retries: int,
    tls: Tls,
) -> int:
    """C-MOVE what matches from the peer at HOST PORT to DEST, an AE title that the peer knows.

    Keys that are not unique are looked up first, with one C-MOVE for each match. Exit code 1 when some of it
    failed, or nothing matched.
    """
    keys, asked = question(words, root)
    client = client_for(call, host, port, aec, tls)
    tally = _Tally(call)
    with Progress("move", unit="instance", quiet=call.json) as bar:
        try:
            client.move(
                destination,
                asked.level,
                keys,
                root=asked.root,
                associations=associations,
                retries=retries,
                progress=lambda moved, known: tally.add(moved, known, bar),
            )
        except KeyboardInterrupt:
            tally.show(interrupted=True)
            raise
    tally.show()
    return 1 if tally.failures or not tally.requests else 0


class _Tally:
    """What the peer says it has sent so far."""

    def __init__(self, call: Invocation) -> None:
        self.requests = 0
        self.failures: list[dict[str, Any]] = []
        self._call = call
        self._last: dict[tuple[str, ...], Moved] = {}

    def add(self, moved: Moved, known: int, bar: Progress) -> None:
        """Take the counters of a response in the place of those that the request had before."""
        self.requests = known
        self._last[moved.uids] = moved
        counts = self._counts()
        total = sum(counts.values())
        bar.expect(total)
        bar.advance(total - counts["remaining"] - bar.done)
        if moved.error is not None:
            failure = {"uids": moved.uids, "status": moved.status, "failed_uids": moved.failed_uids}
            self.failures.append({**failure, "error": str(moved.error)})
            if not self._call.json:
                bar.note(str(moved.error))

    def _counts(self) -> dict[str, int]:
        return {name: sum(getattr(moved, name) for moved in self._last.values()) for name in _COUNTS}

    def show(self, *, interrupted: bool = False) -> None:
        """The summary."""
        counts = self._counts()
        value = {"requests": self.requests, **counts, "interrupted": interrupted, "failures": self.failures}
        text = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        self._call.show(value, f"interrupted: {text}" if interrupted else text)
