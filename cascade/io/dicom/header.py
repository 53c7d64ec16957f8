"""Read the header of a DICOM file, and check that it is an MRI image that can be decoded.

Messages never contain a text from the header, since any text may name a patient.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder

from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.dicom.attributes import (
    CONTRAST_ATTRIBUTES,
    ENHANCED_MR,
    FUNCTIONAL_GROUPS,
    IDENTIFIERS,
    KEYWORDS,
    MR,
    MULTI_FRAME,
    SECONDARY_CAPTURE,
    SECONDARY_CAPTURES,
)
from cascade.io.dicom.elements import (
    Numbers,
    damaged_error,
    functional_group,
    get_int,
    get_numbers,
    get_uid,
    get_values,
    read_dataset,
)
from cascade.io.silence import silence_decoders
from cascade.io.slices import check_volume_size

OTHER_MODALITIES = frozenset(
    {"CR", "CT", "DX", "KO", "MG", "NM", "OT", "PR", "PT", "RTSTRUCT", "SEG", "SR", "US", "XA"}
)
"""Modalities that an error may name. Any other text could be a name."""

MAX_T1_ECHO_MS = 40.0
"""T1-weighted sequences have echo times of about 2 to 25 ms; T2, FLAIR and diffusion have 60 ms and more."""

ORIENTATION_TOLERANCE = 1e-3
"""Direction cosines with a smaller difference count as equal."""


class NotMRI(CascadeError):
    """The file is valid, but not an MRI image. One such error stands for all similar files of a folder."""


@dataclass(frozen=True)
class Frame:
    """The geometry and intensity scale of one frame. Attributes are None if the header does not contain them.

    Attributes:
        position: (x, y, z) of the center of the first pixel in millimeters, in LPS+ orientation.
        orientation: Direction cosines of its rows, then of its columns.
        spacing_mm: Distance between pixel centers in millimeters: (row, column).
        slope: Rescale slope: intensity = stored value * slope + intercept.
        intercept: Rescale intercept.
        contrast: Values of `CONTRAST_ATTRIBUTES`, by keyword.
    """

    position: Numbers | None
    orientation: Numbers | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    contrast: dict[str, str] = field(hash=False)

    @property
    def distance_mm(self) -> float:
        """Distance from the origin along the slice normal, in millimeters; 0 if unknown."""
        if self.position is None or self.orientation is None:
            return 0.0
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position)

    def is_parallel(self, other: "Frame") -> bool:
        """Return True if both frames have the same orientation and spacing, as in one volume."""
        pairs = ((self.orientation, other.orientation), (self.spacing_mm, other.spacing_mm))
        return all(_is_close(own or (), others or ()) for own, others in pairs)


def _is_close(one: Numbers, other: Numbers) -> bool:
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=ORIENTATION_TOLERANCE))


@dataclass(frozen=True)
class Header:
    """The header of a file. Missing UIDs are empty, missing numbers None.

    Attributes:
        path: The file.
        patient_id: Separates the files of patients with equal UIDs; empty in de-identified files. Never shown.
        transfer_syntax_uid: The encoding of the pixels.
        inverted: High values are dark (MONOCHROME1).
        lossy: The pixels were compressed with loss.
        thickness_mm: Slice thickness in millimeters.
        frames: The frames, in stored order.
        notes: Warnings for the user.
        identifiers: `IDENTIFIERS` of patient and study, by keyword; empty unless requested.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    patient_id: str = field(repr=False)
    series_number: int | None
    instance_number: int
    transfer_syntax_uid: str
    rows: int
    columns: int
    inverted: bool
    lossy: bool
    thickness_mm: float | None
    frames: tuple[Frame, ...]
    notes: tuple[str, ...]
    identifiers: dict[str, str] = field(hash=False)

    @property
    def has_geometry(self) -> bool:
        """True if the header has the UIDs and the geometry that a DICOM segmentation needs to refer to the file."""
        uids = (self.sop_instance_uid, self.study_uid, self.series_uid, self.frame_of_reference_uid)
        return all(uids) and all(frame.position and frame.orientation and frame.spacing_mm for frame in self.frames)


def read_header(path: Path, *, keep_identifiers: bool = False) -> Header:
    """Read the header of a DICOM file, without pixels.

    Args:
        path: The file.
        keep_identifiers: Read the identifiers of patient and study.

    Raises:
        NotMRI: If it is a valid file, but not an MRI image.
        CascadeError: If it cannot be read or decoded.
    """
    identifiers = IDENTIFIERS if keep_identifiers else ()
    unreadable = "its header cannot be read"  # without the message of pydicom, which quotes the header
    with read_errors(path, lambda _: damaged_error(path, unreadable)), silence_decoders():
        dataset = read_dataset(path, KEYWORDS + identifiers)
        _check_kind(path, dataset)
        _check_pixels(path, dataset)
        return _header(path, dataset, identifiers)


def _check_kind(path: Path, dataset: Dataset) -> None:
    modality = str(dataset.get("Modality", ""))
    sop_class = str(dataset.get("SOPClassUID", ""))
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if not sop_class:
        raise damaged_error(path, "its header has no SOP class")
    if modality != "MR" and not (modality == "" and sop_class in ENHANCED_MR | {MR}):
        name = modality if modality in OTHER_MODALITIES else "unknown"
        raise NotMRI(f"{path}: its modality is {name}, not MR", fix="give MRI slices")
    if sop_class not in MULTI_FRAME | {MR, SECONDARY_CAPTURE}:
        raise NotMRI(f"{path}: its SOP class is not that of an MRI image", fix="give MR images")
    if "LOCALIZER" in get_values(dataset, "ImageType"):
        raise NotMRI(f"{path}: is a localizer", fix="give the T1 series with contrast agent")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise NotMRI(f"{path}: contains color", fix="give the intensities that the scanner stored")


def _check_pixels(path: Path, dataset: Dataset) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    rows, columns, bits = (int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated"))
    if min(frames, rows, columns) < 1 or bits not in (8, 16, 32) or not dataset.get("PhotometricInterpretation"):
        raise damaged_error(path, "its header does not describe its pixels")
    check_volume_size(path, frames, rows, columns, None)
    if frames > 1 and str(dataset.SOPClassUID) not in MULTI_FRAME:
        raise CascadeError(
            f"{path}: contains {frames:,} frames, but its SOP class allows one", fix="export it as enhanced MR"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise CascadeError(
            f"{path}: its pixels have an unknown encoding", fix="store it uncompressed, for example with dcmdjpeg"
        ) from None
    if not decoder.is_available:
        raise CascadeError(f"{path}: its pixels are compressed", fix="pip install 'cascade-mri[compressed]'")
    if not syntax.is_encapsulated and path.stat().st_size < frames * rows * columns * bits // 8:
        raise damaged_error(path, "it is shorter than its header declares")


def _header(path: Path, dataset: Dataset, identifiers: tuple[str, ...]) -> Header:
    frames = tuple(_frames(path, dataset))
    if not all(frame.is_parallel(frames[0]) for frame in frames):
        raise CascadeError(
            f"{path}: contains frames of several orientations or pixel sizes", fix="export each volume as one file"
        )
    thickness = get_numbers(path, functional_group(dataset, 0, "PixelMeasuresSequence"), "SliceThickness", 1)
    return Header(
        path=path,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=get_uid(dataset, "SOPInstanceUID"),
        study_uid=get_uid(dataset, "StudyInstanceUID"),
        series_uid=get_uid(dataset, "SeriesInstanceUID"),
        frame_of_reference_uid=get_uid(dataset, "FrameOfReferenceUID"),
        patient_id=str(dataset.get("PatientID") or ""),
        series_number=get_int(path, dataset, "SeriesNumber"),
        instance_number=get_int(path, dataset, "InstanceNumber") or 0,
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        lossy=dataset.get("LossyImageCompression") == "01",
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        frames=frames,
        notes=tuple(_notes(dataset, frames[0])),
        identifiers={
            keyword: "\\".join(map(str, get_values(dataset, keyword))) for keyword in identifiers if keyword in dataset
        },
    )


def _frames(path: Path, dataset: Dataset) -> Iterable[Frame]:
    count = int(dataset.get("NumberOfFrames") or 1)
    groups = len(dataset.get(FUNCTIONAL_GROUPS[1]) or ())
    if groups not in (0, count):
        raise damaged_error(path, f"it declares {count:,} frames, but describes {groups:,}")
    for index in range(count):
        scale = functional_group(dataset, index, "PixelValueTransformationSequence")
        orientation = get_numbers(
            path, functional_group(dataset, index, "PlaneOrientationSequence"), "ImageOrientationPatient", 6
        )
        if orientation and not np.allclose(_gram(orientation), np.eye(2), atol=0.01):
            raise damaged_error(path, "its ImageOrientationPatient is not a pair of perpendicular unit vectors")
        spacing = get_numbers(path, functional_group(dataset, index, "PixelMeasuresSequence"), "PixelSpacing", 2)
        if spacing and min(spacing) <= 0:
            raise damaged_error(path, "its PixelSpacing is not positive")
        slope = get_numbers(path, scale, "RescaleSlope", 1) or (1.0,)
        if slope[0] == 0:
            raise damaged_error(path, "its RescaleSlope is 0")
        position_group = functional_group(dataset, index, "PlanePositionSequence")
        yield Frame(
            position=get_numbers(path, position_group, "ImagePositionPatient", 3),
            orientation=orientation,
            spacing_mm=(spacing[0], spacing[1]) if spacing else None,
            slope=slope[0],
            intercept=(get_numbers(path, scale, "RescaleIntercept", 1) or (0.0,))[0],
            contrast={
                keyword: str(group[keyword].value)
                for keyword, sequence in CONTRAST_ATTRIBUTES.items()
                if (group := functional_group(dataset, index, sequence)).get(keyword) not in (None, "")
            },
        )


def _gram(orientation: Numbers) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Return the (2, 2) dot products of both directions: the identity for perpendicular unit vectors."""
    directions = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
    return np.asarray(directions @ directions.T)


def _notes(dataset: Dataset, frame: Frame) -> Iterable[str]:
    if str(dataset.SOPClassUID) in SECONDARY_CAPTURES | {SECONDARY_CAPTURE}:
        yield "it is a secondary capture: its intensities may differ from those of the scanner"
    if not dataset.get("ContrastBolusAgent") and not dataset.get("ContrastBolusAgentSequence"):
        yield "its header names no contrast agent: the models were trained on slices with contrast agent only"
    echo = frame.contrast.get("EchoTime") or frame.contrast.get("EffectiveEchoTime") or "0"
    if float(echo) > MAX_T1_ECHO_MS:
        yield f"its echo time of {float(echo):g} ms is too long for T1: the models were trained on T1 only"
    if dataset.get("BurnedInAnnotation") == "YES":
        yield "its pixels contain burned-in text, which may name the patient and also appears in overlays"
