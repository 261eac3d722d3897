"""The archive that a subcommand works on, opened as the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacs_core.archive import Archive
    from pacs_core.cli.options import Invocation


def open_archive(call: Invocation, *, create: bool) -> Archive:
    """The archive of `--archive` or the settings; logging is set up as well."""
    from pacs_core.archive import Archive
    from pacs_core.logs import configure

    configure(call.settings.log)
    return Archive.of(call.settings.archive, create=create)
