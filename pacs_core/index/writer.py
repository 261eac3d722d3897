"""The index as the archive holds it: changes, each batch one durable transaction, and their lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pacs_core._ext import catalog
from pacs_core.dicom.added import Asked
from pacs_core.errors import ArchiveError, OutOfResourcesError, PacsError, StorageError
from pacs_core.index import audit, env
from pacs_core.index.base import Conflict, Entry, Filling, Mark, Outcome, Result
from pacs_core.index.lock import CommitLock
from pacs_core.index.reader import Reader
from pacs_core.index.snapshot import snapshot

# Calling an enumeration takes several times as long.
_OUTCOMES = tuple(Outcome)
_CONFLICTS = tuple(Conflict(bits) for bits in range(4))


class Index(Reader):
    """An LMDB index in a folder. Threads and processes may share the folder; a forked child opens it anew.

    All in one process who open the same folder share one environment, closed by the last `close`.

    Attributes
    ----------
    reread : callable
        Makes the fields of an entry anew from its bytes, which are durable, with `reading` as it is then.
        Called for entries that were made before the index learned of another attribute.
    """

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        map_size: int = env.MAP_SIZE,
        max_readers: int = env.MAX_READERS,
        create: bool = True,
    ) -> Self:
        """Open the index in the folder `path`, made if need be and `create` allows.

        Parameters
        ----------
        map_size : int
            Bytes of address space that are reserved: the most the index can grow to. No memory is taken.
            The same for every process that opens the index.

        Raises
        ------
        ArchiveError
            No index there (and not `create`), not permitted, or of another schema version.
        """
        return cls(env.acquire(Path(path), map_size=map_size, max_readers=max_readers, create=create))

    def __init__(self, opened: env.Opened) -> None:
        super().__init__(opened)
        self._closed = False
        self.reread: Callable[[Entry], bytes] | None = None

    def close(self) -> None:
        """Let the environment go. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            env.give_back(self._opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_entry(self, entry: Entry) -> None:
        """Raise `UnparsableError` if `commit` would refuse the entry: known before its bytes are kept."""
        catalog.check_entry(self._opened.schema, entry)

    def commit(
        self,
        entries: Sequence[Entry],
        *,
        replace: bool = False,
        all_new: bool = False,
        heirs: Sequence[Entry] = (),
        mark: Mark | None = None,
    ) -> list[Result]:
        """Enter instances, all or none; visible to every process on return.

        Durable with the next checkpoint (`sync`): after a crash an index is as of the last one, and what was
        entered since is to be entered again.

        Parameters
        ----------
        replace : bool
            An instance that is held is removed for the new one, instead of being left as it is.
        all_new : bool
            If one of them is held (its outcome says so) nothing is entered, nor is `mark`.
        heirs : Sequence[Entry]
            Held instances whose headers take part in merging again (see `succession`).
        mark : Mark
            Kept in the same transaction.

        Returns
        -------
        list[Result]
            One for each entry.

        Raises
        ------
        OutOfResourcesError
            The disk or the map is full: nothing was entered.
        StorageError
            The system failed to write: nothing was entered for certain. If the index is `condemned` then,
            nothing is entered before `reopen`.
        UnparsableError
            An entry has malformed fields or no SOP Instance UID: nothing was entered.
        """
        return self._apply(entries, (), heirs, mark, replace=replace, all_new=all_new)

    def remove(self, uids: Sequence[str], *, heirs: Sequence[Entry] = ()) -> list[Result]:
        """Take instances out, with their parents' share of them; errors as of `commit`."""
        return self._apply((), uids, heirs, None)

    def _apply(
        self,
        entries: Sequence[Entry],
        removals: Sequence[str],
        heirs: Sequence[Entry],
        mark: Mark | None,
        *,
        replace: bool = False,
        all_new: bool = False,
    ) -> list[Result]:
        def apply(fd: int) -> list[tuple[int, bytes | None, int]]:
            while True:
                self._bring_up_to_date(entries)
                self._bring_up_to_date(heirs)
                done = catalog.apply_batch(
                    self._opened.env,
                    self._opened.schema,
                    entries,
                    removals=removals,
                    heirs=heirs,
                    replace=replace,
                    all_new=all_new,
                    mark=mark,
                    lock_fd=fd,
                )
                if done is not None:
                    return done
                self._opened.refresh()  # another process has added attributes

        with self._lock().queue() as fd:
            try:
                self._opened.get_ready()
                try:
                    rows = apply(fd)
                except OutOfResourcesError:
                    if removals:
                        self._opened.turn_pages()
                    else:  # the last pages of a full map are for removals
                        self._opened.checkpoint()
                    rows = apply(fd)
            except BaseException as exc:
                self._opened.let_go()  # another process may be about to make room
                if isinstance(exc, StorageError):
                    raise self._no_room(exc) from exc
                raise
            self._opened.changed()
        return [Result(_OUTCOMES[what], previous, _CONFLICTS[odd]) for what, previous, odd in rows]

    def _bring_up_to_date(self, entries: Sequence[Entry]) -> None:
        """Look again at instances that were looked at before the index learned of another attribute."""
        known = self._opened.state.known
        for entry in entries:
            if entry.known < known:
                if self.reread is None:
                    raise ArchiveError("the index has attributes that an entry does not tell")
                entry.fields = self.reread(entry)
                entry.known = known

    def add(self, wanted: Sequence[Asked]) -> None:
        """Record attributes from now on, of whatever process; instances held are to be asked (see `fill`).

        What the index has already stays as it is.

        Raises
        ------
        ArchiveError
            It has one of them at another level than is given, or no room for them.
        """
        self._lock()
        self._opened.add(wanted)

    def fill(self, filling: Filling, heirs: Sequence[Entry], after: int) -> bool:
        """Enter what instances say of attributes that came later; those up to the id `after` have been asked.

        False, and they are to be asked again, if `filling` is no longer what `Index.filling` gives.
        """
        if heirs:
            self._apply((), (), heirs, None)
        return self._opened.filled(filling, after)

    def _no_room(self, exc: StorageError) -> PacsError:
        """LMDB says EIO for a write that a full disk cut short: look at the disk."""
        room = os.statvfs(self._opened.path)
        if room.f_bavail * room.f_frsize < 1 << 20:
            return OutOfResourcesError(f"no room for index {self._opened.path}")
        return exc

    def _lock(self) -> CommitLock:
        if self._closed:
            raise ArchiveError(f"index {self._opened.path} is closed")
        return self._opened.lock

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other writer out, of any thread and process, while reading and then changing.

        Re-entrant; `commit` and `remove` inside it are part of it. What the index knows of instances
        (`reading`) does not change meanwhile.
        """
        with self._lock().hold():
            if not self._opened.condemned:  # then nothing can be read, and `reopen` is what it is held for
                self._opened.refresh()
            yield

    @property
    def condemned(self) -> bool:
        """Whether the system failed in a way that leaves the state on disk unknown: `reopen` is due."""
        return self._opened.condemned

    def sync(self) -> None:
        """Make all that was committed durable. Raises StorageError, OutOfResourcesError."""
        self._lock()
        self._opened.checkpoint()

    def reopen(self) -> None:
        """If the index is condemned, go back to the last checkpoint: what was committed since is gone.

        Raises
        ------
        StorageError
            The disk still fails; nothing is written.
        IndexSharedError
            Other processes have the index open, which has to go back; nothing is written.
        CorruptError
            The index does not check: rebuild it.
        """
        with self._lock().hold():
            if self._opened.condemned:
                self._opened.reopen()

    def dump(self, *, locators: bool = True) -> audit.Dump:
        """All that is held, without the index's own ids: equal for two indexes that hold the same."""
        return audit.dump(self, locators=locators)

    def check(self) -> Iterable[str]:
        """What is inconsistent in the index, a sentence each; nothing if all is well."""
        return audit.check(self)

    def snapshot(self, target: str | os.PathLike[str], *, compact: bool = False) -> None:
        """Copy the index as it is now into the folder `target`, made if need be and synced; others go on.

        Raises
        ------
        ArchiveError
            There is an index in `target`.
        """
        snapshot(self._opened.env, Path(target), compact=compact)
