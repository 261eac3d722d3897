"""`pacs-core backup`: copy an archive that goes on working."""

from __future__ import annotations

from pathlib import Path

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.cli.stats import size


@click.command
@common()
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
def command(call: Invocation, target: Path) -> None:
    """Copy the archive to the folder TARGET; again to the same place: only what is new.

    The copy is an archive like any other: it can be served as it is, or given to `restore`.
    """
    from pacs_core.archive.backup import backup

    with (
        open_archive(call, create=False) as archive,
        Progress("backup", total=archive.stats().bytes, unit="B", quiet=call.json) as bar,
    ):
        copied = backup(archive, target, progress=bar.advance)
    call.show(
        {"files": copied.files, "bytes": copied.bytes, "present": copied.present},
        f"{copied.files:,} files copied ({size(copied.bytes)}), {copied.present:,} were there",
    )
