"""What users hold: a peer by its address and AE title, asked in single calls."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacs_core._ext.associate import UserIdentity
from pacs_core.client import commitment, moving, retrieving
from pacs_core.client.association import (
    VERIFICATION,
    Association,
)
from pacs_core.client.commitment import Committed
from pacs_core.client.exchange import SYNTAXES, Service, matches
from pacs_core.client.moving import Moved
from pacs_core.client.mpps import PerformedStep
from pacs_core.client.mpps_reports import created
from pacs_core.client.receiving import Received
from pacs_core.client.remote import Remote, Timeouts
from pacs_core.client.sending import Sent, deliver
from pacs_core.client.statuses import refusal
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.identifier import Asked, asked_of
from pacs_core.dicom.query import NOTHING, Negotiated
from pacs_core.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dicom.worklist import Asked as WorklistAsked
from pacs_core.dicom.worklist import asked_of as worklist_asked_of
from pacs_core.errors import AssociationError

if TYPE_CHECKING:
    from pacs_core.client.sources import Sendable

    Progress = Callable[[Sent, int], object]


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
            raise refusal(self.remote, answer.status, answer.comment)
        return seconds

    def find(
        self,
        level: Level | str | None = None,
        keys: Mapping[Any, object] | None = None,
        /,
        *,
        root: Level | str | None = None,
        fuzzy: bool = False,
        combined: bool = False,
        **keywords: object,
    ) -> Generator[Dataset, None, None]:
        """C-FIND: a data set for each match, the first before the last is found. Closed early, it cancels.

        >>> for study in client.find(PatientName="Doe*", StudyDate=None):    # doctest: +SKIP
        ...     print(study.StudyInstanceUID, study.StudyDate)

        Parameters
        ----------
        level
            PATIENT, STUDY, SERIES or IMAGE. Without it: the lowest level of the keys.
        keys, keywords
            What matches have, and, empty, what is to be returned besides: see `dicom.identifier`.
        root
            The information model: PATIENT or STUDY. Without it: STUDY, unless patients are looked for.
        fuzzy
            Ask for fuzzy matching of names (PS3.4 C.5.1.1). A peer that does not do it answers literally.
        combined
            Ranges of a date and of its time are one, from the first moment to the last, not certain hours of
            each day.

        Raises
        ------
        IdentifierError, InvalidValueError, KeyError
            What is asked can't be, or its level can't be told: at once.
        AssociationError
            No association, or it does not take the model, or is lost. The peer does not take date and time
            as one range, if that is asked for: what it would answer is something else.
        RefusedError
            The peer refused or failed; after the matches that it found until then.
        """
        wanted = Negotiated(fuzzy=fuzzy, combined=combined)
        return self._find(asked_of({**(keys or {}), **keywords}, level, root), wanted)

    def worklist(
        self, keys: Mapping[Any, object] | None = None, /, **keywords: object
    ) -> Generator[Dataset, None, None]:
        """C-FIND in Modality Worklist (PS3.4 K.6.1): a data set for each scheduled procedure step, as `find`.

        >>> for item in client.worklist(Modality="CT", ScheduledProcedureStepStartDate=date.today(),
        ...                             PatientName=None):                   # doctest: +SKIP
        ...     print(item.PatientName, item["ScheduledProcedureStepSequence.0.Modality"])

        Parameters
        ----------
        keys, keywords
            As of `find`; attributes of the step also without the path into their sequence. What names a
            step, Study Instance UID and Scheduled Procedure Step ID, is asked for anyway.

        Raises
        ------
        IdentifierError, InvalidValueError, KeyError, AssociationError, RefusedError
            As `find`.
        """
        return self._find(worklist_asked_of({**(keys or {}), **keywords}), NOTHING)

    def _find(self, asked: Asked | WorklistAsked, wanted: Negotiated) -> Generator[Dataset, None, None]:
        sop_class = Service.FIND.sop_class(asked)
        extended = {sop_class: wanted.information} if wanted != NOTHING else {}
        association = Association(self.remote, [(sop_class, SYNTAXES)], extended=extended)
        try:
            if wanted.combined and not Negotiated.of(association.extended.get(sop_class, b"")).combined:
                raise AssociationError(f"{self.remote} does not take a date and its time as one range")
            yield from matches(association, asked)
        finally:
            association.release()

    def get(
        self,
        out: str | os.PathLike[str],
        level: Level | str | None = None,
        keys: Mapping[Any, object] | None = None,
        /,
        *,
        root: Level | str | None = None,
        associations: int = 1,
        retries: int = 8,
        progress: retrieving.Progress | None = None,
        **keywords: object,
    ) -> list[Received]:
        """C-GET what matches, to files in folders below `out`: patient, study, series. An outcome for each.

        The peer is asked what there is (C-FIND); what is in `out` already is not fetched again. A file holds
        the data set as it came, and is there whole or not at all, whatever happens.

        Parameters
        ----------
        level, keys, root, keywords
            What to fetch, as of `find`.
        associations
            At a time; a series comes over one.
        retries
            How often in a row an association may be lost, or refused for the moment, before the rest is
            given up.
        progress
            Called with each outcome as it comes, and how many there will be.

        Raises
        ------
        IdentifierError, InvalidValueError, KeyError, AssociationError, RefusedError
            As `find`, while the peer is asked what there is. What fails afterwards is an outcome.
        """
        asked = asked_of({**(keys or {}), **keywords}, level, root)
        fetched = retrieving.fetch(
            self.remote, Path(out), asked, associations=associations, retries=retries, progress=progress
        )
        return list(fetched)

    def move(
        self,
        destination: str,
        level: Level | str | None = None,
        keys: Mapping[Any, object] | None = None,
        /,
        *,
        root: Level | str | None = None,
        associations: int = 1,
        retries: int = 8,
        progress: moving.Progress | None = None,
        **keywords: object,
    ) -> list[Moved]:
        """C-MOVE what matches to the AE title `destination`, which the peer has to know.

        One request, and one outcome, for all that unique keys name; with other keys, one for each match.

        Parameters
        ----------
        level, keys, root, keywords
            What to move, as of `find`.
        associations, retries
            As of `get`.
        progress
            Called with each response, pending ones too, and how many requests there are.

        Raises
        ------
        IdentifierError, InvalidValueError, KeyError, AssociationError, RefusedError
            As `find`, while the peer is asked what there is. What fails afterwards is an outcome.
        """
        asked = asked_of({**(keys or {}), **keywords}, level, root)
        options = {"associations": associations, "retries": retries}
        return list(moving.carry(self.remote, destination, asked, **options, progress=progress))

    def mpps(
        self,
        item: Dataset | Iterable[Dataset] | None = None,
        attributes: Mapping[Any, object] | None = None,
        /,
        *,
        uid: str = "",
        **keywords: object,
    ) -> PerformedStep:
        """A performed procedure step that is reported to the peer (MPPS, PS3.4 F.7): a context manager.

        >>> with client.mpps(item) as step:                              # doctest: +SKIP
        ...     step.add(acquire(study=step.study_uids[0], performed=step.uid))

        Entered, it tells that the step began (N-CREATE); left, that it is COMPLETED, with the series of all
        that was added, or, when the body raises, DISCONTINUED.

        Parameters
        ----------
        item
            Of the worklist, what is performed: one, or several in one step; None for what nobody scheduled.
        attributes, keywords
            What else is said, or instead; of what nobody scheduled, at least Modality.
        uid
            SOP Instance UID of the step; without it a new one.

        Raises
        ------
        KeyError, InvalidValueError
            An attribute that there is not, or a value that it can't have.
        """
        items = [] if item is None else [item] if isinstance(item, Dataset) else list(item)
        report = created(items, self.remote.aet, {**(attributes or {}), **keywords})
        return PerformedStep(self.remote, report, uid)

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
        yield from deliver(
            self.remote,
            what,
            associations=associations,
            retries=retries,
            priority=priority,
            progress=progress,
        )

    def commit(
        self,
        what: commitment.Committable | Iterable[commitment.Committable],
        *,
        timeout: float = 300.0,
        listen: int | None = None,
        progress: commitment.Progress | None = None,
    ) -> list[Committed]:
        """Storage Commitment: whether the peer will keep instances; an outcome for each, in the order given.

        >>> unsafe = [one for one in client.commit("folder") if not one.committed]     # doctest: +SKIP

        Parameters
        ----------
        what
            What `store` takes; or pairs of SOP Class and SOP Instance UID. One or many.
        timeout
            Seconds to wait for results once all was asked for. They come on the same association.
        listen
            The port on which the peer may bring them as well, on an association that it makes: it has to
            know us by our AE title.
        progress
            Called with each outcome as it comes, and how many there will be.

        Raises
        ------
        AssociationError
            The port can't be listened on. What fails otherwise is an outcome.
        """
        outcomes = list(
            commitment.commit(self.remote, what, timeout=timeout, listen=listen, progress=progress)
        )
        outcomes.sort(key=lambda one: one.number)
        return outcomes
