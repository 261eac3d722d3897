"""`pacs-core import`: bring files into an archive, without the network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress


@click.command
@common()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1, 256), help="Files at a time.")
def command(call: Invocation, paths: tuple[Path, ...], threads: int) -> int:
    """Keep the DICOM files PATHS, folders walked; works while the archive is served.

    Files that are no DICOM objects are skipped. Run again after a break: what is held already is left as it
    is. Exit code 1 when some files could not be kept.
    """
    from pacs_core.archive.bulk import files_below, import_files

    counts: Counter[str] = Counter(stored=0, held=0, replaced=0, skipped=0, failed=0)
    failures = []
    files = list(files_below(paths))
    with (
        open_archive(call, create=True) as archive,
        Progress("import", total=len(files), quiet=call.json) as bar,
    ):
        for one in import_files(archive, files, threads=threads):
            bar.advance()
            if one.error is not None:
                counts["failed"] += 1
                failures.append({"path": str(one.path), "error": str(one.error)})
                if not call.json:
                    bar.note(f"{one.path}: {one.error}")
            else:
                counts["skipped" if one.kept is None else one.kept.value] += 1
    call.show(
        {**counts, "failures": failures},
        ", ".join(f"{count:,} {what}" for what, count in counts.items()),
    )
    return 1 if failures else 0
