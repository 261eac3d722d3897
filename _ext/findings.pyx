"""What a walk found odd: `Finding`, of one of KINDS. `dicom.header` says what each means."""

from collections import namedtuple

from pacs_core._ext.walk cimport F_COUNT, Walk

# In the order of the F_ constants of walk.pxd.
KINDS = (
    "mislabelled syntax",
    "implicit element",
    "explicit element",
    "unknown vr",
    "two-byte length",
    "odd length",
    "out of order",
    "duplicate",
    "wrong vr",
    "misplaced delimiter",
    "deep nesting",
    "trailing bytes",
    "bad deflate stream",
    "unknown character set",
    "bad characters",
    "cut value",
    "bad length",
)
assert len(KINDS) == F_COUNT

Finding = namedtuple("Finding", ("kind", "tag", "offset", "times"))


cdef tuple findings_of(Walk* w):
    cdef int kind
    cdef list found = None
    for kind in range(F_COUNT):
        if w.odd[kind].count:
            if found is None:
                found = []
            found.append(Finding(KINDS[kind], w.odd[kind].tag, w.odd[kind].offset, w.odd[kind].count))
    return () if found is None else tuple(found)
