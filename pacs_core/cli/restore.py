"""`pacs-core restore`: make an archive from a backup."""

from __future__ import annotations

from pathlib import Path

import click

from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.cli.stats import size


@click.command
@common()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
def command(call: Invocation, source: Path) -> None:
    """Make the archive, which must not be there yet, from the backup SOURCE.

    One that was broken off goes on when it is run again.
    """
    from pacs_core.archive.backup import restore

    with Progress("restore", unit="B", quiet=call.json) as bar:
        copied = restore(source, call.archive, progress=bar.advance)
    call.show(
        {"files": copied.files, "bytes": copied.bytes},
        f"{copied.files:,} files restored ({size(copied.bytes)})",
    )
