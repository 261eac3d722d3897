"""Writing data sets and DICOM files (PS3.10 section 7)."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacs_core._ext.encode import encode
from pacs_core.dicom import charset
from pacs_core.dicom.media import UNFINISHED
from pacs_core.dicom.part10 import PREAMBLE
from pacs_core.dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    PRIVATE_INFORMATION_UID,
    TransferSyntax,
    transfer_syntax,
)
from pacs_core.errors import InvalidValueError

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset

_PIXEL_DATA = 0x7FE0_0010
_VERSION = 0x0002_0001
_SOP_CLASS = 0x0002_0002
_SOP_INSTANCE = 0x0002_0003
_TRANSFER_SYNTAX = 0x0002_0010
_IMPLEMENTATION_CLASS = 0x0002_0012
_IMPLEMENTATION_VERSION = 0x0002_0013
_CREATOR = 0x0002_0100
_INFORMATION = 0x0002_0102


def syntax_of(dataset: Dataset) -> str:
    """The transfer syntax UID that a data set is written in unless told otherwise: that of its file."""
    found = dataset.meta.get(_TRANSFER_SYNTAX) if dataset.meta is not None else None
    if isinstance(found, str) and found:
        return found
    implicit, little = dataset.encoding
    return {
        (True, True): "1.2.840.10008.1.2",
        (False, False): "1.2.840.10008.1.2.2",
    }.get((implicit, little), EXPLICIT_VR_LITTLE_ENDIAN)


def encoded(dataset: Dataset, transfer_syntax_uid: str | None = None) -> list[Any]:
    """The data set in a transfer syntax, without file meta information: bytes, and views of bulk data.

    Raises
    ------
    InvalidValueError
        If Pixel Data would have to be compressed or decompressed, or a value can't be written.
    """
    uid = transfer_syntax_uid or syntax_of(dataset)
    syntax = transfer_syntax(uid)
    _check_pixels(dataset, syntax)
    pieces = encode(dataset, charset.encode, implicit=syntax.implicit, little=syntax.little_endian)
    return _deflated(pieces) if syntax.deflated else pieces


def file_of(dataset: Dataset, transfer_syntax_uid: str | None = None) -> list[Any]:
    """A whole DICOM file, in pieces. Raises as `encoded`; also if SOP Class or Instance UID is missing."""
    uid = transfer_syntax_uid or syntax_of(dataset)
    pieces = encoded(dataset, uid)
    return [PREAMBLE, _meta(dataset, uid), *pieces]


def save(dataset: Dataset, path: str | os.PathLike[str], transfer_syntax_uid: str | None = None) -> None:
    """Write a DICOM file: it is there whole, synced to the disk, or what was there before still is.

    Raises
    ------
    InvalidValueError
        As `file_of`.
    OSError
        If it can't be written.
    """
    write_file(Path(path), file_of(dataset, transfer_syntax_uid))


def write_file(path: Path, pieces: Iterable[Any]) -> None:
    """Put a file in the place of what is there, as a whole. The mode of a file that is there stays."""
    path = path.resolve()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor, temporary = tempfile.mkstemp(UNFINISHED, ".", path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fchmod(file.fileno(), _mode(path))
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _check_pixels(dataset: Dataset, syntax: TransferSyntax) -> None:
    if _PIXEL_DATA not in dataset:
        return
    encapsulated = isinstance(dataset[_PIXEL_DATA], tuple)
    # What was read goes back as it was, whatever its file called it.
    as_read = dataset.element(_PIXEL_DATA).offset is not None and syntax.uid == syntax_of(dataset)
    if encapsulated and not syntax.encapsulated and not as_read:
        raise InvalidValueError(
            f"compressed Pixel Data can't be written as {syntax.name or syntax.uid}", tag=_PIXEL_DATA
        )
    # What is encapsulated by its name need not be: encapsulation of native Pixel Data is for codecs to do.
    if not encapsulated and syntax.encapsulated and syntax.uid != syntax_of(dataset):
        raise InvalidValueError(
            f"Pixel Data would have to be compressed for {syntax.name or syntax.uid}", tag=_PIXEL_DATA
        )


def _meta(dataset: Dataset, uid: str) -> bytes:
    """The file meta information (PS3.10 7.1): as it was, if nothing was changed; else who wrote it is us."""
    old = dataset.meta
    if old is not None and not dataset.changed and not old.changed and old.get(_TRANSFER_SYNTAX) == uid:
        return b"".join(encode(old, charset.encode, meta=True))
    meta = type(dataset)() if old is None else old.copy()
    given = (
        (_VERSION, b"\0\1"),
        (_SOP_CLASS, dataset.get("SOPClassUID") or meta.get(_SOP_CLASS)),
        (_SOP_INSTANCE, dataset.get("SOPInstanceUID") or meta.get(_SOP_INSTANCE)),
        (_TRANSFER_SYNTAX, uid),
        (_IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID),
        (_IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME),
    )
    for tag, value in given:
        if not value:
            name = "SOPClassUID" if tag == _SOP_CLASS else "SOPInstanceUID"
            raise InvalidValueError(f"a DICOM file needs a {name} (PS3.10 7.1)", tag=tag)
        meta[tag] = value
    if meta.get(_CREATOR) == PRIVATE_INFORMATION_UID:
        # How other bytes came to us, and their checksum.
        for tag in (_CREATOR, _INFORMATION):
            if tag in meta:
                del meta[tag]
    group = b"".join(encode(meta, charset.encode, meta=True))
    return b"\x02\x00\x00\x00UL\x04\x00%b%b" % (len(group).to_bytes(4, "little"), group)


def _deflated(pieces: Iterable[Any]) -> list[bytes]:
    """One raw deflate stream of even length (PS3.5 A.5)."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = b"".join((*(deflater.compress(piece) for piece in pieces), deflater.flush()))
    return [data + bytes(len(data) & 1)]
