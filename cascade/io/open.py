"""Open input files as images, volumes and series."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from cascade.discovery.filters import FORMATS, Format
from cascade.discovery.inputs import Inputs, find_slices
from cascade.errors import CascadeError
from cascade.io.content import content_format
from cascade.io.image import ImageSource
from cascade.io.slices import Source


class OpenedSources(NamedTuple):
    """The opened inputs. Each file is part of a source, or in `problems` or `left_out`.

    Attributes:
        sources: The sources, sorted by name, each name unique.
        problems: Errors of inputs that cannot be processed, by name.
        left_out: Why other files were not read, by absolute path: those in `inputs`, copies, and files for which the
            error of another stands.
    """

    sources: list[Source]
    problems: dict[str, CascadeError]
    left_out: dict[str, str]


def open_sources(inputs: Inputs, *, axis: int | None = None, keep_identifiers: bool = False) -> OpenedSources:
    """Open all inputs. Reads headers only.

    Args:
        inputs: The files to open.
        axis: Slice axis of NIfTI volumes (0, 1 or 2) in the stored array. None selects the axis with the largest
            spacing.
        keep_identifiers: Copy the identifiers of patient and study to DICOM masks.
    """
    names: dict[Format, list[str]] = defaultdict(list)
    for name in inputs.names:
        names[content_format(inputs.path(name)) or inputs.format(name)].append(name)
    sources: list[Source] = [ImageSource(name, inputs.path(name)) for name in names["image"]]
    problems = {inputs.name(path): error for path, error in inputs.problems.items()}
    left_out = dict(inputs.left_out)
    if names["nifti"]:
        from cascade.io.nifti import open_nifti

        for name in names["nifti"]:
            try:
                sources.append(open_nifti(inputs.path(name), name, axis))
            except CascadeError as error:
                problems[name] = error
    if names["dicom"]:
        from cascade.io.dicom.series import open_dicom

        for root in dict.fromkeys((inputs.folder, inputs.unpacked)):
            paths = {inputs.path(name): name for name in names["dicom"] if inputs.root(name) == root}
            used_names = [source.name for source in sources]
            opened = open_dicom(list(paths), root, used_names=used_names, keep_identifiers=keep_identifiers)
            sources += opened.sources
            problems |= {paths[path]: error for path, error in opened.problems.items()}
            left_out |= {str(inputs.folder / paths[path]): reason for path, reason in opened.left_out.items()}
    return OpenedSources(sorted(sources, key=lambda source: source.name), problems, left_out)


def open_source(path: Path, axis: int | None = None) -> Source:
    """Open one file, or a folder with one DICOM series.

    Args:
        path: The file or folder.
        axis: Slice axis of a NIfTI volume, see `open_sources`.

    Raises:
        CascadeError: If it cannot be opened, or contains several images, volumes or series.
    """
    sources, problems, _ = open_sources(find_slices([path], formats=FORMATS), axis=axis)
    for error in problems.values():
        raise error
    if len({source.files for source in sources}) == 1 < len(sources):
        raise CascadeError(
            f"{path}: contains {len(sources)} frames without a position in the patient",
            fix="use predict_paths, which writes a mask for each",
        )
    if len(sources) != 1:
        raise CascadeError(f"{path}: contains {len(sources)} images, volumes or series", fix="give one of them")
    return sources[0]
