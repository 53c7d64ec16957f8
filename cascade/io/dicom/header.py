"""Read the header of a DICOM file, and check that it is an MRI image that can be decoded.

Messages never contain a text from the header, since any text may name a patient.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder

from cascade.errors import CascadeError
from cascade.files import read_errors
from cascade.io.dicom.attributes import (
    DIRECTORY,
    ENHANCED_MR,
    IDENTIFIERS,
    KEYWORDS,
    MR,
    MULTI_FRAME,
    SECONDARY_CAPTURE,
    SECONDARY_CAPTURES,
)
from cascade.io.dicom.elements import (
    count_frames,
    damaged_error,
    functional_group,
    get_int,
    get_number,
    get_uid,
    get_values,
    read_dataset,
)
from cascade.io.dicom.frame import Frame, read_frames
from cascade.io.silence import silence_decoders
from cascade.io.slices import check_volume_size

PIXEL_ATTRIBUTES = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
"""The attributes without which no pixel can be decoded."""

BITS = (8, 16, 32, 64)
"""Values of BitsAllocated that are read; 64 is that of DoubleFloatPixelData."""

OTHER_MODALITIES = frozenset(
    {"CR", "CT", "DX", "KO", "MG", "NM", "OT", "PR", "PT", "RTSTRUCT", "SEG", "SR", "US", "XA"}
)
"""Modalities that an error may name. Any other text could be a name."""

MAX_T1_ECHO_MS = 40.0
"""T1-weighted sequences have echo times of about 2 to 25 ms; T2, FLAIR and diffusion have 60 ms and more."""


class NotMRI(CascadeError):
    """The file is valid, but not a slice of MRI. One such error stands for all similar files of a folder."""


@dataclass(frozen=True)
class Header:
    """The header of a file. Missing UIDs are empty, missing numbers None.

    Attributes:
        path: The file.
        patient_id: Separates the files of patients with equal UIDs; empty in de-identified files. Never shown.
        transfer_syntax_uid: The encoding of the pixels.
        inverted: High values are dark (MONOCHROME1).
        lossy: The pixels were compressed with loss.
        burned_in_annotation: YES or NO, whether the pixels contain text that identifies the patient; empty if unknown.
        thickness_mm: Slice thickness in millimeters.
        padding: Lowest and highest stored value that stands for "no signal", as the header writes them.
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
    instance_number: int | None
    transfer_syntax_uid: str
    rows: int
    columns: int
    inverted: bool
    lossy: bool
    burned_in_annotation: str
    thickness_mm: float | None
    padding: tuple[float, float] | None
    frames: tuple[Frame, ...]
    notes: tuple[str, ...]
    identifiers: dict[str, str] = field(hash=False)

    @cached_property
    def missing(self) -> list[str]:
        """Keywords of the attributes that a DICOM segmentation needs to refer to the file, but are missing."""
        uids = {
            "SOPInstanceUID": self.sop_instance_uid,
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": self.series_uid,
            "FrameOfReferenceUID": self.frame_of_reference_uid,
        }
        missing = [keyword for keyword, uid in uids.items() if not uid]
        return list(dict.fromkeys([*missing, *(keyword for frame in self.frames for keyword in frame.missing)]))


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
    image_type = get_values(dataset, "ImageType")
    if dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
        raise NotMRI(f"{path}: is a DICOMDIR, an index without pixels", fix="give the files that it lists")
    if not sop_class:
        raise damaged_error(path, "its header has no SOP class")
    if modality != "MR" and not (modality == "" and sop_class in ENHANCED_MR | {MR}):
        if not modality:
            raise NotMRI(f"{path}: its header gives no modality", fix="if it is MRI, export it with the modality MR")
        name = modality if modality in OTHER_MODALITIES else "unknown"
        raise NotMRI(f"{path}: its modality is {name}, not MR", fix="give MRI slices")
    if sop_class not in MULTI_FRAME | {SECONDARY_CAPTURE}:
        raise NotMRI(
            f"{path}: its SOP class is not that of an MRI image", fix="give MR images, not spectra, maps or raw data"
        )
    if "LOCALIZER" in image_type:
        raise NotMRI(f"{path}: is a localizer", fix="give the T1 series with contrast agent")
    if "MOSAIC" in image_type:
        raise NotMRI(
            f"{path}: is a mosaic: one image that shows all slices side by side",
            fix="convert it to NIfTI with dcm2niix, which takes mosaics apart",
        )
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise NotMRI(f"{path}: contains color", fix="give the intensities that the scanner stored")


def _check_pixels(path: Path, dataset: Dataset) -> None:
    missing = [keyword for keyword in PIXEL_ATTRIBUTES if not dataset.get(keyword)]
    frames = count_frames(dataset, set())
    if missing or min(frames, int(dataset.Rows), int(dataset.Columns)) < 1:
        names = ", ".join(missing or ["Rows, Columns or NumberOfFrames"])
        raise damaged_error(path, f"its header does not describe its pixels: {names} is missing or 0")
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    if bits not in BITS:
        raise CascadeError(
            f"{path}: its header does not describe its pixels as intensities: they have {bits} bits",
            fix="export it with 16 bits per pixel",
        )
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


def _header(path: Path, dataset: Dataset, identifiers: tuple[str, ...]) -> Header:
    invalid: set[str] = set()
    frames = tuple(read_frames(path, dataset, invalid))
    if not all(frame.is_parallel(frames[0]) for frame in frames):
        raise CascadeError(
            f"{path}: contains frames of several orientations or pixel sizes", fix="export each volume as one file"
        )
    return Header(
        path=path,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=get_uid(dataset, "SOPInstanceUID"),
        study_uid=get_uid(dataset, "StudyInstanceUID"),
        series_uid=get_uid(dataset, "SeriesInstanceUID"),
        frame_of_reference_uid=get_uid(dataset, "FrameOfReferenceUID"),
        patient_id=str(dataset.get("PatientID") or ""),
        series_number=get_int(dataset, "SeriesNumber", invalid),
        instance_number=get_int(dataset, "InstanceNumber", invalid),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        lossy=dataset.get("LossyImageCompression") == "01",
        burned_in_annotation=next((text for text in ("YES", "NO") if dataset.get("BurnedInAnnotation") == text), ""),
        thickness_mm=_thickness(dataset, invalid),
        padding=_padding(dataset, invalid),
        frames=frames,
        notes=tuple(_notes(dataset, frames[0], invalid)),
        identifiers={
            keyword: "\\".join(map(str, get_values(dataset, keyword))) for keyword in identifiers if keyword in dataset
        },
    )


def _thickness(dataset: Dataset, invalid: set[str]) -> float | None:
    thickness = get_number(functional_group(dataset, 0, "PixelMeasuresSequence"), "SliceThickness", invalid)
    if thickness is not None and thickness <= 0:
        invalid.add("SliceThickness")
        return None
    return thickness


def _padding(dataset: Dataset, invalid: set[str]) -> tuple[float, float] | None:
    """Return the range of padding values (DICOM PS3.3, C.7.5.1.1.2), in the order of the header."""
    prefix = next((prefix for prefix in ("Float", "DoubleFloat") if f"{prefix}PixelPaddingValue" in dataset), "")
    value = get_number(dataset, f"{prefix}PixelPaddingValue", invalid)
    limit = get_number(dataset, f"{prefix}PixelPaddingRangeLimit", invalid)
    return None if value is None else (value, value if limit is None else limit)


def _notes(dataset: Dataset, frame: Frame, invalid: set[str]) -> Iterable[str]:
    echo_ms = _echo_time(frame, invalid)
    if invalid:
        yield f"its header has an invalid {' and '.join(sorted(invalid))}, treated as missing"
    if str(dataset.SOPClassUID) in SECONDARY_CAPTURES | {SECONDARY_CAPTURE}:
        yield "it is a secondary capture: its intensities may differ from those of the scanner"
    if not dataset.get("ContrastBolusAgent") and not dataset.get("ContrastBolusAgentSequence"):
        yield "its header names no contrast agent: the models were trained on slices with contrast agent only"
    if echo_ms > MAX_T1_ECHO_MS:
        yield f"its echo time of {echo_ms:g} ms is too long for T1: the models were trained on T1 only"
    if dataset.get("BurnedInAnnotation") == "YES":
        yield "its pixels contain burned-in text, which may name the patient and also appears in overlays"


def _echo_time(frame: Frame, invalid: set[str]) -> float:
    """Return the echo time in milliseconds; 0 if it is missing or invalid."""
    keyword = "EchoTime" if "EchoTime" in frame.contrast else "EffectiveEchoTime"
    try:
        return float(frame.contrast.get(keyword, "0"))
    except ValueError:
        invalid.add(keyword)
        return 0.0
