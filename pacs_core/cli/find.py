"""`pacs-core find`: ask a peer, or an archive of ours, what it has."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import click

from pacs_core.cli.asking import KEYS_HELP, aec_option, format_option, limit_option, question, root_option
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.tables import lines

if TYPE_CHECKING:
    from collections.abc import Generator

    from pacs_core.dicom.dataset import Dataset
    from pacs_core.dicom.identifier import Asked
    from pacs_core.dicom.query import Query

_HIGHEST_PORT = 65535


@click.command(
    epilog=f"""{KEYS_HELP}

\b
Examples:
  pacs-core find 127.0.0.1 11112 'PatientName=Doe*' StudyDate=20260101- StudyDescription
  pacs-core find 127.0.0.1 11112 series StudyInstanceUID=1.2.3 Modality SeriesDescription --format csv
  pacs-core find pacs.example 104 patient PatientID --aec PACS --limit 10 --json
  pacs-core find pacs.example 104 --fuzzy 'PatientName=jane doe' StudyDate
  pacs-core find --archive archive ModalitiesInStudy=MR StudyDate=20260101-
  pacs-core find --archive archive --explain 'PatientName=Doe*'"""
)
@click.argument("words", nargs=-1, required=True, metavar="[HOST PORT] [LEVEL] KEY[=VALUE]…")
@aec_option
@root_option
@format_option
@limit_option
@click.option("--fuzzy", is_flag=True, help="Names by how their words begin, where the peer does that.")
@click.option("--combined", is_flag=True, help="Ranges of a date and its time are one range of moments.")
@click.option("--explain", is_flag=True, help="Of an archive of ours: only how it would be searched.")
@tls_options
@common(aet="server.aet")
def command(
    call: Invocation,
    words: tuple[str, ...],
    aec: str,
    root: str | None,
    form: str | None,
    limit: int | None,
    fuzzy: bool,
    combined: bool,
    explain: bool,
    tls: Tls,
) -> int:
    """C-FIND: what the peer at HOST PORT has; or, with --archive and without HOST PORT, what is held there.

    A line for each match, of the keys that were asked for; as JSON, an object a line in the DICOM JSON Model.
    """
    local = call.loaded.origins["archive.path"] == "--archive" or explain
    host, port, words = ("", 0, words) if local else _peer(words)
    keys, asked = asking = question(words, root)
    if explain:
        _explain(call, _query(asked, fuzzy, combined))
        return 0
    if local:
        found = _held(call, _query(asked, fuzzy, combined))
    else:
        client = client_for(call, host, port, aec, tls)
        found = client.find(asked.level, keys, root=asked.root, fuzzy=fuzzy, combined=combined)
    with closing(found):
        columns = {key: key for key in asking.columns}
        for line in lines(islice(found, limit), columns, "json" if call.json else form or "table"):
            click.echo(line)
    return 0


def _peer(words: tuple[str, ...]) -> tuple[str, int, tuple[str, ...]]:
    if len(words) < 3 or not words[1].isascii() or not words[1].isdigit():
        raise click.UsageError("expected HOST PORT and KEY[=VALUE], or --archive DIR and KEY[=VALUE]")
    port = int(words[1])
    if not 0 < port <= _HIGHEST_PORT:
        raise click.UsageError(f"no such port: {port}")
    return words[0], port, words[2:]


def _held(call: Invocation, query: Query) -> Generator[Dataset, None, None]:
    """What an archive of ours has."""
    from pacs_core.dicom.reading import read_dataset
    from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

    with open_archive(call, create=False) as archive:
        for chunk in archive.search(query).responses({}, implicit=False):
            for match in chunk:
                yield read_dataset(match, EXPLICIT_VR_LITTLE_ENDIAN)


def _explain(call: Invocation, query: Query) -> None:
    with open_archive(call, create=False) as archive:
        plan = archive.search(query).explain()
    call.show({"plan": plan.splitlines()}, plan)


def _query(asked: Asked, fuzzy: bool, combined: bool) -> Query:
    """Our own archive needs no unique keys above the level."""
    from pacs_core.dicom.query import Negotiated, query_of

    negotiated = Negotiated(relational=True, fuzzy=fuzzy, combined=combined)
    return query_of(asked.identifier, asked.level, asked.root, negotiated)
