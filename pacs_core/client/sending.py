"""Data sets on their way to one peer, an outcome for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pacs_core.client.association import MOST_CONTEXTS, Answer, Association
from pacs_core.client.crew import Contact, Crew
from pacs_core.client.remote import Remote
from pacs_core.client.sources import Part, part_of_bytes, part_of_file
from pacs_core.client.statuses import is_failure, refusal
from pacs_core.dicom.media import MEDIA_STORAGE_DIRECTORY, Named, files_of, looks_like_dicom
from pacs_core.errors import PacsError, UnparsableError, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pacs_core.client.sources import Sendable

    Progress = Callable[["Sent", int], object]


_WINDOW = 10_000  # objects that are looked at, and then sent, at a time
_WINDOW_BYTES = 256 << 20  # of those that are in memory


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one object.

    Attributes
    ----------
    number : int
        Its place among those that were to be sent.
    path : Path | None
        Its file; None for bytes.
    sop_instance_uid : str
        '' when it could not be read so far.
    status : int | None
        The peer's answer; None when there was none.
    error : PacsError | None
        Why it was not stored.
    bytes : int
        Length of the data set that was sent; 0 when none was.
    comment : str
        What the peer said about it.
    skipped : bool
        It was found in a folder and is nothing to be sent; `error` says what it is instead.
    sop_class_uid : str
        '' when it could not be read so far.
    """

    number: int
    path: Path | None
    sop_instance_uid: str = ""
    status: int | None = None
    error: PacsError | None = None
    bytes: int = 0
    comment: str = ""
    skipped: bool = False
    sop_class_uid: str = ""

    @property
    def stored(self) -> bool:
        """The peer has it: success, or success with a warning."""
        return self.error is None

    @property
    def warning(self) -> bool:
        """The peer has it and had something to say (PS3.4 B.2.3: B000, B006, B007…)."""
        return self.error is None and self.status != 0

    @property
    def failed(self) -> bool:
        """It should have been stored and was not."""
        return self.error is not None and not self.skipped


class Delivery(Crew[tuple[int, Part], Sent]):
    """Numbered data sets of at most 128 different contexts, on their way over several associations."""

    def __init__(
        self,
        contact: Contact,
        parts: Sequence[tuple[int, Part]],
        *,
        associations: int,
        retries: int,
        priority: int,
    ) -> None:
        super().__init__(contact, parts, associations=associations, retries=retries)
        kinds = dict.fromkeys((part.sop_class_uid, part.transfer_syntax_uid) for _, part in parts)
        self._contexts = [(sop_class, (syntax,)) for sop_class, syntax in kinds]
        self._priority = priority

    def _associate(self) -> Association:
        return Association(self.contact.remote, self._contexts)

    def _do(self, association: Association, task: tuple[int, Part]) -> Iterator[Sent]:
        number, part = task
        answer = association.store(part, priority=self._priority)
        yield outcome_of(number, part, answer, self.contact.remote)

    def _failed(self, task: tuple[int, Part], error: PacsError) -> Iterator[Sent]:
        number, part = task
        yield Sent(number, part.path, part.sop_instance_uid, error=error)


def outcome_of(number: int, part: Part, answer: Answer, remote: Remote) -> Sent:
    """The outcome that a response means."""
    status = answer.status
    error: PacsError | None = None
    if is_failure(status):
        error = refusal(remote, status, answer.comment)
    return Sent(
        number,
        part.path,
        part.sop_instance_uid,
        status,
        error,
        part.length,
        answer.comment,
        sop_class_uid=part.sop_class_uid,
    )


def deliver(
    remote: Remote,
    what: Sendable | Iterable[Sendable],
    *,
    associations: int,
    retries: int,
    priority: int,
    progress: Progress | None,
) -> Iterator[Sent]:
    """C-STORE all of `what`; see `Client.store_each`."""
    waiting = sources(what)
    known = 0
    contact = Contact(remote)

    def told(sent: Sent) -> Sent:
        if progress is not None:
            progress(sent, known)
        return sent

    while window := _window(waiting):
        first, known = known, known + len(window)
        parts: list[tuple[int, Part]] = []
        for number, source in enumerate(window, first):
            part = look_at(number, source)
            if isinstance(part, Sent):
                yield told(part)
            else:
                parts.append((number, part))
        del window
        for group in _groups(parts):
            yield from map(
                told,
                Delivery(contact, group, associations=associations, retries=retries, priority=priority),
            )


def sources(what: Sendable | Iterable[Sendable]) -> Iterator[Named | Buffer]:
    """Each file or piece of memory that is meant."""
    if isinstance(what, str | os.PathLike):
        yield from files_of([what])
    elif is_buffer(what):
        yield what  # type: ignore[misc]
    else:
        for one in what:  # type: ignore[union-attr]
            if isinstance(one, str | os.PathLike):
                yield from files_of([one])
            else:
                yield one


def is_buffer(what: object) -> bool:
    """Whether it is a piece of memory."""
    try:
        memoryview(what)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _window(sources: Iterator[Named | Buffer]) -> list[Named | Buffer]:
    """The next sources: as many as are looked at, or held in memory, at a time."""
    window: list[Named | Buffer] = []
    held = 0
    for source in islice(sources, _WINDOW):
        window.append(source)
        if not isinstance(source, Named):
            held += memoryview(source).nbytes
            if held >= _WINDOW_BYTES:
                break
    return window


def look_at(number: int, source: Named | Buffer) -> Part | Sent:
    """What is to be sent, or why it can't be."""
    if not isinstance(source, Named):
        try:
            return part_of_bytes(source)
        except PacsError as exc:
            return Sent(number, None, error=exc)
    path: Path = source.path
    try:
        if source.found and not looks_like_dicom(path):
            return Sent(number, path, error=UnparsableError(f"{path}: not a DICOM file"), skipped=True)
        part = part_of_file(path)
    except PacsError as exc:
        return Sent(number, path, error=exc)
    except OSError as exc:
        return Sent(number, path, error=from_os_error(exc, f"reading {path}"))
    if source.found and part.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        return Sent(number, path, error=UnparsableError(f"{path}: a DICOMDIR"), skipped=True)
    return part


def _groups(parts: list[tuple[int, Part]]) -> Iterator[list[tuple[int, Part]]]:
    """`parts` by their presentation contexts, as many together as one association can have."""
    places: dict[tuple[str, str], int] = {}
    groups: dict[int, list[tuple[int, Part]]] = {}
    for number, part in parts:
        place = places.setdefault((part.sop_class_uid, part.transfer_syntax_uid), len(places))
        groups.setdefault(place // MOST_CONTEXTS, []).append((number, part))
    yield from groups.values()
