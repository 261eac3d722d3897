"""What the commands that query and retrieve share: how keys are written, and the peer they go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from pacs_core.errors import IdentifierError, InvalidValueError

if TYPE_CHECKING:
    from pacs_core.dicom.identifier import Asked

LEVELS = ("patient", "study", "series", "image")
ROOTS = ("patient", "study")
FORMATS = ("table", "json", "csv")

KEYS_HELP = """\b
KEY is a keyword, a tag (00100010) or a path (RequestAttributesSequence.0.ScheduledProcedureStepID).
  PatientName                   to be returned
  'PatientName=Doe*'            wildcards, in names and other text
  StudyDate=20260101-20260131   a range, open at either end: 20260101-
  StudyInstanceUID=1.2 StudyInstanceUID=1.3   any of them, as 'StudyInstanceUID=1.2\\1.3'
LEVEL is patient, study, series or image; without it, the lowest level of the keys."""

host_argument = click.argument("host")
port_argument = click.argument("port", type=click.IntRange(1, 65535))
keys_argument = click.argument("words", nargs=-1, required=True, metavar="[LEVEL] KEY=VALUE…")
aec_option = click.option(
    "--aec", default="ANY-SCP", show_default=True, metavar="AET", help="The AE title to call."
)
root_option = click.option(
    "--root", type=click.Choice(ROOTS), help="Information model; default: study, but for level patient."
)
format_option = click.option("--format", "form", type=click.Choice(FORMATS), help="Default: table.")
limit_option = click.option("--limit", type=click.IntRange(1), metavar="N", help="No more matches than that.")
associations_option = click.option(
    "--associations", default=1, show_default=True, type=click.IntRange(1, 64), help="Associations at a time."
)
retries_option = click.option(
    "--retries",
    default=8,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="How often in a row a lost association is made again.",
)


class Question(NamedTuple):
    """What is asked: the keys as they were written, and what they amount to."""

    keys: dict[str, object]
    asked: Asked

    @property
    def columns(self) -> list[str]:
        """The keys in their order, the unique one of the level last if it is not among them."""
        from pacs_core.dicom.dictionary import keyword_of
        from pacs_core.dicom.identifier import identifier_of
        from pacs_core.dicom.query import UNIQUE

        unique = UNIQUE[self.asked.level]
        named = unique in identifier_of(self.keys)
        return [*self.keys] if named else [*self.keys, keyword_of(unique)]


def question(words: Sequence[str], root: str | None) -> Question:
    """The question that arguments are. UsageError for what can't be asked."""
    from pacs_core.dicom.identifier import asked_of

    level, keys = _parsed(words)
    try:
        return Question(keys, asked_of(keys, level, root))
    except KeyError as exc:
        raise click.UsageError(str(exc.args[0])) from None
    except (IdentifierError, InvalidValueError) as exc:
        raise click.UsageError(str(exc)) from None


def _parsed(words: Sequence[str]) -> tuple[str | None, dict[str, object]]:
    """Level and keys of arguments."""
    level = words[0] if words and words[0].lower() in LEVELS else None
    return level, keys_of(words[level is not None :])


def keys_of(words: Sequence[str]) -> dict[str, object]:
    """Keys of arguments. What is given several times has several values."""
    keys: dict[str, object] = {}
    for word in words:
        key, _, value = word.partition("=")
        before = keys.get(key)
        keys[key] = f"{before}\\{value}" if before and value else value or before
    return keys
