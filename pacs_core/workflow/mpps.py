"""Modality Performed Procedure Steps (PS3.4 F.7, F.8): what modalities say that they do, and have done.

A step is created IN PROGRESS, set as often as need be, and ends COMPLETED or DISCONTINUED; then it stays as
it is. Each of these is durable before it is answered, together with what it means for the worklist.

In the table `performed` of the state:

    i UID             the step: `_RECORD`, its status, its data set in explicit VR little endian
    p status UID      the steps of a status
    s study \\0 UID    the steps of a study, by the Scheduled Step Attributes Sequence
    r series \\0 UID   the steps of a series, by the Performed Series Sequence
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.performed import (
    PERFORMED_SERIES,
    SCHEDULED_STEPS,
    SERIES_UID,
    STATUS,
    STEP_ID,
    STUDY_UID,
    Status,
    check_created,
    check_final,
    check_set,
    is_empty,
)
from pacs_core.dicom.recoding import of_bytes, plain
from pacs_core.dicom.uids import new_uid
from pacs_core.errors import (
    CorruptError,
    DuplicateError,
    InvalidValueError,
    NotFoundError,
    OutOfResourcesError,
    WrongStateError,
)
from pacs_core.workflow.mpps_merge import merged, select
from pacs_core.workflow.state import PERFORMED, Change, State

Advance = Callable[[Change, Sequence[tuple[str, str]], str], int]
"""Tells the worklist of steps, (Study Instance UID, Scheduled Procedure Step ID) each, that they are STARTED,
COMPLETED or DISCONTINUED; how many of them it has."""

LARGEST: Final = 16 << 20
"""Bytes that a step may have: of more than 100,000 images. All that decide wait for whoever sets one."""
MOST_ATTRIBUTES: Final = 4096
"""Attributes that a step may have, without those in its sequences."""

_SOP_INSTANCE_UID: Final = 0x0008_0018
_RECORD: Final = b"\1"  # the version of its form
_UID: Final = re.compile(r"[0-9.]{1,64}")
_LINKED: Final = ((b"s", SCHEDULED_STEPS, STUDY_UID), (b"r", PERFORMED_SERIES, SERIES_UID))


_LETTERS: Final = {status: status[:1].encode() for status in Status}
_BY_LETTER: Final = {letter[0]: status for status, letter in _LETTERS.items()}


class Step(NamedTuple):
    """One step, as it stands."""

    uid: str
    status: Status
    dataset: Dataset


def _no_worklist(change: Change, steps: Sequence[tuple[str, str]], status: str) -> int:  # noqa: ARG001
    return 0


def _no_series(study: str) -> Iterable[str]:  # noqa: ARG001
    return ()


class Performed:
    """The performed procedure steps of an archive.

    Parameters
    ----------
    state
        Where they are kept.
    advance
        What tells the worklist.
    series_of
        The Series Instance UIDs that are held of a study.
    """

    def __init__(
        self,
        state: State,
        advance: Advance = _no_worklist,
        series_of: Callable[[str], Iterable[str]] = _no_series,
    ) -> None:
        self._state = state
        self._advance = advance
        self._series_of = series_of

    def create(self, dataset: Dataset, uid: str = "") -> str:
        """Begin a step (N-CREATE, F.7.2.1); its SOP Instance UID, a new one if none is given.

        Raises
        ------
        InvalidValueError
            Its status is not IN PROGRESS; the UID, or something else, has a value that can't be.
        DuplicateError
            There is a step of that UID.
        MissingAttributeError, MissingValueError
            As `check_created`.
        OutOfResourcesError
            It is larger than steps may be.
        OutOfResourcesError, StorageError
            As `State.change`.
        """
        uid = uid or new_uid()
        if not _UID.fullmatch(uid):
            raise InvalidValueError("a SOP Instance UID that is none", value=uid, tag=_SOP_INSTANCE_UID)
        _check_number(dataset)
        given = plain(dataset)
        if not is_empty(given, STATUS) and _status_of(given) is not Status.IN_PROGRESS:
            raise InvalidValueError("a step is created IN PROGRESS", tag=STATUS)
        check_created(given)
        data = given.to_bytes()
        _check_size(data)
        links = list(_links(given, uid))
        steps = _scheduled(given)

        def decide(change: Change) -> None:
            if change.get(PERFORMED, b"i" + uid.encode()) is not None:
                raise DuplicateError("there is a step of this UID", uid=uid)
            _put(change, uid, Status.IN_PROGRESS, data)
            for link in links:
                change.put(PERFORMED, link, b"")
            self._advance(change, steps, "STARTED")

        self._state.change(decide)
        return uid

    def update(self, uid: str, changes: Dataset) -> Status:
        """Set attributes of a step (N-SET, F.7.2.2), its status among them; the status that it has then.

        Raises
        ------
        NotFoundError
            There is no step of that UID.
        WrongStateError
            It is not IN PROGRESS any more.
        NoSuchAttributeError
            An attribute that can only be created.
        InvalidValueError
            A status that is none, a value that can't be, or text that can't be converted to the character set
            of the step, or UTF-8.
        MissingAttributeError, MissingValueError
            In an item that is set, or for the end, as `check_final`.
        OutOfResourcesError
            It would be larger than steps may be.
        OutOfResourcesError, StorageError
            As `State.change`.
        """
        _check_number(changes)
        given = plain(changes)

        def decide(change: Change) -> Status:
            value = _known(uid, change.get(PERFORMED, _key(uid)))
            if _status_in(value) is not Status.IN_PROGRESS:
                raise WrongStateError("Performed Procedure Step Object may no longer be updated", uid=uid)
            check_set(given)
            status = _status_of(given) if STATUS in given else Status.IN_PROGRESS
            data = merged(value[2:], given)
            whole = of_bytes(data)
            _check_size(data)
            _check_number(whole)
            if status is not Status.IN_PROGRESS:
                check_final(whole, completed=status is Status.COMPLETED)
                change.delete(PERFORMED, _status_key(Status.IN_PROGRESS, uid))
                self._advance(change, _scheduled(whole), status.value)
            _put(change, uid, status, data)
            if PERFORMED_SERIES in given:
                before, after = (set(_links(each, uid)) for each in (of_bytes(value[2:]), whole))
                for link in before - after:
                    change.delete(PERFORMED, link)
                for link in after - before:
                    change.put(PERFORMED, link, b"")
            return status

        return self._state.change(decide)

    def get(self, uid: str, tags: Iterable[int] = ()) -> Dataset:
        """What is kept of a step (N-GET, F.8.2.1): of these attributes, and without any of all.

        Raises
        ------
        NotFoundError
            There is no step of that UID.
        """
        value = _known(uid, self._state.get(PERFORMED, _key(uid)))
        wanted = tuple(tags)
        return of_bytes(select(value[2:], wanted) if wanted else value[2:])

    def list(self, *, study: str | None = None, status: Status | str | None = None) -> Iterator[Step]:
        """The steps of a study, or of all; of a status, or of any.

        A step belongs to the studies that it was scheduled in, and to those that hold a series which it made.

        Raises
        ------
        ValueError
            There is no such status.
        """
        wanted = None if status is None else Status(status)
        for uid in self._uids(study, wanted):
            value = self._state.get(PERFORMED, b"i" + uid)
            if value is not None and wanted in (None, found := _status_in(value)):
                yield Step(uid.decode(), found, of_bytes(value[2:]))

    def _uids(self, study: str | None, status: Status | None) -> Iterator[bytes]:
        if study is not None:
            prefixes = [_link(b"s", study, "")]
            prefixes += [_link(b"r", series, "") for series in self._series_of(study)]
            found = {uid for prefix in prefixes for uid in self._under(prefix)}
            return iter(sorted(found))
        return self._under(b"i" if status is None else _status_key(status, ""))

    def _under(self, prefix: bytes) -> Iterator[bytes]:
        return (key[len(prefix) :] for key, _ in self._state.scan(PERFORMED, prefix))


def _key(uid: str) -> bytes:
    """The key of a step that somebody names; NotFoundError for what can't be one."""
    if not _UID.fullmatch(uid):
        raise NotFoundError("no such performed procedure step", uid=uid)
    return b"i" + uid.encode()


def _known(uid: str, value: bytes | None) -> bytes:
    if value is None:
        raise NotFoundError("no such performed procedure step", uid=uid)
    if value[:1] != _RECORD:
        raise CorruptError(f"a performed procedure step of form {value[:1]!r}", uid=uid)
    return value


def _check_size(data: bytes) -> None:
    if len(data) > LARGEST:
        raise OutOfResourcesError(f"a performed procedure step of more than {LARGEST} bytes")


def _check_number(dataset: Dataset) -> None:
    if len(dataset) > MOST_ATTRIBUTES:
        raise OutOfResourcesError(f"a performed procedure step of more than {MOST_ATTRIBUTES} attributes")


def _put(change: Change, uid: str, status: Status, data: bytes) -> None:
    change.put(PERFORMED, b"i" + uid.encode(), _RECORD + _LETTERS[status] + data)
    change.put(PERFORMED, _status_key(status, uid), b"")


def _status_key(status: Status, uid: str) -> bytes:
    return b"p" + _LETTERS[status] + uid.encode()


def _status_in(value: bytes) -> Status:
    return _BY_LETTER[value[1]]


def _status_of(dataset: Dataset) -> Status:
    """The status that a data set says; InvalidValueError if it is none."""
    try:
        return Status(dataset[STATUS])
    except ValueError:
        raise InvalidValueError(
            f"the status of a performed procedure step is one of {', '.join(Status)}", tag=STATUS
        ) from None


def _links(dataset: Dataset, uid: str) -> Iterator[bytes]:
    """The keys that a step is found by: of its studies, and its series."""
    for letter, sequence, tag in _LINKED:
        for item in dataset.get(sequence, ()):
            named = item[tag]
            if not isinstance(named, str) or not _UID.fullmatch(named):
                raise InvalidValueError("a UID that is none", tag=tag)
            yield _link(letter, named, uid)


def _link(letter: bytes, named: str, uid: str) -> bytes:
    return b"%b%b\0%b" % (letter, named.encode(), uid.encode())


def _scheduled(dataset: Dataset) -> list[tuple[str, str]]:
    """The scheduled steps that it is about, as the worklist knows them."""
    named = ((str(item[STUDY_UID]), str(item[STEP_ID] or "")) for item in dataset[SCHEDULED_STEPS])
    return [(study, step) for study, step in named if step]
