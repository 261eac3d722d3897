"""DIMSE command sets (PS3.7 6.3.1, Annex E): group 0000 in implicit VR little endian.

Decoding walks the elements once, without Python objects, and remembers where the values are; a value
becomes a Python object when it is read. Everything that arrives is checked against the end of the input.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from pacs_core.errors import UnparsableError

cdef tuple _WRONG = (
    "",
    "the command set ends inside an element's header",
    "an element's value reaches beyond the end of the command set",
    "an element that is not of group 0000 in a command set",
    "a number of odd length in a command set",
    "a command set without Command Field (0000,0100)",
    "a command set without Command Data Set Type (0000,0800)",
)

# The value representations that command elements have (PS3.7 E.1), by element number.
cdef enum:
    VR_US = 1
    VR_UI = 2
    VR_TEXT = 3  # AE, LO
    VR_AT = 4


cdef int _vr(unsigned int element) noexcept nogil:
    if element in (0x0002, 0x0003, 0x1000, 0x1001):
        return VR_UI
    if element in (0x0600, 0x0902, 0x1030):
        return VR_TEXT
    if element in (0x0901, 0x1005):
        return VR_AT
    if element in (
        0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x0903, 0x1002,
        0x1008, 0x1020, 0x1021, 0x1022, 0x1023, 0x1031,
    ):
        return VR_US
    return 0


cdef inline uint32_t _u32(const uint8_t* p) noexcept nogil:
    return p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16) | (<uint32_t>p[3] << 24)


cdef inline int32_t* _number(Fields* f, unsigned int element) noexcept nogil:
    if element == 0x0100: return &f.command_field
    if element == 0x0110: return &f.message_id
    if element == 0x0120: return &f.responded_to
    if element == 0x0700: return &f.priority
    if element == 0x0800: return &f.data_set_type
    if element == 0x0900: return &f.status
    if element == 0x0903: return &f.error_id
    if element == 0x1002: return &f.event_type
    if element == 0x1008: return &f.action_type
    if element == 0x1020: return &f.remaining
    if element == 0x1021: return &f.completed
    if element == 0x1022: return &f.failed
    if element == 0x1023: return &f.warning
    if element == 0x1031: return &f.originator_message_id
    return NULL


cdef inline Span* _span(Fields* f, unsigned int element) noexcept nogil:
    if element == 0x0002: return &f.affected_class
    if element == 0x0003: return &f.requested_class
    if element == 0x0600: return &f.move_destination
    if element == 0x0901: return &f.offending
    if element == 0x0902: return &f.error_comment
    if element == 0x1000: return &f.affected_instance
    if element == 0x1001: return &f.requested_instance
    if element == 0x1005: return &f.attributes
    if element == 0x1030: return &f.originator_title
    return NULL


cdef int decode_fields(const uint8_t* data, size_t size, Fields* out, size_t* offset) noexcept nogil:
    cdef:
        size_t at = 0
        uint32_t group, element, length
        int32_t* number
        Span* span
        size_t i
    for i in range(sizeof(Fields) // sizeof(int32_t)):
        (<int32_t*>out)[i] = ABSENT
    while at < size:
        offset[0] = at
        if size - at < 8:
            return TORN_HEADER
        group = data[at] | (<uint32_t>data[at + 1] << 8)
        element = data[at + 2] | (<uint32_t>data[at + 3] << 8)
        length = _u32(data + at + 4)
        at += 8
        if group != 0:
            return FOREIGN_GROUP
        if length > size - at:
            return TORN_VALUE
        number = _number(out, element)
        if number != NULL:
            if length & 1:
                return ODD_NUMBER
            # More than one value where there should be one: the first is meant.
            number[0] = data[at] | (<int32_t>data[at + 1] << 8) if length else ABSENT
        else:
            span = _span(out, element)
            if span != NULL:
                span.start = <uint32_t>at
                span.length = <int32_t>length
        at += length
    offset[0] = size
    if out.command_field == ABSENT:
        return NO_COMMAND_FIELD
    if out.data_set_type == ABSENT:
        return NO_DATA_SET_TYPE
    return FINE


cdef inline object _optional(int32_t number):
    return None if number == ABSENT else number


cdef class Command:
    """One command set, received or just encoded.

    `encoded` holds its bytes. Numbers are None when the element is missing or empty; texts are '' then.
    """

    @staticmethod
    cdef Command wrap(bytes encoded, Fields* fields):
        cdef Command self = Command.__new__(Command)
        self.encoded = encoded
        self.fields = fields[0]
        return self

    @staticmethod
    def decode(data not None) -> "Command":
        """Decode a whole command set.

        Raises UnparsableError, with the byte position, when elements do not fit in the input, are not of
        group 0000, or the two that every command set has (PS3.7 E.1) are missing.
        """
        cdef:
            bytes encoded = bytes(data)
            Fields fields
            size_t offset = 0
            int wrong
        if PyBytes_GET_SIZE(encoded) > 0x7FFFFFFF:
            raise UnparsableError("a command set of more than 2 GiB")
        wrong = decode_fields(
            <const uint8_t*>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), &fields, &offset
        )
        if wrong:
            raise UnparsableError(_WRONG[wrong], offset=offset)
        return Command.wrap(encoded, &fields)

    cdef str _uid(self, Span span):
        if span.length <= 0:
            return ""
        cdef bytes value = PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self.encoded) + span.start, span.length
        )
        return value.rstrip(b"\x00 ").decode("latin-1")

    cdef str _text(self, Span span):
        if span.length <= 0:
            return ""
        cdef bytes value = PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self.encoded) + span.start, span.length
        )
        return value.strip(b"\x00 ").decode("latin-1")

    cdef tuple _tags(self, Span span):
        cdef:
            const uint8_t* p
            int32_t i
        if span.length < 4:
            return ()
        p = <const uint8_t*>PyBytes_AS_STRING(self.encoded) + span.start
        return tuple([
            (<uint32_t>p[4 * i] << 16) | (<uint32_t>p[4 * i + 1] << 24) | p[4 * i + 2] | (<uint32_t>p[4 * i + 3] << 8)
            for i in range(span.length // 4)
        ])

    @property
    def command_field(self) -> int:
        """(0000,0100): which message this is (PS3.7 E.1)."""
        return self.fields.command_field

    @property
    def is_response(self) -> bool:
        return (self.fields.command_field & 0x8000) != 0

    @property
    def has_data_set(self) -> bool:
        """(0000,0800) is not 0101H: a data set follows."""
        return self.fields.data_set_type != NO_DATA_SET

    @property
    def message_id(self) -> int | None:
        return _optional(self.fields.message_id)

    @property
    def message_id_being_responded_to(self) -> int | None:
        return _optional(self.fields.responded_to)

    @property
    def priority(self) -> int | None:
        return _optional(self.fields.priority)

    @property
    def status(self) -> int | None:
        return _optional(self.fields.status)

    @property
    def error_id(self) -> int | None:
        return _optional(self.fields.error_id)

    @property
    def event_type_id(self) -> int | None:
        return _optional(self.fields.event_type)

    @property
    def action_type_id(self) -> int | None:
        return _optional(self.fields.action_type)

    @property
    def remaining(self) -> int | None:
        """(0000,1020) Number of Remaining Sub-operations."""
        return _optional(self.fields.remaining)

    @property
    def completed(self) -> int | None:
        """(0000,1021) Number of Completed Sub-operations."""
        return _optional(self.fields.completed)

    @property
    def failed(self) -> int | None:
        """(0000,1022) Number of Failed Sub-operations."""
        return _optional(self.fields.failed)

    @property
    def warning(self) -> int | None:
        """(0000,1023) Number of Warning Sub-operations."""
        return _optional(self.fields.warning)

    @property
    def move_originator_message_id(self) -> int | None:
        return _optional(self.fields.originator_message_id)

    @property
    def affected_sop_class_uid(self) -> str:
        return self._uid(self.fields.affected_class)

    @property
    def affected_sop_instance_uid(self) -> str:
        return self._uid(self.fields.affected_instance)

    @property
    def requested_sop_class_uid(self) -> str:
        return self._uid(self.fields.requested_class)

    @property
    def requested_sop_instance_uid(self) -> str:
        return self._uid(self.fields.requested_instance)

    @property
    def move_destination(self) -> str:
        return self._text(self.fields.move_destination)

    @property
    def move_originator_ae_title(self) -> str:
        return self._text(self.fields.originator_title)

    @property
    def error_comment(self) -> str:
        return self._text(self.fields.error_comment)

    @property
    def offending_elements(self) -> tuple[int, ...]:
        """(0000,0901), each as group << 16 | element."""
        return self._tags(self.fields.offending)

    @property
    def attribute_identifiers(self) -> tuple[int, ...]:
        """(0000,1005), each as group << 16 | element."""
        return self._tags(self.fields.attributes)

    def __repr__(self) -> str:
        return f"<Command {self.fields.command_field:04X} of {len(self.encoded)} bytes>"


cdef class _Writer:
    # Elements are appended in ascending order; the group length at the front is filled in at the end.
    cdef uint8_t buffer[512]
    cdef bytearray spilled  # what did not fit in the buffer any more
    cdef Py_ssize_t used

    def __cinit__(self):
        self.used = 12  # (0000,0000) UL 4 + value

    cdef int _put(self, const uint8_t* data, Py_ssize_t size) except -1:
        if self.spilled is None:
            if self.used + size <= <Py_ssize_t>sizeof(self.buffer):
                memcpy(self.buffer + self.used, data, size)
                self.used += size
                return 0
            self.spilled = bytearray(PyBytes_FromStringAndSize(<char*>self.buffer, self.used))
        self.spilled += PyBytes_FromStringAndSize(<const char*>data, size)
        return 0

    cdef int _head(self, unsigned int element, Py_ssize_t length) except -1:
        cdef uint8_t head[8]
        head[0] = head[1] = 0
        head[2] = element & 0xFF
        head[3] = element >> 8
        head[4] = length & 0xFF
        head[5] = (length >> 8) & 0xFF
        head[6] = (length >> 16) & 0xFF
        head[7] = (length >> 24) & 0xFF
        return self._put(head, 8)

    cdef int number(self, unsigned int element, long value) except -1:
        cdef uint8_t both[2]
        if value < 0 or value > 0xFFFF:
            raise ValueError(f"(0000,{element:04X}) holds 0 to 65535, not {value}")
        both[0] = value & 0xFF
        both[1] = value >> 8
        self._head(element, 2)
        return self._put(both, 2)

    cdef int text(self, unsigned int element, value, uint8_t padding) except -1:
        # ASCII by definition; what else a peer may have sent goes back as it came.
        # `str(value)` unwraps subclasses such as pydicom's UID.
        cdef bytes encoded = str(value).encode("latin-1", "replace")
        cdef Py_ssize_t size = PyBytes_GET_SIZE(encoded)
        self._head(element, size + (size & 1))
        self._put(<const uint8_t*>PyBytes_AS_STRING(encoded), size)
        if size & 1:
            self._put(&padding, 1)
        return 0

    cdef int tags(self, unsigned int element, values) except -1:
        cdef uint8_t four[4]
        cdef unsigned long tag
        cdef tuple all_tags = tuple(values)
        self._head(element, 4 * len(all_tags))
        for value in all_tags:
            tag = value
            if tag > 0xFFFFFFFF:
                raise ValueError(f"not a tag: {value}")
            four[0] = (tag >> 16) & 0xFF
            four[1] = (tag >> 24) & 0xFF
            four[2] = tag & 0xFF
            four[3] = (tag >> 8) & 0xFF
            self._put(four, 4)
        return 0

    cdef bytes done(self):
        cdef Py_ssize_t length = (self.used if self.spilled is None else len(self.spilled)) - 12
        cdef uint8_t* front = self.buffer
        if self.spilled is not None:
            front = self.spilled
        front[0] = front[1] = front[2] = front[3] = 0
        front[4] = 4
        front[5] = front[6] = front[7] = 0
        front[8] = length & 0xFF
        front[9] = (length >> 8) & 0xFF
        front[10] = (length >> 16) & 0xFF
        front[11] = (length >> 24) & 0xFF
        if self.spilled is not None:
            return bytes(self.spilled)
        return PyBytes_FromStringAndSize(<char*>self.buffer, self.used)


def encode(elements not None) -> bytes:
    """Encode a command set from {element number of group 0000: value}.

    Numbers are int, texts and UIDs str, (0000,0901) and (0000,1005) sequences of tags (group << 16 |
    element). None leaves the element out; the group length is computed. Raises ValueError for an element
    that PS3.7 E.1 does not know or a value out of range.
    """
    cdef _Writer out = _Writer()
    cdef unsigned int element
    cdef int vr
    for element in sorted(elements):
        value = elements[element]
        if value is None or element == 0:
            continue
        vr = _vr(element)
        if vr == VR_US:
            out.number(element, value)
        elif vr == VR_UI:
            out.text(element, value, 0)
        elif vr == VR_TEXT:
            out.text(element, value, 0x20)
        elif vr == VR_AT:
            out.tags(element, value)
        else:
            raise ValueError(f"(0000,{element:04X}) is no command element")
    return out.done()


def encode_echo_rq(int message_id, sop_class_uid="1.2.840.10008.1.1") -> bytes:
    """C-ECHO-RQ (PS3.7 9.3.5.1)."""
    cdef _Writer out = _Writer()
    out.text(0x0002, sop_class_uid, 0)
    out.number(0x0100, C_ECHO_RQ)
    out.number(0x0110, message_id)
    out.number(0x0800, NO_DATA_SET)
    return out.done()


def encode_echo_rsp(int message_id, sop_class_uid="1.2.840.10008.1.1", int status=0) -> bytes:
    """C-ECHO-RSP (PS3.7 9.3.5.2) to the request of that message ID."""
    cdef _Writer out = _Writer()
    out.text(0x0002, sop_class_uid, 0)
    out.number(0x0100, C_ECHO_RSP)
    out.number(0x0120, message_id)
    out.number(0x0800, NO_DATA_SET)
    out.number(0x0900, status)
    return out.done()


def encode_store_rq(
    int message_id,
    sop_class_uid not None,
    sop_instance_uid not None,
    int priority=0,
    move_originator_ae_title=None,
    move_originator_message_id=None,
) -> bytes:
    """C-STORE-RQ (PS3.7 9.3.1.1); priority 0 medium, 1 high, 2 low. A data set follows."""
    cdef _Writer out = _Writer()
    out.text(0x0002, sop_class_uid, 0)
    out.number(0x0100, C_STORE_RQ)
    out.number(0x0110, message_id)
    out.number(0x0700, priority)
    out.number(0x0800, 1)
    out.text(0x1000, sop_instance_uid, 0)
    if move_originator_ae_title is not None:
        out.text(0x1030, move_originator_ae_title, 0x20)
    if move_originator_message_id is not None:
        out.number(0x1031, move_originator_message_id)
    return out.done()


def encode_store_rsp(
    int message_id,
    sop_class_uid not None,
    sop_instance_uid not None,
    int status,
    error_comment=None,
    offending_elements=(),
) -> bytes:
    """C-STORE-RSP (PS3.7 9.3.1.2) to the request of that message ID.

    `error_comment` is cut at the 64 characters of an LO; `offending_elements` are tags.
    """
    cdef _Writer out = _Writer()
    out.text(0x0002, sop_class_uid, 0)
    out.number(0x0100, C_STORE_RSP)
    out.number(0x0120, message_id)
    out.number(0x0800, NO_DATA_SET)
    out.number(0x0900, status)
    if offending_elements:
        out.tags(0x0901, offending_elements)
    if error_comment:
        out.text(0x0902, error_comment[:64], 0x20)
    out.text(0x1000, sop_instance_uid, 0)
    return out.done()


def encode_find_rsp(int message_id, sop_class_uid not None, int status, bint has_data_set) -> bytes:
    """C-FIND-RSP (PS3.7 9.3.2.2) to the request of that message ID."""
    cdef _Writer out = _Writer()
    out.text(0x0002, sop_class_uid, 0)
    out.number(0x0100, C_FIND_RSP)
    out.number(0x0120, message_id)
    out.number(0x0800, 1 if has_data_set else NO_DATA_SET)
    out.number(0x0900, status)
    return out.done()
