"""DIMSE command sets (PS3.7 6.3.1, Annex E): group 0000 in implicit VR little endian."""

from collections.abc import Mapping, Sequence
from typing import final

from typing_extensions import Buffer

@final
class Command:
    """One command set, received or just encoded.

    `encoded` holds its bytes. Numbers are None when the element is missing or empty; texts are '' then.
    """

    @property
    def encoded(self) -> bytes: ...
    @staticmethod
    def decode(data: Buffer) -> Command:
        """Decode a whole command set.

        Raises UnparsableError, with the byte position, when elements do not fit in the input, are not of
        group 0000, or the two that every command set has (PS3.7 E.1) are missing.
        """

    @property
    def command_field(self) -> int:
        """(0000,0100): which message this is (PS3.7 E.1)."""

    @property
    def is_response(self) -> bool: ...
    @property
    def has_data_set(self) -> bool:
        """(0000,0800) is not 0101H: a data set follows."""

    @property
    def message_id(self) -> int | None: ...
    @property
    def message_id_being_responded_to(self) -> int | None: ...
    @property
    def priority(self) -> int | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error_id(self) -> int | None: ...
    @property
    def event_type_id(self) -> int | None: ...
    @property
    def action_type_id(self) -> int | None: ...
    @property
    def remaining(self) -> int | None:
        """(0000,1020) Number of Remaining Sub-operations."""

    @property
    def completed(self) -> int | None:
        """(0000,1021) Number of Completed Sub-operations."""

    @property
    def failed(self) -> int | None:
        """(0000,1022) Number of Failed Sub-operations."""

    @property
    def warning(self) -> int | None:
        """(0000,1023) Number of Warning Sub-operations."""

    @property
    def move_originator_message_id(self) -> int | None: ...
    @property
    def affected_sop_class_uid(self) -> str: ...
    @property
    def affected_sop_instance_uid(self) -> str: ...
    @property
    def requested_sop_class_uid(self) -> str: ...
    @property
    def requested_sop_instance_uid(self) -> str: ...
    @property
    def move_destination(self) -> str: ...
    @property
    def move_originator_ae_title(self) -> str: ...
    @property
    def error_comment(self) -> str: ...
    @property
    def offending_elements(self) -> tuple[int, ...]:
        """(0000,0901), each as group << 16 | element."""

    @property
    def attribute_identifiers(self) -> tuple[int, ...]:
        """(0000,1005), each as group << 16 | element."""

def encode(elements: Mapping[int, int | str | Sequence[int] | None]) -> bytes:
    """Encode a command set from {element number of group 0000: value}.

    Numbers are int, texts and UIDs str, (0000,0901) and (0000,1005) sequences of tags (group << 16 |
    element). None leaves the element out; the group length is computed. Raises ValueError for an element
    that PS3.7 E.1 does not know or a value out of range.
    """

def encode_echo_rq(message_id: int, sop_class_uid: str = "1.2.840.10008.1.1") -> bytes:
    """C-ECHO-RQ (PS3.7 9.3.5.1)."""

def encode_echo_rsp(message_id: int, sop_class_uid: str = "1.2.840.10008.1.1", status: int = 0) -> bytes:
    """C-ECHO-RSP (PS3.7 9.3.5.2) to the request of that message ID."""

def encode_store_rq(
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    priority: int = 0,
    move_originator_ae_title: str | None = None,
    move_originator_message_id: int | None = None,
) -> bytes:
    """C-STORE-RQ (PS3.7 9.3.1.1); priority 0 medium, 1 high, 2 low. A data set follows."""

def encode_store_rsp(
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    status: int,
    error_comment: str | None = None,
    offending_elements: Sequence[int] = (),
) -> bytes:
    """C-STORE-RSP (PS3.7 9.3.1.2) to the request of that message ID.

    `error_comment` is cut at the 64 characters of an LO; `offending_elements` are tags.
    """

def encode_find_rsp(message_id: int, sop_class_uid: str, status: int, has_data_set: bool) -> bytes:
    """C-FIND-RSP (PS3.7 9.3.2.2) to the request of that message ID."""
