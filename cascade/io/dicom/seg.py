"""Encode the masks of DICOM images, or their tumor probabilities, as a DICOM segmentation that refers to the images."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.valuerep import DSfloat

from cascade import __version__
from cascade.contract import FloatArray
from cascade.io.dicom.attributes import IDENTIFIERS, MR
from cascade.io.dicom.frame import Frame
from cascade.io.dicom.header import Header

SERIES_NUMBER, PROBABILITY_SERIES_NUMBER = 9001, 9002
"""Series numbers outside the range that scanners use."""

TOLERANCE = 0.01
"""How far a slice may lie from its place in a regular grid, in distances of slices; that of highdicom."""


def encode_segmentation(headers: Sequence[Header], slices: NDArray[np.bool_] | FloatArray) -> bytes:
    """Encode masks or probabilities as the content of a DICOM SEG file, with one frame per slice, even if it is empty.

    The file contains the UIDs of the images, so that viewers can show it on top of them, their geometry, and the
    identifiers of patient and study if the headers have them. Otherwise the identifiers are empty, which some archives
    do not accept. If the headers have no slice thickness, it is the median distance between the slices.

    Args:
        headers: Headers of files of one frame, one per mask; or that of one file of several frames. They must have a
            geometry, and that of a single slice a thickness.
        slices: (count, H, W), in the order of the headers, or of the frames of the file: masks of bool, or
            probabilities of float32, 0 to 1, which are stored as multiples of 1/255.
    """
    # Slow to import, and not needed for reading.
    import highdicom as hd
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    is_mask, first = slices.dtype == np.bool_, headers[0]
    what = "tumor" if is_mask else "probability of tumor"
    distances = sorted(frame.distance_mm for header in headers for frame in header.frames)
    thickness = first.thickness_mm or float(np.median(np.diff(distances)))
    spacing = _spacing_between_slices(distances, thickness)
    tumor = SegmentDescription(
        segment_number=1,
        segment_label="tumor",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="cascade", family=codes.cid7162.ArtificialIntelligence, version=__version__
        ),
    )
    segmentation = Segmentation(
        source_images=[_source_image(header, first.frames[0], thickness, spacing) for header in headers],
        pixel_array=slices,
        segmentation_type="BINARY" if is_mask else "FRACTIONAL",
        fractional_type="PROBABILITY",
        segment_descriptions=[tumor],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER if is_mask else PROBABILITY_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="cascade",
        manufacturer_model_name="cascade",
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=False,
        content_label="TUMOR" if is_mask else "PROBABILITY",
        content_description="found by cascade, for research only",
        series_description=f"{what} found by cascade, for research only",
    )
    set_identifiers(segmentation, first)
    _restore_sop_classes(segmentation, headers)
    content = io.BytesIO()
    segmentation.save_as(content, enforce_file_format=True)
    return content.getvalue()


def set_identifiers(dataset: Dataset, header: Header) -> None:
    """Copy the identifiers of patient and study, if the header has them. highdicom would reject invalid values."""
    if header.identifiers:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in header.identifiers.items():
        setattr(dataset, keyword, value)


def _spacing_between_slices(distances_mm: Sequence[float], thickness_mm: float) -> float | None:
    """Return the spacing of the grid that all slices lie on, some of which may be missing; None if they lie on no grid.

    A single slice lies on one of its thickness.
    """
    gaps = np.diff(distances_mm)
    if not gaps.size:
        return thickness_mm
    steps = gaps / max(gaps.min(), TOLERANCE)
    whole = np.round(steps)
    return float(gaps.sum() / whole.sum()) if np.allclose(steps, whole, rtol=0, atol=TOLERANCE) else None


def _source_image(header: Header, frame: Frame, thickness_mm: float, spacing_mm: float | None) -> Dataset:
    """Return the elements of an image that highdicom needs, with empty identifiers, which it would copy.

    The orientation and spacing are those of `frame`, since highdicom requires them to be equal in a volume. It accepts
    several images only of a class that allows one frame, so an image of one frame gets such a class.
    """
    has_one_frame = len(header.frames) == 1
    image = Dataset()
    for keyword in IDENTIFIERS:
        setattr(image, keyword, "")
    image.Modality = "MR"
    image.SOPClassUID = MR if has_one_frame else header.sop_class_uid
    image.SOPInstanceUID = header.sop_instance_uid
    image.StudyInstanceUID = header.study_uid
    image.SeriesInstanceUID = header.series_uid
    image.FrameOfReferenceUID = header.frame_of_reference_uid
    image.LossyImageCompression = "01" if header.lossy else "00"
    image.Rows, image.Columns = header.rows, header.columns
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = _decimals(frame.spacing_mm or ())
    (measures.SliceThickness,) = _decimals([thickness_mm])
    if spacing_mm is not None:
        (measures.SpacingBetweenSlices,) = _decimals([spacing_mm])
    orientation.ImageOrientationPatient = _decimals(frame.orientation or ())
    positions = [Dataset() for _ in header.frames]
    for position, own in zip(positions, header.frames, strict=True):
        position.ImagePositionPatient = _decimals(own.position or ())
    if has_one_frame:
        for part in (measures, orientation, *positions):
            image.update(part)
        return image
    image.NumberOfFrames = len(positions)
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [Dataset() for _ in positions]
    for groups, position in zip(image.PerFrameFunctionalGroupsSequence, positions, strict=True):
        groups.PlanePositionSequence = [position]
    return image


def _restore_sop_classes(segmentation: Dataset, headers: Sequence[Header]) -> None:
    """Refer to the images by the classes that they have, see `_source_image`."""
    classes = {header.sop_instance_uid: header.sop_class_uid for header in headers}

    def restore(item: Dataset, element: DataElement) -> None:
        if element.keyword == "ReferencedSOPClassUID":
            element.value = classes[item.ReferencedSOPInstanceUID]

    segmentation.walk(restore)


def _decimals(numbers: Iterable[float]) -> list[DSfloat]:
    """Convert numbers to DICOM decimal strings of at most 16 characters."""
    return [DSfloat(number, auto_format=True) for number in numbers]
