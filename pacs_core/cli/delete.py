"""`pacs-core delete`: remove studies, series and instances."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.cli.stats import size
from pacs_core.dicom.attributes import Level
from pacs_core.errors import PacsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacs_core.archive import Archive

# Level, the tag of its UID, and that of the number of instances below: of those there is one.
_KINDS = {
    "instance": (Level.IMAGE, 0x00080018, None),
    "series": (Level.SERIES, 0x0020000E, 0x00201209),
    "study": (Level.STUDY, 0x0020000D, 0x00201208),
}


@click.command
@common()
@click.option("--study", multiple=True, metavar="UID", help="A Study Instance UID; may be repeated.")
@click.option("--series", multiple=True, metavar="UID", help="A Series Instance UID; may be repeated.")
@click.option("--instance", multiple=True, metavar="UID", help="A SOP Instance UID; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    call: Invocation, study: Sequence[str], series: Sequence[str], instance: Sequence[str], yes: bool
) -> int:
    """Remove what has these UIDs, for good; works while the archive is served.

    Exit code 1 when one of them is not held, or could not be removed as a whole.
    """
    given = {"instance": instance, "series": series, "study": study}
    named = [(kind, uid) for kind, uids in given.items() for uid in dict.fromkeys(uids)]
    if not named:
        raise click.UsageError("name something by --study, --series or --instance")
    with open_archive(call, create=False) as archive:
        count = sum(_count(archive, kind, uid) for kind, uid in named)
        if count and not yes and not _asked(count):
            return 1
        with Progress("delete", total=count, unit="instance", quiet=call.json) as bar:
            outcomes = [_delete(archive, kind, uid, bar) for kind, uid in named]
    failed = [outcome for outcome in outcomes if outcome["error"]]
    if not call.json:
        for outcome in failed:
            click.echo(f"{outcome['kind']} {outcome['uid']}: {outcome['error']}", err=True)
    gone = {what: sum(outcome[what] for outcome in outcomes) for what in ("instances", "bytes")}
    call.show(
        {**gone, "outcomes": outcomes},
        f"{gone['instances']:,} instances deleted, {size(gone['bytes'])}, {len(failed):,} failed",
    )
    return 1 if failed else 0


def _count(archive: Archive, kind: str, uid: str) -> int:
    """How many instances are held under a UID."""
    level, tag, counter = _KINDS[kind]
    matches = archive.find(level, {tag: uid}) if uid else ()
    return sum(int(match[counter]) if counter else 1 for match in matches)


def _asked(count: int) -> bool:
    """Whether whoever is at the terminal wants it."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask: --yes deletes without asking")
    return click.confirm(f"Delete {count:,} instances for good?", err=True)


def _delete(archive: Archive, kind: str, uid: str, bar: Progress) -> dict[str, Any]:
    """What became of one UID; after an error, how many instances were gone by then."""
    before = bar.done
    size, error = 0, None
    try:
        size = archive.delete(**{kind: uid}, progress=bar.advance).bytes
    except PacsError as exc:
        error = str(exc)
    return {"kind": kind, "uid": uid, "instances": bar.done - before, "bytes": size, "error": error}
