"""`pacs-core stats`: what an archive holds."""

from __future__ import annotations

import click

from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common


@click.command
@common()
def command(call: Invocation) -> None:
    """Show how many patients, studies, series and instances are held, and how large they are.

    Dead: what deleted instances take up yet, beside others in the same file. Attributes that the index holds
    beyond its own are named; of one that came when instances were held already, those have yet to be asked.
    """
    from pacs_core.archive.fill import remaining

    with open_archive(call, create=False) as archive:
        held, dead, additions = archive.stats(), archive.dead_bytes(), archive.additions()
        left = remaining(archive.index)
    call.show(
        {
            **held._asdict(),
            "dead_bytes": dead,
            "attributes": [
                {"keyword": a.keyword, "level": a.level.name, "pending": pending} for a, pending in additions
            ],
            "to_ask": left,
        },
        "\n".join(
            (
                f"patients   {held.patients:>12,}",
                f"studies    {held.studies:>12,}",
                f"series     {held.series:>12,}",
                f"instances  {held.instances:>12,}",
                f"size       {size(held.bytes):>12}",
                f"dead       {size(dead):>12}",
                f"index      {size(held.index_bytes):>12}",
                *(
                    f"attribute  {a.keyword} ({a.level.name}){_yet(left, pending)}"
                    for a, pending in additions
                ),
            )
        ),
    )


def _yet(left: int, pending: bool) -> str:
    return f": {left:,} instances to be asked yet" if pending else ""


def size(count: int) -> str:
    """Bytes for people: 1536 is ``1.5 KiB``."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
