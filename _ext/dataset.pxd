"""Data sets to index fields: the scanner, the scan of one data set, what it found."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cimport cython

from pacs_core._ext.walk cimport CARRY, WANTED_LIMIT, Slot, Walk


cdef class Scanner:
    cdef uint32_t count
    cdef uint32_t[WANTED_LIMIT] tags
    cdef uint8_t[WANTED_LIMIT] kinds
    cdef int character_set       # place of (0008,0005) among the tags
    cdef bint keeps_character_set
    cdef int[4] uids             # places of the UIDs of a Header, -1 where not wanted
    cdef dict encodings
    cdef object decode
    cdef object known
    cdef readonly uint64_t inflate_limit
    cdef Scanner nested          # of the items of sequences, None if none are wanted

    cdef int begin(self, Walk* w, str transfer_syntax_uid) except -1
    cdef Header header(self, Walk* w, const uint8_t* base)
    cdef tuple character_sets(self, Walk* w, const uint8_t* base)
    cdef size_t put_value(
        self, Walk* w, Slot* slot, uint32_t place, const uint8_t* base, uint8_t* out, int sets, bytes character_set
    ) except? 0
    cdef size_t put_items(
        self, Walk* w, Slot* slot, const uint8_t* p, uint8_t* out, int sets, bytes character_set, bint* cut
    ) except? 0
    cdef size_t put_item(
        self, Walk* part, const uint8_t* base, uint8_t* out, int sets, bytes character_set
    ) except? 0
    cdef size_t put_text(
        self, Walk* w, Slot* slot, uint32_t place, const uint8_t* p, uint8_t* out, int sets, bytes character_set
    ) except? 0


cdef class Scan:
    cdef Scanner scanner
    cdef Walk walk
    cdef uint8_t[CARRY] carry
    cdef size_t carried
    cdef object inflater         # of a deflated data set, None until its first bytes are there
    cdef bint deflated
    cdef bint finished
    cdef bint over               # the deflate stream has ended or is broken: what follows is passed over
    cdef bytearray piece         # deflated bytes not yet inflated
    cdef uint64_t inflated       # bytes made
    cdef uint64_t pumped         # of those, by earlier pieces

    cdef int push(self, const uint8_t* data, size_t size) except -1
    cdef int inflate(self, const uint8_t* data, size_t size) except -1
    cdef int inflate_piece(self) except -1
    cdef int pump(self, bytes pending) except -1
    cdef object choose(self, bytes head)


@cython.final
cdef class Header:
    cdef readonly bytes fields
    cdef readonly str sop_class_uid
    cdef readonly str sop_instance_uid
    cdef readonly str study_instance_uid
    cdef readonly str series_instance_uid
    cdef readonly tuple findings
    cdef readonly tuple stray
    cdef readonly bint truncated
