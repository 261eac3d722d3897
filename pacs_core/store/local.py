"""The store on a local disk: `objects/` and `journal/` of an archive."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from pacs_core.errors import ArchiveError, ConfigError, PacsError
from pacs_core.store import removal, writer
from pacs_core.store.base import NONE_COVERED, Kept, Locator, Mark, Reason, State, Tombstone
from pacs_core.store.files import StagedFile, Stream, sync_folder
from pacs_core.store.journal import Journal, Unfinished
from pacs_core.store.reading import Opened, Reader
from pacs_core.store.segments import StagedFrame, scan, segment_path, segment_sequences
from pacs_core.store.syscalls import Syscalls, step
from pacs_core.store.writer import Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer

SMALL = 1 << 20
LARGEST_SMALL = 16 << 20
SEGMENT_SIZE = 256 << 20

Staged = StagedFile | StagedFrame

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Published(NamedTuple):
    """What became of a batch.

    Attributes
    ----------
    outcomes : list[Locator | PacsError]
        One per item, in order: where it is durable, or why it is not kept at all.
    mark : Mark
        This writer's position behind the batch.
    """

    outcomes: list[Locator | PacsError]
    mark: Mark


class Store:
    """The bytes of an archive. Every method may be called from any thread.

    Opening does nothing but remember the path; the first write registers a writer. Not to be used across a
    fork: the child opens its own.
    """

    def __init__(
        self, path: str | os.PathLike[str], small: int, segment_size: int, syscalls: Syscalls
    ) -> None:
        self._root = os.fspath(path)
        self._objects = f"{self._root}/objects"
        self._small = small
        self._segment_size = segment_size
        self._syscalls = syscalls
        self._forks = _forks
        self._registering = threading.Lock()
        self._publishing = threading.Lock()
        self._deciding = threading.Lock()
        self._stamping = threading.Lock()
        self._last_stamp = 0
        self._writer: Writer | None = None
        self._closed = False
        self._journal = Journal(f"{self._root}/journal")
        self._unfinished = Unfinished(syscalls, f"{self._root}/journal/unfinished")
        self._reader = Reader(self._objects)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        small: int = SMALL,
        segment_size: int = SEGMENT_SIZE,
        syscalls: Syscalls | None = None,
    ) -> Store:
        """The store of the archive at `path`.

        Parameters
        ----------
        small : int
            Part 10 bytes below this many go to segments, the others to files of their own.
        segment_size : int
            A segment of at least this many bytes is followed by a new one.

        Raises
        ------
        ConfigError
            `small` is out of bounds.
        """
        if not 0 <= small <= LARGEST_SMALL:
            raise ConfigError(f"small: {small} is not between 0 and {LARGEST_SMALL} bytes")
        return cls(path, small, segment_size, syscalls or Syscalls())

    def close(self, *, clean: bool = True) -> None:
        """Let go of everything. `clean` says that all that was published is accounted for in the index."""
        with self._publishing, self._deciding, self._registering:
            self._closed = True
            held, self._writer = self._writer, None
            self._reader.close()
            if held is not None and self._forks == _forks:
                held.close(clean=clean)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(clean=exc is None)

    def _own(self) -> Writer:
        """This store's writer, registered now if it was not."""
        if self._forks != _forks:
            raise ArchiveError("the store was opened before this process was forked; open it here")
        held = self._writer
        if held is not None:
            return held
        with self._registering:
            if self._closed:
                raise ArchiveError("the store is closed")
            if self._writer is None:
                self._make_folders()
                journal = f"{self._root}/journal"
                self._writer = Writer.register(self._syscalls, self._objects, journal, self._segment_size)
            return self._writer

    def _make_folders(self) -> None:
        for path in (self._objects, f"{self._root}/journal"):
            with step("create", path), contextlib.suppress(FileExistsError):
                self._syscalls.mkdir(path)
        with step("sync", self._root):
            sync_folder(self._syscalls, self._root)

    # Keeping

    def next_stamp(self) -> int:
        """Microseconds since the epoch << 12 | the low 12 bits of the writer; higher each time."""
        low = self._own().number & 0xFFF
        with self._stamping:
            now = time.time_ns() // 1000 << 12 | low
            self._last_stamp = max(now, self._last_stamp + 4096)
            return self._last_stamp

    def stage(self, meta: bytes, data: Buffer, fields: bytes, stamp: int) -> Staged:
        """Take an instance in. A large one is on disk, without a name, when this returns.

        Parameters
        ----------
        meta : bytes
            Preamble and file meta (PS3.10 7.1).
        data : Buffer
            The data set. A small one is only remembered: it must not change until published or discarded.
        fields : bytes
            The packed index fields, which a segment frame carries.
        """
        if len(meta) + memoryview(data).nbytes < self._small:
            return StagedFrame(meta, data, fields, stamp)
        return self._own().files.stage(meta, data)

    def stream(self, meta_size: int) -> Stream:
        """Take an instance in that arrives in chunks; `meta_size` bytes are left free for its head."""
        return self._own().files.stream(meta_size)

    def discard(self, staged: Staged) -> None:
        staged.discard()

    def publish(self, batch: Sequence[Staged]) -> Published:
        """Give a batch its places. What has a locator afterwards is durable; nothing stays of what has none.

        One batch at a time: others wait. Raises only if no item could be tried: ArchiveError, StorageError or
        OutOfResourcesError when there is no writer to be had, ValueError for an item that was used up.
        """
        own = self._own()
        files = [item for item in batch if isinstance(item, StagedFile)]
        frames = [item for item in batch if isinstance(item, StagedFrame)]
        with self._publishing:
            if self._closed:
                raise ArchiveError("the store is closed")
            if len(set(map(id, batch))) < len(batch) or any(item.used for item in batch):
                raise ValueError("an item of the batch was published or discarded before")
            of_files = iter(own.files.publish(files))
            of_frames = iter(own.segments.publish(frames))
            outcomes = [next(of_files if isinstance(item, StagedFile) else of_frames) for item in batch]
            return Published(outcomes, own.mark())

    # Giving back

    def open_instance(self, locator: Locator) -> Opened:
        """Open the Part 10 bytes. Raises NotFoundError, CorruptError, StorageError, OutOfResourcesError."""
        return self._reader.open(locator)

    def read(self, locator: Locator) -> bytes | mmap.mmap:
        """The Part 10 bytes: a copy, or from 1 MiB a read-only map of the file. Raises as `open_instance`."""
        return self._reader.read(locator)

    # Deciding and removing

    def tombstone(self, entries: Sequence[Tombstone]) -> None:
        """Note decisions, durable on return; all or none of them, when this raises none."""
        with self._deciding:
            self._own().journal.append(entries)

    def retract(self, entries: Sequence[Tombstone]) -> None:
        """Take decisions back that did not come about, whoever made them; durable on return."""
        self.tombstone([entry._replace(reason=Reason.RETRACTED) for entry in entries])

    def tombstones(self) -> list[Tombstone]:
        """Every standing decision, of all writers."""
        self._journal.refresh()
        return self._journal.standing()

    def tombstone_of(self, locator: Locator) -> Tombstone | None:
        """The standing decision about one locator."""
        self._journal.refresh()
        return self._journal.find(locator)

    @property
    def unfinished(self) -> bool:
        """Whether some process's decisions may not be carried out yet, or never will be: it may have died."""
        return bool(self._unfinished)

    @contextlib.contextmanager
    def carrying_out(self) -> Iterator[None]:
        """Decide, and carry it out, in this block, one process at a time: `unfinished` until it ends well."""
        before = self.unfinished
        self._own()
        self._unfinished.set(True)
        yield
        if not before:
            self.finished()

    def finished(self) -> None:
        """Everybody's decisions are carried out; nobody may be at it meanwhile."""
        with contextlib.suppress(PacsError):  # then they are looked at, once, for nothing
            self._unfinished.set(False)

    def remove(self, locators: Iterable[Locator]) -> list[Locator]:
        """Free bytes that no longer count; returns those still there (a lease, an error), for `sweep`.

        What counted before needs a tombstone first, else a power cut may bring it back.
        """
        return removal.remove(self._syscalls, self._objects, self._reader, locators)

    def hold(self) -> AbstractContextManager[None]:
        """A lease: while any process holds one, removals leave bytes in place.

        Waits for a removal under way.
        """
        self._make_folders()
        return removal.hold(self._syscalls, self._objects)

    def sweep(self, counts: Callable[[Tombstone], bool] = lambda _: False) -> int:
        """Free what tombstones bury but is still there, and segments in which nothing lives.

        `counts` says that the index still holds what a tombstone buries: that stays. Returns how many
        instances and segments went; 0 while somebody holds a lease.
        """
        if not writer.writer_numbers(self._objects):
            return 0
        return removal.sweep(self._syscalls, self._objects, self._journal, self._reader, counts)

    def dead_bytes(self) -> int:
        """Bytes on disk of what was removed, in segments in which others live: about so many."""
        return removal.dead_bytes(self._objects)

    # Taking stock

    def mark(self) -> Mark:
        """Where this store's writer is: `walk` with it in `since` shows only what comes later."""
        with self._publishing:
            return self._own().mark()

    def writers(self) -> list[int]:
        """The number of every writer that there ever was, ascending."""
        return writer.writer_numbers(self._objects)

    def dead_writers(self) -> list[int]:
        """Those that neither live nor closed in order: what they published last may not be accounted for."""
        return writer.dead_writers(self._syscalls, self._objects)

    def idle_writers(self) -> list[int]:
        """Those whose process is gone, in order or not: nothing of theirs is still on its way."""
        return writer.idle_writers(self._syscalls, self._objects)

    def recovering(self, number: int) -> AbstractContextManager[None]:
        """Take a dead writer over: ``with store.recovering(number):`` account for what it left.

        Its temporary files are removed. If the block ends well the writer counts as closed in order. Raises
        ArchiveError if it lives, or is being recovered elsewhere.
        """
        return writer.recovering(self._syscalls, self._objects, number)

    def walk(
        self,
        since: Mapping[int, Mark] | None = None,
        *,
        writers: Iterable[int] | None = None,
        check: bool = False,
        dead: bool = False,
    ) -> Iterator[Kept]:
        """Everything on disk that counts: writer by writer its files, then its frames, in order of sequence.

        Parameters
        ----------
        since : Mapping[int, Mark]
            By writer, from where on; all of a writer that is not in it.
        writers : Iterable[int]
            Only these; all by default.
        check : bool
            Read frames to their last byte, not only header and fields.
        dead : bool
            Show what is buried as well: with its tombstone, or removed without one (DAMAGED, no stamp).
        """
        self._journal.refresh()
        for number in self.writers() if writers is None else writers:
            folder = writer.writer_folder(self._objects, number)
            mark = (since or {}).get(number, NONE_COVERED)
            for kept, erased in self._walk_writer(folder, number, mark, check):
                tombstone = self._journal.find(kept.locator)
                if tombstone is None and not erased:
                    yield kept
                elif dead:
                    state = State.DAMAGED if erased else kept.state
                    yield kept._replace(state=state, tombstone=tombstone)

    def _walk_writer(self, folder: str, number: int, mark: Mark, check: bool) -> Iterator[tuple[Kept, bool]]:
        for sequence, size in _walk_files(folder, mark.file):
            yield Kept(Locator.of_file(number, sequence, size), None, None, State.LISTED), False
        with step("list", folder):
            sequences = segment_sequences(folder)
        for sequence in sequences:
            if sequence < mark.segment:
                continue
            path = segment_path(folder, sequence)
            start = mark.offset if sequence == mark.segment else 0
            with step("read", path), contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    yield from scan(fd, number, sequence, start, check=check)
                finally:
                    os.close(fd)


def _walk_files(folder: str, first: int) -> Iterator[tuple[int, int]]:
    """Sequence and size of a writer's files from sequence `first` on, ascending."""
    for branch in _hexadecimal(folder, 2):
        if branch < first >> 24:
            continue
        branch_path = f"{folder}/{branch:02x}"
        for leaf in _hexadecimal(branch_path, 3):
            if branch << 12 | leaf < first >> 12:
                continue
            leaf_path = f"{branch_path}/{leaf:03x}"
            for sequence in _hexadecimal(leaf_path, 8, ".dcm"):
                if sequence >= first:
                    path = f"{leaf_path}/{sequence:08x}.dcm"
                    with step("examine", path), contextlib.suppress(FileNotFoundError):
                        yield sequence, os.stat(path).st_size  # noqa: PTH116


def _hexadecimal(folder: str, digits: int, suffix: str = "") -> list[int]:
    """The numbers that names of the form of ours in a folder stand for, ascending."""
    found = []
    with step("list", folder):
        for name in os.listdir(folder):  # noqa: PTH208
            stem = name.removesuffix(suffix)
            if len(stem) == digits and len(name) == digits + len(suffix):
                with contextlib.suppress(ValueError):
                    found.append(int(stem, 16))
    return sorted(found)
