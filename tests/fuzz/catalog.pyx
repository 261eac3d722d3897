"""Batches as ingest makes them of headers: indexed, held already, replaced, removed. What went leaves nothing.

Input: instances, one after the other, each of up to ITEM bytes: what is done with it, UIDs out of a few, a text.
"""

import tempfile
from collections import namedtuple
from pathlib import Path

from libc.stdint cimport uint8_t

from pacs_core._ext.catalog import apply_batch
from pacs_core._ext.record import pack
from pacs_core.index.env import Opened

Entry = namedtuple("Entry", ("fields", "locator", "stamp", "checksum", "transfer_syntax_uid", "source_ae"))

cdef enum:  # the first byte
    REMOVE = 1
    REPLACE = 2
    COMMIT = 4    # here the batch ends
    NO_STUDY = 8
    NO_SERIES = 16
    NO_PATIENT = 32

cdef enum:
    ITEM = 32
    HEAD = 3


def opened_away():
    """An index in files that nobody else sees: they are gone when the process is."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        return Opened(Path(folder), map_size=1 << 28, max_readers=8, create=True)


index = opened_away()


cdef tuple instance(const uint8_t* p, size_t size, int stamp):
    """UID and entry out of one item."""
    cdef bytes text = p[HEAD:size]
    cdef bytes uid = b"1.%d" % (p[1] & 7)
    fields = {
        0x00080016: b"1.2.%d" % (p[2] >> 6),
        0x00080018: uid,
        0x00080020: text[:8],
        0x00080060: text[:2],
        0x00100010: text,
        0x00200013: text[:1],
    }
    if not p[0] & NO_PATIENT:
        fields[0x00100020] = b"P%d" % (p[2] & 3)
        fields[0x00100021] = text[:1]
    if not p[0] & NO_STUDY:
        fields[0x0020000D] = b"2.%d" % (p[1] >> 4 & 3)
    if not p[0] & NO_SERIES:
        fields[0x0020000E] = b"3.%d" % (p[2] >> 2 & 3)
    return uid.decode(), Entry(pack(fields), bytes(16) + b"\x01" + bytes(7), stamp, 7, "1.2", "FUZZ")


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    cdef size_t at = 0, part
    cdef list entries = [], removals = []
    cdef set uids = set()
    index.env.pin()  # as each change needs; anew, so that pages are used again
    while size - at >= HEAD:
        part = min(size - at, <size_t>ITEM)
        uid, entry = instance(data + at, part, <int>at)
        uids.add(uid)
        if data[at] & REMOVE:
            removals.append(uid)
        else:
            entries.append(entry)
        if data[at] & COMMIT or at + part + HEAD > size:
            apply_batch(index.env, index.schema, entries, removals=removals, replace=(data[at] & REPLACE) != 0)
            entries.clear()
            removals.clear()
        at += part
    apply_batch(index.env, index.schema, (), removals=uids)
    if any(index.env.entries()[1:]) or index.counters()[1]:
        raise AssertionError(f"left over: {index.env.entries()}, {index.counters()}")
    return 0
