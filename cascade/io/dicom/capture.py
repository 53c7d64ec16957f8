"""Encode pictures of slices as DICOM secondary captures, for viewers that do not show segmentations."""

import io

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cascade import __version__
from cascade.io.dicom.header import Header
from cascade.io.dicom.seg import set_identifiers

SERIES_NUMBER = 9003
"""Series number outside the range that scanners use."""

DISPLAYED = {0: ("P", "F"), 1: ("L", "F"), 2: ("L", "P")}
"""Plane of a displayed slice, see `Grid` → where its rows and its columns run to in the patient."""


def encode_capture(
    header: Header,
    frame_index: int,
    picture: NDArray[np.uint8],
    *,
    instance_number: int,
    series_uid: str,
    plane: int | None,
    spacing_mm: tuple[float, float] | None,
) -> bytes:
    """Encode a picture as the content of a DICOM secondary capture, which refers to the image that it shows.

    Args:
        header: Header of the image, with the UIDs of study and image.
        frame_index: Index of the frame in it.
        picture: (H, W, 3), the displayed slice with the outline of the tumor.
        instance_number: Number in the new series, from 1.
        series_uid: UID of the new series.
        plane: Plane of the displayed slice, see `Grid`; None if unknown.
        spacing_mm: Distance between pixel centers of the picture: (row, column). None if unknown.
    """
    import highdicom as hd  # slow to import, and not needed for reading
    from highdicom.sc import SCImage
    from pydicom.sr.codedict import codes

    capture = SCImage(
        picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.study_uid,
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=instance_number,
        manufacturer="cascade",
        manufacturer_model_name="cascade",
        software_versions=__version__,
        series_description="tumor outlined by cascade, for research only",
        pixel_spacing=spacing_mm,
        patient_orientation=DISPLAYED[2 if plane is None else plane],
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    if plane is None:
        capture.PatientOrientation = []  # highdicom demands a value, the standard allows that it is unknown
    capture.ConversionType = "WSD"  # a workstation; highdicom writes that of a digital interface
    capture.DerivationDescription = "Outline of the tumor found by cascade. For research only, not for diagnosis."
    if header.burned_in_annotation:
        capture.BurnedInAnnotation = header.burned_in_annotation
    source = Dataset()
    source.ReferencedSOPClassUID = header.sop_class_uid
    source.ReferencedSOPInstanceUID = header.sop_instance_uid
    if len(header.frames) > 1:
        source.ReferencedFrameNumber = frame_index + 1
    source.PurposeOfReferenceCodeSequence = [
        hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    capture.SourceImageSequence = [source]
    set_identifiers(capture, header)
    content = io.BytesIO()
    capture.save_as(content, enforce_file_format=True)
    return content.getvalue()
