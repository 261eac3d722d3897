"""Backup and restore of an archive that goes on working meanwhile.

The index is copied first, at one moment; then the bytes, while removals leave theirs in place; then the
decisions. So everything that the copied index names is in the copy. The copy looks like an archive whose
processes died: when it is opened, what arrived later is adopted, and what was decided later is carried
out, or taken back where the bytes came too late. A second backup to the same place copies what is new or
has changed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pacs_core.archive.archive import Archive
from pacs_core.archive.place import Place, make_folders, swap_in
from pacs_core.errors import ArchiveError, from_os_error
from pacs_core.index.checkpoint import sync_path
from pacs_core.store import CLEAN, LOCK

GRAIN = 2_000_000_000
"""Nanoseconds after which a file's time tells that it has changed, on any file system."""


@dataclass(slots=True)
class Copied:
    """Files and bytes that were copied, and files that were there already."""

    files: int = 0
    bytes: int = 0
    present: int = 0


def backup(archive: Archive, target: Path, *, progress: Callable[[int], None] = lambda _: None) -> Copied:
    """Copy the archive to the folder `target`; `progress` is told how many more bytes were looked at.

    Raises
    ------
    ArchiveError
        `target` is neither empty nor an earlier backup of this archive, is in use, or lies inside the
        archive.
    """
    root = archive.place.root.resolve()
    target = target.resolve()
    if target == root or root in target.parents:
        raise ArchiveError(f"{target} lies inside the archive that is to be copied there")
    copied = Copied()
    try:
        if target.exists() and any(target.iterdir()):
            _check_target(root, target)
        else:
            make_folders(target / "objects")  # which makes it a backup, to be gone on with
        with Place(target).alone(), archive.objects.hold():
            if archive.place.state.exists():  # what it says is committed is in the copy too
                archive.state.snapshot(_cleared(target / "state.new"))
                swap_in(target / "state.new", target / "state")
            fresh = _cleared(target / "index.new")
            archive.index.snapshot(fresh)
            # The earlier index names bytes that are still in `target`; it goes when the new one's are too.
            for name in ("objects", "journal"):
                _copy_tree(root / name, target / name, copied, progress)
            swap_in(fresh, target / "index")
        archive.sweep()
    except OSError as exc:
        raise from_os_error(exc, f"backing up to {target}") from exc
    return copied


def _cleared(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _check_target(root: Path, target: Path) -> None:
    """An earlier backup has writers of this archive only: files of one name are the same file then."""
    if not (target / "objects").is_dir():
        raise ArchiveError(f"{target} is neither empty nor an earlier backup")
    for folder in (target / "objects").glob("w*/"):
        ours = root / "objects" / folder.name / LOCK
        try:
            same = ours.read_bytes() == (folder / LOCK).read_bytes()
        except FileNotFoundError:
            same = False
        if not same:
            raise ArchiveError(
                f"{target} is no backup of this archive, or was written to since: back up to another folder"
            )


def restore(source: Path, target: Path, *, progress: Callable[[int], None] = lambda _: None) -> Copied:
    """Make the archive `target`, which must not be there yet, from a backup.

    Raises
    ------
    ArchiveError
        `source` is no backup, or `target` holds something else than a restore that was broken off.
    """
    place = Place(target)
    if not (source / "index").is_dir() or not (source / "objects").is_dir():
        raise ArchiveError(f"{source} is no complete backup")
    if target.exists() and any(target.iterdir()) and not place.restoring.exists():
        raise ArchiveError(f"{target} is not empty: a restore never overwrites")
    copied = Copied()
    try:
        make_folders(target)
        place.restoring.touch()
        sync_path(target)
        with place.alone():
            for name in ("objects", "journal", "state", "index"):
                if (source / name).exists():
                    _copy_tree(source / name, target / name, copied, progress)
            sync_path(target)
            place.restoring.unlink()
            sync_path(target)
    except OSError as exc:
        raise from_os_error(exc, f"restoring {source}") from exc
    return copied


def _copy_tree(source: Path, target: Path, copied: Copied, progress: Callable[[int], None]) -> None:
    target.mkdir(exist_ok=True)
    for path, found in _files(source):
        to = target / path.relative_to(source)
        if _is_copy(to, found):
            copied.present += 1
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, to, found)
            copied.files += 1
            copied.bytes += found.st_size
        progress(found.st_size)
    for folder in [target, *(p for p in target.rglob("*") if p.is_dir())]:
        sync_path(folder)


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            if name == CLEAN:
                continue
            path = Path(folder, name)
            # What a removal or a finished write takes away meanwhile is not to be copied.
            with suppress(FileNotFoundError):
                yield path, path.stat()


def _is_copy(target: Path, source: os.stat_result) -> bool:
    """Same size and, but for the files of single instances, time: segments and logs change."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return False
    if found.st_size != source.st_size:
        return False
    return target.suffix == ".dcm" or found.st_mtime_ns == source.st_mtime_ns


def _copy(source: Path, target: Path, found: os.stat_result) -> None:
    """A whole, synced copy under that name, or none."""
    partial = target.with_name(target.name + ".part")
    with source.open("rb") as read, partial.open("wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        write.flush()
        # What was written to a moment ago may be written to again within one tick of the clock.
        settled = found.st_mtime_ns < time.time_ns() - GRAIN
        os.utime(write.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns if settled else 0))
        os.fsync(write.fileno())
    partial.replace(target)
