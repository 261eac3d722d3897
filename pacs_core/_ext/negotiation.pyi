"""Negotiation of presentation contexts by the acceptor (PS3.8 9.3.3.2, PS3.7 D.3.3.4).

`associate.negotiate` does it, and has these classes too.
"""

from collections.abc import Iterable, Sequence
from typing import Never, final

__pyx_capi__: dict[str, object]

@final
class Offer: ...

@final
class Supported:
    """What an acceptor supports, by abstract syntax; built once and shared by all associations.

    `contexts`: abstract syntax, transfer syntaxes in our order of preference, and the roles that the
    requestor may have, SCU and SCP; where either is None, role selections are ignored and the requestor is
    SCU. The last one of an abstract syntax counts. Raises ValueError for what is no UID.

    `prefer_ours`: of several common transfer syntaxes take the first of ours; else the requestor's first.
    `accept_unknown_storage`: accept storage SOP classes of the standard that are not listed, and private
    classes, with the transfer syntaxes of all that are, in any role.
    `accept_unknown_transfer_syntaxes`: accept any transfer syntax for storage and private SOP classes.
    """

    def __init__(
        self,
        contexts: Iterable[tuple[str, Sequence[str], bool | None, bool | None]],
        *,
        prefer_ours: bool = False,
        accept_unknown_storage: bool = False,
        accept_unknown_transfer_syntaxes: bool = False,
    ) -> None: ...
    @property
    def prefer_ours(self) -> bool: ...

@final
class Negotiated:
    """The answer to each presentation context of a request, in its order, and to its role selections."""

    def __init__(self, *args: Never, **kwargs: Never) -> None:
        """Raises TypeError: only `associate.negotiate` makes one."""

    @property
    def results(self) -> list[tuple[int, str, int, str, bool, bool]]:
        """ID, abstract syntax, result, transfer syntax, whether we are SCU, and SCP.

        Result (PS3.8 table 9-18): 0 accepted, 1 refused for its roles, 3 abstract syntax not supported,
        4 transfer syntaxes not supported. A refused context has the transfer syntax proposed first, if any.
        """

    @property
    def roles(self) -> dict[str, tuple[bool, bool]]:
        """SOP class → what the requestor may be, SCU and SCP: only of accepted contexts, only if it asked."""
