"""Open input files as images, volumes and series."""

from pathlib import Path

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import Inputs, find_slices
from cascade.errors import CascadeError
from cascade.io.image import ImageSource
from cascade.io.slices import Source


def open_sources(
    inputs: Inputs, *, axis: int | None = None, keep_identifiers: bool = False
) -> tuple[list[Source], dict[str, CascadeError]]:
    """Open all inputs. Reads headers only.

    Args:
        inputs: The files to open.
        axis: Slice axis of NIfTI volumes (0, 1 or 2) in the stored array. None selects the axis with the largest
            spacing.
        keep_identifiers: Copy the identifiers of patient and study to DICOM masks.

    Returns:
        The sources, sorted by name, each name unique; and the errors of the other inputs, by name.
    """
    sources: list[Source] = [ImageSource(name, inputs.path(name)) for name in inputs.of_format("image")]
    problems = {inputs.name(path): error for path, error in inputs.problems.items()}
    if names := inputs.of_format("nifti"):
        from cascade.io.nifti import open_nifti

        for name in names:
            try:
                sources.append(open_nifti(inputs.path(name), name, axis))
            except CascadeError as error:
                problems[name] = error
    if names := inputs.of_format("dicom"):
        from cascade.io.dicom.series import open_dicom

        for root in dict.fromkeys((inputs.folder, inputs.unpacked)):
            paths = {inputs.path(name): name for name in names if inputs.root(name) == root}
            used_names = [source.name for source in sources]
            volumes, errors = open_dicom(list(paths), root, used_names=used_names, keep_identifiers=keep_identifiers)
            sources += volumes
            problems |= {paths[path]: error for path, error in errors.items()}
    return sorted(sources, key=lambda source: source.name), problems


def open_source(path: Path, axis: int | None = None) -> Source:
    """Open one file, or a folder with one DICOM series.

    Args:
        path: The file or folder.
        axis: Slice axis of a NIfTI volume, see `open_sources`.

    Raises:
        CascadeError: If it cannot be opened, or contains several images, volumes or series.
    """
    sources, problems = open_sources(find_slices([path], formats=FORMATS), axis=axis)
    for error in problems.values():
        raise error
    if len(sources) != 1:
        raise CascadeError(f"{path}: contains {len(sources)} images, volumes or series", fix="give one of them")
    return sources[0]
