"""`pacs-core store`: send files to a peer."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.errors import AssociationError

if TYPE_CHECKING:
    from pacs_core.client import Sent

_PRIORITIES = {"medium": 0, "high": 1, "low": 2}


@click.command
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--aec", default="ANY-SCP", show_default=True, metavar="AET", help="The AE title to call.")
@click.option(
    "--associations", default=1, show_default=True, type=click.IntRange(1, 64), help="Associations at a time."
)
@click.option(
    "--retries",
    default=8,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="How often in a row a lost association is made again.",
)
@click.option("--priority", default="medium", show_default=True, type=click.Choice(list(_PRIORITIES)))
@tls_options
@common(aet="server.aet")
def command(
    call: Invocation,
    host: str,
    port: int,
    paths: tuple[str, ...],
    aec: str,
    associations: int,
    retries: int,
    priority: str,
    tls: Tls,
) -> int:
    """C-STORE the DICOM files PATHS to the peer at HOST PORT, as they are.

    PATHS are files, folders (walked; what is no DICOM object is skipped there) or patterns. Exit code 1 when
    some were not stored, or none was there to be.
    """
    client = client_for(call, host, port, aec, tls)
    tally = _Tally(call)
    with Progress("store", quiet=call.json) as bar:

        def advance(sent: Sent, known: int) -> None:
            tally.known = known
            bar.expect(known)
            bar.advance()
            tally.add(sent, bar)

        try:
            for _ in client.store_each(
                list(paths),
                associations=associations,
                retries=retries,
                priority=_PRIORITIES[priority],
                progress=advance,
            ):
                pass
        except KeyboardInterrupt:
            tally.show(interrupted=True)
            raise
    tally.show()
    return 1 if tally.failures or not tally.stored else 0


class _Tally:
    """What has become of the files so far."""

    def __init__(self, call: Invocation) -> None:
        self.known = 0
        self.failures: list[dict[str, Any]] = []
        self._call = call
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._begun = time.perf_counter()
        self._said: set[str] = set()

    @property
    def stored(self) -> int:
        """How many the peer has taken."""
        return self._counts["stored"]

    def add(self, sent: Sent, bar: Progress) -> None:
        """Count one; say what is wrong with it."""
        what = "skipped" if sent.skipped else "failed" if sent.failed else "stored"
        self._counts[what] += 1
        self._counts["warnings"] += sent.warning
        self._bytes += sent.bytes if sent.stored else 0
        if sent.failed:
            failure = {"path": str(sent.path), "sop_instance_uid": sent.sop_instance_uid}
            self.failures.append({**failure, "status": sent.status, "error": str(sent.error)})
        if not self._call.json:
            self._say(sent, bar)

    def _say(self, sent: Sent, bar: Progress) -> None:
        if sent.warning:
            said = f": {sent.comment}" if sent.comment else ""
            bar.note(f"{sent.path}: stored with warning {sent.status:04X}H{said}")
        elif sent.failed:
            text = str(sent.error)
            where = "" if str(sent.path) in text else f"{sent.path}: "
            # What is wrong with the peer is said once, not for each file.
            if isinstance(sent.error, AssociationError) and where:
                if text in self._said:
                    return
                self._said.add(text)
            bar.note(where + text)

    def show(self, *, interrupted: bool = False) -> None:
        """The summary."""
        seconds = time.perf_counter() - self._begun
        stored, skipped = self.stored, self._counts["skipped"]
        value = {
            "stored": stored,
            "warnings": self._counts["warnings"],
            "failed": len(self.failures),
            "skipped": skipped,
            "bytes": self._bytes,
            "seconds": round(seconds, 3),
            "interrupted": interrupted,
            "failures": self.failures,
        }
        warned = f" ({self._counts['warnings']:,} with warnings)" if self._counts["warnings"] else ""
        text = (
            f"{stored:,} stored{warned}, {len(self.failures):,} failed, {skipped:,} skipped, "
            f"{self._bytes / 1e6:,.1f} MB in {seconds:.1f} s "
            f"({stored / seconds:,.0f} files/s, {self._bytes / 1e6 / seconds:,.1f} MB/s)"
        )
        self._call.show(value, f"interrupted: {text}" if interrupted else text)
