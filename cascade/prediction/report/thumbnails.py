"""The thumbnails of overlays that a report embeds, and the links to the files themselves."""

import base64
import io
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from PIL import Image

from cascade.prediction.output_files import OutputFiles
from cascade.prediction.overlay import SIZE

SliceRecord = dict[str, Any]
"""A slice of results.json. Any key but "slice" may be missing, because another version may have written the file."""

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail in pixels, which takes about 5 kB."""

MAX_THUMBNAILS = 5_000
"""They make a page of about 35 MB, which a browser opens within seconds."""

THREADS = 8
"""An object store takes 10 to 100 ms to return an overlay."""


def embed_thumbnails(
    files: OutputFiles, records: Sequence[SliceRecord], key_slices: Collection[int] = ()
) -> dict[int, str]:
    """Make thumbnails of up to MAX_THUMBNAILS overlays: key slices first, then slices with a tumor.

    Args:
        files: The overlays.
        records: Slices of results.json.
        key_slices: Positions in `records` of the slices that the cards of volumes show.

    Returns:
        Position in `records` → data URL. A slice whose overlay is missing or damaged has none.
    """
    positions = [position for position, record in enumerate(records) if _exists(files, record.get("overlay"))]
    positions.sort(key=lambda position: (position not in key_slices, records[position].get("status") != "tumor"))
    positions = positions[:MAX_THUMBNAILS]
    with ThreadPoolExecutor(THREADS) as pool:
        urls = pool.map(lambda position: _thumbnail(files, records[position]["overlay"]), positions)
        return {position: url for position, url in zip(positions, urls, strict=True) if url}


def link(files: OutputFiles, name: str | None) -> str | None:
    """Return the URL of a file, relative to a page in the results folder; None if there is no such file."""
    return quote(str(name), errors="surrogateescape") if _exists(files, name) else None


def _exists(files: OutputFiles, name: str | None) -> bool:
    """Return False for paths out of the results folder too, since results.json may come from anywhere."""
    if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return False
    return files.has(name)


def _thumbnail(files: OutputFiles, name: str) -> str | None:
    """Return the overlay as a data URL, without its caption, which would be too small to read."""
    try:
        with Image.open(io.BytesIO(files.read(name))) as overlay:
            width, height = map(int, overlay.info.get(SIZE, f"{overlay.width}x{overlay.height}").split("x"))
            picture = overlay.convert("RGB").crop((0, 0, min(width, overlay.width), min(height, overlay.height)))
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=80)
    except Exception:  # for damaged files, the decoders of Pillow also raise IndexError, TypeError, struct.error, ...
        return None
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
