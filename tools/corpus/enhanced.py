"""Enhanced MR (PS3.3 A.36.2): functional groups, shared and of each frame, and dimensions.

The image is a derived one, resampled from a volume, which the pulse sequence is no part of.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage

from corpus.plan import Series
from corpus.studies import HEAD, Study

_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]


def enhanced_mr(dataset: Dataset, study: Study, series: Series, frames: int) -> None:
    """Make of a data set with patient to equipment one of `frames` slices."""
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.AcquisitionNumber, dataset.NumberOfFrames = 1, frames
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = study.uid_of("frame of reference"), ""
    dataset.PatientPosition = "HFS"
    dataset.ContentQualification = "PRODUCT"
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.ApplicableSafetyStandardAgency = "IEC"
    dataset.AcquisitionContextSequence = []
    dataset.ImageType = _TYPE
    _describe(dataset)
    organization = Dataset()
    organization.DimensionOrganizationUID = study.uid_of("dimensions", series.number)
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = [
        _dimension(organization.DimensionOrganizationUID, keyword)
        for keyword in ("StackID", "InStackPositionNumber")
    ]
    dataset.SharedFunctionalGroupsSequence = [_shared()]
    dataset.PerFrameFunctionalGroupsSequence = [_of_frame(number) for number in range(frames)]


def _describe(dataset: Dataset) -> None:
    """PS3.3 Table C.8-131 and C.8-84, the same for the image and its frames."""
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.ComplexImageComponent, dataset.AcquisitionContrast = "MAGNITUDE", "T2"


def _dimension(organization: str, keyword: str) -> Dataset:
    index = Dataset()
    index.DimensionOrganizationUID = organization
    index.DimensionIndexPointer = Tag(keyword)
    index.FunctionalGroupPointer = Tag("FrameContentSequence")
    return index


def _shared() -> Dataset:
    measures, orientation, anatomy, transformation, window, kind = (Dataset() for _ in range(6))
    measures.PixelSpacing, measures.SliceThickness = [0.9, 0.9], 1.0
    measures.SpacingBetweenSlices = 1.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [HEAD.coded()]
    transformation.RescaleIntercept, transformation.RescaleSlope = 0, 1
    transformation.RescaleType = "US"
    window.WindowCenter, window.WindowWidth = 420, 840
    kind.FrameType = _TYPE
    _describe(kind)
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.FrameAnatomySequence = [anatomy]
    shared.PixelValueTransformationSequence = [transformation]
    shared.FrameVOILUTSequence = [window]
    shared.MRImageFrameTypeSequence = [kind]
    return shared


def _of_frame(number: int) -> Dataset:
    content, position = Dataset(), Dataset()
    content.FrameAcquisitionNumber = 1
    content.StackID, content.InStackPositionNumber = "1", number + 1
    content.DimensionIndexValues = [1, number + 1]
    position.ImagePositionPatient = [-115.2, -115.2, float(number - 30)]
    groups = Dataset()
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    return groups
