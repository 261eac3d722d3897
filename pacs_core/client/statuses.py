"""What the status of a response says (PS3.7 Annex C, PS3.4 B.2.3 and C.4)."""

from __future__ import annotations

from pacs_core.errors import RefusedError

SUCCESS = 0x0000
PENDING = frozenset({0xFF00, 0xFF01})
CANCELLED = 0xFE00
PROCESSING_FAILURE = 0x0110

_WORDS = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xA701: "unable to calculate the number of matches",
    0xA702: "unable to perform sub-operations",
    0xA801: "move destination unknown",
    0xB000: "some sub-operations failed or warned",
    0xFE00: "cancelled",
}
# By their first digits: of the rest the standard leaves some to those who answer.
_FAMILIES = (
    (8, 0xA7, "out of resources"),
    (8, 0xA9, "data set does not match SOP class"),
    (12, 0xC, "cannot understand or process"),
)


def is_warning(status: int) -> bool:
    """Whether it is done, and there is something to say about it."""
    return 0xB000 <= status <= 0xBFFF


def is_failure(status: int) -> bool:
    """Whether it is neither success nor a warning."""
    return status != SUCCESS and not is_warning(status)


def status_words(status: int) -> str:
    """A status in words."""
    if status in _WORDS:
        return _WORDS[status]
    return next(
        (words for shift, digits, words in _FAMILIES if status >> shift == digits), "an unknown status"
    )


def refusal(remote: object, status: int, comment: str) -> RefusedError:
    """The error that a status of failure is."""
    said = f": {comment}" if comment else ""
    return RefusedError(f"{remote} answered {status:04X}H, {status_words(status)}{said}")
