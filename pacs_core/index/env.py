"""The index's environment: opened once a process, shared by all who open the same folder."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pacs_core._ext.kv import Environment
from pacs_core._ext.rows import Schema
from pacs_core.errors import ArchiveError, CorruptError, from_os_error
from pacs_core.index import schema

MAP_SIZE: Final = 1 << 40
MAX_READERS: Final = 1024
COUNTERS: Final = struct.Struct("<QQQ")
_VERSION: Final = struct.Struct("<I")


class CommitLock:
    """`index/commit.lock`: one writer at a time over all processes, re-entrant within a thread.

    The operating system lets go of it when the process dies.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise from_os_error(exc, f"open {path}") from exc
        self._path = path
        self._pid = os.getpid()
        self._threads = threading.RLock()
        self._depth = 0

    @contextmanager
    def queue(self) -> Iterator[int]:
        """Keep other threads out; give the descriptor that a native call is to lock, -1 if it is locked."""
        if self._pid != os.getpid():
            raise ArchiveError(f"{self._path} was opened before a fork: open the index again in the child")
        with self._threads:
            yield -1 if self._depth else self._fd

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock."""
        with self.queue() as fd:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if fd >= 0:
                    fcntl.flock(fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


class Opened:
    """An open index folder: LMDB, the meaning of its codes, and the commit lock."""

    def __init__(self, path: Path, *, map_size: int, max_readers: int, readonly: bool, create: bool) -> None:
        self.path = path
        self.readonly = readonly
        self.map_size = map_size
        self.users = 1
        try:
            if create and not readonly:
                path.mkdir(parents=True, exist_ok=True)
            elif not (path / "data.mdb").exists() or not (path / "data.mdb").stat().st_size:
                raise ArchiveError(f"no index in {path}: `pacs-core reindex` makes it from what is kept")
        except OSError as exc:
            raise from_os_error(exc, f"open index {path}") from exc
        self.lock = None if readonly else CommitLock(path / "commit.lock")
        try:
            if self.lock is None:
                self.env = self._environment(max_readers)
                self.schema = self._read_schema()
            else:
                with self.lock.hold():
                    self.env = self._environment(max_readers)
                    self._initialise()
                    self.schema = self._read_schema()
        except BaseException:
            if self.lock is not None:
                self.lock.close()
            env = getattr(self, "env", None)
            if env is not None:
                env.close()
            raise

    def _environment(self, max_readers: int) -> Environment:
        return Environment(
            str(self.path),
            schema.TABLES,
            map_size=self.map_size,
            max_readers=max_readers,
            readonly=self.readonly,
        )

    def _initialise(self) -> None:
        """Write what a new index begins with, and codes for attributes that are new to an old one."""
        version, packed, secret = self.env.read(schema.META, [b"schema", b"codes", b"secret"])
        if version is not None and _VERSION.unpack(version)[0] != schema.SCHEMA_VERSION:
            return
        codes = schema.pack_codes(schema.assign_codes(schema.unpack_codes(packed or b"")))
        changes: list[tuple[int, bytes, bytes | None]] = []
        if version is None:
            changes.append((schema.META, b"schema", _VERSION.pack(schema.SCHEMA_VERSION)))
            changes.append((schema.META, b"counters", COUNTERS.pack(1, 0, 0)))
        if secret is None:
            changes.append((schema.META, b"secret", os.urandom(16)))
        if codes != packed:
            changes.append((schema.META, b"codes", codes))
        if changes:
            self.env.write(changes)
        if version is None:
            for folder in (self.path, self.path.parent):
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def _read_schema(self) -> Schema:
        version, packed, secret = self.env.read(schema.META, [b"schema", b"codes", b"secret"])
        if version is None or packed is None or secret is None:
            raise ArchiveError(f"{self.path} holds no index of this program")
        found = _VERSION.unpack(version)[0]
        if found > schema.SCHEMA_VERSION:
            raise ArchiveError(
                f"index {self.path} has schema {found}, newer than this program's {schema.SCHEMA_VERSION}: "
                "use the program that wrote it, or a newer one"
            )
        if found < schema.SCHEMA_VERSION:
            raise ArchiveError(
                f"index {self.path} has schema {found}, this program needs {schema.SCHEMA_VERSION}: "
                "rebuild it with `pacs-core reindex`"
            )
        return Schema(schema.native_rows(schema.unpack_codes(packed)), secret)

    def counters(self) -> tuple[int, int, int]:
        """Next id, bytes of the instances held, commits so far."""
        (packed,) = self.env.read(schema.META, [b"counters"])
        if packed is None or len(packed) != COUNTERS.size:
            raise CorruptError(f"index {self.path}: the counters are missing")
        next_id, held, commits = COUNTERS.unpack(packed)
        return next_id, held, commits

    def reopen(self) -> None:
        """Close, make sure of what is on disk, open again and check that the tables fit together.

        Raises
        ------
        StorageError
            The file can't be synced: nothing is written until a later call succeeds.
        CorruptError
            The tables do not fit together: `pacs-core reindex` rebuilds the index from the files.
        """
        self.env.reopen()
        self.schema = self._read_schema()
        next_id, _, _ = self.counters()
        entries = self.env.entries()
        rows = entries[schema.PATIENT : schema.CHILD]
        if entries[schema.CHILD] != sum(rows[1:]) or entries[schema.UID] < sum(rows[1:]):
            raise CorruptError(f"index {self.path}: tables do not fit together")
        for table in range(schema.PATIENT, schema.CHILD):
            if self.env.walk(table, after=(next_id - 1).to_bytes(8, "little"), limit=1):
                raise CorruptError(f"index {self.path}: a record beyond the last id")

    def close(self) -> None:
        self.env.close()
        if self.lock is not None:
            self.lock.close()


_opened: dict[tuple[int, int], Opened] = {}
_opened_lock = threading.Lock()


def _forget() -> None:
    """After a fork the child has no environment: those of the parent stay untouched, and unusable here."""
    global _opened_lock
    _opened.clear()
    _opened_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)


def acquire(path: Path, *, map_size: int, max_readers: int, readonly: bool, create: bool) -> Opened:
    """The environment of `path`, shared with all in this process who have it open."""
    with _opened_lock:
        try:
            status = path.stat()
            opened = _opened.get((status.st_dev, status.st_ino))
        except OSError:
            opened = None
        if opened is not None:
            if opened.readonly and not readonly:
                raise ArchiveError(f"index {path} is open for reading only in this process already")
            opened.users += 1
            return opened
        opened = Opened(path, map_size=map_size, max_readers=max_readers, readonly=readonly, create=create)
        status = path.stat()
        _opened[status.st_dev, status.st_ino] = opened
        return opened


def give_back(opened: Opened) -> None:
    """Close the environment when nobody in this process uses it any more."""
    with _opened_lock:
        opened.users -= 1
        if opened.users:
            return
        for identity in [key for key, value in _opened.items() if value is opened]:
            del _opened[identity]
        opened.close()
