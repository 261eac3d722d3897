"""`pacs-core serve`: the server, in the foreground."""

from __future__ import annotations

import click

from pacs_core.cli.options import Invocation, common


@click.command
@common(host="server.host", port="server.port", aet="server.aet")
def command(call: Invocation) -> int:
    """Receive, keep and find DICOM until SIGTERM or Ctrl-C, which let associations finish first.

    Without any settings it listens on 127.0.0.1, port 11112, as PACSCORE, on the archive ./archive.
    """
    from pacs_core.logs import configure
    from pacs_core.server import Server

    configure(call.settings.log)
    return Server(call.settings).run()
