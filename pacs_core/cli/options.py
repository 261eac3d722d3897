"""Options that subcommands share, and what they amount to: settings and a way to print."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from pacs_core.config import Flag, Loaded, Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Invocation:
    """How a subcommand was called."""

    loaded: Loaded
    json: bool
    verbose: int

    @property
    def settings(self) -> Settings:
        """The settings in force, flags included."""
        return self.loaded.settings

    @property
    def archive(self) -> Path:
        """The archive's folder."""
        from pathlib import Path

        return Path(self.settings.archive.path)

    def show(self, value: Any, text: str) -> None:
        """Print a result: `value` as one line of JSON with ``--json``, else `text`."""
        click.echo(json.dumps(value, ensure_ascii=False) if self.json else text)


def common(
    **named: str,
) -> Callable[[Callable[Concatenate[Invocation, P], R]], Callable[P, R]]:
    """Give a subcommand ``--archive --config --set --json -v``; it is called with an `Invocation` first.

    Parameters
    ----------
    named
        More flags that stand for one setting each: ``port="server.port"`` adds ``--port``.
    """
    settings = {"archive": "archive.path", **named}

    def decorate(function: Callable[Concatenate[Invocation, P], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            options: dict[str, Any] = {name: kwargs.pop(f"common_{name}") for name in (*settings, *_OTHERS)}
            flags = [_assignment(word) for word in options["set"]]
            flags += [
                Flag(key, options[name], f"--{name}")
                for name, key in settings.items()
                if options[name] is not None
            ]
            level = "debug" if options["verbose"] else None
            if level is not None:
                flags.append(Flag("log.level", level, "-v"))
            loaded = load(options["config"], flags=flags)
            return function(Invocation(loaded, options["json"], options["verbose"]), *args, **kwargs)

        decorated: Callable[P, R] = call
        for option in (*_common_options(), *(_setting_option(n, k) for n, k in reversed(settings.items()))):
            decorated = option(decorated)
        return decorated

    return decorate


_OTHERS = ("config", "set", "json", "verbose")


def _common_options() -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option("-v", "--verbose", "common_verbose", count=True, help="Say more; -vv: with tracebacks."),
        click.option("--json", "common_json", is_flag=True, help="Print results as JSON."),
        click.option(
            "--set",
            "common_set",
            multiple=True,
            metavar="KEY=VALUE",
            help="A setting: log.format=json.",
        ),
        click.option(
            "--config",
            "common_config",
            metavar="FILE",
            envvar="PACS_CORE_CONFIG",
            help="Settings file (TOML).",
        ),
    )


def _setting_option(name: str, key: str) -> Callable[[Any], Any]:
    from pacs_core.config.schema import KEYS

    return click.option(
        f"--{name}", f"common_{name}", metavar=name.upper(), help=f"{KEYS[key].description} ({key})."
    )


def _assignment(word: str) -> Flag:
    key, equals, value = word.partition("=")
    if not equals:
        raise click.UsageError(f"--set {word}: expected section.key=value")
    return Flag(key.strip(), value, f"--set {key.strip()}")
