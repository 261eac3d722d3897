"""The folder of an archive: its layout on disk, its locks, and whether it may live where it is.

ARCHIVE/objects   instances           ARCHIVE/journal  tombstones and decisions
ARCHIVE/index     what finds them     ARCHIVE/server.lock   held by the one server
ARCHIVE/state     worklist, MPPS, commitments: what no instance tells
ARCHIVE/archive.lock   shared by all who have it open
ARCHIVE/health.json    how the services of the server are, while it runs
ARCHIVE/restoring      there while a restore into it is not finished
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs_core.errors import ArchiveError, from_os_error
from pacs_core.index.checkpoint import sync_path

# f_type of statfs(2). LMDB's lock file and shared map, and flock, need one kernel behind all openers.
_NETWORK = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x517B: "SMB",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x0BD00BD0: "Lustre",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x564C: "NCP",
}


# What may be there before the archive is: known peers, and the locks.
_BEFORE = frozenset({"peers.toml", "server.lock", "archive.lock", "recovery.lock"})


class _Statfs(ctypes.Structure):
    # Only the first field is read; the rest is room for what any kernel writes.
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 512))


def network_file_system(path: Path) -> str | None:
    """The name of the network file system that holds `path`, or None if it is a local one."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = _Statfs()
    if not hasattr(libc, "statfs") or libc.statfs(os.fsencode(path), ctypes.byref(found)) != 0:
        return None
    return _NETWORK.get(found.f_type & 0xFFFFFFFF)


class Place:
    """Paths below one archive folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects"
        self.index = root / "index"
        self.journal = root / "journal"
        self.state = root / "state"
        self.health = root / "health.json"
        self.restoring = root / "restoring"

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, create: bool) -> Place:
        """The archive at `path`.

        Raises
        ------
        ArchiveError
            It is not there (and `create` is false), is no folder, holds something else, or lies on a
            network file system.
        """
        root = Path(path).absolute()
        place = cls(root)
        try:
            if not place.objects.is_dir():
                if not create:
                    raise ArchiveError(f"no archive at {root}")
                if root.is_dir() and any(entry.name not in _BEFORE for entry in root.iterdir()):
                    raise ArchiveError(f"{root} is neither empty nor an archive")
                make_folders(place.objects)
            if place.restoring.exists():
                raise ArchiveError(f"the restore to {root} was broken off: run it again, to the same folder")
        except OSError as exc:
            raise from_os_error(exc, f"opening the archive at {root}") from exc
        kind = network_file_system(root)
        if kind is not None:
            raise ArchiveError(f"{root} lies on {kind}: an archive needs a local file system")
        return place

    @contextmanager
    def server_lock(self) -> Iterator[None]:
        """Keeps a second server, and whatever needs the archive for itself, out.

        Raises
        ------
        ArchiveError
            Somebody else holds it.
        """
        with self._locked("server.lock", "a server, or a reindex, is running on it"):
            yield

    def is_served(self) -> bool:
        """Whether somebody holds the server's lock."""
        try:
            with self._locked("server.lock", "it is served", shared=True):
                return False
        except ArchiveError:
            return True

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Says that the archive is open here, to whoever wants it `alone`.

        Raises
        ------
        ArchiveError
            Somebody has it alone.
        """
        with self._locked("archive.lock", "a reindex, a backup to it or a restore is running", shared=True):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps everybody else from opening it.

        Raises
        ------
        ArchiveError
            Some process has it open.
        """
        with self._locked("archive.lock", "a server, a command or another program has it open"):
            yield

    @contextmanager
    def recovery_lock(self) -> Iterator[None]:
        """One process at a time settles what dead ones have left."""
        with self._locked("recovery.lock", None):
            yield

    @contextmanager
    def fill_lock(self, *, wait: bool) -> Iterator[None]:
        """One process at a time asks instances for new attributes.

        Raises
        ------
        ArchiveError
            Another does, and not `wait`.
        """
        with self._locked("fill.lock", None if wait else "another process fills attributes in"):
            yield

    @contextmanager
    def _locked(self, name: str, busy: str | None, *, shared: bool = False) -> Iterator[None]:
        path = self.root / name
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise from_os_error(exc, f"opening {path}") from exc
        try:
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(handle, kind | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError as exc:
                raise ArchiveError(f"the archive at {self.root} is in use: {busy}") from exc
            yield
        finally:
            os.close(handle)


def swap_in(fresh: Path, place: Path) -> None:
    """Put the folder `fresh` in the place of another, which may not be there.

    Killed half-way it leaves nothing in that place: an archive without an index is not taken for empty.
    """
    old = place.with_name(place.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    sync_path(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def make_folders(path: Path) -> None:
    """Make a folder, and those above it that are missing, durably."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(exist_ok=True)
        sync_path(path.parent)
