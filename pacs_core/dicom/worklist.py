"""The Modality Worklist information model (PS3.4 K.6.1): one level, of scheduled procedure steps.

A worklist item is a data set of what is known of patient, visit, requested procedure and imaging service
request; what is known of the step itself is in the one item of its Scheduled Procedure Step Sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pacs_core.dicom import dictionary, identifier
from pacs_core.dicom.dataset import Dataset
from pacs_core.errors import IdentifierError

MODALITY_WORKLIST_FIND: Final = "1.2.840.10008.5.1.4.31"

STUDY_INSTANCE_UID: Final = 0x0020_000D
STEP_SEQUENCE: Final = 0x0040_0100
MODALITY: Final = 0x0008_0060
STATION_AE_TITLE: Final = 0x0040_0001
START_DATE: Final = 0x0040_0002
START_TIME: Final = 0x0040_0003
DESCRIPTION: Final = 0x0040_0007
PROTOCOL_CODES: Final = 0x0040_0008
STEP_ID: Final = 0x0040_0009
STATUS: Final = 0x0040_0020

STEP_TAGS: Final = frozenset(
    {
        MODALITY,
        0x0018_990C,  # Referenced Defined Protocol Sequence
        0x0018_990D,
        0x0032_1070,  # Requested Contrast Agent
        STATION_AE_TITLE,
        START_DATE,
        START_TIME,
        0x0040_0004,  # Scheduled Procedure Step End Date
        0x0040_0005,
        0x0040_0006,  # Scheduled Performing Physician's Name
        DESCRIPTION,
        PROTOCOL_CODES,
        STEP_ID,
        0x0040_000B,  # Scheduled Performing Physician Identification Sequence
        0x0040_0010,  # Scheduled Station Name
        0x0040_0011,  # Scheduled Procedure Step Location
        0x0040_0012,  # Pre-Medication
        STATUS,
        0x0040_0400,  # Comments on the Scheduled Procedure Step
    }
)
"""The attributes that are in the item of Scheduled Procedure Step Sequence (PS3.3 C.4.10)."""

FINISHED: Final = frozenset({"COMPLETED", "DISCONTINUED"})
"""The values of Scheduled Procedure Step Status after which there is nothing left to do."""


class Asked(NamedTuple):
    """An identifier that asks for scheduled procedure steps."""

    identifier: Dataset


def asked_of(keys: Mapping[Any, object]) -> Asked:
    """What keys ask for, and besides what names a step: Study Instance UID and Scheduled Procedure Step ID.

    Raises as `identifier_of`.
    """
    asked = identifier_of(keys)
    if STUDY_INSTANCE_UID not in asked:
        asked[STUDY_INSTANCE_UID] = None
    if STEP_SEQUENCE not in asked:
        asked[STEP_SEQUENCE] = [{STEP_ID: None}]
    for item in asked[STEP_SEQUENCE]:  # none: all of it is asked for
        if STEP_ID not in item and len(item):
            item[STEP_ID] = None
    return Asked(asked)


def identifier_of(keys: Mapping[Any, object]) -> Dataset:
    """The data set of keys and values, as `dicom.identifier` has them.

    Attributes of the step may be given without their sequence: `Modality` is that of the step.

    Raises
    ------
    IdentifierError
        Two keys mean the same element.
    KeyError
        A key means no element.
    InvalidValueError
        A value that its VR does not allow.
    """
    placed = {key: value for key, value in keys.items() if not _is_of_step(key)}
    for key, value in keys.items():
        if _is_of_step(key):
            path = path_of(key)
            if path in placed:
                raise IdentifierError(f"{key} is asked for twice")
            placed[path] = value
    return identifier.identifier_of(placed)


def path_of(key: Any) -> Any:
    """Where an attribute is in a worklist item: of one of the step, the path into its sequence."""
    if not _is_of_step(key):
        return key
    written = f"({key >> 16:04X},{key & 0xFFFF:04X})" if isinstance(key, int) else key
    return f"{dictionary.keyword_of(STEP_SEQUENCE)}.0.{written}"


def _is_of_step(key: object) -> bool:
    try:
        tag = dictionary.parse_tag(key) if isinstance(key, str) else key
    except KeyError:
        return False
    return tag in STEP_TAGS
