# cython: auto_pickle=False
"""What it takes to read the elements of a data set, and the elements that were set instead of read."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pacs_core._ext.cursor cimport be16, le16
from pacs_core._ext.dictionary cimport Entry
from pacs_core._ext.tape cimport N_BIG, Node, Tape, find
from pacs_core._ext.values cimport (
    LETTERS_SS, LETTERS_UN, LETTERS_US, SETS_UTF8, VR_OB, VR_OW, kind_of, one_or_all, sets_of, values_of,
)
from pacs_core._ext.vr cimport VR_OPAQUE, VR_UNKNOWN

cdef enum:
    CHARACTER_SET = 0x00080005
    PIXEL_REPRESENTATION = 0x00280103

cdef tuple UTF8 = (b"ISO_IR 192", SETS_UTF8)


@cython.final
@cython.no_gc  # nothing that it holds comes back to it
cdef class Context:
    def __init__(self):
        raise TypeError("internal")

    cdef bint is_signed(self):
        """Whether Pixel Representation (0028,0103) says that samples have a sign."""
        cdef uint32_t node
        if self.signed < 0:
            node = find(self.tape.nodes, 0, PIXEL_REPRESENTATION)
            self.signed = signed_in(self.tape, node) if node else self.assumed
        return self.signed


@cython.final
cdef class Given:
    def __init__(self):
        raise TypeError("internal")


cdef bint signed_in(Tape tape, uint32_t node) noexcept nogil:
    """Whether a Pixel Representation (0028,0103) says that samples have a sign."""
    cdef Node* n = &tape.nodes[node]
    if n.length < 2:
        return False
    return (be16(tape.base + n.at) if n.flags & N_BIG else le16(tape.base + n.at)) == 1


cdef tuple sets_named(const uint8_t* p, uint64_t size):
    """The character set of a value of (0008,0005)."""
    while size and (p[size - 1] == 0x20 or p[size - 1] == 0):
        size -= 1
    while size and (p[0] == 0x20 or p[0] == 0):
        p += 1
        size -= 1
    return sets_of((<const char*>p)[:size])


cdef Context context_of(Tape tape, uint32_t root, Context around):
    """How to read a data set: as what is around it, but for what it says itself.

    The Pixel Representation of a whole data set is looked for when it is asked for: it lies far behind.
    """
    cdef uint32_t sets = find(tape.nodes, root, CHARACTER_SET)
    cdef uint32_t signed = find(tape.nodes, root, PIXEL_REPRESENTATION) if root else 0
    cdef Context context
    if not sets and not signed and root:
        return around
    context = Context.__new__(Context)
    context.types = around.types
    context.made = around.made
    context.sets = around.sets
    context.signed = around.signed
    context.assumed = around.assumed
    context.tape = around.tape
    if sets:
        context.sets = sets_named(tape.base + tape.nodes[sets].at, tape.nodes[sets].length)
    if signed:
        context.signed = signed_in(tape, signed)
    elif root == 0:
        context.assumed = around.signed
        context.signed = -1
        context.tape = tape
    return context


cdef Context plain_context(type made):
    cdef Context context = Context.__new__(Context)
    context.types = made.types
    context.made = made
    context.sets = sets_of(b"")
    context.signed = False
    return context


cdef Given given_of(uint16_t vr, object data):
    """TypeError for what are not bytes; bulk data may be any buffer, or a tuple of buffers."""
    cdef Given given = Given.__new__(Given)
    given.vr = VR_OB if vr == LETTERS_UN and isinstance(data, tuple) else vr  # a UN has no fragments, but items
    if is_opaque(vr):
        given.data = data if isinstance(data, bytes) else (
            tuple([memoryview(piece).cast("B") for piece in data]) if isinstance(data, tuple)
            else memoryview(data).cast("B")
        )
    else:
        given.data = bytes(memoryview(data))
    return given


cdef bint is_opaque(uint16_t vr) noexcept nogil:
    cdef uint8_t kind = kind_of(vr)
    return kind >= VR_OPAQUE or kind == VR_UNKNOWN


cdef object given_value(Given given, Context context, bint all):
    """The value, or all values, of an element that was set."""
    cdef uint8_t kind = kind_of(given.vr)
    cdef bytes data
    cdef tuple values
    if is_opaque(given.vr):
        if isinstance(given.data, tuple):
            values = tuple([memoryview(piece) for piece in given.data])
            return (values,) if all else values
        view = memoryview(given.data) if len(given.data) else None
        return view if not all else () if view is None else (view,)
    data = given.data
    values = values_of(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), given.vr, True, UTF8,
                       context.types)
    return values if all else one_or_all(values, kind)


cdef uint16_t resolved(const Entry* entry, bint signed) noexcept nogil:
    """The VR that an ambiguous one of the dictionary means (PS3.5 Annex A, PS3.3 C.7.6.3.1)."""
    if entry.vr2 == 0:
        return entry.vr
    if entry.vr == LETTERS_US and entry.vr2 == LETTERS_SS:
        return LETTERS_SS if signed else LETTERS_US
    return VR_OW
