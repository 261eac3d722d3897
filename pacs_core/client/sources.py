"""What can be sent: where in a file, or in memory, a data set lies and what it is; nothing is decoded."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pacs_core.dicom.header import scanner
from pacs_core.dicom.part10 import Meta, read_meta, split
from pacs_core.dicom.uids import transfer_syntax
from pacs_core.errors import StorageError, UnparsableError, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Sendable = str | os.PathLike[str] | Buffer

_HEAD = 4096
_IDENTITY = scanner([(0x0008_0016, "UI"), (0x0008_0018, "UI")], inflate_limit=1 << 20)
_UID = re.compile(r"[0-9.]{1,64}")
_INSTANCE = re.compile(r"[!-\[\]-~]{1,64}")  # no more is asked of what only the peer is going to use


class Part(NamedTuple):
    """A data set to be sent: `length` bytes from `offset` of the file `path` or the open one `fd`, or `data`.

    The UIDs are those of the data set itself; where it has none, those of the file meta information.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path | None
    offset: int
    length: int
    data: memoryview | bytes | None = None
    fd: int | None = None

    @property
    def what(self) -> str:
        """The object in words: file, SOP class and transfer syntax."""
        where = f"{self.path}: " if self.path is not None else ""
        syntax = transfer_syntax(self.transfer_syntax_uid)
        syntax_name = f"{syntax.name} ({syntax.uid})" if syntax.name else syntax.uid
        return f"{where}{_class_name(self.sop_class_uid)} in {syntax_name}"

    def padded(self) -> bytes | None:
        """A deflated data set of odd length, and the NUL that PS3.5 A.5 wants behind it; None for all others.

        Others of odd length are broken: there is nothing that could be put behind them.

        Raises
        ------
        PacsError
            The file can't be read.
        """
        if self.path is None and self.data is None:  # an open file is whose it is to know
            return None
        if not (self.length & 1 and transfer_syntax(self.transfer_syntax_uid).deflated):
            return None
        if self.data is not None:
            return bytes(self.data) + b"\0"
        assert self.path is not None
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        except OSError as exc:
            raise from_os_error(exc, f"reading {self.path}") from exc
        if len(data) < self.length:
            raise StorageError(f"reading {self.path}: the file is shorter than what was to be sent of it")
        return data + b"\0"


def part_of_file(path: Path) -> Part:
    """What a file holds, from its first few KiB.

    Raises
    ------
    UnparsableError
        It is no DICOM file, or does not say what it is.
    PacsError
        It can't be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise UnparsableError(f"{path}: not a regular file")
            size = status.st_size
            head = os.pread(fd, _HEAD, 0)
        finally:
            os.close(fd)
        if not head:
            raise UnparsableError(f"{path}: an empty file")
        meta = _meta_of_head(head, size)
        if meta is not None:
            meta = _identified(meta, memoryview(head)[meta.data_offset :])
        if meta is None or not (meta.sop_class_uid and meta.sop_instance_uid):
            meta, data = split(path)
            meta = _identified(meta, data)
    except OSError as exc:
        raise from_os_error(exc, f"reading {path}") from exc
    except UnparsableError as exc:
        if str(path) in str(exc):
            raise
        raise UnparsableError(f"{path}: {exc.args[0]}", tag=exc.tag, offset=exc.offset) from exc
    return _checked(Part(*meta[:3], path, meta.data_offset, size - meta.data_offset), f"{path}: ")


def part_of_bytes(data: Buffer) -> Part:
    """What the bytes of a file, or a bare data set, hold. UnparsableError as `part_of_file`."""
    meta, view = split(data)
    meta = _identified(meta, view)
    return _checked(Part(*meta[:3], None, 0, len(view), view), "")


def _meta_of_head(head: bytes, size: int) -> Meta | None:
    """The meta information, if the head of the file holds all of it and the start of the data set."""
    try:
        meta = read_meta(head)
    except UnparsableError:
        if size <= len(head):
            raise
        return None
    # A head that ends between two elements of the meta information looks like a whole one.
    return meta if size <= len(head) or meta.data_offset + 8 <= len(head) else None


def _identified(meta: Meta, data: memoryview) -> Meta:
    """With the UIDs of the data set, as far as it is at hand: the peer compares those (PS3.4 B.2.3)."""
    header = _IDENTITY.scan(data, meta.transfer_syntax_uid)
    return meta._replace(
        sop_class_uid=header.sop_class_uid or meta.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid or meta.sop_instance_uid,
    )


def _checked(part: Part, where: str) -> Part:
    if not _UID.fullmatch(part.sop_class_uid):
        raise UnparsableError(f"{where}no SOP Class UID: {part.sop_class_uid!r}", tag=0x0008_0016)
    if not _INSTANCE.fullmatch(part.sop_instance_uid):
        raise UnparsableError(f"{where}no SOP Instance UID: {part.sop_instance_uid!r}", tag=0x0008_0018)
    if not _UID.fullmatch(part.transfer_syntax_uid):
        raise UnparsableError(f"{where}no transfer syntax: {part.transfer_syntax_uid!r}", tag=0x0002_0010)
    if part.length == 0:
        raise UnparsableError(f"{where}file meta information and no data set")
    return part


def _class_name(uid: str) -> str:
    from pydicom.uid import UID  # slow to import, and only for words

    name = UID(uid).name
    return uid if name == uid else f"{name} ({uid})"
