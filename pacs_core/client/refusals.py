"""How a peer says no to an association, in the words of PS3.8."""

from __future__ import annotations

# PS3.8 9.3.4, tables 9-21
_RESULTS = {1: "rejected-permanent", 2: "rejected-transient"}
_SOURCES = {
    1: "service-user",
    2: "service-provider (ACSE related function)",
    3: "service-provider (presentation related function)",
}
_REASONS = {
    (1, 1): "no-reason-given",
    (1, 2): "application-context-name-not-supported",
    (1, 3): "calling-AE-title-not-recognized",
    (1, 7): "called-AE-title-not-recognized",
    (2, 1): "no-reason-given",
    (2, 2): "protocol-version-not-supported",
    (3, 1): "temporary-congestion",
    (3, 2): "local-limit-exceeded",
}
# PS3.8 9.3.8, table 9-26
_ABORT_REASONS = {
    0: "reason-not-specified",
    1: "unrecognized-PDU",
    2: "unexpected-PDU",
    4: "unrecognized-PDU parameter",
    5: "unexpected-PDU parameter",
    6: "invalid-PDU-parameter value",
}
# PS3.8 9.3.3.2, table 9-18
CONTEXT_RESULTS = {
    1: "user-rejection",
    2: "no-reason (provider rejection)",
    3: "abstract-syntax-not-supported",
    4: "transfer-syntaxes-not-supported",
}


def rejection_words(result: int, source: int, reason: int) -> str:
    """An A-ASSOCIATE-RJ in the words of PS3.8 9.3.4, and its numbers."""
    return (
        f"{_RESULTS.get(result, 'unknown result')}, {_REASONS.get((source, reason), 'unknown reason')}, "
        f"by the {_SOURCES.get(source, 'unknown source')} [{result}/{source}/{reason}]"
    )


def abort_words(source: int, reason: int) -> str:
    """An A-ABORT in the words of PS3.8 9.3.8; only a provider has a reason."""
    if source == 0:
        return "by the service-user"
    words = _ABORT_REASONS.get(reason, f"reason {reason}")
    return f"by the service-provider, {words}" if source == 2 else f"source {source}, {words}"
