# cython: auto_pickle=False
"""Association control (PS3.8 9.3.2 to 9.3.8, PS3.7 Annex D): PDUs decoded and encoded, and negotiation.

No sockets and no policy: what a request asks for becomes a `Request`, `negotiate` answers its presentation
contexts against what a server supports, and the caller decides on the rest.

What arrives is judged so (a `MalformedError` means: abort the association, source 2, reason 6):

- An item or field that does not fit in what contains it is malformed, and so is a PDU length field that is
  not the length of the PDU. Reserved fields, unknown items and the order of items mean nothing.
- A presentation context ID that is even, 0 or used twice is malformed: a message could not be told to belong
  to one context (PS3.8 9.3.2.2). So there are never more than 128 contexts.
- A context without a transfer syntax, or without an abstract syntax, spoils nothing but itself: it is kept,
  with () or '', and refused by `negotiate` (results 4, 3). Of several abstract syntaxes the first counts.
- Of several items where the standard has one, the first counts; of several of the same SOP class, the last.
- UIDs lose trailing NULs and spaces. They are not checked else; what is no UID is never accepted or sent.
"""

from typing import NamedTuple

cimport cython
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy

from pacs_core._ext.cursor cimport Cursor, left, read_be16, read_be32, read_u8, take, take_part
from pacs_core._ext.items cimport (
    HEADER, Item, Reader, Writer, checked_number, checked_text, counted, counted_uid, is_uid, printable, rest,
    text_of, uid_of
)
from pacs_core._ext.negotiation cimport ACCEPTED, Negotiated as _Negotiated, Supported as _Supported, answer

from pacs_core._ext.items import MalformedError
from pacs_core._ext.negotiation import Negotiated, Supported

cdef enum:  # PDU types (PS3.8 9.3.1)
    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    ABORT = 0x07

cdef enum:  # items (PS3.8 9.3.2, 9.3.3, D.1; PS3.7 D.3.3)
    APPLICATION_CONTEXT_ITEM = 0x10
    CONTEXT_RQ_ITEM = 0x20
    CONTEXT_AC_ITEM = 0x21
    ABSTRACT_SYNTAX_ITEM = 0x30
    TRANSFER_SYNTAX_ITEM = 0x40
    USER_INFORMATION_ITEM = 0x50
    MAXIMUM_LENGTH_ITEM = 0x51
    IMPLEMENTATION_CLASS_ITEM = 0x52
    ASYNC_OPS_ITEM = 0x53
    ROLE_ITEM = 0x54
    IMPLEMENTATION_VERSION_ITEM = 0x55
    EXTENDED_ITEM = 0x56
    COMMON_EXTENDED_ITEM = 0x57
    USER_IDENTITY_RQ_ITEM = 0x58
    USER_IDENTITY_AC_ITEM = 0x59

cdef enum:
    TITLES = 10         # called and calling AE title, 32 reserved bytes: up to FIXED
    FIXED = 74          # variable items begin here
    UNTOLD_MAXIMUM = 16384  # what a peer takes that sent no Maximum Length item: the historic default

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
RELEASE_RP = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"

cdef str IMPLICIT_LITTLE = "1.2.840.10008.1.2"


class UserIdentity(NamedTuple):
    """User identity as requested (PS3.7 D.3.3.7.1); the secrets in it stay out of its repr."""

    type: int
    response_requested: bool
    primary: bytes
    secondary: bytes = b""

    def __repr__(self):
        return f"UserIdentity(type={self.type}, response_requested={self.response_requested}, …)"


class CommonExtended(NamedTuple):
    """SOP Class Common Extended Negotiation (PS3.7 D.3.3.6): service and relatives of a SOP class."""

    service_class_uid: str
    related: tuple[str, ...] = ()


class Rejection(NamedTuple):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int
    source: int
    reason: int


class Abort(NamedTuple):
    """A-ABORT (PS3.8 9.3.8)."""

    source: int
    reason: int


# ---- decoding ----

cdef class _Terms:
    """What both sides tell about themselves and their contexts: the items that requests and accepts share."""

    cdef readonly int protocol_version
    cdef readonly str application_context_name
    cdef readonly unsigned int maximum_length
    cdef readonly str implementation_class_uid
    cdef readonly str implementation_version_name
    cdef readonly tuple async_ops
    cdef readonly dict roles
    cdef readonly dict extended
    cdef int _context_kind
    cdef bint windowed  # async_ops was sent

    def __init__(self):
        raise TypeError(f"a {type(self).__name__} is made by decoding")

    cdef int _read(self, Reader reader, Cursor c) except -1:
        """Everything from the protocol version on."""
        cdef Item item
        cdef bint informed = False
        cdef set ids = set()
        self.protocol_version = read_be16(&c)
        take(&c, FIXED - HEADER - 2)
        self.application_context_name = ""
        self.maximum_length = UNTOLD_MAXIMUM
        self.implementation_class_uid = ""
        self.implementation_version_name = ""
        self.roles = {}
        self.extended = {}
        while reader.next(&c, &item):
            if item.kind == self._context_kind:
                self._read_context(reader, &item, ids)
            elif item.kind == APPLICATION_CONTEXT_ITEM:
                if not self.application_context_name:
                    self.application_context_name = uid_of(item.body)
            elif item.kind == USER_INFORMATION_ITEM and not informed:
                informed = True
                self._read_user_information(reader, item.body)
        self.windowed = self.async_ops is not None
        if not self.windowed:
            self.async_ops = (1, 1)
        return 0

    cdef int _read_context(self, Reader reader, Item* item, set ids) except -1:
        raise NotImplementedError

    cdef int _read_negotiation(self, Item* item) except -1:
        """A sub-item of the user information that only one side sends; others mean nothing."""
        raise NotImplementedError

    cdef int _context_id(self, Reader reader, Item* item, set ids) except -1:
        cdef int ident = read_u8(&item.body)
        reader.whole(item)
        if ident % 2 == 0:
            raise MalformedError(f"presentation context ID {ident} is not odd", offset=item.offset)
        if ident in ids:
            raise MalformedError(f"presentation context ID {ident} is used twice", offset=item.offset)
        ids.add(ident)
        return ident

    cdef int _read_user_information(self, Reader reader, Cursor c) except -1:
        cdef Item item
        cdef bint told = False
        cdef str uid
        while reader.next(&c, &item):
            if item.kind == MAXIMUM_LENGTH_ITEM:
                if not told:
                    told = True
                    self.maximum_length = read_be32(&item.body)
            elif item.kind == IMPLEMENTATION_CLASS_ITEM:
                if not self.implementation_class_uid:
                    self.implementation_class_uid = uid_of(item.body)
            elif item.kind == IMPLEMENTATION_VERSION_ITEM:
                if not self.implementation_version_name:
                    self.implementation_version_name = text_of(item.body.at, left(&item.body))
            elif item.kind == ASYNC_OPS_ITEM:
                if self.async_ops is None:
                    self.async_ops = (read_be16(&item.body), read_be16(&item.body))
            elif item.kind == ROLE_ITEM:
                uid = counted_uid(&item.body)
                self.roles[uid] = (read_u8(&item.body) != 0, read_u8(&item.body) != 0)
            elif item.kind == EXTENDED_ITEM:
                uid = counted_uid(&item.body)
                self.extended[uid] = rest(&item.body)
            else:
                self._read_negotiation(&item)
            reader.whole(&item)
        return 0


@cython.final
cdef class Request(_Terms):
    """A decoded A-ASSOCIATE-RQ."""

    cdef readonly str called_ae_title
    cdef readonly str calling_ae_title
    cdef readonly list contexts
    cdef readonly dict common_extended
    cdef readonly object user_identity
    cdef uint8_t[64] echo  # bytes 10 to 73 as they came: the answer repeats them

    cdef int _read_context(self, Reader reader, Item* item, set ids) except -1:
        cdef Item part
        cdef str abstract = ""
        cdef list transfer = []
        cdef int ident = self._context_id(reader, item, ids)
        take(&item.body, 3)
        reader.whole(item)
        while reader.next(&item.body, &part):
            if part.kind == TRANSFER_SYNTAX_ITEM:
                transfer.append(uid_of(part.body))
            elif part.kind == ABSTRACT_SYNTAX_ITEM and not abstract:
                abstract = uid_of(part.body)
        self.contexts.append((ident, abstract, tuple(transfer)))
        return 0

    cdef int _read_negotiation(self, Item* item) except -1:
        cdef Cursor body = item.body
        cdef Cursor classes
        cdef str uid, service
        cdef list related = []
        cdef int kind, wanted
        cdef bytes primary
        if item.kind == COMMON_EXTENDED_ITEM:
            uid = counted_uid(&body)
            service = counted_uid(&body)
            classes = take_part(&body, read_be16(&body))
            while left(&classes):
                related.append(counted_uid(&classes))
            self.common_extended[uid] = CommonExtended(service, tuple(related))
            body.torn |= classes.torn
        elif item.kind == USER_IDENTITY_RQ_ITEM and self.user_identity is None:
            kind = read_u8(&body)
            wanted = read_u8(&body)
            primary = counted(&body)
            secondary = counted(&body) if left(&body) else b""
            self.user_identity = UserIdentity(kind, wanted != 0, primary, secondary)
        item.body.torn = body.torn
        return 0


@cython.final
cdef class Accept(_Terms):
    """A decoded A-ASSOCIATE-AC."""

    cdef readonly dict results
    cdef readonly bytes identity_response

    cdef int _read_context(self, Reader reader, Item* item, set ids) except -1:
        cdef Item part
        cdef str transfer = ""
        cdef int ident = self._context_id(reader, item, ids)
        cdef int result
        take(&item.body, 1)
        result = read_u8(&item.body)
        take(&item.body, 1)
        reader.whole(item)
        while reader.next(&item.body, &part):
            if part.kind == TRANSFER_SYNTAX_ITEM and not transfer:
                transfer = uid_of(part.body)
        if result == ACCEPTED and not transfer:
            raise MalformedError(f"context {ident} accepted without a transfer syntax", offset=item.offset)
        self.results[ident] = (result, transfer)
        return 0

    cdef int _read_negotiation(self, Item* item) except -1:
        if item.kind == USER_IDENTITY_AC_ITEM and self.identity_response is None:
            self.identity_response = counted(&item.body)
        return 0


def decode_request(pdu):
    """Decode a whole A-ASSOCIATE-RQ, header included (PS3.8 9.3.2)."""
    cdef Reader reader = Reader()
    cdef Cursor c = reader.start(pdu, ASSOCIATE_RQ, FIXED - HEADER)
    cdef const uint8_t* fixed = c.at - HEADER
    cdef Request request = Request.__new__(Request)
    memcpy(request.echo, fixed + TITLES, FIXED - TITLES)
    request.called_ae_title = text_of(fixed + TITLES, 16)
    request.calling_ae_title = text_of(fixed + TITLES + 16, 16)
    request.contexts = []
    request.common_extended = {}
    request._context_kind = CONTEXT_RQ_ITEM
    request._read(reader, c)
    return request


def decode_accept(pdu):
    """Decode a whole A-ASSOCIATE-AC, header included (PS3.8 9.3.3)."""
    cdef Reader reader = Reader()
    cdef Cursor c = reader.start(pdu, ASSOCIATE_AC, FIXED - HEADER)
    cdef Accept accept = Accept.__new__(Accept)
    accept.results = {}
    accept._context_kind = CONTEXT_AC_ITEM
    accept._read(reader, c)
    return accept


def decode_reject(pdu):
    """Decode an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    cdef Reader reader = Reader()
    cdef Cursor c = reader.start(pdu, ASSOCIATE_RJ, 4)
    return Rejection(c.at[1], c.at[2], c.at[3])


def decode_abort(pdu):
    """Decode an A-ABORT (PS3.8 9.3.8)."""
    cdef Reader reader = Reader()
    cdef Cursor c = reader.start(pdu, ABORT, 4)
    return Abort(c.at[2], c.at[3])


def negotiate(_Supported supported not None, Request request not None):
    """Answer the presentation contexts and roles of a request (PS3.8 9.3.3.2, PS3.7 D.3.3.4)."""
    return answer(supported, request.contexts, request.roles)


# ---- encoding ----

cdef int _tell(
    Writer w,
    object maximum_length,
    object class_uid,
    object version_name,
    object async_ops,
    object roles,
    object extended,
) except -1:
    """The sub-items of the user information that both sides send, by ascending type."""
    cdef size_t item = w.open(MAXIMUM_LENGTH_ITEM)
    w.u32(checked_number(maximum_length, 0xFFFFFFFF, "maximum length"))
    w.close(item)
    w.uid_item(IMPLEMENTATION_CLASS_ITEM, str(class_uid))
    if async_ops is not None:
        item = w.open(ASYNC_OPS_ITEM)
        invoked, performed = async_ops
        w.u16(<uint16_t>checked_number(invoked, 0xFFFF, "operations invoked"))
        w.u16(<uint16_t>checked_number(performed, 0xFFFF, "operations performed"))
        w.close(item)
    for uid, (scu, scp) in dict(roles).items():
        item = w.open(ROLE_ITEM)
        w.counted_uid(str(uid))
        w.u8(bool(scu))
        w.u8(bool(scp))
        w.close(item)
    version = checked_text(str(version_name), "implementation version name", True)
    if version:
        item = w.open(IMPLEMENTATION_VERSION_ITEM)
        w.raw(version)
        w.close(item)
    for uid, information in dict(extended).items():
        item = w.open(EXTENDED_ITEM)
        w.counted_uid(str(uid))
        w.raw(bytes(information))
        w.close(item)
    return 0


def encode_accept(
    Request request not None,
    _Negotiated negotiated not None,
    *,
    maximum_length,
    implementation_class_uid,
    implementation_version_name,
    async_ops=None,
    extended=(),
    identity_response=None,
):
    """Encode the A-ASSOCIATE-AC that answers a request (PS3.8 9.3.3)."""
    cdef Writer w = Writer()
    cdef size_t item, information
    cdef str syntax
    cdef int i
    cdef uint8_t c
    w.begin(ASSOCIATE_AC)
    w.u16(1)
    w.u16(0)
    for i in range(FIXED - TITLES):  # the titles and what is behind them go back as they came (table 9-17)
        c = request.echo[i]
        w.u8(c if i >= 32 or printable(c) else c" ")
    w.uid_item(APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT_NAME)
    for ident, _, result, syntax, _, _ in negotiated.results:
        item = w.open(CONTEXT_AC_ITEM)
        w.u8(ident)
        w.u8(0)
        w.u8(result)
        w.u8(0)
        # Of a refused context it means nothing, but has to be there (table 9-18).
        w.uid_item(TRANSFER_SYNTAX_ITEM, syntax if result == ACCEPTED or is_uid(syntax) else IMPLICIT_LITTLE)
        w.close(item)
    information = w.open(USER_INFORMATION_ITEM)
    _tell(
        w,
        maximum_length,
        implementation_class_uid,
        implementation_version_name,
        async_ops if request.windowed else None,
        negotiated.roles,
        extended,
    )
    identity = request.user_identity
    if identity_response is not None and identity is not None and identity.response_requested:
        item = w.open(USER_IDENTITY_AC_ITEM)
        w.counted(bytes(identity_response))
        w.close(item)
    w.close(information)
    return w.finish()


def encode_reject(result, source, reason):
    """Encode an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    if result not in (1, 2) or source not in (1, 2, 3) or not 0 <= reason <= 255:
        raise ValueError(f"no A-ASSOCIATE-RJ says {result}/{source}/{reason}")
    return bytes((ASSOCIATE_RJ, 0, 0, 0, 0, 4, 0, result, source, reason))


def encode_abort(source, reason):
    """Encode an A-ABORT (PS3.8 9.3.8)."""
    if source not in (0, 2) or not 0 <= reason <= 6:
        raise ValueError(f"no A-ABORT says {source}/{reason}")
    return bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, source, reason if source else 0))


cdef bytes _checked_title(str title, str what):
    """16 bytes, without what the VR AE excludes (PS3.5 6.2): control characters and the backslash."""
    if "\\" in title:
        raise ValueError(f"{what}: a backslash in {title!r}")
    return checked_text(title, what, False).ljust(16)


def encode_request(
    *,
    called_ae_title,
    calling_ae_title,
    contexts,
    maximum_length,
    implementation_class_uid,
    implementation_version_name,
    roles=(),
    async_ops=None,
    extended=(),
    common_extended=(),
    user_identity=None,
):
    """Encode an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    cdef Writer w = Writer()
    cdef size_t item, information
    cdef set ids = set()
    w.begin(ASSOCIATE_RQ)
    w.u16(1)
    w.u16(0)
    w.raw(_checked_title(str(called_ae_title), "called AE title"))
    w.raw(_checked_title(str(calling_ae_title), "calling AE title"))
    w.raw(bytes(32))
    w.uid_item(APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT_NAME)
    for ident, abstract, syntaxes in contexts:
        if not 0 < ident < 256 or ident % 2 == 0 or ident in ids:
            raise ValueError(f"presentation context IDs are odd, 1 to 255, each used once: {ident}")
        ids.add(ident)
        item = w.open(CONTEXT_RQ_ITEM)
        w.u8(ident)
        w.raw(bytes(3))
        w.uid_item(ABSTRACT_SYNTAX_ITEM, str(abstract))
        if not syntaxes:
            raise ValueError(f"context {ident} without a transfer syntax")
        for syntax in syntaxes:
            w.uid_item(TRANSFER_SYNTAX_ITEM, str(syntax))
        w.close(item)
    if not ids:
        raise ValueError("a request has at least one presentation context")
    information = w.open(USER_INFORMATION_ITEM)
    _tell(
        w, maximum_length, implementation_class_uid, implementation_version_name, async_ops, roles, extended
    )
    for uid, (service, related) in dict(common_extended).items():
        item = w.open(COMMON_EXTENDED_ITEM)
        w.counted_uid(str(uid))
        w.counted_uid(str(service))
        size = sum([2 + len(other) for other in related])
        w.u16(<uint16_t>checked_number(size, 0xFFFF, "length of a field"))
        for other in related:
            w.counted_uid(str(other))
        w.close(item)
    if user_identity is not None:
        kind, wanted, primary, secondary = user_identity
        item = w.open(USER_IDENTITY_RQ_ITEM)
        w.u8(<uint8_t>checked_number(kind, 0xFF, "user identity type"))
        w.u8(bool(wanted))
        w.counted(bytes(primary))
        w.counted(bytes(secondary))
        w.close(item)
    w.close(information)
    return w.finish()
