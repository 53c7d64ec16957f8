"""The small copies of overlays that a report embeds, and the links to the files themselves."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from PIL import Image

from cascade.prediction.overlay import SIZE

Record = dict[str, Any]
"""A slice of results.json. Other versions have other keys, so any but its name may be missing."""

PICTURE_SIDE = 256
"""Longest side in pixels of the embedded pictures: some 5 kB each."""

MAX_PICTURES = 5_000
"""Some 35 MB of page, which a browser still opens in seconds."""

THREADS = 2


def embed(out: Path, records: Sequence[Record]) -> dict[int, str]:
    """By place in `records`: data URLs of up to MAX_PICTURES overlays, those with a tumor first."""
    places = [place for place, record in enumerate(records) if _file(out, record.get("overlay"))]
    places = sorted(places, key=lambda place: records[place].get("status") != "tumor")[:MAX_PICTURES]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda place: _picture(out, records[place]), places)
        return {place: picture for place, picture in zip(places, found, strict=True) if picture}


def link(out: Path, relative: str | None) -> str | None:
    """From a page in `out` to a file below it; None where there is no such file."""
    return quote(str(relative), errors="surrogateescape") if _file(out, relative) else None


def _file(out: Path, relative: str | None) -> Path | None:
    """None too for a path that leads out of the folder: results.json may come from anywhere."""
    if not relative or PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        return None
    path = out / relative
    return path if path.is_file() else None


def _picture(out: Path, record: Record) -> str | None:
    """Without the overlay's caption, which would be too small to read."""
    try:
        with Image.open(out / record["overlay"]) as overlay:
            width, height = map(int, overlay.info.get(SIZE, f"{overlay.width}x{overlay.height}").split("x"))
            picture = overlay.convert("RGB").crop((0, 0, min(width, overlay.width), min(height, overlay.height)))
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=80)
    except Exception:  # on damaged bytes Pillow's decoders also raise IndexError, TypeError, struct.error, ...
        return None
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
