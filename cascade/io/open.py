"""Files that were found → what they hold: pictures, volumes and series."""

from pathlib import Path

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import Inputs, find_slices
from cascade.errors import CascadeError
from cascade.io.image import Picture
from cascade.io.slices import Source


def open_sources(
    inputs: Inputs, *, axis: int | None = None, keep_identifiers: bool = False
) -> tuple[list[Source], dict[str, CascadeError]]:
    """All that can be opened, sorted by name, each name once; and by name what cannot.

    axis              of a NIfTI's stored array, along which its slices lie; None takes that of the thickest.
    keep_identifiers  whether a DICOM mask says whose it is.
    """
    found: list[Source] = [Picture(name, inputs.path(name)) for name in inputs.of_format("image")]
    problems = {inputs.name(path): error for path, error in inputs.problems.items()}
    if names := inputs.of_format("nifti"):
        from cascade.io.nifti import open_nifti

        for name in names:
            try:
                found.append(open_nifti(inputs.path(name), name, axis))
            except CascadeError as error:
                problems[name] = error
    if names := inputs.of_format("dicom"):
        from cascade.io.dicom.series import open_dicom

        for root in dict.fromkeys((inputs.folder, inputs.unpacked)):
            paths = {inputs.path(name): name for name in names if inputs.root(name) == root}
            taken = [source.name for source in found]
            series, refused = open_dicom(list(paths), root, taken=taken, keep_identifiers=keep_identifiers)
            found += series
            problems |= {paths[path]: error for path, error in refused.items()}
    return sorted(found, key=lambda source: source.name), problems


def open_source(path: Path, axis: int | None = None) -> Source:
    """The one source that a file, or a folder of one DICOM series, is.

    Raises CascadeError where it cannot be opened, or is several.
    """
    sources, problems = open_sources(find_slices([path], formats=FORMATS), axis=axis)
    for error in problems.values():
        raise error
    if len(sources) != 1:
        raise CascadeError(f"{path}: holds {len(sources)} pictures, volumes or series", fix="give one of them")
    return sources[0]
