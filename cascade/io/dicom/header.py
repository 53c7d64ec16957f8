"""One DICOM file → `Header`: what cascade takes from it, once it is sure that it is an MRI image that can be decoded.

Only the elements listed here are read, and no text among them is ever shown: any may name a patient.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder

from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.dicom.elements import (
    GROUPS,
    Numbers,
    damaged,
    group_of,
    numbers_of,
    read_dataset,
    uid_of,
    values_of,
    whole_of,
)
from cascade.io.silence import silence_decoders
from cascade.io.slices import check_size

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})  # the latter converted to it
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SECONDARY_CAPTURES = frozenset({"1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3"})  # grey, of many frames

MULTI_FRAME = ENHANCED_MR | SECONDARY_CAPTURES
"""SOP classes whose files may hold many frames, and tell of them in functional groups."""

OTHER_MODALITIES = frozenset(
    {"CR", "CT", "DX", "KO", "MG", "NM", "OT", "PR", "PT", "RTSTRUCT", "SEG", "SR", "US", "XA"}
)
"""Those that an error may name; any other text in that place is not shown."""

LONGEST_T1_ECHO_MS = 40.0
"""T1 weighting takes short echo times, some 2 to 25 ms; T2, FLAIR and diffusion take 60 and more."""

PARALLEL_WITHIN = 1e-3
"""Direction cosines that differ by less are of one orientation."""

IDENTIFIERS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""What a DICOM file has to say, if only by an empty value, of its patient and study."""

TRAITS = {
    "EchoTime": "",
    "EchoNumbers": "",
    "InversionTime": "",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "TemporalPositionIdentifier": "",
    "TemporalPositionIndex": "FrameContentSequence",
    "TriggerTime": "",
    "AcquisitionNumber": "",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "ImageType": "",
    "FrameType": "MRImageFrameTypeSequence",
}
"""By what images of one place differ where a series holds several, and the functional group that tells it."""

TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"),
    *("Modality", "ImageType", "SeriesNumber", "InstanceNumber", "NumberOfFrames", *GROUPS),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "LossyImageCompression", "BurnedInAnnotation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("ContrastBolusAgent", "ContrastBolusAgentSequence", *TRAITS),
)


class NotMRI(CascadeError):
    """The file is sound, but no MRI image: one such error stands for all the like files of a folder."""


@dataclass(frozen=True)
class Plane:
    """One frame.

    position      x, y, z in mm of the centre of its first pixel, to the patient's left, back and head; None where the
                  header does not tell.
    orientation   direction cosines of its rows, then of its columns; None likewise.
    spacing_mm    (row, column); None likewise.
    slope, intercept  stored value → intensity.
    traits        what may tell it apart from another of the same place.
    """

    position: Numbers | None
    orientation: Numbers | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    traits: dict[str, str] = field(hash=False)

    @property
    def distance_mm(self) -> float:
        """Along the normal of the slices, from the origin; 0 where nothing is told."""
        if self.position is None or self.orientation is None:
            return 0.0
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position)

    def is_parallel(self, other: "Plane") -> bool:
        """Whether both lie in one stack: of one orientation and pixel size."""
        told = (self.orientation, self.spacing_mm), (other.orientation, other.spacing_mm)
        mine, others = ([number for part in parts for number in part or ()] for parts in told)
        return len(mine) == len(others) and bool(np.allclose(mine, others, rtol=0, atol=PARALLEL_WITHIN))


@dataclass(frozen=True)
class Header:
    """What cascade takes from a file. UIDs are empty, and numbers None, where the file does not tell them.

    patient_id   keeps people apart whose files bear the same UIDs; never shown, and empty where it was taken out.
    syntax       transfer syntax UID, how the pixels are encoded.
    inverted     whether high values are dark (MONOCHROME1).
    identifiers  patient and study, by keyword; empty unless they are asked for.
    """

    path: Path
    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str
    space_uid: str
    patient_id: str = field(repr=False)
    series_number: int | None
    instance_number: int
    syntax: str
    rows: int
    columns: int
    inverted: bool
    lossy: bool
    thickness_mm: float | None
    planes: tuple[Plane, ...]
    notes: tuple[str, ...]
    identifiers: dict[str, str] = field(hash=False)

    @property
    def is_placed(self) -> bool:
        """Whether a DICOM segmentation can say which image it belongs to and where it lies."""
        uids = (self.sop_uid, self.study_uid, self.series_uid, self.space_uid)
        return all(uids) and all(plane.position and plane.orientation and plane.spacing_mm for plane in self.planes)


def read_header(path: Path, *, keep_identifiers: bool = False) -> Header:
    """Reads no pixels. Raises CascadeError, naming the file and the fix, for what cannot be done; see NotMRI."""
    identifiers = IDENTIFIERS if keep_identifiers else ()
    unreadable = "its header cannot be read"  # pydicom's messages quote the header
    with read_errors(path, lambda _: damaged(path, unreadable)), silence_decoders():
        dataset = read_dataset(path, TAGS + identifiers)
        _check_kind(path, dataset)
        _check_pixels(path, dataset)
        return _header(path, dataset, identifiers)


def _check_kind(path: Path, dataset: Dataset) -> None:
    modality = str(dataset.get("Modality", ""))
    sop_class = str(dataset.get("SOPClassUID", ""))
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if not sop_class:
        raise damaged(path, "its header does not tell what it is")
    if modality != "MR" and not (modality == "" and sop_class in ENHANCED_MR | {MR}):
        known = f"its modality is {modality}" if modality in OTHER_MODALITIES else "its modality is another"
        raise NotMRI(f"{path}: {known}, not MR", fix="give MRI slices")
    if sop_class not in MULTI_FRAME | {MR, SECONDARY_CAPTURE}:
        raise NotMRI(f"{path}: is no MRI image, going by its SOP class", fix="give MR images")
    if "LOCALIZER" in values_of(dataset, "ImageType"):
        raise NotMRI(f"{path}: is a localizer", fix="give the T1 series with contrast agent")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise NotMRI(f"{path}: holds colour", fix="give the intensities that the scanner stored")


def _check_pixels(path: Path, dataset: Dataset) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    rows, columns, bits = (int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated"))
    if min(frames, rows, columns) < 1 or bits not in (8, 16, 32) or not dataset.get("PhotometricInterpretation"):
        raise damaged(path, "its header does not tell what its pixels are")
    check_size(path, frames, rows, columns, None)
    if frames > 1 and str(dataset.SOPClassUID) not in MULTI_FRAME:
        raise CascadeError(f"{path}: holds {frames:,} frames, against its kind", fix="export it as enhanced MR")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise CascadeError(
            f"{path}: its pixels are encoded in an unknown way", fix="store it uncompressed, for example with dcmdjpeg"
        ) from None
    if not decoder.is_available:
        raise CascadeError(f"{path}: its pixels are compressed", fix="pip install 'cascade[compressed]'")
    if not syntax.is_encapsulated and path.stat().st_size < frames * rows * columns * bits // 8:
        raise damaged(path, "it is shorter than its header tells")


def _header(path: Path, dataset: Dataset, identifiers: tuple[str, ...]) -> Header:
    planes = tuple(_planes(path, dataset))
    if not all(plane.is_parallel(planes[0]) for plane in planes):
        raise CascadeError(
            f"{path}: holds frames of several orientations or pixel sizes", fix="export each stack of slices on its own"
        )
    thickness = numbers_of(path, group_of(dataset, 0, "PixelMeasuresSequence"), "SliceThickness", 1)
    return Header(
        path=path,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_uid=uid_of(dataset, "SOPInstanceUID"),
        study_uid=uid_of(dataset, "StudyInstanceUID"),
        series_uid=uid_of(dataset, "SeriesInstanceUID"),
        space_uid=uid_of(dataset, "FrameOfReferenceUID"),
        patient_id=str(dataset.get("PatientID") or ""),
        series_number=whole_of(path, dataset, "SeriesNumber"),
        instance_number=whole_of(path, dataset, "InstanceNumber") or 0,
        syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        lossy=dataset.get("LossyImageCompression") == "01",
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        planes=planes,
        notes=tuple(_notes(dataset, planes[0])),
        identifiers={
            keyword: "\\".join(map(str, values_of(dataset, keyword))) for keyword in identifiers if keyword in dataset
        },
    )


def _planes(path: Path, dataset: Dataset) -> Iterable[Plane]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    told = len(dataset.get(GROUPS[1]) or ())
    if told not in (0, frames):
        raise damaged(path, f"it tells of {told:,} frames and of {frames:,}")
    for frame in range(frames):
        scale = group_of(dataset, frame, "PixelValueTransformationSequence")
        orientation = numbers_of(
            path, group_of(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6
        )
        if orientation and not np.allclose(_gram(orientation), np.eye(2), atol=0.01):
            raise damaged(path, "its ImageOrientationPatient is no pair of perpendicular directions")
        spacing = numbers_of(path, group_of(dataset, frame, "PixelMeasuresSequence"), "PixelSpacing", 2)
        if spacing and min(spacing) <= 0:
            raise damaged(path, "its PixelSpacing is not positive")
        slope = numbers_of(path, scale, "RescaleSlope", 1) or (1.0,)
        if slope[0] == 0:
            raise damaged(path, "its RescaleSlope is 0")
        yield Plane(
            position=numbers_of(path, group_of(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient", 3),
            orientation=orientation,
            spacing_mm=(spacing[0], spacing[1]) if spacing else None,
            slope=slope[0],
            intercept=(numbers_of(path, scale, "RescaleIntercept", 1) or (0.0,))[0],
            traits={
                keyword: str(group[keyword].value)
                for keyword, sequence in TRAITS.items()
                if (group := group_of(dataset, frame, sequence)).get(keyword) not in (None, "")
            },
        )


def _gram(orientation: Numbers) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """(2, 2) products of both directions; the identity where they are perpendicular and of length 1."""
    directions = np.reshape(np.asarray(orientation, dtype=np.float64), (2, 3))
    return np.asarray(directions @ directions.T)


def _notes(dataset: Dataset, plane: Plane) -> Iterable[str]:
    if str(dataset.SOPClassUID) in SECONDARY_CAPTURES | {SECONDARY_CAPTURE}:
        yield "it is a secondary capture: its intensities may not be the scanner's"
    if not dataset.get("ContrastBolusAgent") and not dataset.get("ContrastBolusAgentSequence"):
        yield "its header names no contrast agent: the models know only slices with one"
    echo = plane.traits.get("EchoTime") or plane.traits.get("EffectiveEchoTime") or "0"
    if float(echo) > LONGEST_T1_ECHO_MS:
        yield f"its echo time of {float(echo):g} ms is none of T1: the models know only T1"
    if dataset.get("BurnedInAnnotation") == "YES":
        yield "texts are drawn into its pixels, and may name the patient: overlays show them too"
