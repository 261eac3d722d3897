"""`pacs-core edit`: change files by rules."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.files import Done, bar_of, complain, each, files_argument, is_other, jobs_option, named
from pacs_core.errors import UnparsableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pacs_core.cli.progress import Progress
    from pacs_core.dicom.edit import Left, Rules
    from pacs_core.dicom.media import Named

_SECRET = "PACS_CORE_SECRET"
_LISTS = {"keep": "keep", "set": "set_", "empty": "empty", "remove": "remove", "hash": "hash"}
_SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big-endian": "1.2.840.10008.1.2.2",
}


@dataclass(frozen=True, slots=True)
class _Change:
    """One file, the file that is to be written, and by which rules."""

    file: Named
    target: Path
    rules: Rules
    syntax: str | None


@click.command(
    epilog=f"""\b
KEY is a keyword, a tag or a path into sequences, or a pattern, that is looked for in sequences, too:
  PatientID   0010,0020   (0009,GEMS_IDEN_01,02)   RequestAttributesSequence.0.StudyInstanceUID
  RequestAttributesSequence.*.StudyInstanceUID     in all items
  **.PatientID                                     wherever it is
  60xx   60xx3000   (0009,GEMS_IDEN_01,*)   private

\b
Of several that are about an element, the first of --keep, --set, --empty, --remove, --hash, --shift-dates and
--map-uids decides. Hashes, UIDs and shifts by patient take a secret: the same one, the same results.

\b
Examples:
  pacs-core edit ct.dcm --set PatientName=Doe^Jane --in-place
  pacs-core edit folder --remove private --remove 60xx --out other
  pacs-core edit 'folder/**/*.dcm' --hash PatientID --map-uids --shift-dates=-365..-1 \\
      --secret-file secret --out other
  {_SECRET}=… pacs-core edit folder --map-uids --in-place"""
)
@files_argument
@click.option("--keep", multiple=True, metavar="KEY", help="Leave as it is.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Give a value; several: A\\B.")
@click.option("--empty", multiple=True, metavar="KEY", help="Leave without a value.")
@click.option("--remove", multiple=True, metavar="KEY", help="Leave out.")
@click.option("--hash", multiple=True, metavar="KEY", help="Replace text by 16 characters of a keyed hash.")
@click.option(
    "--shift-dates", metavar="DAYS", help="Move all dates, all alike, or by patient: --shift-dates=-365..-1."
)
@click.option("--map-uids", is_flag=True, help="Replace UIDs but those of the standard, references too.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help=f"The secret, but for line ends after it; default: ${_SECRET}.",
)
@click.option("--syntax", type=click.Choice(list(_SYNTAXES)), help="Write in this transfer syntax.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write to DIR.")
@click.option("--in-place", is_flag=True, help="Replace the files.")
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    files: tuple[str, ...],
    secret_file: Path | None,
    syntax: str | None,
    out: Path | None,
    in_place: bool,
    jobs: int | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """Change DICOM files; what is not to be changed stays as it is, byte for byte.

    FILES are files, folders (walked; what is no DICOM object is skipped there) or patterns. With --out, those
    of folders keep their path below it. A file is written whole or not at all. Exit code 1 when some failed,
    or none was there.
    """
    if in_place == (out is not None):
        raise click.UsageError("either --out DIR or --in-place")
    rules = _rules(asked, secret_file)
    if not rules.rules and syntax is None:
        raise click.UsageError("nothing to change")
    tally = _Tally(as_json)
    with bar_of("edit", chosen := named(files), quiet=as_json) as bar:
        items = [
            _Change(file, target, rules, _SYNTAXES.get(syntax or ""))
            for file, target in _targets(chosen, out, lambda path, error: tally.fail(path, error, bar))
        ]
        try:
            for done in each(_edited, items, jobs):
                bar.advance()
                tally.add(done, bar)
        except KeyboardInterrupt:
            tally.show(interrupted=True)
            raise
    tally.show()
    return 1 if tally.failures or not tally.edited else 0


def _rules(asked: Mapping[str, Any], secret_file: Path | None) -> Rules:
    """The rules that the options are, in the order in which they decide."""
    from pacs_core.dicom.edit import Rules

    lines = [f"{verb} {about}" for verb, name in _LISTS.items() for about in asked[name]]
    if asked["shift_dates"] is not None:
        lines.append(f"shift-dates {asked['shift_dates']}")
    if asked["map_uids"]:
        lines.append("map-uids")
    secret = os.environb.get(_SECRET.encode(), b"") if secret_file is None else secret_file.read_bytes()
    try:
        return Rules.parse(lines, secret.rstrip(b"\r\n"))
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None


def _targets(
    files: Iterable[Named], out: Path | None, fail: Callable[[Path, str], object]
) -> Iterator[tuple[Named, Path]]:
    """Each file once, and the file that is to be written: below `out`, wherever links lead, or itself."""
    top = None if out is None else os.path.realpath(out)
    sources: dict[str, str] = {}  # by target
    for file in files:
        source = os.path.realpath(file.path)
        if out is None:
            target = file.path
        else:
            target = out / (file.path.name if file.folder is None else file.path.relative_to(file.folder))
        real = os.path.realpath(target)
        rival = sources.get(real)
        if rival == source:
            continue
        if rival is not None:
            fail(file.path, f"would be written to {target}, as {rival} is")
        elif top is not None and real == source:
            fail(file.path, "would be written over itself: --in-place does that")
        elif top is not None and os.path.commonpath([top, real]) != top:
            fail(file.path, f"{target} leads out of {out}")
        else:
            sources[real] = source
            yield file, target


def _edited(change: _Change) -> list[Left] | None:
    """Edit one file: what was left as it was; None if it is no DICOM object that was asked for."""
    from pacs_core.dicom.media import is_dicomdir
    from pacs_core.dicom.reading import read

    path = change.file.path
    if is_other(change.file) or (change.file.found and is_dicomdir(path)):
        return None
    dataset = read(path)
    if dataset.truncated:
        # Written anew it would look whole.
        raise UnparsableError("it ends in the middle of something")
    left: list[Left] = []
    change.rules.apply(dataset, left.append)
    change.target.parent.mkdir(parents=True, exist_ok=True)
    dataset.save(change.target, change.syntax)
    return left


class _Tally:
    """What has become of the files so far."""

    def __init__(self, as_json: bool) -> None:
        self.failures: list[dict[str, str]] = []
        self._left: list[dict[str, str]] = []
        self._counts = Counter(edited=0, failed=0, skipped=0)
        self._json = as_json
        self._begun = time.perf_counter()

    @property
    def edited(self) -> int:
        """How many were written."""
        return self._counts["edited"]

    def add(self, done: Done, bar: Progress) -> None:
        """Count one; say what is wrong with it."""
        path = done.item.file.path
        if done.error is not None:
            self.fail(path, done.error, bar)
            return
        self._counts["skipped" if done.value is None else "edited"] += 1
        for left in done.value or ():
            self._left.append({"path": str(path), "element": left.path, "why": left.why})
            if not self._json:
                bar.note(f"{path}: {left.path} stays as it is: {left.why}")

    def fail(self, path: Path, error: str, bar: Progress) -> None:
        """Count one that was not written; say why."""
        self._counts["failed"] += 1
        self.failures.append({"path": str(path), "error": error})
        if not self._json:
            complain(bar, path, error)

    def show(self, *, interrupted: bool = False) -> None:
        """The summary."""
        if self._json:
            told = {"left": self._left, "failures": self.failures, "interrupted": interrupted}
            click.echo(json.dumps({**self._counts, **told}, ensure_ascii=False))
            return
        seconds = time.perf_counter() - self._begun
        text = ", ".join(f"{count:,} {what}" for what, count in self._counts.items())
        rate = f"in {seconds:.1f} s ({self.edited / seconds:,.0f} files/s)"
        click.echo(f"{'interrupted: ' if interrupted else ''}{text} {rate}")
