"""N-EVENT-REPORT of a storage commitment result, on an association that we accepted (PS3.4 J.3.3)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from pacs_core._ext.command import encode
from pacs_core.dicom.commitment import SOP_CLASS, SOP_INSTANCE, Result
from pacs_core.dicom.operations import RESPONSE, Operation

if TYPE_CHECKING:
    from pacs_core.dimse.association import Association

_message_ids = itertools.count()


def report(association: Association, result: Result) -> int | None:
    """N-EVENT-REPORT on an association that we accepted, in its thread; the status of the answer.

    None: there was none, because the association ended or, after `dimse_timeout`, was aborted.
    """
    context_id = next(one[0] for one in association.results if one[1] == SOP_CLASS and one[2] == 0)
    message_id = next(_message_ids) % 0xFFFF + 1
    operation = Operation.N_EVENT_REPORT
    command = operation.request(
        message_id, SOP_CLASS, SOP_INSTANCE, type_id=result.event_type, has_data_set=True
    )
    data = result.to_dataset().to_bytes(association.transfer_syntaxes[context_id])
    association.dul.send_message(context_id, encode(command), data)
    answer = association.dimse.answer_to(message_id, operation | RESPONSE)
    if answer is None:
        if not association.dul.to_user_queue and not association.dul.is_over():
            association.log_warning("no answer to a report in %s s", association.dimse_timeout)
            association.abort(block=False)
        return None
    return answer.status
