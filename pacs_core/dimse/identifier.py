"""What C-FIND, C-GET and C-MOVE have in common: request, information model, level, unique keys.

PS3.4 C.3 (information models), C.4 (services), C.6 (SOP classes).
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset, Element
from pacs_core.dicom.query import MODELS, QUERY_RETRIEVE_LEVEL, Model, Negotiated
from pacs_core.dicom.reading import read_dataset
from pacs_core.dimse.status import comment_of, status_of
from pacs_core.errors import IdentifierError, OutOfResourcesError, PacsError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from pacs_core._ext.pdu import Event
    from pacs_core.dimse.association import Association

LOGGER = logging.getLogger("pacs_core.dimse")
_LARGEST = 1 << 24  # bytes that an identifier may inflate to
_MOST_VALUES = 1 << 16  # of all its elements together
_BINARY = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})

FIND = {model.find: model for model in MODELS}
MOVE = {model.move: model for model in MODELS}
GET = {model.get: model for model in MODELS}
"""The information model of each SOP class, by operation."""
_FIND_DOES = Negotiated(relational=True, combined=True, fuzzy=True, empty=True, multiple=True).information
_RETRIEVE_DOES = Negotiated(relational=True).information
FIND_CLASSES = frozenset(FIND)
RETRIEVE_CLASSES = frozenset(MOVE | GET)


class QueryRequest(NamedTuple):
    """One C-FIND, C-GET or C-MOVE request, as a handler sees it."""

    command_field: int
    message_id: int
    sop_class_uid: str
    transfer_syntax_uid: str
    priority: int
    move_destination: str
    extended: bytes
    """What was agreed to by extended negotiation, as `agreed` has it."""
    calling_ae_title: str
    called_ae_title: str
    address: str

    @property
    def relational(self) -> bool:
        """Whether unique keys above the level may be left out."""
        return self.extended[:1] == b"\1"


def agreed(assoc: Association, asked: Mapping[str, bytes]) -> dict[str, bytes]:
    """What we agree to of a SOP Class Extended Negotiation (C.5.1.1, C.5.2.1, C.5.3.1), by SOP class.

    As many bytes as were asked, 1 for what was asked for and we do.
    """
    served = (
        (FIND_CLASSES & assoc.wire.queries.keys(), _FIND_DOES),
        (RETRIEVE_CLASSES if assoc.wire.retrievals is not None else frozenset(), _RETRIEVE_DOES),
    )
    return {
        sop_class: bytes(
            one == done == 1
            for one, done in zip(information, does.ljust(len(information), b"\0"), strict=False)
        )
        for classes, does in served
        for sop_class, information in asked.items()
        if sop_class in classes and information
    }


def is_native(assoc: Association, event: Event, command_field: int, sop_classes: Container[str]) -> bool:
    """Whether a request is one of that operation, on a context of one of these SOP classes."""
    command = event.command
    return (
        command is not None
        and command.command_field == command_field
        and command.message_id is not None
        and command.affected_sop_class_uid in sop_classes
        and assoc.abstract_syntax(event.context_id) == command.affected_sop_class_uid
    )


def request_of(assoc: Association, event: Event) -> QueryRequest:
    """The request in a handler's terms."""
    command = event.command
    assert command is not None
    return QueryRequest(
        command.command_field,
        command.message_id or 0,
        command.affected_sop_class_uid,
        assoc.transfer_syntaxes[event.context_id],
        command.priority or 0,
        command.move_destination.strip(),
        assoc.extended.get(command.affected_sop_class_uid, b""),
        assoc.calling_ae_title,
        assoc.called_ae_title,
        assoc.peer_address,
    )


def data_set_of(assoc: Association, event: Event, body: Any) -> Dataset:
    """The data set of a request, empty if it has none; UnparsableError if it inflates without end."""
    syntax = assoc.transfer_syntaxes[event.context_id]
    return read_dataset(bytes(body or b""), syntax, inflate_limit=_LARGEST)


def identifier_of(assoc: Association, event: Event, body: Any) -> Dataset:
    """The identifier of a request.

    Raises
    ------
    IdentifierError
        There is none.
    UnparsableError
        It inflates without end.
    OutOfResourcesError
        It has more values than anybody asks for: each costs a kilobyte while a search is prepared.
    """
    assert event.command is not None
    if not event.command.has_data_set:
        raise IdentifierError("a request without an identifier")
    found = data_set_of(assoc, event, body)
    if sum(map(_most_values, found.walk())) > _MOST_VALUES:
        raise OutOfResourcesError(f"an identifier of more than {_MOST_VALUES} values")
    return found


def _most_values(element: Element) -> int:
    """How many values an element has at most."""
    if element.vr == "SQ":
        return 1
    return 1 + ((element.length or 0) // 2 if element.vr in _BINARY else bytes(element.raw).count(b"\\"))


def level_of(identifier: Dataset, model: Model) -> Level:
    """Query/Retrieve Level; IdentifierError if it is none of those that the model has (C.6.1, C.6.2)."""
    level = Level.__members__.get(str(identifier.get(QUERY_RETRIEVE_LEVEL, "")))
    if level is None or not model.top <= level <= model.bottom:
        raise IdentifierError("no such Query/Retrieve Level in this model", tag=QUERY_RETRIEVE_LEVEL)
    return level


def keys_of(identifier: Dataset) -> dict[int, str]:
    """The identifier's UIDs and Patient ID, as text; several are joined by backslashes."""
    return {
        element.tag: "\\".join(element.values)
        for element in identifier
        if element.vr == "UI" or element.keyword == "PatientID"
    }


def refusal(exc: Exception, log: FilteringBoundLogger) -> tuple[int, str]:
    """Status and Error Comment for a request that failed as a whole, and its line in the log."""
    if isinstance(exc, PacsError):
        log.warning("request refused", why=PacsError.__str__(exc))  # not the value: it may be a patient's
    else:
        log.error("request failed", why=type(exc).__name__)
        LOGGER.debug("the failure in full", exc_info=exc)
    return status_of(exc), comment_of(exc)
