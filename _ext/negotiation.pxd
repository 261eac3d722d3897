"""Negotiation of presentation contexts by the acceptor (PS3.8 9.3.3.2, PS3.7 D.3.3.4)."""

cimport cython

cdef enum:  # result of a presentation context (PS3.8 table 9-18)
    ACCEPTED = 0
    USER_REJECTION = 1
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@cython.final
cdef class Offer:  # what is supported of one abstract syntax
    cdef tuple syntaxes
    cdef frozenset known
    cdef bint any_syntax
    cdef bint has_roles  # takes part in role selection
    cdef bint scu        # what of it the requestor may be
    cdef bint scp

    cdef str choose(self, tuple proposed, bint prefer_ours)


@cython.final
cdef class Supported:
    cdef dict offers     # by abstract syntax
    cdef Offer storage   # for storage classes not listed; None: they are refused
    cdef readonly bint prefer_ours


@cython.final
cdef class Negotiated:
    cdef readonly list results
    cdef readonly dict roles


# contexts and roles as Request has them
cdef Negotiated answer(Supported supported, list contexts, dict roles)
