"""What users hold: a peer by its address and AE title, asked in single calls."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pacs_core._ext.associate import UserIdentity
from pacs_core.client.association import (
    MOST_CONTEXTS,
    VERIFICATION,
    Association,
    Remote,
    Timeouts,
)
from pacs_core.client.sending import Delivery, Parts, Sent, status_words
from pacs_core.client.sources import Part, part_of_bytes, part_of_file
from pacs_core.dicom.media import MEDIA_STORAGE_DIRECTORY, Named, files_of, looks_like_dicom
from pacs_core.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import AssociationError, PacsError, RefusedError, UnparsableError, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pacs_core.client.sources import Sendable

    Progress = Callable[[Sent, int], object]

_WINDOW = 10_000  # objects that are looked at, and then sent, at a time
_WINDOW_BYTES = 256 << 20  # of those that are in memory


class Client:
    """The SCU side towards one peer.

    >>> from pacs_core import Client
    >>> outcomes = Client("127.0.0.1", 11112).store("folder")

    Parameters
    ----------
    host, port
        Where it listens: a name or an address, IPv4 or IPv6.
    aec, aet
        The AE title we call, and the one we call as.
    tls
        An `ssl.SSLContext`, or True: the system's certificates, and the peer's must be for `host`.
    tls_name
        The name that the peer's certificate must be for, where it is not `host`.
    user_identity
        Sent with each request (PS3.7 D.3.3.7).
    maximum_pdu
        The longest P-DATA-TF we take, in bytes (PS3.8 D.1).
    timeouts
        In seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        aec: str = "ANY-SCP",
        aet: str = "PACSCORE",
        tls: ssl.SSLContext | bool = False,
        tls_name: str | None = None,
        user_identity: UserIdentity | None = None,
        maximum_pdu: int = 131072,
        timeouts: Timeouts = Timeouts(),  # noqa: B008  immutable
    ) -> None:
        context = tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context() if tls else None
        self.remote = Remote(host, port, aec, aet, context, tls_name, user_identity, maximum_pdu, timeouts)

    def __repr__(self) -> str:
        return f"<Client of {self.remote}>"

    def associate(self, contexts: Sequence[tuple[str, Sequence[str]]]) -> Association:
        """An association with these presentation contexts. Raises as `Association`."""
        return Association(self.remote, contexts)

    def echo(self) -> float:
        """C-ECHO on an association of its own; the seconds from request to answer.

        Raises
        ------
        AssociationError
            No association, or it does not take Verification.
        RefusedError
            The answer is not success.
        """
        with self.associate([(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])]) as association:
            begun = time.perf_counter()
            answer = association.echo()
            seconds = time.perf_counter() - begun
        if answer.status:
            words = status_words(answer.status)
            raise RefusedError(f"{self.remote} answered {answer.status:04X}H, {words}")
        return seconds

    def store(
        self,
        what: Sendable | Iterable[Sendable],
        *,
        associations: int = 1,
        retries: int = 8,
        priority: int = 0,
        progress: Progress | None = None,
    ) -> list[Sent]:
        """C-STORE files, as they are; an outcome for each, in the order given. Raises nothing for what fails.

        Parameters
        ----------
        what
            Paths of files and folders (walked; what is no DICOM object is skipped there), patterns, or the
            bytes of files; one or many.
        associations
            At a time.
        retries
            How often in a row an association may be lost, or refused for the moment, before the rest is
            given up.
        priority
            0 medium, 1 high, 2 low.
        progress
            Called with each outcome as it comes, and how many there will be as far as is known.
        """
        options = {"associations": associations, "retries": retries, "priority": priority}
        outcomes = list(self.store_each(what, **options, progress=progress))
        outcomes.sort(key=lambda sent: sent.number)
        return outcomes

    def store_each(
        self,
        what: Sendable | Iterable[Sendable],
        *,
        associations: int = 1,
        retries: int = 8,
        priority: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Sent]:
        """As `store`, outcome by outcome in the order of completion; sends only while it is iterated.

        `what` may be endless: some thousands, or 256 MiB of bytes, are taken at a time.
        """
        sources = _sources(what)
        known = 0
        reached = False
        dead: AssociationError | None = None

        def told(sent: Sent) -> Sent:
            if progress is not None:
                progress(sent, known)
            return sent

        while window := _window(sources):
            first, known = known, known + len(window)
            parts: list[tuple[int, Part]] = []
            for number, source in enumerate(window, first):
                part = _look_at(number, source)
                if isinstance(part, Sent):
                    yield told(part)
                else:
                    parts.append((number, part))
            del window
            for group in _groups(parts):
                if dead is not None:
                    for number, part in group:
                        yield told(Sent(number, part.path, part.sop_instance_uid, error=dead))
                    continue
                delivery = Delivery(
                    self.remote,
                    Parts(self.remote, group, priority),
                    group,
                    associations=associations,
                    retries=retries,
                    reached=reached,
                )
                for sent in delivery:
                    yield told(sent)
                reached = delivery.reached
                if delivery.error is not None and delivery.error.rejection is None:
                    dead = delivery.error


def _sources(what: Sendable | Iterable[Sendable]) -> Iterator[Named | Buffer]:
    """Each file or piece of memory that is meant."""
    if isinstance(what, str | os.PathLike):
        yield from files_of([what])
    elif _is_buffer(what):
        yield what  # type: ignore[misc]
    else:
        for one in what:  # type: ignore[union-attr]
            if isinstance(one, str | os.PathLike):
                yield from files_of([one])
            else:
                yield one


def _is_buffer(what: object) -> bool:
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


def _look_at(number: int, source: Named | Buffer) -> Part | Sent:
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
