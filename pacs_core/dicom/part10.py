"""DICOM files (PS3.10 section 7): the preamble and file meta information before a data set, ours and others'.

What we write: a preamble of 128 zeros (nothing may hide there, CVE-2019-11687), `DICM`, and group 0002 in
explicit VR little endian. When, from whom and how whole the data set came is kept with it, as private
information (0002,0102) under the creator UID (0002,0100).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pacs_core.dicom.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
    PRIVATE_INFORMATION_UID,
)
from pacs_core.errors import CorruptError, UnparsableError

if TYPE_CHECKING:
    from typing_extensions import Buffer

PREAMBLE = bytes(128) + b"DICM"
"""The first 132 bytes of a file (PS3.10 7.1)."""

_BEGINNING = PREAMBLE + b"\x02\x00\x00\x00UL\x04\x00"
_SOP_CLASS = 0x0002_0002
_SOP_INSTANCE = 0x0002_0003
_TRANSFER_SYNTAX = 0x0002_0010
_SOURCE_AE = 0x0002_0016
_CREATOR = 0x0002_0100
_INFORMATION = 0x0002_0102

_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHL")
_IMPLICIT = struct.Struct("<HHL")
_RECEPTION = struct.Struct("<HLQQ")
_RECEPTION_VERSION = 1
_UID_LIMIT = 1024
_CONTROL = dict.fromkeys((*range(32), 127))


class Reception(NamedTuple):
    """How a data set came to us.

    Attributes
    ----------
    stamp : int
        Microseconds since the epoch << 12 | the writer's low 12 bits: the order of reception.
    source_ae : str
        The AE title that sent it, '' if none did.
    checksum : int
        CRC-32C of the data set's bytes.
    length : int
        Of the data set, in bytes.
    """

    stamp: int
    source_ae: str
    checksum: int
    length: int


class Meta(NamedTuple):
    """The file meta information as far as we use it; what is absent is empty.

    `data_offset` is where the data set begins, in bytes from the start of the file. `transfer_syntax_uid` is
    guessed from the data set where the file does not tell.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    reception: Reception | None
    data_offset: int


def encode_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, reception: Reception | None
) -> bytes:
    """Preamble, `DICM` and the complete group 0002 (PS3.10 7.1), to be followed by the data set.

    The length depends on the UIDs and the AE title only, never on the numbers of `reception`: room can be
    left for it before the data set is there, and it be written afterwards.

    Raises
    ------
    UnparsableError
        If a UID has more than 1,024 characters.
    """
    head = _head(sop_class_uid, transfer_syntax_uid)
    uid = _uid_value(sop_instance_uid)
    middle = _short(_SOP_INSTANCE, b"UI", uid) + head[1]
    if reception is None:
        group = head[0] + middle
    else:
        group = b"".join(
            (
                head[0],
                middle,
                _source(reception.source_ae),
                _CREATOR_AND_INFORMATION,
                _RECEPTION.pack(_RECEPTION_VERSION, reception.checksum, reception.stamp, reception.length),
            )
        )
    return b"%b%b%b" % (_BEGINNING, len(group).to_bytes(4, "little"), group)


def read_meta(buf: Buffer) -> Meta:
    """Read the file meta information of a file that begins with `buf`.

    Tolerates (CONFORMANCE 37) a file without preamble, without meta, or without either: then the transfer
    syntax is guessed from the first element of the data set. The group length (0002,0000) is never trusted:
    the data set begins at the first element of another group. Elements without a VR are understood.

    Raises
    ------
    UnparsableError
        If these bytes are not the beginning of a DICOM file, or end before the data set begins.
    """
    view = memoryview(buf).cast("B")
    if bytes(view[128:132]) == b"DICM":
        start = 132
    elif bytes(view[:4]) == b"DICM":
        start = 4
    else:
        start = 0
    values: dict[int, bytes] = {}
    end = start
    for tag, value, after in _elements(view, start):
        values[tag] = value
        end = after
    syntax = _text(values.get(_TRANSFER_SYNTAX, b""))
    if not syntax:
        syntax = guess_transfer_syntax(view, end)
    return Meta(
        _text(values.get(_SOP_CLASS, b"")),
        _text(values.get(_SOP_INSTANCE, b"")),
        syntax,
        _reception(values),
        end,
    )


HEAD = 144
"""Bytes of a file of ours that say where its data set begins."""


def data_offset(head: bytes) -> int:
    """Where the data set begins in a file that `encode_meta` began, by its first `HEAD` bytes.

    CorruptError if it did not: only of our own files the group length (0002,0000) is known to be right.
    """
    if head[:140] != _BEGINNING or len(head) < HEAD:
        raise CorruptError("kept bytes do not begin with file meta information")
    return HEAD + int.from_bytes(head[140:HEAD], "little")


def split(source: str | Path | Buffer) -> tuple[Meta, memoryview]:
    """The file meta information and the bytes of the data set, of a file's path or its bytes.

    A file is mapped, not read: the mapping lives as long as the view that is returned.

    Raises
    ------
    UnparsableError
        As `read_meta`; also for an empty file.
    OSError
        If the file can't be opened.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            if file.seek(0, 2) == 0:
                raise UnparsableError("an empty file", offset=0)
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    else:
        view = memoryview(source).cast("B")
    meta = read_meta(view)
    return meta, view[meta.data_offset :]


def _elements(view: memoryview, offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Tag, value and end of each element of group 0002 from `offset` on (PS3.10 7.1)."""
    size = len(view)
    while offset + 8 <= size and view[offset] == 2 and view[offset + 1] == 0:
        group, element, vr, length = _SHORT.unpack_from(view, offset)
        tag = group << 16 | element
        value = offset + 8
        if not (vr.isalpha() and vr.isupper()):
            length = _IMPLICIT.unpack_from(view, offset)[2]
        elif vr in _LONG_VRS:
            if offset + 12 > size:
                raise UnparsableError("the file meta information is cut off", tag=tag, offset=offset)
            length = _LONG.unpack_from(view, offset)[4]
            value = offset + 12
        if length > size - value:
            raise UnparsableError(
                f"the file meta information is cut off, or a length of {length} is wrong",
                tag=tag,
                offset=offset,
            )
        offset = value + length
        yield tag, bytes(view[value:offset]), offset


def guess_transfer_syntax(view: memoryview, offset: int) -> str:
    """The transfer syntax of the data set at `offset`, by its first element: byte order, then VR."""
    if len(view) - offset < 8:
        raise UnparsableError("no data set, and no transfer syntax to say how it is encoded", offset=offset)
    little = view[offset] | view[offset + 1] << 8
    big = view[offset] << 8 | view[offset + 1]
    vr = bytes(view[offset + 4 : offset + 6])
    explicit = vr.isalpha() and vr.isupper()
    if not 0 < min(little, big) <= 0x0040:
        raise UnparsableError("not a DICOM file: no meta information, no data set", offset=offset)
    if big < little:
        if not explicit:
            raise UnparsableError("not a DICOM file: implicit VR in big endian", offset=offset)
        return EXPLICIT_VR_BIG_ENDIAN
    if explicit:
        return EXPLICIT_VR_LITTLE_ENDIAN
    length = int.from_bytes(view[offset + 4 : offset + 8], "little")
    if length != 0xFFFF_FFFF and length > len(view) - offset - 8:
        raise UnparsableError("not a DICOM file: its first element is longer than it", offset=offset)
    return IMPLICIT_VR_LITTLE_ENDIAN


def _reception(values: dict[int, bytes]) -> Reception | None:
    """Our private information, if it is there and ours."""
    information = values.get(_INFORMATION, b"")
    if len(information) != _RECEPTION.size or _text(values.get(_CREATOR, b"")) != PRIVATE_INFORMATION_UID:
        return None
    version, checksum, stamp, length = _RECEPTION.unpack(information)
    if version != _RECEPTION_VERSION:
        return None
    return Reception(stamp, _text(values.get(_SOURCE_AE, b"")), checksum, length)


@lru_cache(maxsize=1024)
def _head(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    """The elements before and after (0002,0003), which are the same for many instances."""
    return (
        b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
        + _short(_SOP_CLASS, b"UI", _uid_value(sop_class_uid)),
        _short(_TRANSFER_SYNTAX, b"UI", _uid_value(transfer_syntax_uid))
        + _short(0x0002_0012, b"UI", _uid_value(IMPLEMENTATION_CLASS_UID))
        + _short(0x0002_0013, b"SH", _even(IMPLEMENTATION_VERSION_NAME.encode(), b" ")),
    )


@lru_cache(maxsize=1024)
def _source(ae_title: str) -> bytes:
    """(0002,0016), or nothing. No control characters, 16 characters at most (PS3.5 6.2)."""
    title = ae_title.translate(_CONTROL).strip().encode("ascii", "replace")[:16]
    return _short(_SOURCE_AE, b"AE", _even(title, b" ")) if title else b""


def _uid_value(uid: str) -> bytes:
    value = uid.encode("utf-8", "replace")
    if len(value) > _UID_LIMIT:
        raise UnparsableError(f"a UID of {len(value)} bytes")
    return value + b"\0" if len(value) & 1 else value


def _short(tag: int, vr: bytes, value: bytes) -> bytes:
    return _SHORT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _even(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) & 1 else value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip("\0 ")


_CREATOR_AND_INFORMATION = _short(
    _CREATOR, b"UI", _even(PRIVATE_INFORMATION_UID.encode(), b"\0")
) + _LONG.pack(0x0002, 0x0102, b"OB", 0, _RECEPTION.size)


def fragments_of(value: bytes) -> list[bytes] | None:
    """The offset table and the fragments of encapsulated data, without the delimiter (PS3.5 A.4).

    None if the value is not that.
    """
    found, at = [], 0
    while at + 8 <= len(value):
        group, element, length = _IMPLICIT.unpack_from(value, at)
        if (group, element) != (0xFFFE, 0xE000) or length > len(value) - at - 8:
            return None
        found.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    return found if found and at == len(value) else None
