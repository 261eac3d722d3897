"""Association control for an acceptor: admission, negotiation, the answer.

PS3.7 Annex D, PS3.8 9.3.2 to 9.3.4.

This stands in the place of pynetdicom's `ACSE` and triggers the same events. What differs: native decoding,
negotiation and encoding, pynetdicom's objects built only for those who look at them; the standard's reject
triples exactly, an admission hook, limits per peer, storage classes nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.uid import UID
from pynetdicom import _config, acse, evt
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext, negotiate_unrestricted
from pynetdicom.service_class import ServiceClass, StorageServiceClass, VerificationServiceClass
from pynetdicom.sop_class import uid_to_service_class

from pacs_core._ext.associate import (
    APPLICATION_CONTEXT_NAME,
    Request,
    Supported,
    encode_accept,
    negotiate,
)
from pacs_core.dimse.identifier import agreed

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association


class Rejection(NamedTuple):
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4), and for the log what would admit the peer."""

    result: int
    source: int
    reason: int
    hint: str = ""


Admission = Callable[[str, str, str], Rejection | None]
"""Asked with calling AE title, called AE title and the peer's address; None lets the association in."""

UNKNOWN_CONTEXT_NAME = Rejection(1, 1, 2, "the application context name is not DICOM's")
UNKNOWN_CALLING = Rejection(1, 1, 3, "the calling AE title is not one of `require_calling_aet`")
UNKNOWN_CALLED = Rejection(1, 1, 7, "the called AE title is not this server's")
IDENTITY_REFUSED = Rejection(1, 1, 1, "the user identity was not verified")
OLD_PROTOCOL = Rejection(1, 2, 2, "bit 0 of the protocol version is not set")
LIMIT_EXCEEDED = Rejection(2, 3, 2, "the limit of associations is reached")
PEER_LIMIT_EXCEEDED = Rejection(2, 3, 2, "the limit of associations from one address is reached")


class Preferences(NamedTuple):
    """How presentation contexts are chosen.

    Attributes
    ----------
    requestors_order : bool
        Whether of several transfer syntaxes the requestor's first is taken, or ours.
    unknown_storage : bool
        Whether storage SOP classes that are not listed, and private classes, are accepted for storage.
    unknown_transfer_syntaxes : bool
        Whether any transfer syntax is accepted for those.
    """

    requestors_order: bool = False
    unknown_storage: bool = False
    unknown_transfer_syntaxes: bool = False


def supported_by(contexts: Iterable[Any], preferences: Preferences) -> Supported:
    """The native index of pynetdicom's supported presentation contexts."""
    return Supported(
        [
            (str(c.abstract_syntax), [str(t) for t in c.transfer_syntax], c.scu_role, c.scp_role)
            for c in contexts
        ],
        prefer_ours=not preferences.requestors_order,
        accept_unknown_storage=preferences.unknown_storage,
        accept_unknown_transfer_syntaxes=preferences.unknown_transfer_syntaxes,
    )


_PRINTABLE = bytes(c if 0x20 <= c < 0x7F and c != 0x5C else 0x20 for c in range(256))


def request_primitive(encoded: bytes) -> Any:
    """pynetdicom's A-ASSOCIATE primitive of a request, AE titles made presentable (PS3.5 6.2: AE)."""
    titles = [encoded[10:26].translate(_PRINTABLE), encoded[26:42].translate(_PRINTABLE)]
    titles = [title if title.strip() else b"UNKNOWN".ljust(16) for title in titles]
    item = A_ASSOCIATE_RQ()
    item.decode(encoded[:10] + b"".join(titles) + encoded[42:])
    return item.to_primitive()


def accept_primitive(encoded: bytes) -> Any:
    """pynetdicom's A-ASSOCIATE primitive of an answer that accepts."""
    item = A_ASSOCIATE_AC()
    item.decode(encoded)
    return item.to_primitive()


def as_context(result: tuple[int, str, int, str, bool, bool]) -> PresentationContext:
    """pynetdicom's presentation context of a native result."""
    context = PresentationContext()
    context.context_id = result[0]
    context.abstract_syntax = UID(result[1])
    context.result = result[2]
    context.transfer_syntax = [UID(result[3])]
    context._as_scu = result[4]
    context._as_scp = result[5]
    return context


class Kind(Enum):
    """What an abstract syntax is, as far as pynetdicom knows."""

    STORAGE = 1
    UNKNOWN = 2
    OTHER = 3


@cache
def kind_of(abstract_syntax: str) -> Kind:
    """What it is; the answers are kept, there are as many as SOP classes."""
    uid = UID(abstract_syntax)
    service = uid_to_service_class(uid)
    if issubclass(service, StorageServiceClass):
        return Kind.STORAGE
    return Kind.UNKNOWN if service is ServiceClass else Kind.OTHER


_QUERY_RETRIEVE = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.2\.[123]\.([123])")
_OF_QUERY_RETRIEVE = {"1": C_FIND, "2": C_MOVE, "3": C_GET}


def serves(sop_class: str, request: Any) -> bool:
    """Whether a request is an operation of its SOP class; of classes not judged here it is."""
    query_retrieve = _QUERY_RETRIEVE.fullmatch(sop_class)
    if query_retrieve is not None:
        return isinstance(request, _OF_QUERY_RETRIEVE[query_retrieve[1]])
    service = uid_to_service_class(UID(sop_class))
    if service is VerificationServiceClass:
        return isinstance(request, C_ECHO)
    if service is StorageServiceClass:
        return isinstance(request, C_STORE)
    return True


_Base: Any = acse.ACSE  # its annotations name pynetdicom's association


class Negotiation(_Base):  # type: ignore[misc]
    """pynetdicom's ACSE for an acceptor, with our decisions."""

    assoc: Association

    def _negotiate_as_acceptor(self) -> None:
        assoc = self.assoc
        request = assoc.request_item
        rejection = self._objection(request)
        identity = None
        if rejection is None and request.user_identity is not None and assoc.intervenes(evt.EVT_USER_ID):
            valid, response = self._check_user_identity()
            if not valid:
                rejection = IDENTITY_REFUSED
            elif response is not None:
                identity = response.server_response
        if rejection is not None:
            self.reject(rejection)
            return
        extended = agreed(assoc, request.extended)
        if assoc.intervenes(evt.EVT_SOP_EXTENDED):
            for item in self._check_sop_class_extended():
                self.acceptor.add_negotiation_item(item)
                extended[str(item.sop_class_uid)] = item.service_class_application_information
        assoc.relational = frozenset(uid for uid, said in extended.items() if said[:1] == b"\1")
        if assoc.intervenes(evt.EVT_SOP_COMMON):
            self.acceptor._common_ext = self._check_sop_class_common_extended()
        window = None
        # Said or not, one operation at a time is what we do (PS3.7 D.3.3.3).
        if request.async_ops != (1, 1) and assoc.intervenes(evt.EVT_ASYNC_OPS) and self._check_async_ops():
            window = (1, 1)
        if assoc.is_aborted:  # by a handler
            return
        # Before the peer can know it. Other threads send only once the association's loop has begun.
        assoc.is_established = True
        if _config.UNRESTRICTED_STORAGE_SERVICE:
            self._unrestricted()
        else:
            negotiated = negotiate(assoc.supported(), request)
            assoc.accepted(negotiated.results)
            encoded = encode_accept(
                request,
                negotiated,
                maximum_length=assoc.ae.maximum_pdu_size,
                implementation_class_uid=str(assoc.ae.implementation_class_uid),
                implementation_version_name=assoc.ae.implementation_version_name or "",
                async_ops=window,
                extended=extended,
                identity_response=identity,
            )
            assoc.dul.send_accept(encoded)
        assoc.log_accepted()
        assoc.notify(evt.EVT_ACCEPTED, {})
        assoc.notify(evt.EVT_ESTABLISHED, {})

    def _unrestricted(self) -> None:
        # pynetdicom's own switch, by its own negotiation: any class as storage.
        request = self.requestor.primitive
        roles = {uid: (item.scu_role, item.scp_role) for uid, item in self.requestor.role_selection.items()}
        negotiated: Any = negotiate_unrestricted(
            request.presentation_context_definition_list, self.acceptor.supported_contexts, roles
        )
        results, replies = negotiated
        for item in replies:
            self.acceptor.add_negotiation_item(item)
        self.assoc.accepted(
            [
                (
                    c.context_id,
                    str(c.abstract_syntax),
                    c.result,
                    str(c.transfer_syntax[0]),
                    c.as_scu,
                    c.as_scp,
                )
                for c in results
            ]
        )
        self.send_accept()

    def _objection(self, request: Request) -> Rejection | None:
        assoc = self.assoc
        if not request.protocol_version & 1:
            return OLD_PROTOCOL
        limit = assoc.over_limit()
        if limit is not None:
            return limit
        if request.application_context_name != APPLICATION_CONTEXT_NAME:
            return UNKNOWN_CONTEXT_NAME
        if assoc.ae.require_called_aet and request.called_ae_title != assoc.ae_title:
            return UNKNOWN_CALLED
        known = assoc.ae.require_calling_aet
        if known and request.calling_ae_title not in [title.strip() for title in known]:
            return UNKNOWN_CALLING
        if assoc.admission is None:
            return None
        return assoc.admission(request.calling_ae_title, request.called_ae_title, assoc.peer_address)

    def reject(self, rejection: Rejection) -> None:
        """Send the A-ASSOCIATE-RJ and say so in the log."""
        self.assoc.log_warning(
            "association rejected (%d/%d/%d), calling %r, called %r, from %s: %s",
            rejection.result,
            rejection.source,
            rejection.reason,
            self.assoc.calling_ae_title,
            self.assoc.called_ae_title,
            self.assoc.peer_address,
            rejection.hint,
        )
        # Handlers first: whoever sees the rejection at the other end may count on their having run.
        self.assoc.is_rejected = True
        self.assoc.notify(evt.EVT_REJECTED, {})
        self.send_reject(rejection.result, rejection.source, rejection.reason)
        self.assoc.kill()
