"""What command sets say (PS3.7 E.1), and those of the N-services' messages (PS3.7 10.1, 10.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

RESPONSE = 0x8000
"""What the command field of a response has beside that of its request (PS3.7 E.1)."""
NO_DATA_SET = 0x0101
"""Command Data Set Type (0000,0800) of a message without one (PS3.7 E.1)."""
_DATA_SET = 0x0001

Elements = dict[int, int | str | Sequence[int] | None]
"""A command set by element number, as `_ext.command.encode` takes it."""


class Operation(IntEnum):
    """The command field of a request (PS3.7 E.1)."""

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

    def request(
        self,
        message_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        type_id: int | None = None,
        attributes: Iterable[int] = (),
        has_data_set: bool,
    ) -> Elements:
        """A request; an N-CREATE without an instance leaves that to the peer.

        Parameters
        ----------
        type_id
            Event or Action Type ID.
        attributes
            Attribute Identifier List.
        """
        affected = self.is_of_affected
        return {
            0x0002 if affected else 0x0003: sop_class_uid,
            0x0100: self,
            0x0110: message_id,
            0x0800: _DATA_SET if has_data_set else NO_DATA_SET,
            0x1000 if affected else 0x1001: (sop_instance_uid or None) if affected else sop_instance_uid,
            0x1005: tuple(attributes) or None,
            **self._type(type_id),
        }

    def response(
        self,
        message_id: int | None,
        status: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        type_id: int | None = None,
        has_data_set: bool = False,
    ) -> Elements:
        """The response to the request of that message ID."""
        return {
            0x0002: sop_class_uid,
            0x0100: self | RESPONSE,
            0x0120: message_id,
            0x0800: _DATA_SET if has_data_set else NO_DATA_SET,
            0x0900: status,
            0x1000: sop_instance_uid or None,
            **self._type(type_id),
        }

    def _type(self, type_id: int | None) -> Elements:
        return {} if self.type_element is None else {self.type_element: type_id}

    def __str__(self) -> str:
        return self.name.replace("_", "-")
