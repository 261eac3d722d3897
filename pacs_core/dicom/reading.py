"""Reading DICOM files and data sets (PS3.10 section 7), whatever state they are in."""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pacs_core._ext.findings import Finding
from pacs_core._ext.mapping import map_file
from pacs_core._ext.parsing import open_file, parse, parse_meta
from pacs_core.dicom import charset
from pacs_core.dicom.dataset import Dataset, Element
from pacs_core.dicom.packing import TEXT, packed
from pacs_core.dicom.part10 import guess_transfer_syntax
from pacs_core.dicom.uids import TRANSFER_SYNTAXES, TransferSyntax, transfer_syntax
from pacs_core.errors import InvalidValueError, UnparsableError

if TYPE_CHECKING:
    from typing_extensions import Buffer

INFLATE_LIMIT = 1 << 30
_TRANSFER_SYNTAX = 0x0002_0010
_CHARACTER_SET = 0x0008_0005
_FORMS = frozenset({"DA", "DS", "DT", "IS", "TM"})
_ENCODINGS = {
    uid: (syntax.implicit, syntax.little_endian)
    for uid, syntax in TRANSFER_SYNTAXES.items()
    if not syntax.deflated
}
_PIECE = 16384  # bytes inflated at once


def read(
    source: str | os.PathLike[str] | Buffer | BinaryIO,
    *,
    strict: bool = False,
    inflate_limit: int = INFLATE_LIMIT,
) -> Dataset:
    """Read a DICOM file: its path, its bytes, or a binary file object, from where it stands to its end.

    Values are converted when they are asked for. Files are mapped, bytes not copied: both are held, and must
    stay as they are, as long as the data set or a view of its bulk data is there. A file without preamble, or
    without meta information, is read by what its first element looks like.

    Parameters
    ----------
    strict : bool
        Raise for what is odd. Otherwise as much is read as can be; `Dataset.findings` and
        `Dataset.truncated` tell what was odd.
    inflate_limit : int
        Bytes that a deflated data set may inflate to.

    Raises
    ------
    UnparsableError
        If it is not a DICOM file; if sequences are nested more than 256 deep, or there are more than 33
        million elements; if a deflated data set is larger than `inflate_limit`; with `strict`, for what is
        odd.
    OSError
        If the file can't be read.
    """
    path = None
    if isinstance(source, bytes):
        data: Any = source
    elif isinstance(source, str | os.PathLike):
        path = source
        data = map_file(source)
    elif hasattr(source, "read") and not isinstance(source, mmap.mmap):  # which is read where it is
        data = source.read()
    else:
        data = source
    try:
        dataset = open_file(Dataset, data, _ENCODINGS) or _read(data, inflate_limit)
        if strict:
            _be_strict(dataset)
    except UnparsableError as exc:
        if path is None:
            raise
        raise UnparsableError(f"{Path(path)}: {exc.args[0]}", tag=exc.tag, offset=exc.offset) from None
    return dataset


def read_dataset(data: Buffer, transfer_syntax_uid: str, *, inflate_limit: int = INFLATE_LIMIT) -> Dataset:
    """Read a data set without file meta information, as it crosses an association. As `read`."""
    return _parsed(data, 0, transfer_syntax(transfer_syntax_uid), None, inflate_limit)


def _read(data: Any, inflate_limit: int) -> Dataset:
    """What is no plain Part 10 file."""
    view = memoryview(data).cast("B")
    if bytes(view[128:132]) == b"DICM":
        start = 132
    elif bytes(view[:4]) == b"DICM":
        start = 4
    elif len(view) == 0:
        raise UnparsableError("an empty file", offset=0)
    else:
        start = 0
    meta, start = parse_meta(Dataset, data, start)
    uid = meta.get(_TRANSFER_SYNTAX)
    syntax = transfer_syntax(uid if isinstance(uid, str) and uid else guess_transfer_syntax(view, start))
    return _parsed(data, start, syntax, meta, inflate_limit)


def _parsed(data: Any, start: int, syntax: TransferSyntax, meta: Dataset | None, limit: int) -> Dataset:
    """The data set that begins at `start`."""
    found: tuple[Finding, ...] = ()
    cut: tuple[int, int] | None = None
    view = memoryview(data).cast("B")
    if syntax.deflated and len(view) > start:
        data, found, cut = _inflated(view[start:], limit)
        start = 0
    return parse(
        Dataset,
        data,
        implicit=syntax.implicit,
        little=syntax.little_endian,
        start=start,
        meta=meta,
        found=found,
        cut=cut,
    )


def _inflated(data: memoryview, limit: int) -> tuple[bytes, tuple[Finding, ...], tuple[int, int] | None]:
    """The data set in a raw deflate stream (PS3.5 A.5) as far as it goes, what was odd, and where it is cut.

    Some write it with a zlib header. What is not deflated though it should be comes back as it is.
    UnparsableError for more than `limit` bytes.
    """
    head = bytes(data[:6])
    if head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\0" and head[4:6].isalpha() and head[4:6].isupper():
        return bytes(data), (Finding("mislabelled syntax", 0, 0, 1),), None
    wrapped = len(head) > 1 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0
    inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    found = (Finding("bad deflate stream", 0, 0, 1),) if wrapped else ()
    pieces, size, at = [], 0, 0
    while at < len(data) and not inflater.eof:
        try:
            pieces.append(inflater.decompress(data[at : at + _PIECE], limit + 1 - size))
        except zlib.error:
            return b"".join(pieces), (Finding("bad deflate stream", 0, size, 1),), (0, size)
        at += _PIECE
        size += len(pieces[-1])
        if size > limit:
            raise UnparsableError(f"a deflated data set of more than {limit} bytes", offset=size)
    # A padding byte makes the length even (PS3.5 A.5).
    if inflater.unused_data.strip(b"\0") or bytes(data[at : at + _PIECE]).strip(b"\0"):
        found = (*found, Finding("trailing bytes", 0, size, 1))
    return b"".join(pieces), found, None if inflater.eof else (0, size)


def _be_strict(dataset: Dataset) -> None:
    found = min((*dataset.meta.findings, *dataset.findings), key=lambda each: each.offset, default=None)
    if found is not None:
        raise UnparsableError(found.kind, tag=found.tag or None, offset=found.offset)
    if dataset.cut is not None:
        tag, offset = dataset.cut
        raise UnparsableError("it ends in the middle of something", tag=tag or None, offset=offset)
    for element in (*dataset.meta.walk(), *dataset.walk()):
        wrong = _wrong_with(element)
        if wrong:
            raise UnparsableError(wrong, tag=element.tag, offset=element.offset)


def _wrong_with(element: Element) -> str:
    """What the value has that its VR or character set does not allow; '' if nothing."""
    if element.tag == _CHARACTER_SET and not charset.parse(bytes(element.raw)).known:
        return "unknown character set"
    if element.vr in TEXT:
        sets = element.dataset.character_set
        return "" if charset.decode(bytes(element.raw), sets, element.vr == "PN")[1] else "bad characters"
    if element.vr in _FORMS:
        try:
            packed(element.vr, bytes(element.raw).decode("ascii", "replace").rstrip(" \0"))
        except InvalidValueError as exc:
            return str(exc.args[0])
    return ""
