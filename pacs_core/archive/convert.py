"""From the transfer syntax an instance is stored in to one that a peer takes: the one place that decides it.

An instance goes out as it is stored wherever that is accepted. Else the encoding of its elements can change,
between the uncompressed transfer syntaxes (PS3.5 A.1, A.2, A.3, A.5); nothing is ever lost by that.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacs_core.errors import NotConvertibleError

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGEST = 1 << 30
"""Bytes of a data set that is converted in memory, at most."""

_UNCOMPRESSED = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)


def targets(transfer_syntax_uid: str) -> tuple[str, ...]:
    """What an instance of that transfer syntax can be sent in, best first: as it is, then converted."""
    others = _UNCOMPRESSED if transfer_syntax_uid in _UNCOMPRESSED else ()
    return (transfer_syntax_uid, *(uid for uid in others if uid != transfer_syntax_uid))


def choose(transfer_syntax_uid: str, accepted: Container[str]) -> str:
    """The transfer syntax to send an instance in, of those `accepted`; NotConvertibleError without one."""
    for target in targets(transfer_syntax_uid):
        if target in accepted:
            return target
    raise NotConvertibleError(f"no accepted context can take transfer syntax {transfer_syntax_uid}")


def convert(data: Buffer, stored: str, target: str) -> bytes:
    """A data set in another transfer syntax, one of its `targets`.

    Raises
    ------
    NotConvertibleError
        It is not whole: what can't be read could not be written again.
    UnparsableError, InvalidValueError
        It can't be read or written at all.
    """
    dataset = read_dataset(data, stored, inflate_limit=LARGEST)
    if dataset.truncated:
        raise NotConvertibleError(f"a data set that breaks off can't be converted to {target}")
    return dataset.to_bytes(target)
