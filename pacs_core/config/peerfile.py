"""The peers file (`ARCHIVE/peers.toml`): read, edited in place, followed while it changes."""

import fcntl
import os
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pacs_core.config.load import convert_peers, peer_problems, read_toml
from pacs_core.config.peers import Peer, Peers
from pacs_core.config.schema import ArchiveSettings, Settings
from pacs_core.errors import ConfigError, NotFoundError, from_os_error

NAME = "peers.toml"


class PeerFile:
    """The peers that are added at run time. Edits keep what people wrote around them, comments too."""

    def __init__(self, archive: str | Path) -> None:
        self.path = Path(archive) / NAME

    def read(self) -> tuple[Peer, ...]:
        """The peers it holds; none if there is no such file.

        Raises
        ------
        ConfigError
            It is not TOML or a peer is wrong; the message names key and line.
        """
        if not self.path.exists():
            return ()
        document = read_toml(self.path)
        problems = [
            f"{name}: only [[peer]] belongs here ({document.place(name)})"
            for name in document.values
            if name != "peer"
        ]
        peers = tuple(convert_peers(document, problems))
        if problems:
            raise ConfigError("\n".join(problems))
        return peers

    def add(self, aet: str, **changes: Any) -> Peer:
        """Add a peer, or change the one of that AE title in what is given; returns it as it is now.

        Parameters
        ----------
        changes
            Keys of `Peer` by their names in TOML: ``host``, ``port``, ``may``, ``from``.

        Raises
        ------
        ConfigError
            A value is wrong, or the file is.
        """
        with self._edited() as document:
            import tomlkit

            peers = document.get("peer")
            if not isinstance(peers, tomlkit.items.AoT):  # none yet, or in the inline form
                inline = [] if peers is None else peers.unwrap()
                peers = document["peer"] = tomlkit.aot()
                for one in inline:
                    peers.append(tomlkit.item(one))
            table = next((table for table in peers if table.get("aet", "").strip() == aet.strip()), None)
            if table is None:
                table = tomlkit.table()
                table["aet"] = aet
                peers.append(table)
            table.update(changes)
            plain = table.unwrap()
            if problems := [text for _, text in peer_problems(plain)]:
                raise ConfigError("\n".join(problems))
            return msgspec.convert(plain, Peer)

    def remove(self, aet: str) -> None:
        """Take a peer out.

        Raises
        ------
        NotFoundError
            There is none of that AE title in the file.
        """
        with self._edited() as document:
            peers = document.get("peer", [])
            for number, table in enumerate(peers):
                if table.get("aet", "").strip() == aet.strip():
                    del peers[number]
                    break
            else:
                raise NotFoundError(f"no peer {aet} in {self.path}")

    @contextmanager
    def _edited(self) -> Iterator[Any]:
        """The file as an editable document; written back whole, or not at all, when the block ends well."""
        import tomlkit  # its import is slow, and only edits need it

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise from_os_error(exc, f"opening {self.path.parent}") from exc
        try:
            # Two editors at a time would lose one edit. The folder is what both surely have.
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.read()
            text = self.path.read_text("utf-8") if self.path.exists() else ""
            document = tomlkit.parse(text)
            yield document
            self._replace(document.as_string(), lock)
        except OSError as exc:
            raise from_os_error(exc, f"writing {self.path}") from exc
        finally:
            os.close(lock)

    def _replace(self, text: str, folder: int) -> None:
        handle, name = tempfile.mkstemp(prefix=f".{NAME}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        os.fsync(folder)


class PeerBook:
    """`Peers` that follow the peers file: looked at no more than once a second, by whoever asks.

    Peers of the file count over peers of the configuration. A file that became wrong changes
    nothing: the peers of before stay in force and `problem` says what is wrong.
    """

    def __init__(self, settings: Settings, *, interval: float = 1.0) -> None:
        self._settings = settings
        self._file = PeerFile(settings.archive.path)
        self._interval = interval
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._seen = self._signature()
        self.problem: str | None = None
        self._peers = self._read()

    def current(self) -> Peers:
        """The peers in force now; immutable, safe to keep for one association."""
        now = time.monotonic()
        if now - self._looked >= self._interval:
            with self._lock:
                if now - self._looked >= self._interval:
                    self._looked = now
                    self._follow()
        return self._peers

    def _follow(self) -> None:
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._peers = self._read()
            self.problem = None
        except ConfigError as exc:
            self.problem = str(exc)

    def _read(self) -> Peers:
        return Peers(
            (*self._settings.peers, *self._file.read()),
            aet=self._settings.server.aet,
            called=self._settings.called_policy,
            unknown=self._settings.unknown_policy,
            command=self._command(),
        )

    def _command(self) -> str:
        """What adds a peer to this very file, wherever it is typed."""
        path = self._settings.archive.path
        if path == ArchiveSettings().path:
            return "pacs-core peers add"
        return f"pacs-core peers add --archive {shlex.quote(str(Path(path).absolute()))}"

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
