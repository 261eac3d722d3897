"""`pacs-core reindex`: make the index anew from what is kept."""

from __future__ import annotations

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress


@click.command
@click.option(
    "--attributes",
    "only_attributes",
    is_flag=True,
    help="Only ask the instances held for attributes that came later, while others use the archive.",
)
@common()
def command(call: Invocation, only_attributes: bool) -> int:
    """Rebuild the index from the kept instances alone; nobody may have the archive open meanwhile.

    With --attributes the index stays, and learns of those in the setting archive.attributes. A server does
    the same by itself, slowly. Broken off, it goes on where it was when it is run again.

    Exit code 1 when some instances could not be read.
    """
    if only_attributes:
        return _fill(call)
    from pacs_core.archive.place import Place
    from pacs_core.archive.reindex import reindex
    from pacs_core.logs import configure

    configure(call.settings.log)
    settings = call.settings.archive
    place = Place.at(settings.path, create=False)
    with Progress("reindex", unit="instance", quiet=call.json) as bar:
        done = reindex(
            place,
            map_size=settings.map_size,
            small=settings.small,
            attributes=settings.attributes,
            progress=bar.advance,
        )
    call.show(
        {"indexed": done.indexed, "duplicates": done.duplicates, "unreadable": done.unreadable},
        f"{done.indexed:,} instances indexed, {done.duplicates:,} duplicates, {done.unreadable:,} unreadable",
    )
    return 1 if done.unreadable else 0


def _fill(call: Invocation) -> int:
    from pacs_core.archive.fill import remaining

    with open_archive(call, create=False) as archive:
        total = remaining(archive.index)
        with Progress("attributes", total=total, unit="instance", quiet=call.json) as bar:
            done = archive.fill(progress=bar.advance)
    call.show(
        {"filled": done.instances, "unreadable": done.unreadable},
        f"{done.instances:,} instances asked for attributes, {done.unreadable:,} unreadable",
    )
    return 1 if done.unreadable else 0
