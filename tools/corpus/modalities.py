"""What the instances of each kind are: IODs of PS3.3 Annex A with what they must have (types 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from corpus.enhanced import enhanced_mr
from corpus.images import Form
from corpus.plan import Series
from corpus.studies import (
    ABDOMEN,
    CHEST,
    HAND,
    HEAD,
    KNEE,
    LUMBAR_SPINE,
    Study,
    add_header,
    coded,
    described,
)

HUGE_FRAME = Form("ct", 512, 512, 12)


@dataclass(frozen=True)
class Slices:
    """Where the planes of a series are: from `first`, `step` mm apart, along the patient's z axis."""

    left: float
    first: float
    step: float


@dataclass(frozen=True)
class Blueprint:
    """All that instances of a series have in common."""

    dataset: Dataset
    form: Form | None
    """None: there are no pixels."""
    frames: int = 1
    slices: Slices | None = None
    seconds: float = 1.0
    """From one instance to the next."""


def blueprint(study: Study, series: Series, huge_size: int) -> Blueprint:
    """What is made for a series."""
    if series.kind == "huge":
        return _huge(study, series, huge_size)
    # The same for all series of a study: nobody takes a hand and a knee in one.
    variants = _VARIANTS[series.kind]
    return variants[study.number % len(variants)](study, series)


def _ct(study: Study, series: Series) -> Blueprint:
    region = (HEAD, CHEST, ABDOMEN)[study.number % 3]
    kernel, thickness, centre, width = (("B30f", 3.0, 40, 400), ("B60f", 1.0, -600, 1200))[series.number % 2]
    dataset = described(study, series, "CT", region, f"{region.meaning} {thickness} {kernel}")
    dataset.SOPClassUID = CTImageStorage
    form, spacing = Form("ct", 512, 512, 12), 0.703125
    _add_plane(dataset, study, spacing, thickness)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber = series.number
    dataset.KVP, dataset.XRayTubeCurrent, dataset.ExposureTime, dataset.Exposure = 120, 210, 500, 105
    dataset.DataCollectionDiameter = 500
    dataset.ReconstructionDiameter = spacing * form.columns
    dataset.DistanceSourceToDetector, dataset.DistanceSourceToPatient = 1040, 570
    dataset.GantryDetectorTilt, dataset.TableHeight, dataset.RotationDirection = 0, 147.5, "CW"
    dataset.FilterType, dataset.ConvolutionKernel = "BODY", kernel
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = centre, width
    add_header(dataset, study, series, 4096)
    return Blueprint(dataset, form, slices=Slices(-180.0, -312.5, thickness), seconds=0.25)


def _mr(study: Study, series: Series) -> Blueprint:
    region = (HEAD, LUMBAR_SPINE, KNEE)[study.number % 3]
    name, repetition, echo = (("T1 SE", 550, 12), ("T2 TSE", 4200, 98), ("PD TSE", 2800, 30))[
        series.number % 3
    ]
    dataset = described(study, series, "MR", region, f"{name} tra")
    dataset.SOPClassUID = MRImageStorage
    _add_plane(dataset, study, 0.859375, 5.0)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.AcquisitionNumber = series.number
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", ["SK", "SP"], ""
    dataset.MRAcquisitionType, dataset.SequenceName = "2D", "*tse2d1"
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = repetition, echo, 7
    dataset.NumberOfAverages, dataset.FlipAngle, dataset.PixelBandwidth = 2, 150, 130
    dataset.MagneticFieldStrength, dataset.ImagingFrequency, dataset.ImagedNucleus = 1.5, 63.68, "1H"
    dataset.SpacingBetweenSlices, dataset.SAR = 6.0, 0.92
    dataset.WindowCenter, dataset.WindowWidth = 420, 840
    add_header(dataset, study, series, 8192)
    return Blueprint(dataset, Form("mr", 256, 256, 12), slices=Slices(-110.0, -66.0, 6.0), seconds=3.5)


def _cr(study: Study, series: Series) -> Blueprint:
    region = (CHEST, HAND)[study.number % 2]
    dataset = described(study, series, "CR", region, region.order)
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ViewPosition = ("PA", "LL")[(series.number - 1) % 2]
    dataset.PatientOrientation = ["L", "F"]
    dataset.KVP, dataset.PlateType, dataset.ImagerPixelSpacing = 73, "RP1T1001", [0.1715, 0.1715]
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    add_header(dataset, study, series, 1024)
    return Blueprint(dataset, Form("xray", 2500, 2048, 12), seconds=40)


def _dx(study: Study, series: Series) -> Blueprint:
    region = (CHEST, KNEE)[study.number % 2]
    dataset = described(study, series, "DX", region, region.order)
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.ImageType, dataset.PresentationIntentType = ["ORIGINAL", "PRIMARY"], "FOR PRESENTATION"
    dataset.ImageLaterality = dataset.get("Laterality", "U")
    if "Laterality" in dataset:
        del dataset.Laterality  # either of the two, in this IOD
    dataset.AnatomicRegionSequence = [region.coded()]
    dataset.AcquisitionContextSequence = []
    dataset.ViewPosition, dataset.PatientOrientation = "AP", ["L", "F"]
    dataset.KVP, dataset.Exposure, dataset.DetectorType = 125, 2, "SCINTILLATOR"
    dataset.PositionerType = ""
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [0.143, 0.143]
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.LossyImageCompression, dataset.BurnedInAnnotation = "00", "NO"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 3600
    add_header(dataset, study, series, 1024)
    return Blueprint(dataset, Form("xray", 2500, 2048, 12), seconds=40)


def _ultrasound(study: Study, series: Series) -> Blueprint:
    dataset = described(study, series, "US", ABDOMEN, "Liver, sagittal")
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    dataset.PatientOrientation = ""
    dataset.LossyImageCompression, dataset.UltrasoundColorDataPresent = "00", 1
    _add_cine(dataset, frames := 20, 33.3)
    add_header(dataset, study, series, 1024)
    return Blueprint(dataset, Form("us", 480, 640, 8, colour=True), frames, seconds=30)


def _enhanced_mr(study: Study, series: Series) -> Blueprint:
    dataset = described(study, series, "MR", HEAD, "T2 SPACE, resampled")
    enhanced_mr(dataset, study, series, frames := 60)
    add_header(dataset, study, series, 8192)
    return Blueprint(dataset, Form("mr", 256, 256, 12), frames, seconds=60)


def _capture(study: Study, series: Series) -> Blueprint:
    dataset = described(study, series, "OT", CHEST, "Screenshot")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    _add_capture(dataset)
    return Blueprint(dataset, Form("mark", 16, 16, 8))


def _report(study: Study, series: Series) -> Blueprint:
    dataset = described(study, series, "SR", CHEST, "Report")
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [coded("18748-4", "LN", "Diagnostic imaging report")]
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = [coded("121071", "DCM", "Finding")]
    text.TextValue = study.patient.hospital.finding
    dataset.ContentSequence = [text]
    return Blueprint(dataset, None)


def _huge(study: Study, series: Series, size: int) -> Blueprint:
    dataset = described(study, series, "OT", HEAD, "Long recording")
    dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    _add_capture(dataset)
    dataset.BurnedInAnnotation, dataset.PresentationLUTShape = "NO", "IDENTITY"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    frames = size // HUGE_FRAME.frame_bytes
    _add_cine(dataset, frames, 40.0)
    return Blueprint(dataset, HUGE_FRAME, frames)


def _add_plane(dataset: Dataset, study: Study, spacing: float, thickness: float) -> None:
    """Frame of Reference and Image Plane (PS3.3 C.7.4.1, C.7.6.2), but for the position."""
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = study.uid_of("frame of reference"), ""
    dataset.PatientPosition = "HFS"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [spacing, spacing], thickness


def _add_capture(dataset: Dataset) -> None:
    """SC Equipment (PS3.3 C.8.6.1), and what all images have."""
    dataset.ImageType, dataset.ConversionType = ["DERIVED", "SECONDARY"], "WSD"
    dataset.PatientOrientation = ""


def _add_cine(dataset: Dataset, frames: int, milliseconds: float) -> None:
    """Multi-frame and Cine (PS3.3 C.7.6.6, C.7.6.5)."""
    dataset.NumberOfFrames, dataset.FrameTime = frames, milliseconds
    dataset.FrameIncrementPointer = Tag("FrameTime")


_VARIANTS: dict[str, tuple[Callable[[Study, Series], Blueprint], ...]] = {
    "ct": (_ct,),
    "mr": (_mr,),
    "radiograph": (_cr, _dx),
    "multiframe": (_ultrasound, _enhanced_mr),
    "tiny": (_capture, _capture, _report),
}
