"""From a file, the environment and flags to `Settings`, remembering where each value came from."""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from pacs_core.config.peers import Peer
from pacs_core.config.schema import KEYS, SECTIONS, SHORTEST_PDU, Key, Settings, expected
from pacs_core.errors import ConfigError

PREFIX = "PACS_CORE_"
_SIZE = re.compile(r"\s*(\d+)\s*(B|KiB|MiB|GiB|TiB)\s*", re.IGNORECASE)
_FACTORS = {"b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


class Flag(NamedTuple):
    """A setting given on the command line: its name, its value as typed, the flag that said so."""

    key: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each key (``section.key``) where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


class Document(NamedTuple):
    """A TOML file: its values, and the line (from 1) at which each key path was set."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[tuple[str | int, ...], int]

    def place(self, *path: str | int) -> str:
        """``FILE, line N`` of a key, or of the nearest thing around it."""
        while path:
            found = [line for known, line in self.lines.items() if known[: len(path)] == path]
            if found:
                return f"{self.path}, line {self.lines.get(path, min(found))}"
            path = path[:-1]
        return str(self.path)


def load(
    file: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Iterable[Flag] = (),
) -> Loaded:
    """Merge defaults, a TOML file, the environment and flags, the later over the earlier.

    Parameters
    ----------
    file
        A TOML file; relative paths in it are taken from its folder.
    environ
        Instead of the process's environment.
    flags
        From the command line; of the same key the last one counts.

    Raises
    ------
    ConfigError
        One line for each thing that is wrong: where, which key, what was expected.
    """
    problems: list[str] = []
    values = {name: key.default for name, key in KEYS.items()}
    origins = dict.fromkeys(KEYS, "default")
    peers: tuple[Peer, ...] = ()

    def settle(key: Key, value: Any, origin: str) -> None:
        try:
            values[key.name] = _convert(key, value)
            origins[key.name] = origin
        except ValueError:
            problems.append(f"{key.name}: expected {key.expected}, got {_quoted(value)} ({origin})")

    if file is not None:
        document = read_toml(Path(file))
        base = document.path.parent
        for key, value in _file_values(document, problems):
            # A path is relative to the file that names it, so that the server may start anywhere.
            at_home = str(base / value) if key.is_path and isinstance(value, str) and value else value
            settle(key, at_home, document.place(*key.name.split(".")))
        peers = tuple(convert_peers(document, problems))
    for name, text in (os.environ if environ is None else environ).items():
        if name.startswith(PREFIX) and "__" in name:
            _settle_text(name[len(PREFIX) :].lower().replace("__", ".", 1), text, name, settle, problems)
    for flag in flags:
        _settle_text(flag.key, flag.text, flag.origin, settle, problems)
    if not problems:
        _check_together(values, origins, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return Loaded(_build(values, peers), origins)


def read_toml(path: Path) -> Document:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        It can't be read, or it is not TOML; the message names the line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: can't be read: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not TOML: {exc}") from exc
    return Document(path, values, dict(_lines(text)))


def convert_peers(document: Document, problems: list[str]) -> Iterator[Peer]:
    """The ``[[peer]]`` tables of a document; what is wrong with one goes to `problems`."""
    tables = document.values.get("peer", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(f"peer: expected [[peer]] tables ({document.place('peer')})")
        return
    for number, table in enumerate(tables):
        found = [f"{text} ({document.place('peer', number, *name)})" for name, text in peer_problems(table)]
        problems += found
        if not found:
            yield msgspec.convert(table, Peer)


def peer_problems(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a peer's table: the key concerned, if it is one, and what was expected."""
    fields = {info.encode_name: info for info in msgspec.structs.fields(Peer)}
    if "aet" not in table:
        yield (), "peer: aet is missing"
    for name, value in table.items():
        if name not in fields:
            yield (name,), f"peer.{name}: unknown key{_meant(name, fields)}"
            continue
        try:
            checked = msgspec.convert(value, fields[name].type)
            if name == "from":
                Peer(aet="X", addresses=checked).networks()
        except ValueError:  # msgspec's ValidationError is one
            wanted = "addresses or networks" if name == "from" else expected(fields[name].type)
            yield (name,), f"peer.{name}: expected {wanted}, got {_quoted(value)}"


def _file_values(document: Document, problems: list[str]) -> Iterator[tuple[Key, Any]]:
    for section, table in document.values.items():
        if section == "peer":
            continue
        if section not in SECTIONS:
            problems.append(
                f"{section}: unknown section{_meant(section, (*SECTIONS, 'peer'))} "
                f"({document.place(section)})"
            )
        elif not isinstance(table, dict):
            problems.append(f"{section}: expected a table ({document.place(section)})")
        else:
            for name, value in table.items():
                key = KEYS.get(f"{section}.{name}")
                if key is not None:
                    yield key, value
                else:
                    problems.append(_unknown(f"{section}.{name}", document.place(section, name)))


def _settle_text(
    name: str, text: str, origin: str, settle: Callable[[Key, Any, str], None], problems: list[str]
) -> None:
    key = KEYS.get(name)
    if key is None:
        problems.append(_unknown(name, origin))
    else:
        settle(key, _from_text(key, text), origin)


def _from_text(key: Key, text: str) -> Any:
    """The value that a word of the environment or the command line stands for, before its check."""
    base = get_args(key.type)[0]
    if base is bool:
        return {"true": True, "1": True, "yes": True, "on": True}.get(
            text.lower(), {"false": False, "0": False, "no": False, "off": False}.get(text.lower(), text)
        )
    if get_origin(base) is tuple:
        return [word for word in (part.strip() for part in text.split(",")) if word]
    if base in (int, float):
        try:
            return base(text)
        except ValueError:
            return text
    return text


def _convert(key: Key, value: Any) -> Any:
    """A checked value.

    Raises
    ------
    ValueError
        Of another type, or out of range.
    """
    if key.unit == "bytes" and isinstance(value, str) and (size := _SIZE.fullmatch(value)):
        value = int(size[1]) * _FACTORS[size[2].lower()]
    return msgspec.convert(value, key.type)


def _check_together(values: Mapping[str, Any], origins: Mapping[str, str], problems: list[str]) -> None:
    """What no key alone can tell."""

    def needs(name: str, why: str) -> None:
        problems.append(f"{name}: {why} ({origins[name]})")

    if bool(values["tls.certificate"]) != bool(values["tls.key"]):
        given, missing = ("certificate", "key") if values["tls.certificate"] else ("key", "certificate")
        needs(f"tls.{given}", f"needs tls.{missing} beside it")
    if values["tls.certificate"] and values["tls.client"] != "none" and not values["tls.ca"]:
        needs("tls.certificate", f'tls.client = "{values["tls.client"]}" needs tls.ca to check callers by')
    if values["tls.only"] and not values["tls.certificate"]:
        needs("tls.only", "needs tls.certificate and tls.key")
    if 0 < values["wire.maximum_pdu_length"] < SHORTEST_PDU:
        needs("wire.maximum_pdu_length", f"must be 0 or at least {SHORTEST_PDU} bytes")
    if values["wire.memory_budget"] < values["wire.spool_at"]:
        needs("wire.memory_budget", f"must not be less than wire.spool_at, {values['wire.spool_at']} bytes")


def _build(values: Mapping[str, Any], peers: tuple[Peer, ...]) -> Settings:
    nested: dict[str, Any] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested[section][key] = value
    built: dict[str, Any] = {section: SECTIONS[section](**given) for section, given in nested.items()}
    return Settings(**built, peers=peers)


def _lines(text: str) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Where each key path of a valid TOML text is set: a statement ends where what began it parses."""
    prefix: tuple[str | int, ...] = ()
    counts: dict[str, int] = {}
    statement, start = "", 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        statement, start = (statement + line, start) if statement else (line, number)
        try:
            found = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        is_header, statement = statement.lstrip().startswith("["), ""
        for path in _paths(found):
            if not is_header:
                yield (*prefix, *path), start
                continue
            prefix = path
            if path[-1] == 0:  # an array of tables: the next one of its name
                name = str(path[0])
                counts[name] = counts.get(name, -1) + 1
                prefix = (*path[:-1], counts[name])
            yield prefix, start


def _paths(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The paths of a parsed statement: to its innermost tables, and to each value."""
    items: Iterable[tuple[str | int, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        items = enumerate(value)
    else:
        return
    for name, entry in items:
        inner = list(_paths(entry))
        yield from ((name, *path) for path in inner)
        if not inner:
            yield (name,)


def _unknown(name: str, origin: str) -> str:
    return f"{name}: unknown key{_meant(name, KEYS)} ({origin})"


def _meant(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:
        ending = name.rpartition(".")[2]
        close = [n for n in names if n.rpartition(".")[2] == ending][:1]
    return f", did you mean {close[0]}?" if close else ""


def _quoted(value: Any) -> str:
    """A value as TOML would write it, more or less."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
