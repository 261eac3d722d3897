"""Retrieval (PS3.4 C.4.2, C.4.3): the instances that unique keys name, and their data sets as stored."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Container, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from pacs_core.archive.convert import LARGEST, choose, convert
from pacs_core.archive.find import UNIQUE, unique_keys
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.part10 import HEAD, data_offset
from pacs_core.dicom.uids import transfer_syntax
from pacs_core.errors import (
    CorruptError,
    IdentifierError,
    NotConvertibleError,
    NotFoundError,
    OutOfResourcesError,
    from_os_error,
)
from pacs_core.index import Index, Located
from pacs_core.store import Locator, Opened, Store

MOST = 1 << 20
"""Instances of one retrieval, some 250 bytes of memory each."""


class Held(NamedTuple):
    """An instance to be sent: what it is, how its data set is encoded, and where it is kept."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    locator: bytes


def retrieve(
    index: Index, level: Level, keys: Mapping[int, str], *, hierarchy: Level | None = None
) -> list[Held]:
    """The instances below what the unique keys name, each once.

    Parameters
    ----------
    keys : mapping
        Tag of a unique key to its value; that of `level` may be a list of UIDs, joined by backslashes.
    hierarchy : Level
        The top of an information model: each level between it and `level` must be named (C.4.2.2.1). None:
        those keys may be left out (relational retrieval, C.4.2.2.2).

    Raises
    ------
    IdentifierError
        The unique key of `level` is missing, or one above it is, or names several.
    OutOfResourcesError
        More than `MOST` instances.
    """
    unique = unique_keys(level, keys, hierarchy)
    tag, keyword = UNIQUE[level]
    if not unique[keyword] or (level is Level.PATIENT and len(unique[keyword]) > 1):
        raise IdentifierError(f"a retrieval at level {level.name} has to name what to retrieve", tag=tag)
    found: dict[str, Held] = {}
    for located in index.instances(unique):
        found[located.sop_instance_uid] = _held(located)
        if len(found) > MOST:
            raise OutOfResourcesError(f"more than {MOST} instances in one retrieval")
    return list(found.values())


def _held(located: Located) -> Held:
    # Of class and transfer syntax there are few: one text each, however many instances.
    return Held(
        sys.intern(located.sop_class_uid),
        located.sop_instance_uid,
        sys.intern(located.transfer_syntax_uid),
        located.locator,
    )


class Outgoing:
    """The data set of one instance, ready to be sent: a context manager that lets go of it.

    Attributes
    ----------
    transfer_syntax_uid : str
        How it goes out.
    data : bytes | None
        What is to be sent, if it had to be converted; None: `length` bytes at `offset` of `fd`, as stored.
    """

    __slots__ = ("_opened", "data", "fd", "length", "offset", "transfer_syntax_uid")

    def __init__(self, opened: Opened, stored: str, accepted: Container[str]) -> None:
        self._opened = opened
        self.data: bytes | None = None
        self.fd = opened.fd
        try:
            start = data_offset(os.pread(opened.fd, HEAD, opened.offset))
            self.offset = opened.offset + start
            self.length = opened.length - start
            if self.length < 0:
                raise CorruptError(f"{opened.locator} ends before its data set")
            self.transfer_syntax_uid = choose(stored, accepted)
            if self.transfer_syntax_uid != stored:
                self._convert(stored)
            elif self.length & 1 and transfer_syntax(stored).deflated:
                self.data = bytes(self._mapped()) + b"\0"  # PS3.5 A.5: an even number of bytes
        except OSError as exc:
            opened.close()
            raise from_os_error(exc, f"reading {opened.locator}") from exc
        except BaseException:
            opened.close()
            raise
        if self.data is not None:
            self.length = len(self.data)

    def _convert(self, stored: str) -> None:
        if self.length > LARGEST:
            raise NotConvertibleError(f"a data set of {self.length} bytes is too large to be converted")
        self.data = convert(self._mapped(), stored, self.transfer_syntax_uid)

    def _mapped(self) -> memoryview:
        before = self.offset % mmap.ALLOCATIONGRANULARITY
        whole = mmap.mmap(self.fd, before + self.length, prot=mmap.PROT_READ, offset=self.offset - before)
        return memoryview(whole)[before:]

    def check_current(self) -> None:
        """NotFoundError if what was read until now may not be the instance: it was removed meanwhile."""
        if not self._opened.is_current():
            raise NotFoundError("removed while it was sent")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def open_outgoing(store: Store, index: Index, held: Held, accepted: Container[str]) -> Outgoing:
    """The data set of an instance in one of the transfer syntaxes `accepted`: as stored, if that is one.

    Raises
    ------
    NotFoundError
        It was removed.
    NotConvertibleError
        It can't be had in any of them.
    PacsError
        It can't be read.
    """
    try:
        return Outgoing(store.open_instance(Locator.unpack(held.locator)), held.transfer_syntax_uid, accepted)
    except NotFoundError:
        located = index.locate(held.sop_instance_uid)
        if located is None or located.locator == held.locator:
            raise
    return Outgoing(  # it was replaced
        store.open_instance(Locator.unpack(located.locator)), located.transfer_syntax_uid, accepted
    )
