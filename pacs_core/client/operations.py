"""One request of an N-service and its response (PS3.7 10.1, 10.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pacs_core._ext import pdu
from pacs_core._ext.command import encode
from pacs_core.client.association import Answer, Association
from pacs_core.client.statuses import is_failure, refusal
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import RESPONSE, Operation
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import UnparsableError

_LARGEST = 1 << 26  # bytes that a data set may inflate to


class Outcome(NamedTuple):
    """A response.

    Attributes
    ----------
    answer : Answer
        Its status and what the peer says about it.
    sop_instance_uid : str
        The instance concerned: of an N-CREATE that left it open, what the peer chose.
    dataset : Dataset
        Empty if the response has none.
    error_id : int | None
        Error ID, where the status leaves something unsaid.
    """

    answer: Answer
    sop_instance_uid: str
    dataset: Dataset
    error_id: int | None


def perform(
    association: Association,
    operation: Operation,
    sop_class_uid: str,
    sop_instance_uid: str,
    dataset: Dataset | None = None,
    *,
    name: str,
    type_id: int | None = None,
    attributes: Iterable[int] = (),
) -> Outcome:
    """Send a request, and wait for its response.

    Parameters
    ----------
    sop_instance_uid
        Of the instance; empty: the peer is to choose one (N-CREATE).
    name
        Of the SOP class, for people.
    type_id
        Action or Event Type ID.
    attributes
        The tags that an N-GET asks for; none: all.

    Raises
    ------
    AssociationError
        The SOP class is not accepted, the association is lost, or the peer does what it must not.
    RefusedError
        The response is neither success nor a warning.
    """
    context_id, syntax = association.context_of(sop_class_uid, name)
    message_id = association.next_id()
    request = operation.request(
        *(message_id, sop_class_uid, sop_instance_uid),
        type_id=type_id,
        attributes=attributes,
        has_data_set=dataset is not None,
    )
    data = None if dataset is None else dataset.to_bytes(syntax)
    association.send(context_id, encode(request), data)
    event = association.receive()
    command = event.command
    assert command is not None
    if (
        command.command_field != operation | RESPONSE
        or command.message_id_being_responded_to != message_id
        or event.kind == pdu.CHUNK
    ):
        what = f"a message of type {command.command_field:04X}H"
        association.misbehaved(f"{what} instead of the response to message {message_id}")
    answer = association.answer_of(command)
    if is_failure(answer.status):
        raise refusal(association.remote, answer.status, answer.comment)
    try:
        found = read_dataset(bytes(event.data or b""), syntax, inflate_limit=_LARGEST)
    except UnparsableError as exc:
        association.misbehaved(f"a data set that can't be understood: {exc}")
    return Outcome(answer, command.affected_sop_instance_uid or sop_instance_uid, found, command.error_id)
