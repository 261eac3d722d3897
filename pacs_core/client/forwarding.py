"""Instances of an archive to one peer: the sub-operations of a C-MOVE (PS3.4 C.4.2.2).

Each goes out as it is stored where the peer accepts that; for the others the uncompressed transfer syntaxes
are proposed as well. One that has no context, or that the peer refuses, fails alone. A lost association is
made anew once; when that is lost before anything was answered, or there is none, what is left fails.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pacs_core.archive import Archive, Held
from pacs_core.archive.convert import targets
from pacs_core.client.association import MOST_CONTEXTS, Association
from pacs_core.client.crew import Contact, Crew
from pacs_core.client.remote import Remote
from pacs_core.client.sending import Sent, outcome_of
from pacs_core.client.sources import Part
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, is_valid_uid
from pacs_core.errors import InvalidValueError, PacsError

Contexts = list[tuple[str, Sequence[str]]]

_FALLBACK = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_RETRIES = 1
_TICK = 0.05  # seconds
_WINDOW = 10_000  # instances that are tasks at a time


def forward(
    archive: Archive,
    remote: Remote,
    instances: Sequence[Held],
    *,
    originator: tuple[str, int],
    priority: int,
    associations: int,
    stop: threading.Event,
) -> Iterator[Sent | None]:
    """Send instances; outcomes, some at a time, and None when there are no more for the moment.

    Parameters
    ----------
    originator
        AE title and message ID of the C-MOVE (PS3.7 9.1.1.1).
    associations
        At a time.
    stop
        Once it is set nothing more is begun; outcomes of what is on its way still come, for a moment.
    """
    error: PacsError | None = None
    for contexts, group in _groups(instances):
        if error is not None or not contexts:
            why = error or InvalidValueError("a SOP class that is no UID")
            yield from (_failed(number, held, why) for number, held in enumerate(group))
            continue
        delivery = Holdings(archive, remote, contexts, group, originator, priority, associations)
        stopped = False
        for sent in delivery.watched(_TICK):
            yield sent
            if stop.is_set() and not stopped:
                stopped = True
                delivery.stop()
        if stop.is_set():
            return
        error = delivery.error  # nobody is there: once is enough to find that out


def _groups(instances: Sequence[Held]) -> Iterator[tuple[Contexts, list[Held]]]:
    """The instances: at most so many at a time, of no more classes than have contexts in one association."""
    for at in range(0, len(instances), _WINDOW):
        yield from _by_contexts(instances[at : at + _WINDOW])


def _by_contexts(instances: Sequence[Held]) -> Iterator[tuple[Contexts, list[Held]]]:
    classes: dict[str, list[Held]] = {}
    for held in instances:
        classes.setdefault(held.sop_class_uid, []).append(held)
    contexts: Contexts = []
    group: list[Held] = []
    for sop_class, members in classes.items():
        wanted = _contexts(sop_class, dict.fromkeys(held.transfer_syntax_uid for held in members))
        if group and (len(contexts) + len(wanted) > MOST_CONTEXTS or bool(contexts) != bool(wanted)):
            yield contexts, group
            contexts, group = [], []
        contexts += wanted
        group += members
    if group:
        yield contexts, group


def _contexts(sop_class: str, stored: dict[str, None]) -> Contexts:
    """A context for each transfer syntax that instances of a class are stored in, and one to fall back on.

    None for a class that is no UID: no association could be asked for it.
    """
    if not is_valid_uid(sop_class):
        return []
    contexts: Contexts = [(sop_class, (syntax,)) for syntax in stored if is_valid_uid(syntax)]
    possible = {target for syntax in stored for target in targets(syntax)}
    fallback = tuple(syntax for syntax in _FALLBACK if syntax in possible and syntax not in stored)
    return [*contexts, (sop_class, fallback)] if fallback else contexts


class Holdings(Crew[tuple[int, Held], Sent]):
    """Numbered instances of an archive, on their way over several associations."""

    def __init__(
        self,
        archive: Archive,
        remote: Remote,
        contexts: Contexts,
        instances: Sequence[Held],
        originator: tuple[str, int],
        priority: int,
        associations: int,
    ) -> None:
        numbered = list(enumerate(instances))
        super().__init__(Contact(remote), numbered, associations=associations, retries=_RETRIES)
        self._archive = archive
        self._contexts = contexts
        self._originator = originator
        self._priority = priority

    def _associate(self) -> Association:
        return Association(self.contact.remote, self._contexts)

    def _do(self, association: Association, task: tuple[int, Held]) -> Iterator[Sent]:
        number, held = task
        with self._archive.outgoing(held, _Accepted(association, held.sop_class_uid)) as outgoing:
            part = Part(
                held.sop_class_uid,
                held.sop_instance_uid,
                outgoing.transfer_syntax_uid,
                None,
                outgoing.offset,
                outgoing.length,
                outgoing.data,
                outgoing.fd,
            )
            try:
                answer = association.store(part, priority=self._priority, originator=self._originator)
            except ValueError as exc:  # a UID that no command set can have
                raise InvalidValueError(str(exc)) from exc
            outgoing.check_current()
        yield outcome_of(number, part, answer, self.contact.remote)

    def _failed(self, task: tuple[int, Held], error: PacsError) -> Iterator[Sent]:
        yield _failed(*task, error)


def _failed(number: int, held: Held, error: PacsError) -> Sent:
    return Sent(number, None, held.sop_instance_uid, error=error)


class _Accepted:
    """The transfer syntaxes that an association takes a SOP class in."""

    def __init__(self, association: Association, sop_class: str) -> None:
        self._accepted = association.accepted
        self._sop_class = sop_class

    def __contains__(self, transfer_syntax_uid: object) -> bool:
        return (self._sop_class, transfer_syntax_uid) in self._accepted
