"""The N-services on the wire: a native handler gets what was asked, and its answer reaches the peer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset as Foreign
from pynetdicom import AE
from rawpeer import serving

import pacs_core
from pacs_core import errors
from pacs_core.client.operations import Outcome, perform
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Operation
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT
from pacs_core.dimse import normalized
from pacs_core.dimse.normalized import NormalizedRequest, Reply

MPPS = "1.2.840.10008.3.1.2.3.3"
RETRIEVE = "1.2.840.10008.3.1.2.3.4"
OTHER = "1.2.840.10008.1.20.1"
IMPLICIT = "1.2.840.10008.1.2"


class Handler:
    """Answers what it is told to, and keeps what it was asked."""

    sop_classes = frozenset({MPPS, RETRIEVE})

    def __init__(self) -> None:
        self.asked: list[tuple[NormalizedRequest, Dataset]] = []
        self.then = threading.Event()
        self.answer: Reply | Exception = Reply()

    def perform(self, request: NormalizedRequest, dataset: Dataset) -> Reply:
        self.asked.append((request, dataset))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def server(handler: Handler) -> Iterator[Any]:
    entity = AE("PACSCORE")
    for sop_class in (MPPS, RETRIEVE, OTHER):
        entity.add_supported_context(sop_class, [IMPLICIT])
    with serving(entity, operations=[handler]) as server:
        yield server


def ask(server: Any, operation: Operation, *arguments: Any, context: str = MPPS, **options: Any) -> Outcome:
    client = pacs_core.Client("127.0.0.1", server.server_address[1], aec="PACSCORE", aet="CT1")
    with client.associate([(context, [IMPLICIT])]) as association:
        return perform(association, operation, *arguments, name="MPPS", **options)


@pytest.mark.parametrize("operation", [one for one in Operation if one is not Operation.N_DELETE], ids=str)
def test_a_handler_gets_what_was_asked_and_the_peer_its_answer(
    server: Any, handler: Handler, operation: Operation
) -> None:
    handler.answer = Reply(Dataset({"PatientID": "Z9"}), then=handler.then.set)
    outcome = ask(
        server, operation, MPPS, "1.2.3", Dataset({"PatientID": "P1"}), type_id=1, attributes=[0x00100020]
    )
    [(request, dataset)] = handler.asked
    assert (request.operation, request.sop_class_uid, request.sop_instance_uid) == (operation, MPPS, "1.2.3")
    assert request.calling_ae_title == "CT1"
    assert request.type_id == (None if operation.type_element is None else 1)
    assert request.attributes == (0x00100020,)
    assert dataset.PatientID == "P1"
    assert outcome.answer.status == 0
    assert outcome.dataset.PatientID == "Z9"
    assert outcome.sop_instance_uid == "1.2.3"
    assert handler.then.wait(5)


def test_an_answer_that_the_transfer_syntax_can_not_say_is_a_failure(server: Any, handler: Handler) -> None:
    """The association goes on."""
    fragments = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    handler.answer = Reply(read_dataset(fragments, EXPLICIT))
    client = pacs_core.Client("127.0.0.1", server.server_address[1], aec="PACSCORE", aet="CT1")
    with client.associate([(MPPS, [IMPLICIT])]) as association:
        with pytest.raises(errors.RefusedError, match="0110H"):
            perform(association, Operation.N_GET, MPPS, "1.2.3", name="MPPS")
        assert association.is_open


def test_what_was_refused_is_not_logged(
    server: Any, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a patient's name."""
    said: list[str] = []

    class Log:
        def warning(self, event: str, **about: object) -> None:
            said.append(f"{event} {about}")

    monkeypatch.setattr(normalized, "log", Log())
    handler.answer = errors.InvalidValueError("no name", value="Doe^Jane", tag=0x00100010)
    with pytest.raises(errors.RefusedError, match="0106H"):
        ask(server, Operation.N_SET, MPPS, "1.2.3", Dataset())
    assert len(said) == 1
    assert "no name [tag (0010,0010)]" in said[0]
    assert "Doe" not in said[0]


def test_the_handler_may_choose_the_instance(server: Any, handler: Handler) -> None:
    handler.answer = Reply(sop_instance_uid="1.2.99")
    assert ask(server, Operation.N_CREATE, MPPS, "").sop_instance_uid == "1.2.99"
    assert handler.asked[0][0].sop_instance_uid == ""


def test_the_class_of_the_context_may_be_another_one_of_the_same_handler(
    server: Any, handler: Handler
) -> None:
    entity = AE("CT1")
    entity.add_requested_context(RETRIEVE, [IMPLICIT])
    assoc = entity.associate("127.0.0.1", server.server_address[1])
    handler.answer = Reply(Dataset({"PatientID": "Z9"}))
    status, dataset = assoc.send_n_get([0x00100020], MPPS, "1.2.3", meta_uid=RETRIEVE)
    assoc.release()
    assert status.Status == 0
    assert dataset.PatientID == "Z9"


@pytest.mark.parametrize(
    ("error", "status", "error_id"),
    [
        (errors.MissingAttributeError("Modality is missing", tag=0x00080060), 0x0120, None),
        (errors.WrongStateError("it is COMPLETED"), 0x0110, 0xA710),
        (errors.OutOfResourcesError("full"), 0x0213, None),
        (ZeroDivisionError("a name of a patient"), 0x0110, None),
    ],
)
def test_what_a_handler_raises_is_answered(
    server: Any, handler: Handler, error: Exception, status: int, error_id: int | None
) -> None:
    entity = AE("CT1")
    entity.add_requested_context(MPPS, [IMPLICIT])
    assoc = entity.associate("127.0.0.1", server.server_address[1])
    handler.answer = error
    changes = Foreign()
    changes.PatientID = "P1"
    answer, _ = assoc.send_n_set(changes, MPPS, "1.2.3")
    assert answer.Status == status
    assert answer.get("ErrorID") == error_id
    assert "patient" not in answer.ErrorComment
    if isinstance(error, errors.MissingAttributeError):
        assert answer.AttributeIdentifierList == 0x00080060
    handler.answer = Reply()
    assert assoc.send_n_set(changes, MPPS, "1.2.3")[0].Status == 0
    assoc.release()


def test_our_client_says_what_a_peer_refused(server: Any, handler: Handler) -> None:
    handler.answer = errors.NotFoundError("no such step")
    with pytest.raises(errors.RefusedError, match="0112H, no such SOP instance: no such step"):
        ask(server, Operation.N_SET, MPPS, "1.2.3", Dataset())


def test_other_classes_are_left_to_handlers_of_events(server: Any, handler: Handler) -> None:
    with pytest.raises(errors.RefusedError):
        ask(server, Operation.N_ACTION, OTHER, "1.2.3", Dataset(), type_id=1, context=OTHER)
    assert handler.asked == []
