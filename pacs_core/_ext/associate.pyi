"""Association control (PS3.8 9.3.2 to 9.3.8, PS3.7 Annex D): PDUs decoded and encoded, and negotiation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Never, final

from typing_extensions import Buffer, disjoint_base

from pacs_core._ext.items import MalformedError as MalformedError
from pacs_core._ext.negotiation import Negotiated as Negotiated
from pacs_core._ext.negotiation import Supported as Supported

APPLICATION_CONTEXT_NAME: Final[str]
"""The DICOM application context (PS3.7 A.2.1); a request with another one is rejected 1/1/2."""
RELEASE_RQ: Final[bytes]
RELEASE_RP: Final[bytes]

class UserIdentity(NamedTuple):
    """User identity as requested (PS3.7 D.3.3.7.1); the secrets in it stay out of its repr.

    `type`: 1 user name, 2 user name and passcode (`secondary`), 3 Kerberos, 4 SAML, 5 JSON web token.
    """

    type: int
    response_requested: bool
    primary: bytes
    secondary: bytes = b""

class CommonExtended(NamedTuple):
    """SOP Class Common Extended Negotiation (PS3.7 D.3.3.6): service and relatives of a SOP class."""

    service_class_uid: str
    related: tuple[str, ...] = ()

class Rejection(NamedTuple):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int
    source: int
    reason: int

class Abort(NamedTuple):
    """A-ABORT (PS3.8 9.3.8). `reason` means something only where `source` is 2, the provider."""

    source: int
    reason: int

@disjoint_base
class _Terms:
    def __init__(self, *args: Never, **kwargs: Never) -> None:
        """Raises TypeError: only decoding makes one."""

    @property
    def protocol_version(self) -> int:
        """As sent. Only bit 0 counts; where it is not set the answer is a rejection, 1/2/2."""

    @property
    def application_context_name(self) -> str: ...
    @property
    def maximum_length(self) -> int:
        """The longest P-DATA-TF the peer takes, in bytes behind its header; 0 no limit; 16384 when unsent."""

    @property
    def implementation_class_uid(self) -> str:
        """'' when unsent."""

    @property
    def implementation_version_name(self) -> str:
        """'' when unsent."""

    @property
    def async_ops(self) -> tuple[int, int]:
        """Operations the peer may invoke, and perform, at a time; 0: no limit; (1, 1) when unsent."""

    @property
    def roles(self) -> dict[str, tuple[bool, bool]]:
        """SOP class → whether the requestor is to be SCU, and SCP (PS3.7 D.3.3.4)."""

    @property
    def extended(self) -> dict[str, bytes]:
        """SOP class → service class application information (PS3.7 D.3.3.5)."""

@final
class Request(_Terms):
    """A decoded A-ASSOCIATE-RQ."""

    @property
    def called_ae_title(self) -> str:
        """Without padding and control characters around it, cut at a NUL; what else can't be printed is '?'.

        May be '': 16 spaces, which the standard forbids, are for the caller to reject.
        """

    @property
    def calling_ae_title(self) -> str: ...
    @property
    def contexts(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """ID, abstract syntax ('' without), transfer syntaxes, in the order of the request."""

    @property
    def common_extended(self) -> dict[str, CommonExtended]: ...
    @property
    def user_identity(self) -> UserIdentity | None: ...

@final
class Accept(_Terms):
    """A decoded A-ASSOCIATE-AC."""

    @property
    def results(self) -> dict[int, tuple[int, str]]:
        """Context ID → result (0 accepted, PS3.8 table 9-18) and transfer syntax, which counts if accepted.

        That the IDs are among those requested is for the caller to check.
        """

    @property
    def identity_response(self) -> bytes | None: ...

def decode_request(pdu: Buffer) -> Request:
    """Decode a whole A-ASSOCIATE-RQ, header included (PS3.8 9.3.2). Raises MalformedError."""

def decode_accept(pdu: Buffer) -> Accept:
    """Decode a whole A-ASSOCIATE-AC, header included (PS3.8 9.3.3). Raises MalformedError."""

def decode_reject(pdu: Buffer) -> Rejection:
    """Decode an A-ASSOCIATE-RJ (PS3.8 9.3.4). Raises MalformedError."""

def decode_abort(pdu: Buffer) -> Abort:
    """Decode an A-ABORT (PS3.8 9.3.8). Raises MalformedError."""

def negotiate(supported: Supported, request: Request) -> Negotiated:
    """Answer the presentation contexts and roles of a request (PS3.8 9.3.3.2, PS3.7 D.3.3.4)."""

def encode_accept(
    request: Request,
    negotiated: Negotiated,
    *,
    maximum_length: int,
    implementation_class_uid: str,
    implementation_version_name: str,
    async_ops: tuple[int, int] | None = None,
    extended: Mapping[str, bytes] | Iterable[tuple[str, bytes]] = (),
    identity_response: bytes | None = None,
) -> bytes:
    """Encode the A-ASSOCIATE-AC that answers a request (PS3.8 9.3.3).

    `async_ops` and `identity_response` are left out unless the request asked for them, whatever is passed
    (PS3.7 D.3.3.3, D.3.3.7). The AE titles go back as they came, control characters as spaces.
    Raises ValueError for what has no encoding.
    """

def encode_reject(result: int, source: int, reason: int) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 9.3.4).

    Called AE title unknown 1/1/7, calling AE title unknown 1/1/3, local limit exceeded 2/3/2.
    """

def encode_abort(source: int, reason: int) -> bytes:
    """Encode an A-ABORT (PS3.8 9.3.8): source 2 is the provider, 0 the user, whose reason is sent as 0."""

def encode_request(
    *,
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Iterable[tuple[int, str, Sequence[str]]],
    maximum_length: int,
    implementation_class_uid: str,
    implementation_version_name: str,
    roles: Mapping[str, tuple[bool, bool]] | Iterable[tuple[str, tuple[bool, bool]]] = (),
    async_ops: tuple[int, int] | None = None,
    extended: Mapping[str, bytes] | Iterable[tuple[str, bytes]] = (),
    common_extended: Mapping[str, CommonExtended] | Iterable[tuple[str, CommonExtended]] = (),
    user_identity: UserIdentity | None = None,
) -> bytes:
    """Encode an A-ASSOCIATE-RQ (PS3.8 9.3.2). An empty version name is left out.

    Raises ValueError for AE titles that are not 1 to 16 printable ASCII characters without backslash, context
    IDs that are even or used twice, what is no UID, and items that are too long for their length fields.
    """
