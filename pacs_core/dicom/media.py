"""DICOM files among others on a disk: walking folders, telling them apart by their first bytes."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pacs_core.dicom.part10 import read_meta
from pacs_core.dicom.uids import is_valid_uid
from pacs_core.errors import UnparsableError

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

UNFINISHED = ".pacs-core-part"
"""How names of files end that are being written, or that a crash left unfinished; they begin with a dot."""

_HEAD = 4096
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


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


def safe_name(name: str) -> str:
    """A file name for an identifier from outside: itself where harmless, else readable and unique.

    >>> safe_name("1.2.840.1"), safe_name("")
    ('1.2.840.1', '_empty')
    """
    if not name:
        return "_empty"
    if (is_valid_uid(name) or _PLAIN.match(name)) and ".." not in name and not name.endswith("."):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name)[:40].strip("_")
    return f"_{plain}_{digest}"


class Folders:
    """Folders made once each, and synced, from names that can't leave `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: set[Path] = set()

    def path(self, *names: str) -> Path:
        """The folder of these names, patient, study and series, whether it is there or not."""
        return self._root.joinpath(*map(safe_name, names))

    def make(self, *names: str) -> Path:
        """The same, made where it was not there. Raises OSError."""
        path = self.path(*names)
        if path not in self._made:
            _make(path)
            self._made.add(path)
        return path


def _make(path: Path) -> None:
    """As `mkdir -p`; what is made will be there after a power cut."""
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
