"""Whether the kept bytes of an instance are what was received: read in full, in pieces, and checked."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from enum import Enum

from pacs_core.archive.archive import Archive
from pacs_core.dicom.part10 import read_meta
from pacs_core.errors import CorruptError, NotFoundError, PacsError, from_os_error
from pacs_core.index import Located
from pacs_core.store import Locator, Opened, Store, crc32c

_PIECE = 1 << 20
"""Bytes read at a time. Read, not mapped: a page of a map that can't be read ends the process."""


class Fault(Enum):
    """What can be wrong with an instance, or with the index as a whole."""

    MISSING = "the record's bytes are gone"
    DAMAGED = "the bytes do not check"
    ORPHAN = "bytes without a record"
    INDEX = "the index contradicts itself"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where (a SOP Instance UID or a place in the store) and in what way."""

    fault: Fault
    where: str
    detail: str = ""
    mended: bool = False
    error: PacsError | None = None
    """What was raised when the bytes were read."""


class _Buffers(threading.local):
    """A buffer for each thread that reads."""

    def __init__(self) -> None:
        self.piece = memoryview(bytearray(_PIECE))


_buffers = _Buffers()


def examine(archive: Archive, located: Located) -> int | Finding | None:
    """Bytes of the data set when all is well; None if the instance was removed since the index was read."""
    outcome = _check(archive.objects, located)
    if isinstance(outcome, int):
        return outcome
    now = archive.index.locate(located.sop_instance_uid)
    if now is None:
        return None
    if now.locator == located.locator:
        return outcome
    return _check(archive.objects, now)  # it was replaced


def _check(store: Store, located: Located) -> int | Finding:
    uid = located.sop_instance_uid
    try:
        with store.open_instance(Locator.unpack(located.locator)) as opened:
            return _read(opened, located)
    except NotFoundError as exc:
        return Finding(Fault.MISSING, uid, str(exc), error=exc)
    except OSError as exc:
        error = from_os_error(exc, f"reading {located.sop_instance_uid}")
        return Finding(Fault.DAMAGED, uid, str(error), error=error)
    except PacsError as exc:
        return Finding(Fault.DAMAGED, uid, str(exc), error=exc)


def _read(opened: Opened, located: Located) -> int | Finding:
    uid, piece = located.sop_instance_uid, _buffers.piece
    got = _fill(opened, 0, piece)
    meta = read_meta(piece[:got])
    if (meta.sop_instance_uid, meta.sop_class_uid) != (uid, located.sop_class_uid):
        what = f"{meta.sop_instance_uid!r}, of SOP class {meta.sop_class_uid!r}"
        return Finding(Fault.DAMAGED, uid, f"the bytes are those of {what}")
    checksum = crc32c(piece[meta.data_offset : got])
    position = got
    while position < opened.length:
        got = _fill(opened, position, piece)
        checksum = crc32c(piece[:got], checksum)
        position += got
    if not opened.is_current():
        raise NotFoundError(f"what was kept at {opened.locator} was removed")
    if checksum != located.checksum:
        return Finding(Fault.DAMAGED, uid, "the checksum differs from that of the reception")
    return opened.length - meta.data_offset


def _fill(opened: Opened, position: int, piece: memoryview) -> int:
    """Read what comes next, as much as there is and has room; how much that was."""
    wanted = min(len(piece), opened.length - position)
    got = 0
    while got < wanted:
        more = os.preadv(opened.fd, [piece[got:wanted]], opened.offset + position + got)
        if not more:
            raise CorruptError(f"the bytes end inside {opened.locator}")
        got += more
    return got
