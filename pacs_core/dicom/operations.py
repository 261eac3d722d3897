"""The operations of the N-services (PS3.7 10.1): how their messages say what they are about."""

from __future__ import annotations

from enum import IntEnum


class Operation(IntEnum):
    """The command field of a request (PS3.7 E.1); a response's is 8000H more."""

    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150

    @property
    def is_of_affected(self) -> bool:
        """Whether a request names an Affected SOP Class and Instance, not Requested ones."""
        return self in (Operation.N_EVENT_REPORT, Operation.N_CREATE)

    @property
    def type_element(self) -> int | None:
        """The element of Event or Action Type ID, None if it has no types."""
        return {Operation.N_EVENT_REPORT: 0x1002, Operation.N_ACTION: 0x1008}.get(self)

    def __str__(self) -> str:
        return self.name.replace("_", "-")
