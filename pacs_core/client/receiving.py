"""C-STORE sub-operations of a C-GET (PS3.4 C.4.3): data sets to files, as they came.

An instance is durable under its name before it is answered, and not there at all otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacs_core._ext import pdu
from pacs_core._ext.command import encode_store_rsp
from pacs_core._ext.pdu import Event
from pacs_core.client.association import Association
from pacs_core.dicom.media import safe_name
from pacs_core.dicom.part10 import encode_meta
from pacs_core.dicom.uids import transfer_syntax
from pacs_core.dicom.writing import write_file
from pacs_core.errors import (
    MismatchError,
    OutOfResourcesError,
    PacsError,
    StorageError,
    UnparsableError,
    from_os_error,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STATUS: dict[type[PacsError], int] = {
    MismatchError: 0xA900,
    OutOfResourcesError: 0xA700,
    StorageError: 0xA700,
    UnparsableError: 0xC000,
}
_INSTANCE = re.compile(r"[!-~]{1,64}")
_GROUPS = (b"\x00\x00", b"\x02\x00")  # what a file would take for file meta information


@dataclass(frozen=True, slots=True)
class Received:
    """What became of one instance.

    Attributes
    ----------
    sop_instance_uid : str
    path : Path | None
        Its file; None if it did not come.
    bytes : int
        Length of the data set that came.
    present : bool
        It was there already.
    error : PacsError | None
        Why it did not come, or was not kept.
    """

    sop_instance_uid: str
    path: Path | None = None
    bytes: int = 0
    present: bool = False
    error: PacsError | None = None

    @property
    def failed(self) -> bool:
        """It should be there and is not."""
        return self.error is not None


def file_name(sop_instance_uid: str) -> str:
    """The name of an instance's file; no path, whatever the UID is."""
    return f"{safe_name(sop_instance_uid)}.dcm"


def receive(association: Association, event: Event, folder: Path, received: set[str]) -> Received | None:
    """Keep what a C-STORE request brings in `folder`, and answer.

    `received`: the instances that came before, to which this one is added. One of them that comes again is
    answered, and nothing else: None.

    Raises
    ------
    AssociationError
        The association is lost; nothing of the instance is left.
    """
    command = event.command
    assert command is not None
    message_id, uid = command.message_id, command.affected_sop_instance_uid
    if message_id is None:
        association.misbehaved("a C-STORE request without a message ID")
    arrival = _Arrival(association, event)
    again = uid in received
    outcome = Received(uid)
    if not again:
        outcome = _kept(arrival, folder / file_name(uid))
    arrival.skip()
    error = outcome.error
    if error is None:
        received.add(uid)
    status = 0 if error is None else _STATUS.get(type(error), 0x0110)
    answer = encode_store_rsp(message_id, command.affected_sop_class_uid, uid, status)
    association.send(event.context_id, answer)
    return None if again else outcome


class _Arrival:
    """The data set of one request, which may still be coming."""

    def __init__(self, association: Association, event: Event) -> None:
        assert event.command is not None
        self.sop_class_uid = event.command.affected_sop_class_uid
        self.sop_instance_uid = event.command.affected_sop_instance_uid
        self.abstract_syntax, self.transfer_syntax_uid = association.contexts[event.context_id]
        self.length = 0
        self._association = association
        self._event: Event | None = event

    def pieces(self) -> Iterator[Buffer]:
        """Its bytes as they come. Raises AssociationError; UnparsableError for what is none."""
        while self._event is not None:
            data = self._event.data
            if data is not None:
                if self.length == 0:
                    self._check(bytes(memoryview(data)[:2]))
                self.length += len(data)
                yield data
            self._next()
        if self.length == 0:
            raise UnparsableError("a C-STORE request without a data set", uid=self.sop_instance_uid)

    def skip(self) -> None:
        """Let the rest come and go."""
        while self._event is not None:
            self._next()

    def _next(self) -> None:
        assert self._event is not None
        last = self._event.kind == pdu.MESSAGE
        self._event = None if last else self._association.receive()

    def _check(self, group: bytes) -> None:
        syntax = transfer_syntax(self.transfer_syntax_uid)
        if not syntax.deflated and (group if syntax.little_endian else group[::-1]) in _GROUPS:
            raise UnparsableError(
                "a data set that begins as file meta information", uid=self.sop_instance_uid
            )

    def head(self) -> bytes:
        """What comes before it in a file."""
        if self.sop_class_uid != self.abstract_syntax:
            raise MismatchError("a SOP class that is not that of its context", uid=self.sop_instance_uid)
        if not _INSTANCE.fullmatch(self.sop_instance_uid):
            raise MismatchError("a SOP Instance UID that is none", uid=self.sop_instance_uid)
        return encode_meta(self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid, None)


def _kept(arrival: _Arrival, path: Path) -> Received:
    uid = arrival.sop_instance_uid

    def file() -> Iterator[Buffer]:
        yield arrival.head()
        yield from arrival.pieces()

    try:
        write_file(path, file())
    except OSError as exc:
        return Received(uid, error=from_os_error(exc, f"writing {path}"))
    except (MismatchError, UnparsableError) as exc:
        return Received(uid, error=exc)
    return Received(uid, path, arrival.length)
