"""The fields blob from Python: pack, unpack, check (its layout: record.pxd)."""

from libc.stdint cimport uint8_t

from pacs_core._ext.record cimport RECORD_VERSION, Field, Fields, fields_next, fields_open

VERSION = RECORD_VERSION
LIMIT = 8192


def pack(items):
    """A fields blob of (tag, value) pairs in any order; of two with the same tag the later wins.

    Raises ValueError for a tag that is none or a value of more than LIMIT bytes.
    """
    parts = [bytes((RECORD_VERSION,))]
    for tag, value in sorted(dict(items).items()):
        if not 0 <= tag <= 0xFFFFFFFF:
            raise ValueError(f"not a tag: {tag}")
        if len(value) > LIMIT:
            raise ValueError(f"a value of {len(value)} bytes: the limit is {LIMIT}")
        parts.append(tag.to_bytes(4, "little"))
        parts.append(len(value).to_bytes(4, "little"))
        parts.append(value)
    return b"".join(parts)


def unpack(const uint8_t[::1] blob not None):
    """The entries of a fields blob by tag. Raises ValueError if it is malformed."""
    cdef Fields fields
    cdef Field field
    cdef int got
    cdef size_t size = blob.shape[0]
    cdef dict values = {}
    if size == 0 or not fields_open(&fields, &blob[0], size):
        raise ValueError("not a fields blob of this version")
    while True:
        got = fields_next(&fields, &field)
        if got == 0:
            return values
        if got < 0:
            raise ValueError(f"a malformed fields blob after {len(values)} entries")
        values[field.tag] = field.value[:field.length]


def check(const uint8_t[::1] blob not None):
    """Raise ValueError unless this is a well-formed fields blob: version, bounds, ascending tags."""
    cdef Fields fields
    cdef Field field
    cdef int got = 1
    cdef size_t size = blob.shape[0]
    if size == 0 or not fields_open(&fields, &blob[0], size):
        raise ValueError("not a fields blob of this version")
    while got > 0:
        got = fields_next(&fields, &field)
    if got < 0:
        raise ValueError("a malformed fields blob")
