"""Settings as TOML: what is in force and why, and a template to start from."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from pacs_core.config.load import Loaded
from pacs_core.config.peers import Peer
from pacs_core.config.schema import KEYS, SECTIONS


def effective(loaded: Loaded) -> str:
    """The settings in force, each with its origin as a comment."""
    lines: list[str] = []
    for section in SECTIONS:
        values = getattr(loaded.settings, section)
        rows = [
            (f"{name.partition('.')[2]} = {toml_value(getattr(values, name.partition('.')[2]))}", name)
            for name, key in KEYS.items()
            if key.section == section
        ]
        width = max(len(row) for row, _ in rows)
        lines += [f"[{section}]", *(f"{row:<{width}}  # {loaded.origins[name]}" for row, name in rows), ""]
    for peer in loaded.settings.peers:
        lines += [*_peer_table(peer), ""]
    return "\n".join(lines[:-1]) + "\n"


def template() -> str:
    """Every setting, commented out, with its meaning, range, default and variable."""
    lines = [
        "# Settings of pacs_core. Every line is optional; what is commented out is the default.",
        "# In the environment: PACS_CORE_SECTION__KEY; on the command line: --set section.key=value.",
        '# A size may be written with its unit, such as "64 KiB".',
        "",
    ]
    for section, struct in SECTIONS.items():
        lines += [f"# {struct.__doc__}", f"[{section}]"]
        for key in KEYS.values():
            if key.section == section:
                lines += textwrap.wrap(
                    f"{key.description}. ({key.expected})", 100, initial_indent="# ", subsequent_indent="#   "
                )
                lines.append(f"#{key.name.partition('.')[2]} = {toml_value(key.default)}")
        lines.append("")
    lines += [
        "# A known peer; any number of these. `pacs-core peers add` writes them to ARCHIVE/peers.toml.",
        *(f"#{line}" for line in _peer_table(Peer(aet="MODALITY1", host="192.0.2.10", port=104))),
    ]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A boolean, number, text or list as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A TOML basic string escapes as JSON does, and DEL besides.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(entry) for entry in value)}]"
    return str(value)


def _peer_table(peer: Peer) -> Iterator[str]:
    yield "[[peer]]"
    for name, value in msgspec.to_builtins(peer).items():
        yield f"{name} = {toml_value(value)}"
