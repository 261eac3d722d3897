"""C-GET: what is at a peer, to files in folders of patients, studies and series; what is there stays.

What there is is asked first (`survey`), so that each instance has an outcome, whatever the peer counts; and
what is missing is asked for again when an association is lost, or the retrieval is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pacs_core.client.association import MOST_CONTEXTS, Association
from pacs_core.client.crew import Contact, Crew
from pacs_core.client.exchange import C_STORE_RQ, SYNTAXES, Exchange, Service
from pacs_core.client.receiving import Received, file_name, receive
from pacs_core.client.remote import Remote
from pacs_core.client.sources import part_of_file
from pacs_core.client.survey import Series, asked_by, series_of
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.identifier import Asked, values_of
from pacs_core.dicom.media import Folders
from pacs_core.dicom.query import UNIQUE
from pacs_core.dicom.uids import STORABLE
from pacs_core.errors import PacsError, RefusedError

Progress = Callable[[Received, int], object]

_MOST_CLASSES = 16  # of one association: each SOP class has some contexts
_MOST_UIDS = 200  # in one list
_MOST_SYNTAXES = 32  # in one context: DCMTK drops an association that has more

# Those that have a context each as long as there is room: the peer can send as it has it.
_USUAL = tuple(
    f"1.2.840.10008.1.2{end}"
    for end in (
        *(".1", "", ".4.70", ".4.50", ".4.90", ".4.91", ".4.80", ".4.81", ".5", ".4.51", ".4.57"),
        *(".4.201", ".4.202", ".4.203", ".4.102", ".4.103", ".4.100", ".4.101", ".1.99", ".2"),
    )
)
_BY_USE = (*_USUAL, *(uid for uid in STORABLE if uid not in _USUAL))


@dataclass(slots=True)
class Order:
    """What is to be fetched of one series.

    Attributes
    ----------
    series : Series
    folder : Path
        Where it goes.
    missing : dict[str, str]
        What has no outcome yet: SOP Instance UID → SOP class.
    received : set[str]
    """

    series: Series
    folder: Path
    missing: dict[str, str]
    received: set[str] = field(default_factory=set)

    def requests(self, root: Level) -> Iterator[Asked]:
        """The whole series, if all of it is missing; else lists of instances."""
        if self.series.whole and len(self.missing) == len(self.series.instances):
            yield asked_by(self.series.keys, Level.SERIES, root)
            return
        uids = list(self.missing)
        for first in range(0, len(uids), _MOST_UIDS):
            yield asked_by(self.series.keys, Level.IMAGE, root, uids=uids[first : first + _MOST_UIDS])


class Fetch(Crew[Order, Received]):
    """Orders of at most `_MOST_CLASSES` SOP classes, fetched over several associations."""

    def __init__(
        self, contact: Contact, orders: Sequence[Order], root: Level, *, associations: int, retries: int
    ) -> None:
        super().__init__(contact, orders, associations=associations, retries=retries)
        self._root = root
        self._classes = _classes(orders)

    def _associate(self) -> Association:
        asked = asked_by({}, Level.SERIES, self._root)
        contexts = [(Service.GET.sop_class(asked), SYNTAXES), *contexts_of(self._classes)]
        return Association(self.contact.remote, contexts, receives=self._classes)

    def _do(self, association: Association, task: Order) -> Iterator[Received]:
        for asked in task.requests(self._root):
            exchange = Exchange(association, Service.GET, asked)
            for event in exchange:
                if self._stop.is_set():
                    exchange.cancel()
                assert event.command is not None
                if event.command.command_field == C_STORE_RQ:
                    got = receive(association, event, task.folder, task.received)
                    if got is not None:
                        task.missing.pop(got.sop_instance_uid, None)
                        yield got
            if exchange.cancelled:
                return
            yield from self._left(task, asked, exchange)

    def _left(self, order: Order, asked: Asked, exchange: Exchange) -> Iterator[Received]:
        """The failures of one request: what was asked for and did not come."""
        try:
            exchange.check()
            said = f"{exchange.final.status:04X}H" if exchange.final is not None else ""
            error: PacsError = RefusedError(f"{self.contact.remote} did not send it, and answered {said}")
        except RefusedError as exc:
            error = exc
        listed = values_of(asked.identifier, UNIQUE[Level.IMAGE])
        for uid in listed or list(order.missing):
            if order.missing.pop(uid, None) is not None:
                yield Received(uid, error=error)

    def _failed(self, task: Order, error: PacsError) -> Iterator[Received]:
        for uid in task.missing:
            yield Received(uid, error=error)


def fetch(
    remote: Remote, out: Path, asked: Asked, *, associations: int, retries: int, progress: Progress | None
) -> Iterator[Received]:
    """C-GET what matches; see `Client.get_each`."""
    association = Association(remote, [(Service.FIND.sop_class(asked), SYNTAXES)])
    try:
        found = list(series_of(association, asked))
    finally:
        association.release()
    known = sum(len(series.instances) for series in found)

    def told(received: Received) -> Received:
        if progress is not None:
            progress(received, known)
        return received

    folders = Folders(out)
    orders = []
    for series in found:
        order = _order_of(series, folders)
        if order.missing:
            orders.append(order)
        for uid in series.instances:
            if uid not in order.missing:
                yield told(Received(uid, order.folder / file_name(uid), present=True))
    contact = Contact(remote, reached=True)
    for group in _groups(orders):
        crew = Fetch(contact, group, asked.root, associations=associations, retries=retries)
        yield from map(told, crew)


def _order_of(series: Series, folders: Folders) -> Order:
    names = [series.keys.get(UNIQUE[level], "") for level in (Level.PATIENT, Level.STUDY, Level.SERIES)]
    folder = folders.path(*names)
    there = {uid for uid in series.instances if _is_there(folder / file_name(uid), uid)}
    missing = {uid: sop for uid, sop in series.instances.items() if uid not in there}
    if missing:
        folders.make(*names)
    return Order(series, folder, missing)


def _is_there(path: Path, uid: str) -> bool:
    """Whether a file is that instance. It is whole, then: unfinished ones have other names."""
    try:
        return path.is_file() and part_of_file(path).sop_instance_uid == uid
    except PacsError:
        return False


def _classes(orders: Sequence[Order]) -> list[str]:
    """The SOP classes of all; those of storage in general, where the peer did not say which."""
    classes = dict.fromkeys(sop for order in orders for sop in order.missing.values())
    if "" in classes:
        from pynetdicom import StoragePresentationContexts  # slow to import, and seldom needed

        del classes[""]
        classes |= dict.fromkeys(str(context.abstract_syntax) for context in StoragePresentationContexts)
    return list(classes)[: MOST_CONTEXTS - 1]


def contexts_of(classes: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Presentation contexts for what is to come: each class in the usual transfer syntaxes alone, in others
    together: in all of them, if there are few classes.

    A context has one transfer syntax in the end: only one that is proposed alone is sure to stay.
    """
    each = (MOST_CONTEXTS - 1) // len(classes)
    alone, together = _BY_USE[: each - 1], _BY_USE[each - 1 :][:_MOST_SYNTAXES]
    for sop_class in classes:
        yield from ((sop_class, (syntax,)) for syntax in alone)
        if together:
            yield sop_class, together


def _groups(orders: Sequence[Order]) -> Iterator[list[Order]]:
    """Orders, as many together as one association can have the contexts for."""
    group: list[Order] = []
    classes: set[str] = set()
    for order in orders:
        more = set(order.missing.values())
        if group and len(classes | more) > _MOST_CLASSES:
            yield group
            group, classes = [], set()
        group.append(order)
        classes |= more
    if group:
        yield group
