"""The data dictionary: its tables (generated), the two ways into them, and its Python face."""

from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_DecodeASCII, PyUnicode_GET_LENGTH
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from pacs_core._ext.cursor cimport le64

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)

cdef extern from *:
    """
    typedef struct { uint32_t groups, group, mask; } pc_family;
    """
    ctypedef struct Family "pc_family":
        uint32_t groups
        uint32_t group
        uint32_t mask

# Each row by its number: two that stand for many tags, those of the standard, those of repeating groups.
# A slot of the indexes holds the number of a row, 0 if it is free.
cdef extern from "dictionary.h":
    uint64_t PC_MULTIPLIER
    enum:
        PC_SLOT_BITS
        PC_GROUP_LENGTH
        PC_PRIVATE_CREATOR
        PC_STANDARD
        PC_REPEATERS
        PC_ROWS
        PC_FAMILIES
    const Entry* pc_entries
    const Family* pc_families
    const uint16_t* pc_by_tag
    const uint16_t* pc_by_keyword


cdef inline uint32_t _slot_of(uint64_t number) noexcept nogil:
    return <uint32_t>(number * PC_MULTIPLIER >> (64 - PC_SLOT_BITS))


cdef inline uint32_t _after(uint32_t slot) noexcept nogil:
    return (slot + 1) & ((<uint32_t>1 << PC_SLOT_BITS) - 1)


cdef inline const Entry* _probe(uint32_t tag, uint16_t first) noexcept nogil:
    """The row of exactly this tag, none before row `first`."""
    cdef uint32_t slot = _slot_of(tag)
    cdef uint16_t row = pc_by_tag[slot]
    while row:
        if pc_entries[row].tag == tag and row >= first:
            return &pc_entries[row]
        slot = _after(slot)
        row = pc_by_tag[slot]
    return NULL


cdef const Entry* _repeater(uint32_t tag) noexcept nogil:
    cdef int i
    for i in range(PC_FAMILIES):
        if tag & pc_families[i].groups == pc_families[i].group:
            # (0028,0400) is an element of its own, and (0028,04x0) with 0 for x
            return _probe(tag & pc_families[i].mask, PC_REPEATERS)
    return NULL


cdef const Entry* entry_of(uint32_t tag) noexcept nogil:
    cdef const Entry* entry = _probe(tag, PC_STANDARD)
    cdef uint32_t element = tag & 0xFFFF
    if entry != NULL:
        return entry
    if element == 0:
        return &pc_entries[PC_GROUP_LENGTH]
    if not tag >> 16 & 1:
        return _repeater(tag)
    return &pc_entries[PC_PRIVATE_CREATOR] if 0x10 <= element <= 0xFF else NULL


cdef inline uint64_t _mixed(uint64_t number, uint64_t word) noexcept nogil:
    number = (number ^ word) * PC_MULTIPLIER
    return number ^ number >> 32


cdef inline uint64_t _folded(const uint8_t* text, size_t size) noexcept nogil:
    cdef uint64_t number = size
    cdef uint64_t word = 0
    while size >= 8:
        number = _mixed(number, le64(text))
        text += 8
        size -= 8
    if size == 0:
        return number
    while size:
        size -= 1
        word = word << 8 | text[size]
    return _mixed(number, word)


cdef const Entry* entry_of_keyword(const char* keyword, size_t size) noexcept nogil:
    cdef uint32_t slot = _slot_of(_folded(<const uint8_t*>keyword, size))
    cdef uint16_t row = pc_by_keyword[slot]
    while row:
        if pc_entries[row].keyword_size == size and memcmp(pc_entries[row].keyword, keyword, size) == 0:
            return &pc_entries[row]
        slot = _after(slot)
        row = pc_by_keyword[slot]
    return NULL


cdef str _keyword(const Entry* entry):
    return PyUnicode_DecodeASCII(entry.keyword, entry.keyword_size, NULL)


cdef str _name(const Entry* entry):
    return PyUnicode_DecodeASCII(entry.name, entry.name_size, NULL)


cdef str _vr(uint16_t vr):
    cdef char[2] letters
    letters[0] = vr >> 8
    letters[1] = vr & 0xFF
    return PyUnicode_DecodeASCII(letters, 2 if vr else 0, NULL)


def find(uint32_t tag):
    cdef const Entry* entry = entry_of(tag)
    if entry == NULL:
        return None
    return (
        _keyword(entry),
        _name(entry),
        tuple([_vr(vr) for vr in (entry.vr, entry.vr2, entry.vr3) if vr]),
        (entry.vm_least, entry.vm_most, entry.vm_step),
        bool(entry.retired),
    )


def tag_of(str keyword not None):
    cdef const Entry* entry = NULL
    if PyUnicode_IS_ASCII(keyword):  # as all keywords are
        entry = entry_of_keyword(<const char*>PyUnicode_1BYTE_DATA(keyword), PyUnicode_GET_LENGTH(keyword))
    if entry == NULL:
        raise KeyError(keyword)
    return entry.tag


def keyword_of(uint32_t tag):
    """The keyword of a tag, empty if it has none or is not known."""
    cdef const Entry* entry = entry_of(tag)
    return "" if entry == NULL else _keyword(entry)


def name_of(uint32_t tag):
    """The name of a tag in words, empty if it has none or is not known."""
    cdef const Entry* entry = entry_of(tag)
    return "" if entry == NULL else _name(entry)


def vr_of(uint32_t tag):
    """The VR of a tag, the first one where the data set decides; empty if it has none or is not known."""
    cdef const Entry* entry = entry_of(tag)
    return "" if entry == NULL else _vr(entry.vr)


def keywords(*, bint repeating=False):
    """All keywords in the order of their tags, or those of repeating groups."""
    cdef int row
    cdef int first = PC_REPEATERS if repeating else PC_STANDARD
    for row in range(first, PC_ROWS if repeating else PC_REPEATERS):
        if pc_entries[row].keyword_size:
            yield _keyword(&pc_entries[row])
