"""From what went wrong to the status of a DIMSE response: one table.

C-STORE's are those of PS3.4 B.2.3 and PS3.7 Annex C; where the standard leaves a choice it is made here.
"""

from __future__ import annotations

from pacs_core import errors
from pacs_core.errors import PacsError

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WARNING = 0xFF01
CANCELLED = 0xFE00
ELEMENTS_DISCARDED = 0xB006
DATA_SET_DOES_NOT_MATCH_WARNING = 0xB007
OUT_OF_RESOURCES = 0xA700
UNABLE_TO_COUNT = 0xA701  # PS3.4 C.4.2.1.5, C.4.3.1.4: C-MOVE, C-GET
UNABLE_TO_PERFORM = 0xA702
UNKNOWN_DESTINATION = 0xA801
SOME_FAILED = 0xB000
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
NO_SUCH_ATTRIBUTE = 0x0105
INVALID_ATTRIBUTE_VALUE = 0x0106
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
MAY_NO_LONGER_BE_UPDATED = 0xA710  # the Error ID of PS3.4 F.7.2.2

_STATUS: dict[type[PacsError], int] = {
    errors.ArchiveError: PROCESSING_FAILURE,
    errors.AssociationError: PROCESSING_FAILURE,
    errors.ConfigError: PROCESSING_FAILURE,
    errors.CorruptError: PROCESSING_FAILURE,
    errors.DuplicateError: DUPLICATE_SOP_INSTANCE,
    errors.IdentifierError: DATA_SET_DOES_NOT_MATCH,
    errors.InvalidArgumentError: INVALID_ARGUMENT,
    errors.InvalidValueError: PROCESSING_FAILURE,
    errors.MismatchError: DATA_SET_DOES_NOT_MATCH,
    errors.MissingAttributeError: MISSING_ATTRIBUTE,
    errors.MissingValueError: MISSING_ATTRIBUTE_VALUE,
    errors.NoSuchActionError: NO_SUCH_ACTION,
    errors.NoSuchAttributeError: NO_SUCH_ATTRIBUTE,
    errors.NotConvertibleError: PROCESSING_FAILURE,
    errors.NotFoundError: NO_SUCH_SOP_INSTANCE,
    errors.NotPermittedError: NOT_AUTHORIZED,
    errors.OutOfResourcesError: OUT_OF_RESOURCES,
    errors.RefusedError: PROCESSING_FAILURE,
    errors.StorageError: OUT_OF_RESOURCES,
    errors.IndexSharedError: OUT_OF_RESOURCES,
    errors.UnparsableError: CANNOT_UNDERSTAND,
    errors.WorkerError: PROCESSING_FAILURE,
    errors.WrongStateError: PROCESSING_FAILURE,
}

# Where the N-services say it otherwise (PS3.7 C.5 and 10.1): the statuses A7xx to Cxxx are those of others.
_NORMALIZED: dict[int, int] = {
    OUT_OF_RESOURCES: RESOURCE_LIMITATION,
    DATA_SET_DOES_NOT_MATCH: INVALID_ARGUMENT,
    CANNOT_UNDERSTAND: PROCESSING_FAILURE,
}


def status_of(error: BaseException) -> int:
    """The status for `error`; what is none of ours is a processing failure (0110)."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return PROCESSING_FAILURE


def normalized_status_of(error: BaseException) -> int:
    """The status for `error` as an N-service says it."""
    if isinstance(error, errors.InvalidValueError):
        return INVALID_ATTRIBUTE_VALUE
    status = status_of(error)
    return _NORMALIZED.get(status, status)


def error_id_of(error: BaseException) -> int | None:
    """Error ID (0000,0903): what the status leaves unsaid."""
    return MAY_NO_LONGER_BE_UPDATED if isinstance(error, errors.WrongStateError) else None


def comment_of(error: BaseException) -> str:
    """Error Comment (0000,0902), LO: at most 64 characters of what happened, and no value of a patient's."""
    text = str(error.args[0]) if isinstance(error, PacsError) and error.args else "internal failure"
    return "".join(c if c.isprintable() and c != "\\" else "?" for c in text)[:64]
