# cython: auto_pickle=False
"""Negotiation of presentation contexts by the acceptor (PS3.8 9.3.3.2, PS3.7 D.3.3.4)."""

cimport cython

from pacs_core._ext.items cimport checked_uid, is_uid

# Storage SOP classes live below one root, but for a few; and a few others live there too (PS3.4 B.5, GG.3).
cdef str _STANDARD_ROOT = "1.2.840.10008."
cdef str _STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
cdef frozenset _STORAGE_ELSEWHERE = frozenset((
    "1.2.840.10008.5.1.1.27",     # Stored Print Storage, retired
    "1.2.840.10008.5.1.1.29",     # Hardcopy Grayscale Image Storage, retired
    "1.2.840.10008.5.1.1.30",     # Hardcopy Color Image Storage, retired
    "1.2.840.10008.5.1.4.34.1",   # RT Beams Delivery Instruction Storage - Trial, retired
    "1.2.840.10008.5.1.4.34.7",   # RT Beams Delivery Instruction Storage
    "1.2.840.10008.5.1.4.34.10",  # RT Brachy Application Setup Delivery Instruction Storage
))
cdef frozenset _NOT_STORAGE = frozenset((
    "1.2.840.10008.5.1.4.1.1.200.4",  # Protocol Approval - FIND, MOVE, GET
    "1.2.840.10008.5.1.4.1.1.200.5",
    "1.2.840.10008.5.1.4.1.1.200.6",
    "1.2.840.10008.5.1.4.1.1.201.2",  # Inventory - FIND, MOVE, GET, Creation; Repository Query
    "1.2.840.10008.5.1.4.1.1.201.3",
    "1.2.840.10008.5.1.4.1.1.201.4",
    "1.2.840.10008.5.1.4.1.1.201.5",
    "1.2.840.10008.5.1.4.1.1.201.6",
))


cdef bint _may_be_storage(str abstract) except -1:
    """Whether a SOP class stores instances, or is private and so may."""
    if not is_uid(abstract):
        return False
    if not abstract.startswith(_STANDARD_ROOT) or abstract in _STORAGE_ELSEWHERE:
        return True
    return abstract.startswith(_STORAGE_ROOT) and abstract not in _NOT_STORAGE


@cython.final
cdef class Offer:
    """What is supported of one abstract syntax."""

    cdef str choose(self, tuple proposed, bint prefer_ours):
        """The transfer syntax to accept, '' if there is none."""
        if prefer_ours:
            theirs = proposed if len(proposed) < 16 else frozenset(proposed)
            for syntax in self.syntaxes:
                if syntax in theirs:
                    return <str>syntax
        for syntax in proposed:
            if syntax in self.known or (self.any_syntax and is_uid(syntax)):
                return <str>syntax
        return ""


@cython.final
cdef class Supported:
    """What an acceptor supports, by abstract syntax; built once and shared by all associations."""

    def __init__(
        self,
        contexts,
        *,
        prefer_ours=False,
        accept_unknown_storage=False,
        accept_unknown_transfer_syntaxes=False,
    ):
        cdef Offer offer
        cdef str abstract
        cdef bint any_syntax = accept_unknown_transfer_syntaxes
        everything = {}
        self.offers = {}
        self.prefer_ours = prefer_ours
        for uid, syntaxes, scu_role, scp_role in contexts:
            abstract = checked_uid(uid, "abstract syntax")
            offer = Offer()
            offer.syntaxes = tuple([checked_uid(syntax, "transfer syntax") for syntax in syntaxes])
            offer.known = frozenset(offer.syntaxes)
            offer.any_syntax = any_syntax and _may_be_storage(abstract)
            offer.has_roles = scu_role is not None and scp_role is not None
            offer.scu = bool(scu_role)
            offer.scp = bool(scp_role)
            self.offers[abstract] = offer
            everything.update(dict.fromkeys(offer.syntaxes))
        if accept_unknown_storage:
            offer = Offer()
            offer.syntaxes = tuple(everything)
            offer.known = frozenset(everything)
            offer.any_syntax = any_syntax
            offer.has_roles = offer.scu = offer.scp = True
            self.storage = offer


@cython.final
cdef class Negotiated:
    """The answer to each presentation context of a request, in its order, and to its role selections."""

    def __init__(self):
        raise TypeError("a Negotiated is made by negotiate()")


cdef Negotiated answer(Supported supported, list contexts, dict roles):
    cdef Negotiated told = Negotiated.__new__(Negotiated)
    cdef Offer offer
    cdef str abstract, syntax
    cdef tuple proposed
    cdef bint scu, scp
    cdef int result
    told.results = []
    told.roles = {}
    for ident, abstract, proposed in contexts:
        offer = supported.offers.get(abstract, supported.storage)
        scu, scp = False, True  # of us, where no roles are selected
        syntax = ""
        if offer is None or (offer is supported.storage and not _may_be_storage(abstract)):
            result = ABSTRACT_SYNTAX_NOT_SUPPORTED
            scp = False
        else:
            syntax = offer.choose(proposed, supported.prefer_ours)
            if not syntax:
                result = TRANSFER_SYNTAXES_NOT_SUPPORTED
                scp = False
            else:
                result = ACCEPTED
                wanted = roles.get(abstract) if offer.has_roles else None
                if wanted is not None:
                    # The requestor becomes what it proposed and we agree to; we are the other side of it.
                    scu = wanted[1] and offer.scp
                    scp = wanted[0] and offer.scu
                    if scu or scp:
                        told.roles[abstract] = (scp, scu)
                    else:
                        result = USER_REJECTION
        if not syntax and proposed:
            syntax = <str>proposed[0]
        told.results.append((ident, abstract, result, syntax, scu, scp))
    return told
