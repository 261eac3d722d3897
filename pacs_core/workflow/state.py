"""Where state machines are kept: small records, changed in transactions that are durable when they return.

A change is a decision: it reads what stands, and writes what is to stand, while nobody else decides, in any
process. Decisions that wait for each other are committed together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

from pacs_core._ext.kv import Environment
from pacs_core.errors import ArchiveError, PacsError, from_os_error
from pacs_core.index.checkpoint import sync_path
from pacs_core.index.lock import CommitLock, OncePerProcess
from pacs_core.index.snapshot import snapshot
from pacs_core.pool.commit import GroupCommit

T = TypeVar("T")

META, STEP, STEP_KEY, PERFORMED, COMMITMENT, OUTBOX = range(6)
TABLES: Final = (
    ("meta", 0),
    ("step", 0),  # scheduled procedure steps
    ("step_key", 0),  # what they are found by
    ("performed", 0),  # modality performed procedure steps
    ("commitment", 0),  # storage commitment transactions
    ("outbox", 0),  # what peers are yet to be told
)

MAP_SIZE: Final = 1 << 36
SCHEMA_VERSION: Final = 1
_VERSION: Final = struct.Struct("<I")
_CHUNK: Final = 1000


class Change:
    """What a decision sees and does; what it does is kept only if it returns.

    Keys are 1 to 511 bytes long.
    """

    def __init__(self, env: Environment, before: dict[tuple[int, bytes], bytes | None]) -> None:
        self._env = env
        self._before = before
        self.made: dict[tuple[int, bytes], bytes | None] = {}

    def get(self, table: int, key: bytes) -> bytes | None:
        """What stands under a key, None if nothing does."""
        for changes in (self.made, self._before):
            if (table, key) in changes:
                return changes[table, key]
        return self._env.read(table, [key])[0]

    def put(self, table: int, key: bytes, value: bytes) -> None:
        """Let this stand under the key."""
        self.made[table, key] = value

    def delete(self, table: int, key: bytes) -> None:
        """Let nothing stand under the key."""
        self.made[table, key] = None

    def scan(self, table: int, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """What stands under all keys that begin so, in their order: for what is known to be little."""
        found: dict[bytes, bytes | None] = dict(_scan(self._env, table, prefix))
        for changes in (self._before, self.made):
            found |= {k: v for (t, k), v in changes.items() if t == table and k.startswith(prefix)}
        return sorted((key, value) for key, value in found.items() if value is not None)


class _Decision:
    """One `change` in a batch."""

    __slots__ = ("decide", "error", "result")

    def __init__(self, decide: Callable[[Change], Any]) -> None:
        self.decide = decide
        self.result: Any = None
        self.error: Exception | None = None


class _Opened:
    """The environment of this process."""

    def __init__(self, path: Path, map_size: int) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise from_os_error(exc, f"open {path}") from exc
        with ExitStack() as stack:
            self.lock = CommitLock(path / "commit.lock")
            stack.callback(self.lock.close)
            with self.lock.hold():
                self.env = Environment(str(path), TABLES, map_size=map_size)
                stack.callback(self.env.close)
                (version,) = self.env.read(META, [b"schema"])
                if version is None:
                    self.env.write([(META, b"schema", _VERSION.pack(SCHEMA_VERSION))])
                    for folder in (path, path.parent):
                        sync_path(folder)
                elif _VERSION.unpack(version)[0] != SCHEMA_VERSION:
                    raise ArchiveError(
                        f"{path} is of schema {_VERSION.unpack(version)[0]}, of a newer version"
                    )
            stack.pop_all()

    def close(self) -> None:
        self.env.close()
        self.lock.close()


_OPENED: OncePerProcess[_Opened] = OncePerProcess()


class State:
    """The state of one archive, opened in this process; others may have it open too."""

    def __init__(self, opened: _Opened) -> None:
        self._opened = opened
        self._env = opened.env
        self._group = GroupCommit(self._commit)

    @classmethod
    def open(cls, path: Path, *, map_size: int = MAP_SIZE) -> State:
        """The state kept in the folder `path`, which is made if it is not there.

        Parameters
        ----------
        map_size : int
            Bytes of address space; the same for every opener.

        Raises
        ------
        ArchiveError
            It is of a newer schema, or can't be opened.
        OutOfResourcesError, StorageError
            The folder can't be made.
        """
        return cls(_OPENED.acquire(path, lambda: _Opened(path, map_size)))

    def close(self) -> None:
        """Let what is under way end, and give the state up."""
        self._group.close()
        _OPENED.give_back(self._opened, self._opened.close)

    def change(self, decide: Callable[[Change], T]) -> T:
        """What `decide` returns, when what it changed is durable. It may be run in another thread.

        Raises
        ------
        OutOfResourcesError, StorageError
            It could not be made durable. After an I/O error it may yet turn out to stand.
        Exception
            What `decide` raises: nothing of its change stands.
        """
        decision = _Decision(decide)
        self._group.run(decision)
        if decision.error is not None:
            raise decision.error
        result: T = decision.result
        return result

    def _commit(self, decisions: Sequence[_Decision]) -> None:
        made: dict[tuple[int, bytes], bytes | None] = {}
        with self._opened.lock.hold():
            if self._env.condemned:
                self._env.reopen()
            for decision in decisions:
                change = Change(self._env, made)
                try:
                    decision.result = decision.decide(change)
                except Exception as exc:  # noqa: BLE001 - raised to whoever asked for it
                    decision.error = exc
                else:
                    made |= change.made
            try:
                if made:
                    self._env.write([(table, key, value) for (table, key), value in made.items()])
            except PacsError as exc:
                for decision in decisions:
                    decision.error = decision.error or exc

    def get(self, table: int, key: bytes) -> bytes | None:
        """What stands under a key, None if nothing does."""
        return self._env.read(table, [key])[0]

    def get_many(self, table: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """What stands under each key, at one moment."""
        return self._env.read(table, keys)

    def scan(
        self, table: int, prefix: bytes = b"", *, after: bytes = b"", stop: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """What stands under all keys that begin so, behind `after` and before `stop`, in their order.

        Read in chunks: changes made meanwhile may or may not show.
        """
        return _scan(self._env, table, prefix, after, stop)

    @property
    def environment(self) -> Environment:
        """What natives read that do more than `get` and `scan`."""
        return self._env

    def entries(self, table: int) -> int:
        """How many keys something stands under."""
        return self._env.entries()[table]

    def snapshot(self, target: Path) -> None:
        """A consistent copy into the folder `target`, made if need be, while others go on.

        Raises
        ------
        ArchiveError
            There is one in `target`.
        """
        snapshot(self._env, target)


def _scan(
    env: Environment, table: int, prefix: bytes, after: bytes = b"", stop: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    if prefix and not after:
        (first,) = env.read(table, [prefix])  # `walk` begins behind a key
        if first is not None:
            yield prefix, first
    at = max(prefix, after)
    while True:
        pairs = env.walk(table, after=at or None, stop=stop or None, limit=_CHUNK)
        for key, value in pairs:
            if not key.startswith(prefix):
                return
            yield key, value
        if len(pairs) < _CHUNK:
            return
        at = pairs[-1][0]
