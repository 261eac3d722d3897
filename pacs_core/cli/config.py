"""`pacs-core config`: the settings in force and where each came from; a template; a check."""

import click
import msgspec

from pacs_core.cli.options import Invocation, common
from pacs_core.config import load
from pacs_core.config.render import effective, template


@click.command
@common(host="server.host", port="server.port", aet="server.aet")
@click.option("--default", "default", is_flag=True, help="Print a commented template of all settings.")
@click.option("--check", "check", metavar="FILE", help="Only check a file; exit code 2 if it is wrong.")
def command(call: Invocation, default: bool, check: str | None) -> None:
    """Show the settings in force as TOML, each with its origin.

    Settings come from defaults, a TOML file (--config), the environment
    (PACS_CORE_SECTION__KEY) and flags, the later over the earlier.
    """
    if default:
        click.echo(template(), nl=False)
    elif check is not None:
        load(check, environ={})
        call.show({"file": check, "valid": True}, f"{check}: fine")
    else:
        value = {"settings": msgspec.to_builtins(call.settings), "origins": dict(call.loaded.origins)}
        call.show(value, effective(call.loaded).rstrip("\n"))
