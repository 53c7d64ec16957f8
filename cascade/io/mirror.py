"""URLs → a local folder, in which the inputs are found and opened like any others.

The folder has a file for each object. Of pictures, of which there may be millions, it holds the first bytes only, which
tell the format: whoever reads one fetches it then. All other inputs are opened by headers of any length, and are
fetched as a whole, as are the files that belong to them.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cascade.discovery.companions import has_companion, has_separate_voxels
from cascade.discovery.filters import FileFilter, Format, format_of_name, is_zip
from cascade.discovery.inputs import Inputs, find_slices
from cascade.discovery.output_marker import MARKERS
from cascade.discovery.store import Store, StoreError, is_url, open_url, store_errors
from cascade.errors import CascadeError
from cascade.io.content import content_format
from cascade.io.image import TIFF_PREFIXES

THREADS = 32
"""Objects that are fetched at once: a store takes 10 to 100 ms to answer."""

QUEUED = 1024
"""Objects that wait for these threads; for each of a million, they would take 1 kB."""

START_BYTES = 512
"""Bytes of an object that tell its format."""


@dataclass(frozen=True)
class Mirror:
    """A local folder that stands for URLs.

    Attributes:
        store: Maps its files to URLs.
        paths: The inputs, in place of their URLs.
        problems: Path of an object that cannot be read → error.
    """

    store: Store
    paths: list[Path] = field(default_factory=list)
    problems: dict[str, CascadeError] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredFile:
    """An object in a store.

    Attributes:
        key: Its path in the store.
        path: The local file.
        name: Its path below the input, with "/" between folders.
        size: Number of bytes.
        beside_header: True if it may hold the voxels of a volume whose header is in the same folder.
    """

    key: str
    path: Path
    name: str
    size: int
    beside_header: bool


def find_stored_slices(
    urls: Sequence[str],
    folder: Path,
    own_output: Iterable[Path],
    *,
    formats: Sequence[Format],
    recursive: bool,
    include: Sequence[str],
    exclude: Sequence[str],
) -> Inputs:
    """Find the slices in objects, folders and zip files of an object store.

    Args:
        urls: Objects, folders and patterns, all in one store.
        folder: An empty folder for what is fetched, which the caller removes.
        own_output: See `find_slices`, as all below.
        formats: The formats to accept.
        recursive: Walk into folders inside folders.
        include: Patterns of files to accept.
        exclude: Patterns of files and folders to leave out.

    Raises:
        CascadeError: If there is no slice, or the store cannot be used.
    """
    if paths := [url for url in urls if not is_url(url)]:
        raise CascadeError(f"{paths[0]}: is a path, and other inputs are URLs", fix="start one run for each")
    file_filter = FileFilter(tuple(formats), tuple(include), tuple(exclude))
    mirror = mirror_urls(urls, folder.resolve() / "store", file_filter, recursive=recursive)
    with_urls, unpacked = mirror.store.with_urls, folder / "unpacked"
    unpacked.mkdir()
    try:
        inputs = find_slices(
            mirror.paths,
            own_output,
            formats=formats,
            recursive=recursive,
            include=include,
            exclude=exclude,
            unpack_into=unpacked,
        )
    except CascadeError as error:
        first = next(iter(mirror.problems.values()), error)
        raise CascadeError(with_urls(first.problem), fix=first.fix) from None
    return replace(
        inputs,
        problems=inputs.problems | mirror.problems,
        seen={with_urls(path): with_urls(name) for path, name in inputs.seen.items()},
        store=mirror.store,
        listed=tuple(mirror.paths),
    )


def mirror_urls(urls: Sequence[str], folder: Path, file_filter: FileFilter, *, recursive: bool) -> Mirror:
    """List the objects at or below URLs, and fetch what is needed to open them.

    Args:
        urls: Objects, folders and patterns, all in one store.
        folder: An empty folder.
        file_filter: Selects the files. Of the others, only the names are needed.
        recursive: False if only names are needed of files in folders inside folders.

    Raises:
        CascadeError: The store cannot be used or listed, or there are several.
    """
    filesystem, _ = open_url(urls[0])
    mirror = Mirror(Store.of_url(urls[0], folder))
    files: dict[str, StoredFile] = {}
    for url in urls:
        other, key = open_url(url)
        if other is not filesystem:
            raise CascadeError(f"{url}: is in another store than {urls[0]}", fix="start one run for each store")
        with store_errors(url):
            for match in _matches(filesystem, key) or [key]:
                mirror.paths.append(mirror.store.path(match))
                files |= {file.key: file for file in _list(filesystem, match, mirror)}
    files |= {file.key: file for file in _markers_above(mirror)}
    fetch = partial(_fetch, filesystem, mirror.store, file_filter, recursive)
    pending = iter(files.values())
    with ThreadPoolExecutor(THREADS) as pool:
        while window := list(islice(pending, QUEUED)):
            for file, problem in zip(window, pool.map(fetch, window), strict=True):
                if problem:
                    mirror.problems[str(file.path)] = problem
    return mirror


def _matches(filesystem: Any, key: str) -> list[str]:
    """Return the keys that match a pattern; none for a key without wildcards. Folders on this machine match alike."""
    if not any(sign in key for sign in "*?["):
        return []
    if "/." in key:
        return sorted(filesystem.glob(key))
    return sorted(match for match in filesystem.glob(key) if "/." not in match)  # none in hidden folders


def _markers_above(mirror: Mirror) -> Iterator[StoredFile]:
    """Yield the objects in the folders above the inputs that may mark these as output of cascade."""
    store = mirror.store
    parents = (parent for path in mirror.paths if ".." not in path.parts for parent in path.parents)
    folders = {parent for parent in parents if parent.is_relative_to(store.folder) and parent != store.folder}
    paths = [folder / name for folder in sorted(folders) for name in MARKERS]
    with ThreadPoolExecutor(THREADS) as pool:
        for path, info in zip(paths, pool.map(partial(_readable_info, store), paths), strict=True):
            if info and info["type"] == "file":
                yield StoredFile(open_url(store.url(path))[1], path, path.name, info["size"] or 0, beside_header=False)


def _readable_info(store: Store, path: Path) -> dict[str, Any] | None:
    """Return what the store says about an object; None if it refuses, as some do without an object."""
    try:
        return store.info(path)
    except StoreError as error:
        if isinstance(error.__cause__, PermissionError):
            return None
        raise


def _list(filesystem: Any, key: str, mirror: Mirror) -> Iterator[StoredFile]:
    """Yield all objects at or below a key, and those that may belong to it; none if nothing is there."""
    try:
        info = filesystem.info(key)
    except FileNotFoundError:
        return
    if info["type"] != "file":
        root, found = key.rstrip("/"), filesystem.find(key, detail=True)
    else:
        root, found = key.rpartition("/")[0], {key: info}
        if has_companion(key):
            stem = key.rpartition(".")[0]
            beside = filesystem.ls(root, detail=True)
            found |= {other["name"]: other for other in beside if other["name"].rpartition(".")[0] == stem}
    folders_of_headers = {other.rpartition("/")[0] for other in found if has_separate_voxels(other)}
    for other, info in found.items():
        if other.endswith("/"):  # an empty object that stands for a folder
            continue
        path, name = mirror.store.path(other), other.removeprefix(root).lstrip("/")
        if ".." in path.parts or any(part in ("", ".") for part in name.split("/")):
            problem = f"{mirror.store.url(path)}: is not a path of folders and a file"
            mirror.problems[str(path)] = CascadeError(problem, fix="rename the object")
        else:
            beside_header = other.rpartition("/")[0] in folders_of_headers
            yield StoredFile(other, path, name, info["size"] or 0, beside_header)


def _fetch(
    filesystem: Any, store: Store, file_filter: FileFilter, recursive: bool, file: StoredFile
) -> CascadeError | None:
    """Create the local file of an object, with as much content as is needed. Returns the reason if that fails."""
    url = store.url(file.path)
    try:
        with store_errors(url):
            file.path.parent.mkdir(parents=True, exist_ok=True)
            needed = file.size and _is_content_needed(file, file_filter, recursive)
            end = min(file.size, START_BYTES)
            file.path.write_bytes(filesystem.cat_file(file.key, start=0, end=end) if needed else b"")
            if needed and end < file.size and _is_needed_whole(file):
                store.fetch(file.path)
    except CascadeError as error:
        file.path.unlink(missing_ok=True)
        return error
    return None


def _is_content_needed(file: StoredFile, file_filter: FileFilter, recursive: bool) -> bool:
    """Return False if the name alone decides that the file is left out."""
    if file.beside_header or has_companion(file.name):
        return True  # a volume takes it along, whatever the filter says
    *folders, last = file.name.split("/")
    if last in MARKERS:
        return True  # it may mark the folder as output of cascade, which is left out
    if any(name.startswith(".") for name in folders) or (folders and not recursive):
        return False
    return file_filter.left_out_reason(file.name) is None


def _is_needed_whole(file: StoredFile) -> bool:
    """Return True unless the file is a picture of one slice, or of no format and not the voxels of a header."""
    if is_zip(file.name) or has_companion(file.name):
        return True
    format_ = content_format(file.path) or format_of_name(file.name)
    if format_ == "image":
        with file.path.open("rb") as local:
            return local.read(4) in TIFF_PREFIXES  # it may be a stack
    return format_ is not None or file.beside_header
