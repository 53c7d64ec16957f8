"""Tell copies of a file from other images with the same UID, as some anonymizers write it."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from cascade.errors import CascadeError
from cascade.io.dicom.header import Header
from cascade.io.dicom.pixels import decode_frame, read_pixels
from cascade.io.silence import silence_decoders


def find_copies(headers: Iterable[Header]) -> dict[Path, Path]:
    """Find files with the same UIDs, the same place in the patient and equal pixels as another file.

    Reads the pixels only of files whose headers are alike.

    Returns:
        Copy → the first file with the same pixels.
    """
    alike: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    for header in headers:
        uids = (header.sop_instance_uid or header.path, header.study_uid, header.series_uid)
        alike[*uids, header.patient_id, header.rows, header.columns, header.frames].append(header)
    copies: dict[Path, Path] = {}
    for group in alike.values():
        originals: dict[object, Path] = {}
        for header in group if len(group) > 1 else ():
            original = originals.setdefault(_pixel_digest(header) or header.path, header.path)
            if original != header.path:
                copies[header.path] = original
    return copies


def _pixel_digest(header: Header) -> bytes | None:
    """Return a digest of the decoded pixels of all frames; None if they cannot be read."""
    digest = hashlib.sha256()
    try:
        with silence_decoders():
            dataset = read_pixels(header)
            for index in range(len(header.frames)):
                digest.update(decode_frame(header, index, dataset).tobytes())
    except CascadeError:
        return None
    return digest.digest()


def separate_same_uid(volume: Sequence[Header]) -> list[list[Header]]:
    """Separate files of a volume that have one UID and one position, but different pixels.

    Returns:
        The volumes; usually one. The first contains the first file of each position.
    """
    volumes: list[list[Header]] = []
    used: dict[tuple[object, ...], int] = defaultdict(int)
    for header in volume:
        key = (header.sop_instance_uid, header.instance_number, header.frames)
        if used[key] == len(volumes):
            volumes.append([])
        volumes[used[key]].append(header)
        used[key] += 1
    return volumes


def same_uid_notes(headers: Iterable[Header], root: Path) -> dict[Path, str]:
    """Return a note for each file whose SOPInstanceUID another file has too.

    Args:
        headers: Headers of different images.
        root: A folder that contains all files; the notes name them below it.
    """
    paths: dict[str, list[Path]] = defaultdict(list)
    for header in headers:
        if header.sop_instance_uid:
            paths[header.sop_instance_uid].append(header.path)
    notes = {}
    for same in paths.values():
        for path in same if len(same) > 1 else ():
            other = same[1] if path == same[0] else same[0]
            notes[path] = (
                f"{path.relative_to(root).as_posix()} has the same SOPInstanceUID as "
                f"{other.relative_to(root).as_posix()}, but is another image"
            )
    return notes
