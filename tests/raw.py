"""A storage SCU that sends any bytes as a data set, whatever they are."""

from __future__ import annotations

from types import SimpleNamespace

from pacs_core._ext.command import Command, encode_store_rq
from tests.flows.rawpeer import ECHO, IMPLICIT, Peer, echo, p_data, pdv
from tests.make import CT

FRAGMENT = 16000


class RawSender(Peer):
    """An association that proposes one context: `abstract` in `syntax`."""

    def __init__(self, port: int, syntax: str = IMPLICIT, abstract: str = CT, timeout: float = 30) -> None:
        super().__init__(SimpleNamespace(server_address=("127.0.0.1", port)), timeout)
        self.abstract = abstract
        try:
            self.associated(contexts=((1, abstract, [syntax]),))
        except BaseException:
            super().__exit__(None, None, None)
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None:
                self.released()
        finally:
            super().__exit__(*exc)

    def begin(self, uid: str, abstract: str | None = None) -> None:
        """The C-STORE-RQ; `data` is to follow."""
        self.send(p_data(pdv(1, 3, encode_store_rq(1, abstract or self.abstract, uid))))

    def data(self, data: bytes, *, last: bool = True) -> None:
        """Fragments of the data set."""
        pieces = [data[at : at + FRAGMENT] for at in range(0, len(data), FRAGMENT)] or [b""]
        for number, piece in enumerate(pieces, 1):
            self.send(p_data(pdv(1, 2 if last and number == len(pieces) else 0, piece)))

    def store(self, uid: str, data: bytes, abstract: str | None = None) -> Command:
        """One whole instance; the response."""
        self.begin(uid, abstract)
        self.data(data)
        return self.response()


def echoes(port: int) -> bool:
    """Whether a C-ECHO over an association of its own is answered with success."""
    try:
        with RawSender(port, IMPLICIT, ECHO) as sender:
            sender.send(echo())
            return sender.response().status == 0
    except (OSError, EOFError):
        return False
