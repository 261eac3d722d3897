"""C-MOVE: what is at a peer, to another one that it knows by its AE title (PS3.4 C.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pacs_core._ext.command import Command
from pacs_core.client.association import Association
from pacs_core.client.crew import Contact, Crew
from pacs_core.client.exchange import SYNTAXES, Exchange, Service
from pacs_core.client.remote import Remote
from pacs_core.client.statuses import PENDING
from pacs_core.client.survey import asked_by, entities, names_entities
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.identifier import Asked, values_of
from pacs_core.dicom.query import UNIQUE
from pacs_core.errors import PacsError, RefusedError


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one C-MOVE, by what the peer counts; it knows, we do not.

    Attributes
    ----------
    level : Level
    uids : tuple of str
        The patients, studies, series or instances that were to be moved.
    status : int | None
        The peer's last response, FF00 while it is at it; None without one.
    completed, failed, warning, remaining : int
        Sub-operations.
    failed_uids : tuple of str
        SOP Instance UIDs of those that failed, if the peer lists them.
    error : PacsError | None
        Why it was not done, or not all of it.
    """

    level: Level
    uids: tuple[str, ...]
    status: int | None = None
    completed: int = 0
    failed: int = 0
    warning: int = 0
    remaining: int = 0
    failed_uids: tuple[str, ...] = ()
    error: PacsError | None = None

    @property
    def pending(self) -> bool:
        """The peer is still at it."""
        return self.status in PENDING and self.error is None


Progress = Callable[[Moved, int], object]


class Carry(Crew[Asked, Moved]):
    """C-MOVE requests, over several associations."""

    def __init__(
        self,
        contact: Contact,
        requests: Sequence[Asked],
        destination: str,
        *,
        associations: int,
        retries: int,
    ) -> None:
        super().__init__(contact, requests, associations=associations, retries=retries)
        self._destination = destination
        self._sop_class = Service.MOVE.sop_class(requests[0])

    def _associate(self) -> Association:
        return Association(self.contact.remote, [(self._sop_class, SYNTAXES)])

    def _do(self, association: Association, task: Asked) -> Iterator[Moved]:
        exchange = Exchange(association, Service.MOVE, task, destination=self._destination)
        for event in exchange:
            if self._stop.is_set():
                exchange.cancel()
            assert event.command is not None
            # No outcome: a request that only ever begins is to be given up.
            self._done.put(_moved(task, event.command))
        yield _final(task, exchange, self.contact.remote)

    def _failed(self, task: Asked, error: PacsError) -> Iterator[Moved]:
        yield Moved(task.level, _uids_of(task), error=error)


def carry(
    remote: Remote,
    destination: str,
    asked: Asked,
    *,
    associations: int,
    retries: int,
    progress: Progress | None,
) -> Iterator[Moved]:
    """C-MOVE what matches; see `Client.move`."""
    requests = [asked] if names_entities(asked) else _looked_up(remote, asked)
    if not requests:
        return
    crew = Carry(Contact(remote), requests, destination, associations=associations, retries=retries)
    for moved in crew:
        if progress is not None:
            progress(moved, len(requests))
        if not moved.pending:
            yield moved


def _looked_up(remote: Remote, asked: Asked) -> list[Asked]:
    """A request for each match: a retrieval has no keys but unique ones (PS3.4 C.4.2.1.4.1)."""
    association = Association(remote, [(Service.FIND.sop_class(asked), SYNTAXES)])
    try:
        return [asked_by(keys, asked.level, asked.root) for keys in entities(association, asked)]
    finally:
        association.release()


def _final(asked: Asked, exchange: Exchange, remote: Remote) -> Moved:
    assert exchange.last is not None
    assert exchange.last.command is not None
    moved = replace(_moved(asked, exchange.last.command), failed_uids=exchange.failed_uids())
    try:
        exchange.check()
    except RefusedError as exc:
        return replace(moved, error=exc)
    failed = max(moved.failed, len(moved.failed_uids))
    if failed:
        return replace(
            moved, failed=failed, error=RefusedError(f"{remote} could not send {failed:,} of them")
        )
    return moved


def _moved(asked: Asked, command: Command) -> Moved:
    """What a response says; a counter that is not there is 0."""
    return Moved(
        asked.level,
        _uids_of(asked),
        command.status,
        command.completed or 0,
        command.failed or 0,
        command.warning or 0,
        command.remaining or 0,
    )


def _uids_of(asked: Asked) -> tuple[str, ...]:
    return values_of(asked.identifier, UNIQUE[asked.level])
