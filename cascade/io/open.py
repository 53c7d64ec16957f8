"""Open input files as images, volumes and series."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from cascade.discovery.companions import companion_of, has_separate_voxels
from cascade.discovery.filters import AFFINE, FORMATS, Format, format_of_name
from cascade.discovery.inputs import Inputs, find_slices
from cascade.errors import CascadeError
from cascade.io.checksums import file_stats
from cascade.io.content import content_format
from cascade.io.image import open_image
from cascade.io.slices import UnopenedVolume
from cascade.io.source import HeaderSource, Source

if TYPE_CHECKING:
    from cascade.io.volume import AffineVolume


class OpenedSources(NamedTuple):
    """The opened inputs. Each file is part of a source, or in `problems` or `left_out`.

    Attributes:
        sources: The sources, sorted by name, each name unique.
        problems: Errors of inputs that cannot be processed, by name; for volumes, `UnopenedVolume`.
        left_out: Why other files were not read, by absolute path: those in `inputs`, copies, and files for which the
            error of another stands.
    """

    sources: list[Source]
    problems: dict[str, CascadeError]
    left_out: dict[str, str]


def open_sources(
    inputs: Inputs, *, axis: int | None = None, volume: int | None = None, keep_identifiers: bool = False
) -> OpenedSources:
    """Open all inputs. Reads headers only.

    Args:
        inputs: The files to open.
        axis: Slice axis of volumes (0, 1 or 2) in the stored array. None selects the axis with the largest spacing.
        volume: Number of the volume in files of several, from 0. None refuses such files.
        keep_identifiers: Copy the identifiers of patient and study to DICOM masks.
    """
    names: dict[Format, list[str]] = defaultdict(list)
    left_out = dict(inputs.left_out)
    headers_of_voxels = _headers_of_voxels(inputs)
    for name in inputs.names:
        if name not in headers_of_voxels:
            names[content_format(inputs.path(name)) or inputs.format(name)].append(name)
    problems = {inputs.name(path): error for path, error in inputs.problems.items()}
    sources: list[Source] = []
    for format_ in names.keys() - {"dicom"}:
        open_file = _opener(format_)
        for name in names[format_]:
            path = inputs.path(name)
            before = file_stats([path])
            try:
                source = open_file(path, name, axis, volume)
            except CascadeError as error:
                problems[name] = UnopenedVolume(error) if format_ in AFFINE else error
            else:
                sources.append(source)
                if isinstance(source, HeaderSource):
                    source.file_stats = before + file_stats(source.files[1:])  # the voxels are read later
    for voxels, headers in headers_of_voxels.items():
        if problems.keys() >= headers:  # else one of them has opened, and reads the voxels
            left_out[str(inputs.folder / voxels)] = f"belongs to {min(headers)}, which could not be opened"
    if names["dicom"]:
        from cascade.io.dicom.series import open_dicom

        for root in dict.fromkeys((inputs.folder, inputs.unpacked)):
            paths = {inputs.path(name): name for name in names["dicom"] if inputs.root(name) == root}
            used_names = [source.name for source in sources]
            stats = dict(zip(paths, file_stats(list(paths)), strict=True))
            opened = open_dicom(list(paths), root, used_names=used_names, keep_identifiers=keep_identifiers)
            for source in opened.sources:
                source.file_stats = tuple(stats[path] for path in source.files)
            sources += opened.sources
            problems |= {paths[path]: error for path, error in opened.problems.items()}
            left_out |= {str(inputs.folder / paths[path]): reason for path, reason in opened.left_out.items()}
    return OpenedSources(sorted(sources, key=lambda source: source.name), problems, left_out)


def _headers_of_voxels(inputs: Inputs) -> dict[str, set[str]]:
    """Return the files that hold the voxels of a volume whose header is another file: name → names of its headers."""
    headers = [name for name in inputs.names if has_separate_voxels(name)]
    voxels = [
        (PurePosixPath(name).with_name(companion.name).as_posix(), name)
        for name in headers
        if (companion := companion_of(inputs.path(name)))
    ]
    names = set(inputs.names) if voxels else set()
    headers_of: dict[str, set[str]] = defaultdict(set)
    for other, name in voxels:
        if other in names:
            headers_of[other].add(name)
    return headers_of


def _opener(format_: Format) -> Callable[[Path, str, int | None, int | None], Source]:
    """Return the function that opens a file of a format: path, name, axis, volume → source.

    Loads the libraries of this format only.
    """
    match format_:
        case "nifti":
            from cascade.io.nifti import open_nifti

            return open_nifti
        case "pair":
            from cascade.io.pair import open_pair

            return open_pair
        case "mgh":
            from cascade.io.mgh import open_mgh

            return open_mgh
        case "itk":
            from cascade.io.itk import open_itk

            return lambda path, name, axis, volume: open_itk(path, name, axis)
        case "npy":
            from cascade.io.npy import open_npy

            return lambda path, name, axis, volume: open_npy(path, name, axis)
        case _:
            return lambda path, name, axis, volume: open_image(path, name)


def open_affine(path: Path, axis: int | None = None) -> "AffineVolume":
    """Open a file of one volume whose header says where its voxels are: NIfTI, Analyze, MGH, NRRD or MetaImage.

    Args:
        path: The file.
        axis: Slice axis in the stored array, see `open_nifti`.

    Raises:
        CascadeError: If it cannot be opened, or is in another format.
    """
    from cascade.io.volume import AffineVolume  # loads nibabel

    if not path.exists():
        raise CascadeError(f"{path}: there is no such file", fix="correct its path")
    format_ = content_format(path) or format_of_name(path.name)
    source = _opener(format_)(path, path.name, axis, None) if format_ in AFFINE else None
    if not isinstance(source, AffineVolume):
        raise CascadeError(f"{path}: is not a volume as NIfTI, Analyze, MGH, NRRD or MetaImage", fix="save it as NIfTI")
    return source


def open_source(path: Path, axis: int | None = None, volume: int | None = None) -> Source:
    """Open one file, or a folder with one DICOM series.

    Args:
        path: The file or folder.
        axis: Slice axis of a volume, see `open_sources`.
        volume: Number of the volume in a file of several, see `open_sources`.

    Raises:
        CascadeError: If it cannot be opened, or contains several images, volumes or series.
    """
    sources, problems, _ = open_sources(find_slices([path], formats=FORMATS), axis=axis, volume=volume)
    for error in problems.values():
        raise error
    if len(sources) != 1:
        raise CascadeError(f"{path}: contains {len(sources)} images, volumes or series", fix="give one of them")
    return sources[0]
