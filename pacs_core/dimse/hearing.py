"""Which events of an association anybody wants to hear of: found once for a server, not for each of them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from pynetdicom import evt
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)

_PYNETDICOM_LOGGER = logging.getLogger("pynetdicom._handlers")

_PDU_EVENTS = (
    evt.EVT_DATA_RECV, evt.EVT_DATA_SENT, evt.EVT_PDU_RECV, evt.EVT_PDU_SENT, evt.EVT_FSM_TRANSITION,
)  # fmt: skip
# pynetdicom's own handlers do nothing but log: not heard where nothing is logged.
_ONLY_LOGGING = {
    standard_dimse_recv_handler: logging.INFO,
    standard_dimse_sent_handler: logging.INFO,
    standard_pdu_recv_handler: logging.DEBUG,
    standard_pdu_sent_handler: logging.DEBUG,
}


class Hearing(NamedTuple):
    """What the handlers of an association come to.

    Attributes
    ----------
    events : frozenset
        Notification events that somebody wants.
    trace : bool
        Whether somebody wants every PDU.
    plain_echo : bool
        Whether nobody but the peer wants to know of a C-ECHO.
    """

    events: frozenset[Any]
    trace: bool
    plain_echo: bool


DEAF = Hearing(frozenset(), False, True)


def hearing_of(handlers: dict[Any, Any]) -> Hearing:
    """What pynetdicom's `handlers`, by event, come to."""
    events = frozenset(
        event
        for event, bound in list(handlers.items())
        if event.is_notification and any(_is_heard(handler) for handler, _ in bound)
    )
    return Hearing(
        events,
        trace=any(event in events for event in _PDU_EVENTS),
        plain_echo=not (
            evt.EVT_DIMSE_RECV in events
            or evt.EVT_DIMSE_SENT in events
            or intervenes(handlers, evt.EVT_C_ECHO)
        ),
    )


def talk() -> tuple[bool, ...]:
    """What pynetdicom's own handlers would log now: if it changes, so does what is heard."""
    return tuple(_PYNETDICOM_LOGGER.isEnabledFor(level) for level in (logging.DEBUG, logging.INFO))


def intervenes(handlers: dict[Any, Any], event: Any) -> bool:
    """Whether somebody bound an intervention event in place of pynetdicom's default."""
    bound = handlers.get(event)
    return bound is not None and bound[0] is not evt.get_default_handler(event)


def _is_heard(handler: Any) -> bool:
    level = _ONLY_LOGGING.get(handler)
    return level is None or _PYNETDICOM_LOGGER.isEnabledFor(level)
