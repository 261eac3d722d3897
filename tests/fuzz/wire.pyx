"""What a peer sends, in any pieces: the PDU engine, and the association PDUs that come out of it.

Input: settings, maximum PDU length, two sizes of pieces (a byte each; 0: no limit), then the bytes of the connection.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from pacs_core._ext.buffer cimport Budget, shelf_limit
from pacs_core._ext.negotiation cimport Negotiated
from pacs_core._ext.pdu cimport (
    EV_CHUNK, EV_MESSAGE, EV_PROTOCOL_ERROR, PDU_ABORT, PDU_ASSOCIATE_AC, PDU_ASSOCIATE_RJ, PDU_ASSOCIATE_RQ,
    PH_AWAIT_REQUEST, PH_TRANSFER, Engine, Event,
)

from pacs_core._ext.associate import (
    MalformedError, decode_abort, decode_accept, decode_reject, decode_request, encode_accept, negotiate,
)
from pacs_core._ext.negotiation import Supported

from fuzz_command import read_all

cdef enum:  # settings; the two lowest bits are the phase
    TRACE = 4
    HOARD = 8      # what came out is held until the engine stalls
    DISCARD = 16   # a message that comes in chunks is not wanted
    ONE_BLOCK = 32  # the budget has room for one
    OURS = 64      # we choose the transfer syntax

cdef enum:
    HEAD = 4
    SMALLEST = 4096  # of what an engine reads and hands over at once
    MOST_PIECES = 64

# A block that goes to the shelf is not free to a memory checker.
shelf_limit = 0

cdef Budget wide = Budget(1 << 20)
cdef Budget narrow = Budget(SMALLEST)
cdef tuple contexts = (
    ("1.2.840.10008.1.1", ("1.2.840.10008.1.2",), None, None),
    ("1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"), True, True),
    ("1.2.840.10008.5.1.4.1.1.4", ("1.2.840.10008.1.2",), False, True),
)
strict = Supported(contexts)
lenient = Supported(
    contexts, prefer_ours=True, accept_unknown_storage=True, accept_unknown_transfer_syntaxes=True
)


cdef int associate(Engine engine, bytes pdu, bint ours) except -1:
    """Answer a request, and read our answer as the peer would."""
    request = decode_request(pdu)
    cdef Negotiated negotiated = negotiate(lenient if ours else strict, request)
    answer = encode_accept(
        request,
        negotiated,
        maximum_length=16384,
        implementation_class_uid="1.2.3",
        implementation_version_name="FUZZ",
        async_ops=(1, 1),
        identity_response=b"token",
    )
    accept = decode_accept(answer)
    if {ident: result[0] for ident, result in accept.results.items()} != {r[0]: r[2] for r in negotiated.results}:
        raise AssertionError("the answer does not say what was negotiated")
    engine.accept_contexts([ident for ident, result in accept.results.items() if result[0] == 0])
    engine.phase = PH_TRANSFER
    return 0


cdef int take(Engine engine, Event event, int settings, list held) except -1:
    """Do with an event what an association does."""
    if event.kind == EV_MESSAGE or event.kind == EV_CHUNK:
        read_all(event.command)
        if event.data is not None:
            bytes(event.data)  # every byte of it is read
            if settings & HOARD:
                held.append(event)
        if event.kind == EV_CHUNK and settings & DISCARD:
            engine.discard_message()
    elif event.kind == PDU_ASSOCIATE_RQ:
        associate(engine, event.raw, (settings & OURS) != 0)
    elif event.kind == PDU_ASSOCIATE_AC:
        engine.accept_contexts(decode_accept(event.raw).results)
        engine.phase = PH_TRANSFER
    elif event.kind == PDU_ASSOCIATE_RJ:
        decode_reject(event.raw)
    elif event.kind == PDU_ABORT:
        decode_abort(event.raw)
    return 0


cdef int converse(Engine engine, const uint8_t* data, size_t size, int settings, const uint8_t* pieces) except -1:
    cdef list held = []
    cdef Event event
    cdef size_t at = 0, piece
    cdef int turn = 0
    while True:
        event = engine.next_event()
        if event is not None:
            if event.kind == EV_PROTOCOL_ERROR:
                return 0
            take(engine, event, settings, held)
            event = None  # what it holds counts, too
        elif engine.wanted:
            if not held:
                raise AssertionError("stalled, and nobody holds anything")
            held.clear()
        elif at == size:
            return 0
        else:
            piece = min(<size_t>len(engine.get_buffer()), size - at)
            if pieces[turn]:
                piece = min(piece, max(<size_t>pieces[turn], size // MOST_PIECES))
            turn = not turn
            memcpy(engine.stage + engine.tail, data + at, piece)
            engine.buffer_updated(piece)
            at += piece


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    cdef Engine engine
    cdef Budget budget
    if size < HEAD:
        return 0
    budget = narrow if data[0] & ONE_BLOCK else wide
    engine = Engine(
        PH_AWAIT_REQUEST + (data[0] & 3),
        maximum_pdu=64 * data[1],
        spool_at=2 * SMALLEST,
        chunk=SMALLEST,
        read_size=SMALLEST,
        budget=budget,
    )
    engine.accept_contexts((1, 3, 255))
    engine.trace = data[0] & TRACE
    try:
        converse(engine, data + HEAD, size - HEAD, data[0], data + 2)
    except MalformedError:
        pass
    del engine
    if budget.used:
        raise AssertionError(f"{budget.used} bytes were not given back")
    return 0
