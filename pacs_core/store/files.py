"""Large instances: one Part 10 file each (PS3.10 7.1), readable by any tool.

A writer's files are named by its number and a sequence alone: `wNNNNNNNN/AA/BBB/SSSSSSSS.dcm`, all
hexadecimal, AAABBB the upper 20 bits of SSSSSSSS, so 4,096 files to a folder and new folders are rare.
Nothing that came from the wire becomes a path.

A file is staged without a name (or, where the file system has no O_TMPFILE, under a temporary one in the
writer's folder), synced, and only then linked; the folder is synced once for the batch.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pacs_core.errors import OutOfResourcesError, PacsError
from pacs_core.store.base import SEQUENCE_LIMIT, Locator, crc32c
from pacs_core.store.syscalls import Syscalls, step, write_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

TEMPORARY_PREFIX = "t-"

_LEAF_BITS = 12
_BRANCH_BITS = 24
_COPY_BYTES = 1 << 20
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})


def file_path(writer: str, sequence: int) -> str:
    """The path of a published file, `writer` being the path of its writer's folder."""
    return f"{writer}/{sequence >> _BRANCH_BITS:02x}/{sequence >> _LEAF_BITS & 0xFFF:03x}/{sequence:08x}.dcm"


class StagedFile:
    """A whole, synced file that has no name yet. Owned by whoever holds it until published or discarded."""

    __slots__ = ("_syscalls", "fd", "length", "temporary")

    def __init__(self, syscalls: Syscalls, fd: int, temporary: str | None) -> None:
        self._syscalls = syscalls
        self.fd = fd
        self.temporary = temporary
        self.length = 0

    @property
    def used(self) -> bool:
        """Whether it was published or discarded."""
        return self.fd < 0

    def discard(self) -> None:
        """Give the bytes up. Nothing if that was done, or if the file was published."""
        fd, self.fd = self.fd, -1
        temporary, self.temporary = self.temporary, None
        if fd >= 0:
            # Neither can be helped: a temporary name that stays goes when its writer is recovered.
            with contextlib.suppress(OSError):
                self._syscalls.close(fd)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    self._syscalls.unlink(temporary)

    def __del__(self) -> None:
        # The descriptor only: this may be the copy of a forked child, and the name its parent's.
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                self._syscalls.close(self.fd)


class Stream:
    """An instance that arrives in chunks, on its way to a file. Not for several threads at once.

    The head of `meta_size` bytes is left free and written by `finish`.
    """

    def __init__(self, staged: StagedFile, meta_size: int, syscalls: Syscalls) -> None:
        self._staged: StagedFile | None = staged
        self._syscalls = syscalls
        self._meta_size = meta_size
        self.length = 0
        """Bytes of the data set so far."""
        self.checksum = 0
        """Their CRC-32C."""

    def _open(self) -> StagedFile:
        if self._staged is None:
            raise ValueError("this stream was finished or discarded")
        return self._staged

    def write(self, chunk: Buffer) -> None:
        """Append a chunk of the data set; on an error the stream is discarded."""
        staged = self._open()
        try:
            with step("write", "a streamed instance"):
                taken = write_all(self._syscalls, staged.fd, (chunk,), self._meta_size + self.length)
        except PacsError:
            self.discard()
            raise
        self.checksum = crc32c(chunk, self.checksum)
        self.length += taken

    def strip(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Take the byte ranges [start, end) of the data set out, and set `length` and `checksum` anew.

        For elements of groups 0000 and 0002 that have no place in a data set. In ascending order and apart.
        """
        staged = self._open()
        keep = []
        position = 0
        for start, end in ranges:
            if not position <= start <= end <= self.length:
                raise ValueError(f"range {start}..{end} is not in order, or not in {self.length} bytes")
            keep.append((position, start))
            position = end
        keep.append((position, self.length))
        try:
            with step("rewrite", "a streamed instance"):
                self._move_together(staged.fd, keep)
        except PacsError:
            self.discard()
            raise

    def _move_together(self, fd: int, keep: list[tuple[int, int]]) -> None:
        length = checksum = 0
        for start, end in keep:
            while start < end:
                piece = os.pread(fd, min(_COPY_BYTES, end - start), self._meta_size + start)
                if not piece:
                    raise OSError(errno.EIO, "the file is shorter than what was written to it")
                if start != length:
                    write_all(self._syscalls, fd, (piece,), self._meta_size + length)
                checksum = crc32c(piece, checksum)
                start += len(piece)
                length += len(piece)
        self._syscalls.ftruncate(fd, self._meta_size + length)
        self.length = length
        self.checksum = checksum

    def finish(self, meta: bytes) -> StagedFile:
        """Write the head, sync, and give the file over; `meta` has the size that was reserved."""
        staged = self._open()
        if len(meta) != self._meta_size:
            raise ValueError(f"{self._meta_size} bytes were reserved for the head, it has {len(meta)}")
        try:
            with step("write", "the head of a streamed instance"):
                write_all(self._syscalls, staged.fd, (meta,), 0)
            with step("sync", "a streamed instance"):
                self._syscalls.fdatasync(staged.fd)
        except PacsError:
            self.discard()
            raise
        staged.length = self._meta_size + self.length
        self._staged = None
        return staged

    def discard(self) -> None:
        """Leave nothing of it. Nothing if it was finished or discarded."""
        if self._staged is not None:
            self._staged.discard()
            self._staged = None


class FileArea:
    """The files of one writer. `stage` and `stream` from any thread, `publish` from one at a time."""

    def __init__(self, syscalls: Syscalls, folder: str, writer: int) -> None:
        self._syscalls = syscalls
        self._folder = folder
        self._writer = writer
        self._temporaries = itertools.count()
        # linkat by descriptor goes through /proc, which a bare chroot lacks.
        self._nameless = os.path.exists("/proc/self/fd")  # noqa: PTH110
        self._leaf = -1
        self._leaf_fd = -1
        self.next_sequence = 0

    def _begin(self) -> StagedFile:
        with step("create", f"a file in {self._folder}"):
            if self._nameless:
                try:
                    return StagedFile(self._syscalls, self._syscalls.open_tmpfile(self._folder), None)
                except OSError as exc:
                    if exc.errno not in _NO_TMPFILE:
                        raise
                    self._nameless = False
            path = f"{self._folder}/{TEMPORARY_PREFIX}{next(self._temporaries):08x}"
            return StagedFile(self._syscalls, self._syscalls.create(path), path)

    def stage(self, meta: bytes, data: Buffer) -> StagedFile:
        """Write and sync a file. Raises StorageError or OutOfResourcesError, and leaves nothing then."""
        staged = self._begin()
        try:
            with step("write", f"a file in {self._folder}"):
                staged.length = write_all(self._syscalls, staged.fd, (meta, data), 0)
            with step("sync", f"a file in {self._folder}"):
                self._syscalls.fdatasync(staged.fd)
        except PacsError:
            staged.discard()
            raise
        return staged

    def stream(self, meta_size: int) -> Stream:
        return Stream(self._begin(), meta_size, self._syscalls)

    def publish(self, batch: Sequence[StagedFile]) -> list[Locator | PacsError]:
        """Name every file and make the names durable; per file its locator, or why it could not be kept."""
        outcomes: list[Locator | PacsError] = []
        linked: list[int] = []  # of the current leaf
        for staged in batch:
            try:
                if self.next_sequence >> _LEAF_BITS != self._leaf:
                    self._sync_leaf(linked, outcomes)
                    linked = []
                    self._enter_leaf()
                outcomes.append(self._link(staged))
                linked.append(len(outcomes) - 1)
            except PacsError as exc:
                outcomes.append(exc)
        self._sync_leaf(linked, outcomes)
        for staged in batch:
            staged.discard()
        return outcomes

    def _link(self, staged: StagedFile) -> Locator:
        sequence = self.next_sequence
        name = f"{sequence:08x}.dcm"
        self.next_sequence += 1
        with step("link", file_path(self._folder, sequence)):
            if staged.temporary is None:
                self._syscalls.link(staged.fd, name, self._leaf_fd)
            else:
                self._syscalls.rename(staged.temporary, name, self._leaf_fd)
                staged.temporary = None
        return Locator.of_file(self._writer, sequence, staged.length)

    def _sync_leaf(self, linked: list[int], outcomes: list[Locator | PacsError]) -> None:
        """Make the names of `linked`, indices of `outcomes`, durable, or take them all back."""
        if not linked:
            return
        try:
            with step("sync", f"folder {self._leaf:05x} of {self._folder}"):
                self._syscalls.fsync_dir(self._leaf_fd)
        except PacsError as exc:
            for index in linked:
                locator = outcomes[index]
                assert isinstance(locator, Locator)
                outcomes[index] = exc
                with contextlib.suppress(OSError):  # it stays behind unreferenced
                    self._syscalls.unlink(f"{locator.sequence:08x}.dcm", self._leaf_fd)
            self._abandon_leaf(self._leaf)

    def _enter_leaf(self) -> None:
        """Make the folder of the next sequence, with its parents, and hold it open."""
        if self.next_sequence >= SEQUENCE_LIMIT:
            raise OutOfResourcesError(
                f"writer {self._writer} has used all its file names; open the store anew"
            )
        self._leave_leaf()
        leaf = self.next_sequence >> _LEAF_BITS
        path = os.path.dirname(file_path(self._folder, self.next_sequence))  # noqa: PTH120
        branch = os.path.dirname(path)  # noqa: PTH120
        with step("create", f"folder {path}"):
            for folder in (branch, path):
                with contextlib.suppress(FileExistsError):
                    self._syscalls.mkdir(folder)
        try:
            for parent in (branch, self._folder):
                with step("sync", f"folder {parent}"):
                    sync_folder(self._syscalls, parent)
        except PacsError:
            self._abandon_leaf(leaf)
            raise
        with step("open", f"folder {path}"):
            self._leaf_fd = self._syscalls.open_folder(path)
        self._leaf = leaf

    def _abandon_leaf(self, leaf: int) -> None:
        """After a failed sync: go on in another folder, this one is not believed again."""
        self._leave_leaf()
        self.next_sequence = max(self.next_sequence, leaf + 1 << _LEAF_BITS)

    def _leave_leaf(self) -> None:
        if self._leaf_fd >= 0:
            self._syscalls.close(self._leaf_fd)
        self._leaf_fd = self._leaf = -1

    def close(self) -> None:
        self._leave_leaf()


def sync_folder(syscalls: Syscalls, path: str) -> None:
    """Make the entries of a folder durable."""
    fd = syscalls.open_folder(path)
    try:
        syscalls.fsync_dir(fd)
    finally:
        syscalls.close(fd)
