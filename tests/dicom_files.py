"""Make DICOM files with a planted patient, whose texts must not appear in any output, and open them."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

from cascade.errors import CascadeError
from cascade.io.dicom.series import open_dicom

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"

PLANTED = "PLANTED"
"""Part of each text below."""

TEXTS = {
    "PatientName": "PLANTED^JANE",
    "PatientID": "PLANTED-1",
    "PatientBirthDate": "19410203",
    "PatientSex": "F",
    "PatientAddress": "PLANTED STREET",
    "PatientComments": "PLANTED",
    "OtherPatientIDs": "PLANTED-2",
    "StudyDate": "19990203",
    "StudyTime": "111213",
    "StudyID": "PLANTED-3",
    "StudyDescription": "PLANTED",
    "SeriesDescription": "PLANTED T1",
    "ProtocolName": "PLANTED",
    "AccessionNumber": "PLANTED-4",
    "ReferringPhysicianName": "PLANTED^JOHN",
    "OperatorsName": "PLANTED^JIM",
    "InstitutionName": "PLANTED HOSPITAL",
    "InstitutionAddress": "PLANTED STREET",
    "StationName": "PLANTED",
    "Manufacturer": "PLANTED",
    "DeviceSerialNumber": "PLANTED",
    "PositionReferenceIndicator": "PLANTED",
    "ImageComments": "PLANTED",
    "ContrastBolusAgent": "PLANTED gadolinium",
    "AcquisitionDate": "19990203",
}

HEAD = np.random.default_rng(0).integers(1, 1000, (6, 20, 24)).astype(np.uint16)
MARKER = (4, 3, 17)  # slice, row, column
HEAD[MARKER] = 4000

OBLIQUE = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
"""Rows run to the back and left, columns to the feet: a rotated sagittal slice, stored as it is displayed."""

NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
SPACING = (0.8, 0.9)
STEP_MM = 3.0
ORIGIN = np.array([-20.0, 31.5, 7.25])


def position(index):
    return [round(float(number), 6) for number in ORIGIN + index * STEP_MM * NORMAL]


def image(pixels, **changes):
    """Make an MR image with changed elements; a change to None removes the element."""
    dataset = FileDataset("", {}, preamble=bytes(128), file_meta=FileMetaDataset())
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in {
        **TEXTS,
        "SOPClassUID": MR,
        "SOPInstanceUID": "1.2.3.4.1",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.2",
        "FrameOfReferenceUID": "1.2.3.3",
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
        "SeriesNumber": 3,
        "InstanceNumber": 1,
        "EchoTime": 12,
        "SliceThickness": 2.5,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "PixelSpacing": list(SPACING),
        "ImageOrientationPatient": list(OBLIQUE),
        "ImagePositionPatient": position(0),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "HighBit": 8 * pixels.dtype.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
        **changes,
    }.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", MR)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3.4.1")
    return dataset


def write(path, dataset):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def compressed(dataset, syntax, frames):
    """Replace the pixels of a data set by encoded frames."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def series(folder, head=HEAD, **changes):
    """Write one file per slice, with names in reverse order of their positions. Returns the paths."""
    return [
        write(
            folder / f"IM{len(head) - index:04}",
            image(
                pixels,
                **{
                    "SOPInstanceUID": f"1.2.3.4.{index + 1}",
                    "InstanceNumber": len(head) - index,
                    "ImagePositionPatient": position(index),
                    **changes,
                },
            ),
        )
        for index, pixels in enumerate(head)
    ]


def series_affine(spacing=SPACING):
    """Return the NIfTI affine of the array (columns, rows, slices) of a series."""
    along_row, along_column = np.reshape(OBLIQUE, (2, 3))
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * spacing[1], along_column * spacing[0], NORMAL * STEP_MM, ORIGIN])
    return np.diag([-1, -1, 1, 1]) @ affine  # from LPS+ to RAS+


def groups(**sequences):
    """Make a functional group; each keyword becomes a sequence of one item, given as a dict."""
    group = Dataset()
    for keyword, elements in sequences.items():
        item = Dataset()
        for name, value in elements.items():
            setattr(item, name, value)
        setattr(group, keyword, [item])
    return group


def multi_frame(head=HEAD, order=(3, 0, 5, 1, 4, 2), frame_groups=lambda frame: {}, **changes):
    """Make an enhanced MR file whose frames are the slices in this order."""
    shared = groups(
        PixelMeasuresSequence={"PixelSpacing": list(SPACING), "SliceThickness": 2.5},
        PlaneOrientationSequence={"ImageOrientationPatient": list(OBLIQUE)},
        PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -1, "RescaleType": "US"},
    )
    frames = [
        groups(
            **{
                "PlanePositionSequence": {"ImagePositionPatient": position(index)},
                "FrameContentSequence": {"FrameComments": PLANTED},
                **frame_groups(frame),
            }
        )
        for frame, index in enumerate(order)
    ]
    nowhere = dict.fromkeys(("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness"))
    return image(
        head[list(order)],
        **{
            "SOPClassUID": ENHANCED_MR,
            "NumberOfFrames": len(order),
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
            "EchoTime": None,
            **nowhere,
            **changes,
        },
    )


def opened(paths, root):
    """Open files that form one source without problems."""
    (source,), problems, _ = open_dicom(paths, root)
    assert problems == {}
    return source


def refusal(path):
    """Return the problem of opening or reading one file."""
    sources, problems, _ = open_dicom([path], path.parent)
    if sources:
        with pytest.raises(CascadeError) as raised:
            sources[0].read(0)
        error = raised.value
    else:
        error = problems[path]
    assert str(path) in error.problem
    assert PLANTED not in error.problem
    assert error.fix
    return error.problem
