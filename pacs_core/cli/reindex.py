"""`pacs-core reindex`: make the index anew from what is kept."""

from __future__ import annotations

import click

from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress


@click.command
@common()
def command(call: Invocation) -> int:
    """Rebuild the index from the kept instances alone; nobody may have the archive open meanwhile.

    Exit code 1 when some instances could not be read.
    """
    from pacs_core.archive.place import Place
    from pacs_core.archive.reindex import reindex
    from pacs_core.logs import configure

    configure(call.settings.log)
    settings = call.settings.archive
    place = Place.at(settings.path, create=False)
    with Progress("reindex", unit="instance", quiet=call.json) as bar:
        done = reindex(place, map_size=settings.map_size, small=settings.small, progress=bar.advance)
    call.show(
        {"indexed": done.indexed, "duplicates": done.duplicates, "unreadable": done.unreadable},
        f"{done.indexed:,} instances indexed, {done.duplicates:,} duplicates, {done.unreadable:,} unreadable",
    )
    return 1 if done.unreadable else 0
