"""Bulk import and export: many files in parallel, an outcome for each, resumable by running again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pacs_core.archive.archive import Archive
from pacs_core.archive.ingest import Kept
from pacs_core.dicom import media
from pacs_core.dicom.attributes import Level
from pacs_core.errors import CorruptError, NotFoundError, PacsError, from_os_error
from pacs_core.store import Opened

T = TypeVar("T")
R = TypeVar("R")

PATIENT_ID = 0x00100020
STUDY_UID = 0x0020000D
SERIES_UID = 0x0020000E
SOP_UID = 0x00080018
_HEAD = 4096  # the file meta (PS3.10 7.1) with the time of reception is in it
WANTED = frozenset({PATIENT_ID, STUDY_UID, SERIES_UID, SOP_UID})


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file: `kept`, or the `error` that says why not. No DICOM object: `skipped`."""

    path: Path
    kept: Kept | None = None
    error: PacsError | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one instance: written to `path`, there already, or the `error` that says why not."""

    sop_instance_uid: str
    path: Path | None = None
    present: bool = False
    error: PacsError | None = None


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that `paths` name, folders walked as `media.files_below` does."""
    for path in paths:
        if path.is_dir():
            yield from media.files_below(path)
        else:
            yield path


def import_files(archive: Archive, paths: Iterable[Path], *, threads: int = 8) -> Iterator[Imported]:
    """Keep every DICOM file of `paths`; others found in folders are skipped. Order is that of completion."""
    yield from _in_parallel(lambda path: _import_one(archive, path), paths, threads)


def _import_one(archive: Archive, path: Path) -> Imported:
    try:
        if not media.looks_like_dicom(path) or media.is_dicomdir(path):
            return Imported(path, skipped=True)
        return Imported(path, kept=archive.store(path).kept)
    except PacsError as exc:
        return Imported(path, error=exc)
    except OSError as exc:
        return Imported(path, error=from_os_error(exc, f"reading {path}"))


def export_files(
    archive: Archive, out: Path, *, study_instance_uid: str | None = None, threads: int = 4
) -> Iterator[Exported]:
    """Write instances as Part 10 files to OUT/patient/study/series/instance.dcm, all or those of a study.

    A file that is there already stays: an export that was broken off goes on where it was.
    """
    made = media.Folders(out)
    yield from _in_parallel(
        lambda one: _export_one(archive, made, one), _chosen(archive, study_instance_uid), threads
    )


def _chosen(archive: Archive, study_instance_uid: str | None) -> Iterator[Mapping[int, str]]:
    """The identifying attributes of every instance to write."""
    keys = {} if study_instance_uid is None else {STUDY_UID: study_instance_uid}
    return archive.find(Level.IMAGE, keys, wanted=WANTED)


def _export_one(archive: Archive, folders: media.Folders, one: Mapping[int, str]) -> Exported:
    uid = one.get(SOP_UID, "")
    try:
        folder = folders.make(one.get(PATIENT_ID, ""), one.get(STUDY_UID, ""), one.get(SERIES_UID, ""))
        target = folder / f"{media.safe_name(uid)}.dcm"
        with archive.open_instance(uid) as opened:
            if _is_there(opened, target):
                return Exported(uid, target, present=True)
            partial = target.with_suffix(f".part{threading.get_ident()}")
            try:
                with partial.open("wb") as file:
                    _copy(opened, file.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return Exported(uid, target)
    except PacsError as exc:
        return Exported(uid, error=exc)
    except OSError as exc:
        return Exported(uid, error=from_os_error(exc, f"writing {uid}"))


def _is_there(opened: Opened, target: Path) -> bool:
    """Whether the file has these bytes: their length, and their head, which tells receptions apart."""
    try:
        with target.open("rb") as file:
            if os.fstat(file.fileno()).st_size != opened.length:
                return False
            return file.read(_HEAD) == os.pread(opened.fd, min(_HEAD, opened.length), opened.offset)
    except FileNotFoundError:
        return False


def _copy(opened: Opened, target: int) -> None:
    """The kept bytes, kernel to kernel."""
    at, left = opened.offset, opened.length
    while left:
        copied = os.sendfile(target, opened.fd, at, min(left, 1 << 30))
        if not copied:
            break
        at, left = at + copied, left - copied
    if not opened.is_current():
        raise NotFoundError("removed meanwhile")
    if left:
        raise CorruptError(f"the bytes end inside {opened.locator}")


def _in_parallel(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`work` over `items` with bounded look-ahead; leaving the iteration stops it."""
    pool = ThreadPoolExecutor(threads)
    running: set[Future[R]] = set()
    try:
        for item in items:
            running.add(pool.submit(work, item))
            if len(running) >= 4 * threads:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(cancel_futures=True)
