"""The command `pacs-core`: finds the subcommand, and turns errors into one line and an exit code.

Exit codes: 0 when all of it worked, 1 when some failed, 2 for usage and settings, 130 for Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

from pacs_core import __version__
from pacs_core.errors import ConfigError, PacsError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Name, and the line that `--help` shows: help must not import what only one subcommand needs.
# Subcommand NAME is the object `command` of the module pacs_core.cli.NAME.
COMMANDS = {
    "serve": "Receive, keep and find DICOM.",
    "echo": "Ask a peer whether it is there.",
    "store": "Send files to a peer.",
    "find": "Ask a peer, or an archive, what it has.",
    "get": "Fetch what a peer has.",
    "move": "Have a peer send what it has to another.",
    "worklist": "Ask a peer for its worklist, or keep one.",
    "mpps": "Report performed procedure steps to a peer, or list them.",
    "commit": "Ask a peer whether it will keep what it was sent.",
    "import": "Bring files into the archive.",
    "export": "Write what is held as plain files.",
    "delete": "Remove studies, series or instances.",
    "verify": "Check everything that is held.",
    "reindex": "Rebuild the index from what is kept.",
    "backup": "Copy the archive while it works.",
    "restore": "Make an archive from a backup.",
    "stats": "Show what is held.",
    "health": "Say how the server on an archive is.",
    "dump": "Show what is in files.",
    "json": "Write files in the DICOM JSON Model, and back.",
    "edit": "Change files by rules.",
    "config": "Show the settings in force, or a template; check a file.",
    "commitments": "What peers asked us to keep, and are yet to be told.",
    "peers": "Known peers: who may call, from where, what for.",
}


class _Lazy(click.Group):
    """A group whose subcommands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"pacs_core.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pacs-core")
def group() -> None:
    """A PACS engine: receives, keeps, finds and gives back DICOM."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; `arguments` instead of the process's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:
        # Closed by who started us. What is written there fails, and no file that we open gets its number.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  as long as the process
    code = run(words)
    try:
        sys.stdout.flush()
    except OSError as exc:
        if not code:
            code = _failed(exc)
        # The interpreter flushes once more at exit and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(words: list[str]) -> int:
    """Run the command line; the exit code."""
    try:
        result = group.main(words, prog_name="pacs-core", standalone_mode=False)
    except click.Abort:  # click's name for Ctrl-C
        _say("interrupted")
        return 130
    except click.ClickException as exc:
        with suppress(OSError):
            exc.show()
        return exc.exit_code
    except PacsError as exc:
        if _verbosity(words) > 1:
            traceback.print_exc()
        for line in str(exc).splitlines():
            _say(line)
        return 2 if isinstance(exc, ConfigError) else 1
    except OSError as exc:
        if _verbosity(words) > 1:
            traceback.print_exc()
        return _failed(exc)
    return result if isinstance(result, int) else 0


def _failed(exc: OSError) -> int:
    """Say what the system refused; the exit code. Whoever closed a pipe knows it."""
    if not isinstance(exc, BrokenPipeError):
        _say(f"{exc.filename or 'reading or writing'}: {exc.strerror or exc}")
    return 1


def _say(line: str) -> None:
    with suppress(OSError):  # nobody is left to tell
        click.echo(f"pacs-core: {line}", err=True)


def _verbosity(words: list[str]) -> int:
    """How many v's were given: the error may come before the options are understood."""
    flags = (word for word in words if word.startswith("-") and not word.startswith("--"))
    return sum(word.count("v") for word in flags if set(word[1:]) == {"v"}) + words.count("--verbose")
