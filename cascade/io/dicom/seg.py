"""Masks of DICOM images → a binary DICOM SEG that refers to them and lies where they lie."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from cascade import __version__
from cascade.io.dicom.header import IDENTIFIERS, MULTI_FRAME, Header, Plane

SERIES_NUMBER = 9001
"""Beyond those that scanners give."""


def segmentation(sources: Sequence[Header], masks: NDArray[np.bool_]) -> bytes:
    """The whole file: one frame a mask, with those that are empty, so that a mask without tumor is valid too.

    sources  of single-frame files as many as masks, in their order; or one of a multi-frame file.
    masks    (count, H, W), in the order of the sources or of the one source's frames.

    A thickness that the header does not tell is the distance between slices; a single slice has to tell it.

    It holds nothing of the sources but their UIDs, by which viewers lay it over them, their geometry, and, where they
    were kept, the identifiers of patient and study. Otherwise those are empty; an archive may then want them filled in.
    """
    # Slow to load, and not needed to read.
    import highdicom as hd
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    first = sources[0]
    distances = sorted(plane.distance_mm for header in sources for plane in header.planes)
    thickness = first.thickness_mm or float(np.median(np.diff(distances)))
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
    made = Segmentation(
        source_images=[_described(header, first.planes[0], thickness) for header in sources],
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=[tumor],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="cascade",
        manufacturer_model_name="cascade",
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=False,
        content_label="TUMOR",
        content_description="found by cascade, for research only",
        series_description="tumor found by cascade, for research only",
    )
    if identifiers := first.identifiers:
        made.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in identifiers.items():  # here and not by highdicom, which stops at values out of order
            setattr(made, keyword, value)
    content = io.BytesIO()
    made.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _described(header: Header, plane: Plane, thickness_mm: float) -> Dataset:
    """The source as highdicom wants it, without anything that it might copy; oriented as `plane`, with its stack."""
    source = Dataset()
    for keyword in IDENTIFIERS:
        setattr(source, keyword, "")
    source.Modality = "MR"
    source.SOPClassUID = header.sop_class_uid
    source.SOPInstanceUID = header.sop_uid
    source.StudyInstanceUID = header.study_uid
    source.SeriesInstanceUID = header.series_uid
    source.FrameOfReferenceUID = header.space_uid
    source.LossyImageCompression = "01" if header.lossy else "00"
    source.Rows, source.Columns = header.rows, header.columns
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = _decimals(plane.spacing_mm or ())
    (measures.SliceThickness,) = _decimals([thickness_mm])
    orientation.ImageOrientationPatient = _decimals(plane.orientation or ())
    positions = [Dataset() for _ in header.planes]
    for position, of in zip(positions, header.planes, strict=True):
        position.ImagePositionPatient = _decimals(of.position or ())
    if header.sop_class_uid not in MULTI_FRAME:
        for part in (measures, orientation, *positions):
            source.update(part)
        return source
    source.NumberOfFrames = len(positions)
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    source.SharedFunctionalGroupsSequence = [shared]
    source.PerFrameFunctionalGroupsSequence = [Dataset() for _ in positions]
    for groups, position in zip(source.PerFrameFunctionalGroupsSequence, positions, strict=True):
        groups.PlanePositionSequence = [position]
    return source


def _decimals(numbers: Iterable[float]) -> list[DSfloat]:
    """As DICOM writes them, in at most 16 characters."""
    return [DSfloat(number, auto_format=True) for number in numbers]
