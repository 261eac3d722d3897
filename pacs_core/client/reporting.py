"""Storage commitment results to who asked for them, on an association of ours (PS3.4 J.3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pacs_core.client.association import Association
from pacs_core.client.exchange import SYNTAXES
from pacs_core.client.operations import perform
from pacs_core.client.remote import Remote
from pacs_core.dicom.commitment import SOP_CLASS, SOP_INSTANCE, Result
from pacs_core.dicom.operations import Operation

NAME = "Storage Commitment"


@contextmanager
def reporting(remote: Remote) -> Iterator[Callable[[Result], None]]:
    """An association on which we are the SCP, though we request it; what reports one result on it.

    Both raise AssociationError; the latter RefusedError for an answer that is a failure.
    """
    with Association(remote, [(SOP_CLASS, SYNTAXES)], receives=[SOP_CLASS]) as association:

        def report(result: Result) -> None:
            perform(
                association,
                Operation.N_EVENT_REPORT,
                SOP_CLASS,
                SOP_INSTANCE,
                result.to_dataset(),
                name=NAME,
                type_id=result.event_type,
            )

        yield report
