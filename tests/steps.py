"""What modalities say of performed procedure steps, for tests: all that is needed, and what a test adds."""

from __future__ import annotations

from typing import Any

from pacs_core.dicom.dataset import Dataset
from tests.make import CT, uid


def created(*, study: str = uid(1), step: str = "SPS1", **attributes: object) -> Dataset:
    """What an N-CREATE needs (PS3.4 Table F.7.2-1); `attributes` are set by keyword."""
    scheduled: dict[str, Any] = {
        "StudyInstanceUID": study,
        "ReferencedStudySequence": [],
        "AccessionNumber": "A1",
        "RequestedProcedureID": "RP1",
        "RequestedProcedureDescription": "Chest",
        "ScheduledProcedureStepID": step,
        "ScheduledProcedureStepDescription": "Chest CT",
        "ScheduledProtocolCodeSequence": [],
    }
    return Dataset(
        {
            "ScheduledStepAttributesSequence": [scheduled],
            "PatientName": "Doe^Jane",
            "PatientID": "P1",
            "PatientBirthDate": "19700101",
            "PatientSex": "F",
            "ReferencedPatientSequence": [],
            "PerformedProcedureStepID": "PPS1",
            "PerformedStationAETitle": "CT1",
            "PerformedStationName": "",
            "PerformedLocation": "",
            "PerformedProcedureStepStartDate": "20240102",
            "PerformedProcedureStepStartTime": "101112",
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "PerformedProcedureStepDescription": "",
            "PerformedProcedureTypeDescription": "",
            "ProcedureCodeSequence": [],
            "PerformedProcedureStepEndDate": "",
            "PerformedProcedureStepEndTime": "",
            "PerformedProcedureStepDiscontinuationReasonCodeSequence": [],
            "Modality": "CT",
            "StudyID": "1",
            "PerformedProtocolCodeSequence": [],
            "PerformedSeriesSequence": [],
            **attributes,
        }
    )


def series(number: int = 1, *, study: int = 1, images: int = 2, **attributes: object) -> dict[str, Any]:
    """An item of the Performed Series Sequence."""
    references = [
        {"ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": uid(study, number, image + 1)}
        for image in range(images)
    ]
    return {
        "PerformingPhysicianName": "",
        "ProtocolName": "Chest",
        "OperatorsName": "Roe^Richard",
        "SeriesInstanceUID": uid(study, number),
        "SeriesDescription": "",
        "RetrieveAETitle": "",
        "ReferencedImageSequence": references,
        "ReferencedNonImageCompositeSOPInstanceSequence": [],
        **attributes,
    }


def ended(status: str = "COMPLETED", **attributes: object) -> Dataset:
    """What the N-SET needs that ends a step."""
    return Dataset(
        {
            "PerformedProcedureStepStatus": status,
            "PerformedProcedureStepEndDate": "20240102",
            "PerformedProcedureStepEndTime": "102030",
            "PerformedSeriesSequence": [series()],
            **attributes,
        }
    )
