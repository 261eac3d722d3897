"""Values of elements as Python objects."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint64_t

from pacs_core._ext.vr cimport VR_KIND, VR_LONG, vr_kind

# How text is encoded.
cdef enum:
    SETS_NONE
    SETS_LATIN1
    SETS_UTF8
    SETS_OTHER

cdef enum:
    VR_DS = 0x4453
    VR_IS = 0x4953
    VR_DA = 0x4441
    VR_TM = 0x544D
    VR_DT = 0x4454
    VR_OB = 0x4F42
    VR_OW = 0x4F57
    VR_PN = 0x504E
    LETTERS_SQ = 0x5351
    LETTERS_SS = 0x5353
    LETTERS_UN = 0x554E
    LETTERS_US = 0x5553


@cython.final
cdef class Types:
    cdef readonly object decode
    cdef readonly object person_name
    cdef readonly dict of_text   # VR letters: the callable that makes a value of its text
    cdef type integer_string
    cdef type date
    cdef type time
    cdef type date_time
    cdef Py_ssize_t date_slot       # of their texts (literals.pxd)
    cdef Py_ssize_t time_slot
    cdef Py_ssize_t date_time_slot


cdef inline uint8_t kind_of(uint16_t vr) noexcept nogil:
    """What a VR, given by its letters, holds (vr.pxd), without VR_LONG."""
    cdef uint8_t[2] letters
    letters[0] = vr >> 8
    letters[1] = vr & 0xFF
    return vr_kind(letters) & VR_KIND


cdef inline bint is_long(uint16_t vr) noexcept nogil:
    """Whether a VR's header in explicit VR has two reserved bytes and a length of four."""
    cdef uint8_t[2] letters
    letters[0] = vr >> 8
    letters[1] = vr & 0xFF
    return (vr_kind(letters) & VR_LONG) != 0


cdef tuple sets_of(bytes character_set)
cdef str text_value(const uint8_t* p, uint64_t size, uint8_t kind, tuple sets, Types types)
cdef tuple split_text(const uint8_t* p, uint64_t size, uint16_t vr, tuple sets, Types types)
cdef tuple numbers_of(const uint8_t* p, uint64_t size, uint8_t kind, bint little)
cdef tuple values_of(const uint8_t* p, uint64_t size, uint16_t vr, bint little, tuple sets, Types types)
cdef object one_or_all(tuple values, uint8_t kind)
cdef object value_of(const uint8_t* p, uint64_t size, uint16_t vr, bint little, tuple sets, Types types)
cdef uint16_t letters_of(str vr) except 0
cdef str vr_text(uint16_t vr)
