"""Results of storage commitment that a peer brings on an association of its own (PS3.4 J.3.3.1.3).

There the roles are the other way round: the peer requests the association, as the SCP. It comes a few times
a day to a program that waits for nothing else: pynetdicom serves it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pacs_core.client.exchange import SYNTAXES
from pacs_core.client.statuses import PROCESSING_FAILURE
from pacs_core.dicom.commitment import SOP_CLASS
from pacs_core.errors import AssociationError

_LAST_WORD = 2.0  # seconds that a peer has to release in when nothing more is waited for


@contextmanager
def listening(port: int, aet: str, take: Callable[[bytes, str], int]) -> Iterator[None]:
    """Listen on all addresses for reports.

    Parameters
    ----------
    take
        Is given each Event Information and its transfer syntax, in some thread; the status to answer.

    Raises
    ------
    AssociationError
        The port can't be listened on.
    """
    from pynetdicom import AE, evt  # slow to import, and few listen

    def heard(event: Any) -> tuple[int, None]:
        information = event.request.EventInformation
        if information is None:
            return PROCESSING_FAILURE, None
        return take(information.getvalue(), str(event.context.transfer_syntax)), None

    entity = AE(aet)
    entity.add_supported_context(SOP_CLASS, list(SYNTAXES), scu_role=False, scp_role=True)
    try:
        server = entity.start_server(("", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, heard)])
    except OSError as exc:
        raise AssociationError(f"can't listen on port {port}: {exc.strerror or exc}") from exc
    assert server is not None
    try:
        yield
        deadline = time.monotonic() + _LAST_WORD
        while server.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        server.shutdown()
