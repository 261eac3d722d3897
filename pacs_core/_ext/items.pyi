"""Items of the association PDUs (PS3.8 9.3.1), for other native modules; Python sees only the error."""

from typing import final

class MalformedError(ValueError):
    """A PDU that is not what PS3.8 9.3 says it is; `offset` is where, in bytes from the PDU's first.

    Not a `PacsError`: the connection's edge answers it with an A-ABORT (source 2, reason 6), and it never
    becomes a status.
    """

    offset: int
    def __init__(self, message: str, *, offset: int) -> None: ...

@final
class Reader: ...

@final
class Writer: ...

__pyx_capi__: dict[str, object]
