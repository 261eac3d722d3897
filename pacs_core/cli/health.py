"""`pacs-core health`: how the server on an archive is, for people and for whoever starts it again."""

from __future__ import annotations

import click

from pacs_core.cli.options import Invocation, common


@click.command
@common()
def command(call: Invocation) -> int:
    """Say of each service of the server that runs on the archive whether it can do its work.

    Exit code 0 if all can; 1 if one can't, or no server runs.
    """
    from pacs_core.server import health

    found = health(call.settings.archive.path)
    width = max(map(len, found))
    call.show(
        {name: one._asdict() for name, one in found.items()},
        "\n".join(
            f"{name:{width}}  {'well' if one.well else 'NOT WELL'}{': ' if one.words else ''}{one.words}"
            for name, one in found.items()
        ),
    )
    return int(not all(one.well for one in found.values()))
