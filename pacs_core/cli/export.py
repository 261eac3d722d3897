"""`pacs-core export`: write what is held as plain files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress


@click.command
@common()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--study", metavar="UID", help="Only the study of that Study Instance UID.")
@click.option("--threads", default=4, show_default=True, type=click.IntRange(1, 256), help="Files at a time.")
def command(call: Invocation, out: Path, study: str | None, threads: int) -> int:
    """Write instances as DICOM files to OUT/patient/study/series; works while the archive is served.

    Run again after a break: files that are there in full stay. Exit code 1 when some could not be written,
    or when there is no such study.
    """
    from pacs_core.archive.bulk import export_files

    counts: Counter[str] = Counter(written=0, present=0, failed=0)
    failures = []
    with (
        open_archive(call, create=False) as archive,
        Progress("export", total=None if study else archive.stats().instances, quiet=call.json) as bar,
    ):
        for one in export_files(archive, out, study_instance_uid=study, threads=threads):
            bar.advance()
            if one.error is not None:
                counts["failed"] += 1
                failures.append({"uid": one.sop_instance_uid, "error": str(one.error)})
                if not call.json:
                    bar.note(f"{one.sop_instance_uid}: {one.error}")
            else:
                counts["present" if one.present else "written"] += 1
    if study is not None and not sum(counts.values()):
        raise click.ClickException(f"no study {study}")
    call.show(
        {**counts, "failures": failures}, ", ".join(f"{count:,} {what}" for what, count in counts.items())
    )
    return 1 if failures else 0
