"""`pacs-core get`: fetch what a peer has."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
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
    from pacs_core.client import Received


@click.command(
    epilog=f"""{KEYS_HELP}

\b
Examples:
  pacs-core get 127.0.0.1 11112 StudyInstanceUID=1.2.3 --out images
  pacs-core get pacs.example 104 PatientID=4711 --aec PACS --out images --associations 4
  pacs-core get pacs.example 104 study 'PatientName=Doe*' StudyDate=20260101- --out images"""
)
@host_argument
@port_argument
@keys_argument
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder; files go to patient/study/series in it.",
)
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
    words: tuple[str, ...],
    out: Path,
    aec: str,
    root: str | None,
    associations: int,
    retries: int,
    tls: Tls,
) -> int:
    """C-GET what matches from the peer at HOST PORT, as files that hold what it sent, byte for byte.

    Run again after a break: what is there is not fetched again. Exit code 1 when some did not come, or
    nothing matched.
    """
    keys, asked = question(words, root)
    client = client_for(call, host, port, aec, tls)
    tally = _Tally(call)
    with Progress("get", quiet=call.json) as bar:

        def advance(received: Received, known: int) -> None:
            tally.known = known
            bar.expect(known)
            bar.advance()
            tally.add(received, bar)

        try:
            client.get(
                out,
                asked.level,
                keys,
                root=asked.root,
                associations=associations,
                retries=retries,
                progress=advance,
            )
        except KeyboardInterrupt:
            tally.show(interrupted=True)
            raise
    tally.show()
    return 1 if tally.failures or not tally.known else 0


class _Tally:
    """What has become of the instances so far."""

    def __init__(self, call: Invocation) -> None:
        self.known = 0
        self.failures: list[dict[str, Any]] = []
        self._call = call
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._begun = time.perf_counter()
        self._said: set[str] = set()

    def add(self, received: Received, bar: Progress) -> None:
        """Count one; say what is wrong with it, and what is wrong with the peer once."""
        self._counts["failed" if received.failed else "present" if received.present else "received"] += 1
        self._bytes += received.bytes
        if not received.failed:
            return
        error = str(received.error)
        self.failures.append({"sop_instance_uid": received.sop_instance_uid, "error": error})
        if not self._call.json and error not in self._said:
            self._said.add(error)
            bar.note(f"{received.sop_instance_uid}: {error}")

    def show(self, *, interrupted: bool = False) -> None:
        """The summary."""
        seconds = time.perf_counter() - self._begun
        counts = {what: self._counts[what] for what in ("received", "present", "failed")}
        value = {
            "known": self.known,
            **counts,
            "bytes": self._bytes,
            "seconds": round(seconds, 3),
            "interrupted": interrupted,
            "failures": self.failures,
        }
        told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        text = (
            f"{told}, {self._bytes / 1e6:,.1f} MB in {seconds:.1f} s "
            f"({counts['received'] / seconds:,.0f} files/s, {self._bytes / 1e6 / seconds:,.1f} MB/s)"
        )
        self._call.show(value, f"interrupted: {text}" if interrupted else text)
