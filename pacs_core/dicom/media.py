"""DICOM files among others on a disk: walking folders, telling them apart by their first bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pacs_core.dicom.part10 import read_meta
from pacs_core.errors import UnparsableError

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

UNFINISHED = ".pacs-core-part"
"""How names of files end that are being written, or that a crash left unfinished; they begin with a dot."""

_HEAD = 4096


class Named(NamedTuple):
    """A file that was asked for: by its name, or with the `folder` that it was found in or below."""

    path: Path
    folder: Path | None = None

    @property
    def found(self) -> bool:
        """Whether nobody asked for it by name: it need not be DICOM."""
        return self.folder is not None


def files_of(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Named]:
    """The files that `paths` name: files, folders (in order, links to folders not followed), patterns."""
    for path in paths:
        text = os.fspath(path)
        if not os.path.lexists(text) and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  may be absolute
            for match in matches:
                yield from _below(Path(match))
            if matches:
                continue
        yield from _below(Path(text))


def _below(path: Path) -> Iterator[Named]:
    if not path.is_dir():
        yield Named(path)
        return
    for file in files_below(path):
        yield Named(file, path)


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and below, in order; links to folders are not followed.

    Unfinished files of ours are left out. Folders that can't be read come too: who opens them learns why.
    """
    unreadable: list[OSError] = []
    for path, folders, names in os.walk(folder, onerror=unreadable.append):
        folders.sort()
        for name in sorted(names):
            if not (name.startswith(".") and name.endswith(UNFINISHED)):
                yield Path(path, name)
    yield from (Path(error.filename) for error in unreadable)


def looks_like_dicom(path: Path) -> bool:
    """A Part 10 prefix (PS3.10 7.1), or a first element of group 0002 or 0008 in either byte order.

    Pipes, sockets and devices are not looked into: one would wait for them for ever. OSError for what is not
    there or can't be read, folders too.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return False
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:132] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def is_dicomdir(path: Path) -> bool:
    """Whether a file lists instances (PS3.10 8.6) and is none, whatever its name."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    try:
        return read_meta(head).sop_class_uid == MEDIA_STORAGE_DIRECTORY
    except UnparsableError:
        return False
