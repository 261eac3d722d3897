"""What a service of the DIMSE edge provides besides its lifecycle: what it negotiates, and whom it serves.

Its requests reach it by the handler protocol that it also fulfils: `storage.StorageHandler`,
`finding.FindHandler`, `retrieving.RetrieveHandler`, or `normalized.NormalizedHandler` for the N-services. A
request of a SOP class that none of them takes goes to pynetdicom's service classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from pacs_core.config import Right
from pacs_core.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacs_core.errors import NotPermittedError
from pacs_core.lifecycle import Service

UNCOMPRESSED = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)

Permit = Callable[[str, str, str, Right], bool]
"""Whether a peer (calling and called AE title, address) may do something here."""


class Offer(NamedTuple):
    """A presentation context that is accepted.

    Attributes
    ----------
    sop_class : str
        Its abstract syntax.
    transfer_syntaxes : tuple of str
        Those that are accepted for it.
    both_roles : bool
        The peer may be SCU and SCP of it (PS3.7 D.3.3.4).
    """

    sop_class: str
    transfer_syntaxes: tuple[str, ...] = UNCOMPRESSED
    both_roles: bool = False


class Asking(Protocol):
    """Whoever sent a request."""

    @property
    def calling_ae_title(self) -> str: ...
    @property
    def called_ae_title(self) -> str: ...
    @property
    def address(self) -> str: ...


class DimseService(Service):
    """A service that peers ask for by DIMSE messages.

    Parameters
    ----------
    may
        Who may use it.
    """

    def __init__(self, may: Permit = lambda *_: True) -> None:
        self._may = may

    def offers(self) -> Iterable[Offer]:
        """The presentation contexts that it serves."""
        raise NotImplementedError

    def require(self, asking: Asking, right: Right) -> None:
        """NotPermittedError if the peer does not have this right here."""
        if not self._may(asking.calling_ae_title, asking.called_ae_title, asking.address, right):
            raise NotPermittedError(f"this peer may not use {right} here")
