"""The index's environment: opened once a process, shared by all who open the same folder."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from pacs_core._ext.kv import Environment
from pacs_core._ext.rows import Schema
from pacs_core.dicom.added import Asked
from pacs_core.errors import ArchiveError, CorruptError, PacsError, StorageError, from_os_error
from pacs_core.index import schema, state
from pacs_core.index.base import Filling
from pacs_core.index.checkpoint import Checkpoint, sync_path
from pacs_core.index.lock import CommitLock, OncePerProcess
from pacs_core.logs import get_logger

log = get_logger("index")

MAP_SIZE: Final = 1 << 40
MAX_READERS: Final = 1024
CHECKPOINT_SECONDS: Final = 0.5
"""Between two checkpoints while commits are made; what came since has to be made again after a crash."""


class Opened:
    """An open index folder: LMDB, the meaning of its codes, the commit lock, and the checkpoints."""

    def __init__(self, path: Path, *, map_size: int, max_readers: int, create: bool) -> None:
        self.path = path
        self.map_size = map_size
        self._behind = False
        self._distrusted = False  # another process could not sync what ours shows as well
        self._closing = threading.Event()
        self._reading = threading.Lock()
        self._keeper: threading.Thread | None = None
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            elif not (path / "data.mdb").exists() or not (path / "data.mdb").stat().st_size:
                raise ArchiveError(f"no index in {path}: `pacs-core reindex` makes it from what is kept")
        except OSError as exc:
            raise from_os_error(exc, f"open index {path}") from exc
        with ExitStack() as stack:
            self.lock = CommitLock(path / "commit.lock")
            stack.callback(self.lock.close)
            self._checkpoint = Checkpoint(path)
            stack.callback(self._checkpoint.close)
            with self.lock.hold():
                self._restore()
                self.env = self._environment(max_readers)
                stack.callback(self.env.close)
                self._initialise()
                self.state = state.read(self.env)
            stack.pop_all()

    def _restore(self) -> None:
        try:
            self._checkpoint.restore()
        except OSError as exc:
            raise from_os_error(exc, f"go back to the checkpoint of index {self.path}") from exc

    def _environment(self, max_readers: int) -> Environment:
        return Environment(
            str(self.path),
            schema.TABLES,
            map_size=self.map_size,
            max_readers=max_readers,
            lagging=True,
        )

    def _initialise(self) -> None:
        """Write what a new index begins with, and codes for attributes that are new to an old one."""
        fresh, changes = state.beginning(self.env)
        self._amend(changes)
        if fresh:
            try:
                for folder in (self.path, self.path.parent):
                    sync_path(folder)
            except OSError as exc:
                raise from_os_error(exc, f"make index {self.path}") from exc

    def _amend(self, changes: list[state.Change]) -> None:
        """With the commit lock in this thread: change `meta`, durably."""
        if changes:
            self.checkpoint()
            self.env.write(changes)
            self.checkpoint()
            self.let_go()

    def add(self, wanted: Sequence[Asked]) -> None:
        """Record attributes from now on, durably. Raises ArchiveError if one is in the index at another level
        than it has to be, or there is no room."""
        with self.lock.hold():
            state.check_levels(self.refresh(), wanted)
            self._amend(state.additions(self.env, (one.attribute for one in wanted)))
            self.refresh()

    def filled(self, before: Filling, after: int) -> bool:
        """Note that instances up to the id `after` were asked; False if `before` is not how it was."""
        with self.lock.hold():
            if self.refresh().filling != before:
                return False
            done = after >= before.until
            packed = None if done else schema.pack_filling(before._replace(after=after))
            self.get_ready()
            try:
                self.env.write([(schema.META, b"filling", packed)])
            except PacsError:
                self.let_go()
                raise
            self.changed()
            self.refresh()
            return True

    @property
    def schema(self) -> Schema:
        """What the codes of the records mean."""
        return self.state.schema

    def refresh(self) -> state.State:
        """The state as it is now: another process may have added attributes, or have filled them in."""
        with self._reading:  # else what one thread read earlier might be put in place later
            if self.state.packed != tuple(self.env.read(schema.META, [b"codes", b"filling"])):
                self.state = state.read(self.env)
            return self.state

    def counters(self) -> tuple[int, int, int]:
        """Next id, bytes of the instances held, commits so far."""
        (packed,) = self.env.read(schema.META, [b"counters"])
        if packed is None or len(packed) != schema.COUNTERS.size:
            raise CorruptError(f"index {self.path}: the counters are missing")
        next_id, held, commits = schema.COUNTERS.unpack(packed)
        return next_id, held, commits

    # -- checkpoints --------------------------------------------------------------------------------------

    @property
    def condemned(self) -> bool:
        """Whether it is not known if what was committed gets to disk: `reopen` is due."""
        return self.env.condemned or self._distrusted

    def get_ready(self) -> None:
        """With the commit lock in this thread: make sure that a snapshot is pinned, as every change needs."""
        if not self.env.pinned:
            self.checkpoint()

    def changed(self) -> None:
        """With the commit lock in this thread: something was committed; a checkpoint will follow."""
        self._behind = True
        if self._keeper is None:
            keeper = threading.Thread(target=self._keep, name="checkpoint", daemon=True)
            # What was committed is so whether or not a thread can be had: the next commit tries again.
            with contextlib.suppress(RuntimeError):
                keeper.start()
                self._keeper = keeper

    def checkpoint(self) -> None:
        """Make every commit until now durable, and their state the one to go back to.

        Raises
        ------
        StorageError
            The system failed to: nothing is written until `reopen`.
        OutOfResourcesError
            There is no room; the checkpoint before stands.
        """
        self._sync()  # nearly all of it, while others commit
        with self.lock.hold():
            self._behind = False
            self._sync()
            try:
                self._checkpoint.trust()
            except StorageError:
                self._distrusted = True
                raise
            try:
                self._checkpoint.write(self._checkpoint.metas(self.env.page_size))
            except OSError as exc:
                self._behind = True
                raise from_os_error(exc, f"write the checkpoint of index {self.path}") from exc
            self.env.pin()

    def _sync(self) -> None:
        if self.env.condemned:  # the system says once that it failed, and then that all is well
            raise StorageError(f"index {self.path}: a sync failed, it has to go back first")
        try:
            self.env.sync()
        except PacsError:
            with self.lock.hold():
                self._pass_on_doubt()
            raise

    def _pass_on_doubt(self) -> None:
        if self.env.condemned:  # another thread may have gone back by now
            self._checkpoint.doubt()

    def turn_pages(self) -> None:
        """Set the pages free that the last commit gave up: only the one after the next may use those.

        In a full map nothing might ever be committed else, not even what makes room.
        """
        with self.lock.hold():
            self.checkpoint()
            (version,) = self.env.read(schema.META, [b"schema"])
            self.env.write([(schema.META, b"schema", version)])
            self.checkpoint()

    def let_go(self) -> None:
        """With the commit lock in this thread: keep no pages from being used, if they are in no danger."""
        if not self._behind:
            self.env.unpin()

    def _keep(self) -> None:
        """Make checkpoints while there are commits; then let the pages go, and end."""
        while not self._closing.wait(CHECKPOINT_SECONDS):
            try:
                if self._behind:
                    self.checkpoint()
                    continue
            except PacsError as exc:
                log.error("no checkpoint of the index", why=str(exc))
            with self.lock.hold():
                if self._behind and not self.env.condemned:
                    continue
                self.env.unpin()
                self._keeper = None
                return

    def reopen(self) -> None:
        """Close, go back to the last checkpoint, open again and check that the tables fit together.

        Commits since that checkpoint are gone: they are to be made again.

        Raises
        ------
        StorageError
            The file can't be synced, or other processes have it open: nothing is written until a later call
            succeeds.
        CorruptError
            The tables do not fit together: `pacs-core reindex` rebuilds the index from the files.
        """
        self.env.reopen(self._checkpoint.restore_after_failure)
        self._distrusted = False
        self.state = state.read(self.env)
        next_id, _, _ = self.counters()
        entries = self.env.entries()
        rows = entries[schema.PATIENT : schema.CHILD]
        if entries[schema.CHILD] != sum(rows[1:]) or entries[schema.UID] < sum(rows[1:]):
            raise CorruptError(f"index {self.path}: tables do not fit together")
        for table in range(schema.PATIENT, schema.CHILD):
            if self.env.walk(table, after=(next_id - 1).to_bytes(8, "little"), limit=1):
                raise CorruptError(f"index {self.path}: a record beyond the last id")

    def close(self) -> None:
        self._closing.set()
        keeper = self._last_keeper()
        if keeper is not None:
            keeper.join()
        if self._behind and not self.env.condemned and not self.lock.forked:
            try:
                self.checkpoint()
            except PacsError as exc:
                log.error("no checkpoint of the index", why=str(exc))
        self.env.close()
        self._checkpoint.close()
        self.lock.close()

    def _last_keeper(self) -> threading.Thread | None:
        """The keeper, if there is one that holds, or may yet want, the commit lock."""
        if self.lock.forked:
            return None
        with self.lock.queue():
            return self._keeper


_OPENED: OncePerProcess[Opened] = OncePerProcess()


def acquire(path: Path, *, map_size: int, max_readers: int, create: bool) -> Opened:
    """The environment of `path`, shared with all in this process who have it open."""
    return _OPENED.acquire(
        path, lambda: Opened(path, map_size=map_size, max_readers=max_readers, create=create)
    )


def give_back(opened: Opened) -> None:
    """Close the environment when nobody in this process uses it any more."""
    _OPENED.give_back(opened, opened.close)
