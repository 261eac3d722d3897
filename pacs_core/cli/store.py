"""`pacs-core store`: send files to a peer."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.asking import aec_option, host_argument, port_argument
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.commit import listen_option, timeout_option
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.errors import AssociationError

if TYPE_CHECKING:
    from pacs_core.client import Committed, Sent
    from pacs_core.errors import PacsError

_PRIORITIES = {"medium": 0, "high": 1, "low": 2}


@click.command
@host_argument
@port_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@aec_option
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
@click.option("--commit", is_flag=True, help="Count what is stored only once the peer commits to keep it.")
@timeout_option
@listen_option
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
    commit: bool,
    timeout: float,
    listen: int | None,
    tls: Tls,
) -> int:
    """C-STORE the DICOM files PATHS to the peer at HOST PORT, as they are.

    PATHS are files, folders (walked; what is no DICOM object is skipped there) or patterns. Exit code 1 when
    some were not stored, or none was there to be.
    """
    if listen is not None and not commit:
        raise click.UsageError("--listen is for results of --commit")
    client = client_for(call, host, port, aec, tls)
    tally = _Tally(call, commit=commit)
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
    if tally.uncommitted:
        with Progress("commit", unit="instance", quiet=call.json) as bar:

            def committed(outcome: Committed, known: int) -> None:
                bar.expect(known)
                bar.advance()
                tally.add_committed(outcome, bar)

            try:
                client.commit(list(tally.uncommitted), timeout=timeout, listen=listen, progress=committed)
            except KeyboardInterrupt:
                tally.show(interrupted=True)
                raise
            except AssociationError as exc:
                tally.fail_uncommitted(exc, bar)
    tally.show()
    return 1 if tally.failures or not tally.stored else 0


class _Tally:
    """What has become of the files so far."""

    def __init__(self, call: Invocation, *, commit: bool) -> None:
        self.known = 0
        self.failures: list[dict[str, Any]] = []
        self.uncommitted: dict[tuple[str, str], list[Sent]] = {}
        """What the peer has taken, by SOP class and instance, until it commits to it."""
        self._commit = commit
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
        if self._commit and sent.stored:
            self.uncommitted.setdefault((sent.sop_class_uid, sent.sop_instance_uid), []).append(sent)
        else:
            self._counts[what] += 1
        self._counts["warnings"] += sent.warning
        self._bytes += sent.bytes if sent.stored else 0
        if sent.failed:
            self._fail(sent, sent.error)
        if not self._call.json:
            self._say(sent, bar)

    def add_committed(self, outcome: Committed, bar: Progress) -> None:
        """Count what the peer commits to as stored, and as failed what it does not."""
        for sent in self.uncommitted.pop((outcome.sop_class_uid, outcome.sop_instance_uid), ()):
            if outcome.committed:
                self._counts["stored"] += 1
            else:
                self._fail_uncommitted(sent, outcome.error, bar)

    def fail_uncommitted(self, error: PacsError, bar: Progress) -> None:
        """Count all as failed that the peer was not asked to commit to."""
        for group in self.uncommitted.values():
            for sent in group:
                self._fail_uncommitted(sent, error, bar)
        self.uncommitted.clear()

    def _fail_uncommitted(self, sent: Sent, error: PacsError | None, bar: Progress) -> None:
        self._fail(sent, error)
        if not self._call.json:
            self._say_failed(sent, error, bar)

    def _fail(self, sent: Sent, error: PacsError | None) -> None:
        failure = {"path": str(sent.path), "sop_instance_uid": sent.sop_instance_uid}
        self.failures.append({**failure, "status": sent.status, "error": str(error)})

    def _say(self, sent: Sent, bar: Progress) -> None:
        if sent.warning:
            said = f": {sent.comment}" if sent.comment else ""
            bar.note(f"{sent.path}: stored with warning {sent.status:04X}H{said}")
        elif sent.failed:
            self._say_failed(sent, sent.error, bar)

    def _say_failed(self, sent: Sent, error: PacsError | None, bar: Progress) -> None:
        text = str(error)
        where = "" if str(sent.path) in text else f"{sent.path}: "
        # What is wrong with the peer is said once, not for each file.
        if isinstance(error, AssociationError) and where:
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
            "uncommitted": sum(map(len, self.uncommitted.values())),
            "failed": len(self.failures),
            "skipped": skipped,
            "bytes": self._bytes,
            "seconds": round(seconds, 3),
            "interrupted": interrupted,
            "failures": self.failures,
        }
        warned = f" ({self._counts['warnings']:,} with warnings)" if self._counts["warnings"] else ""
        done = "committed" if self._commit else "stored"
        text = (
            f"{stored:,} {done}{warned}, {len(self.failures):,} failed, {skipped:,} skipped, "
            f"{self._bytes / 1e6:,.1f} MB in {seconds:.1f} s "
            f"({stored / seconds:,.0f} files/s, {self._bytes / 1e6 / seconds:,.1f} MB/s)"
        )
        self._call.show(value, f"interrupted: {text}" if interrupted else text)
