"""The packed records of the index's tables, in memory and as bytes (little endian, version byte first).

An attribute is known by its code (1 byte), given to its tag in the index's `meta` table.

attributes   count u8 | per attribute, by slot: code u8, size varint, bytes (empty values are left out)
merged       suppliers u8 | stamps u64[suppliers] | attributes | supplier u8[count] if suppliers > 1
tallies      count varint | per name: how often varint, size varint, bytes
patient      1 | unnamed u8 | studies, series, instances varint | Patient ID, Issuer: size varint, bytes | merged
study        1 | patient u64 | series, instances, bytes varint | UID, alias: size varint, bytes | merged
             | modalities: tallies (series of each) | SOP classes: tallies (instances of each)
             | count varint | per claim: number, instances varint, first u64, Patient ID, Issuer, merged
series       1 | study u64 | instances, bytes varint | UID: size varint, bytes | merged
instance     1 | series u64 | stamp u64 | container u64 | checksum u32 | claim, offset, length varint
             | UID, transfer syntax, source AE title: size varint, bytes | attributes

A claim is what the instances of one patient identity in a study say of the patient. One study has one,
unless it was sent under several identities; see `pacs_core.index` for the rules.
"""

from libc.stdint cimport int16_t, uint8_t, uint32_t, uint64_t

from pacs_core._ext.arena cimport Arena
from pacs_core._ext.keys cimport Text


cdef enum:
    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3
    SLOTS = 48        # attributes a level can have
    ROW_VERSION = 1
    FIELDS_VERSION = 1


cdef struct Attribute:
    uint32_t tag
    uint8_t code
    uint8_t level
    uint8_t slot


cdef struct Layout:
    int count
    Attribute by_tag[239]          # ascending by tag
    int slots[4]
    uint8_t code_of[4][SLOTS]
    uint32_t tag_of[4][SLOTS]
    uint8_t key_of[4][SLOTS]       # KeyKind
    bint pending[4][SLOTS]         # not recorded yet of all instances: no query is answered from it
    bint items[4][SLOTS]           # a sequence: its items as `dataset` makes them, not text
    int16_t slot_of[256]           # by code, -1 if unknown
    uint8_t level_of[256]
    int modality                   # slots
    int study_date
    int sop_class
    uint8_t secret[16]


cdef struct Value:
    Text text
    uint64_t stamp                 # of its supplier


cdef struct Tally:
    Tally* next
    Text name
    uint64_t count


cdef struct Claim:
    Claim* next
    uint64_t number
    uint64_t instances
    uint64_t first                 # smallest stamp of its instances
    bint stale                     # `first` was removed
    Text patient_id
    Text issuer
    Value values[SLOTS]


# A patient, study or series.
cdef struct Node:
    Node* chain                    # of its hash bucket
    Node* next                     # in order of loading
    int level
    uint64_t id
    uint64_t parent
    uint64_t studies
    uint64_t series
    uint64_t instances
    uint64_t bytes
    Text uid                       # a patient's: Patient ID
    Text issuer
    Text alias                     # what a study without UID is keyed by
    bint unnamed                   # a patient without Patient ID: keyed by its study
    Tally* modalities
    Tally* classes
    Claim* claims
    Value values[SLOTS]
    # as it was in the table
    bint fresh                     # it was not
    bint dirty
    bint lost                      # a patient's value lost its supplier
    uint64_t had_series
    uint64_t had_instances
    Tally* had_modalities
    Value had[SLOTS]
    Value gave[SLOTS]              # what a study said of its patient


cdef struct Instance:
    uint64_t series
    uint64_t stamp
    uint64_t container
    uint64_t offset
    uint64_t length
    uint64_t claim
    uint32_t checksum
    Text uid
    Text syntax
    Text source
    const uint8_t* attributes      # the packed attributes, up to `end`
    const uint8_t* end


# One instance's fields blob, by level and slot; the unique keys apart from their level's values.
cdef struct Fields:
    Text patient_id
    Text issuer
    Text study_uid
    Text series_uid
    Text sop_uid
    Text values[4][SLOTS]


cdef struct Pen:
    uint8_t* data
    size_t size
    size_t room
    bint failed


cdef class Schema:
    cdef Layout layout
    cdef bytes codes


cdef int parse_fields(const Layout* layout, const uint8_t* blob, size_t size, Fields* fields) noexcept nogil
cdef int decode_node(const Layout* layout, Arena* arena, const uint8_t* data, size_t size, int level,
                     Node* node) noexcept nogil
cdef int decode_instance(const uint8_t* data, size_t size, Instance* instance) noexcept nogil
cdef bint next_attribute(Instance* instance, uint8_t* code, Text* text) noexcept nogil
cdef void encode_node(const Layout* layout, Pen* pen, Node* node) noexcept nogil
cdef void encode_instance(const Layout* layout, Pen* pen, Instance* instance, Fields* fields) noexcept nogil
cdef Claim* owner(Node* study) noexcept nogil
cdef void given(const Layout* layout, Node* study, Value* values) noexcept nogil
cdef bint merge(Value* value, Text text, uint64_t stamp) noexcept nogil
