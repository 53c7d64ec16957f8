"""A run's results folder → report.html, one page to look through them that loads nothing from anywhere."""

import base64
import hashlib
import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any
from urllib.parse import quote

from PIL import Image

from cascade.contract import CLASS_NAMES
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.overlay import CLASS_COLOURS
from cascade.results import NOTE, SCHEMA

HERE = Path(__file__).parent

PICTURE_SIDE = 256
"""Longest side in pixels of the embedded pictures: some 5 kB each."""

MAX_PICTURES = 5_000
"""Some 35 MB of page, which browsers still open in seconds."""

THREADS = 2

LABELS = {"no_tumor": "no tumor", "error": "failed"}
KINDS = (*CLASS_NAMES, *LABELS.values())
"""What a slice can turn out to be; each is a tile of the page that filters."""

Record = dict[str, Any]
"""A slice of results.json. Other versions have other keys, so any may be missing."""


def write_report(out: Path) -> Path:
    """Makes out/report.html of out/results.json, run.json where there is one, and the overlays beside them.

    An overlay that is not there or cannot be read leaves its slice without a picture. Raises CascadeError where there
    is no readable results.json or the page cannot be written.
    """
    results = _read_results(out / "results.json")
    path = out / "report.html"
    write_atomically(path, _page(out, results, _read_run(out / "run.json")))
    return path


def _read_results(path: Path) -> dict[str, Any]:
    fix = "name a folder that `cascade predict` wrote to"
    try:
        results = _loads(path.read_bytes())
        if results["schema"] == SCHEMA and all(isinstance(record["slice"], str) for record in results["slices"]):
            return dict(results)
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix=fix) from None
    except OSError as error:
        raise CascadeError(f"{path}: cannot be read ({error.strerror})", fix=fix) from error
    except (ValueError, KeyError, TypeError):
        pass
    raise CascadeError(f"{path}: holds no results of this version of cascade", fix=fix)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = _loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def _loads(content: bytes) -> Any:
    """NaN and infinities become None: Python writes them into JSON, and no browser reads them."""
    return json.loads(content, parse_constant=lambda _: None)


def _page(out: Path, results: dict[str, Any], run: dict[str, Any]) -> bytes:
    records = sorted(results["slices"], key=_natural)
    pictures = _pictures(out, records)
    slices = [_slice(out, place, record, pictures.get(place)) for place, record in enumerate(records)]
    style, script = ((HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    style += "".join(
        f'\n[data-kind="{name}"] {{ --kind: rgb{colour}; }}'
        for name, colour in zip(CLASS_NAMES, CLASS_COLOURS, strict=True)
    )
    page = Template((HERE / "page.html").read_text("utf-8")).substitute(
        title=html.escape(out.resolve().name),
        note=html.escape(NOTE),
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        facts=_definitions(_facts(out, results, run)),
        run=_definitions(_flat(run)),
        remarks="".join(f"<p>{html.escape(remark)}</p>" for remark in _remarks(results, slices)),
        tiles=_tiles(slices),
        data=_script_json({"slices": slices, "uncertainBelow": results.get("uncertain_below") or 0}),
    )
    return page.encode(errors="xmlcharrefreplace")  # of file names, whose bytes need not be UTF-8


def _natural(record: Record) -> list[str | int]:
    """Sorts slice_10 behind slice_2."""
    return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(re.split(r"(\d+)", record["slice"]))]


def _slice(out: Path, place: int, record: Record, picture: str | None) -> dict[str, Any]:
    """A slice as the page's script takes it."""
    probabilities = record.get("probabilities") or {}
    notes = record.get("notes") or []
    return {
        "name": record["slice"],
        "place": place,
        "kind": _kind(record),
        "probability": probabilities.get(record.get("class")),
        "probabilities": probabilities,
        "notes": [notes] if isinstance(notes, str) else [str(note) for note in notes],
        "picture": picture,
        "mask": _link(out, record.get("mask")),
        "overlay": _link(out, record.get("overlay")),
        **{key: record.get(key) for key in ("uncertain", "box", "mask_pixels", "mask_mm2", "latency_ms")},
        **{key: record.get(key) for key in ("input", "index", "problem", "fix")},
    }


def _kind(record: Record) -> str:
    status = str(record.get("status"))
    return record.get("class") or LABELS.get(status, status)


def _file(out: Path, relative: str | None) -> Path | None:
    """The file below `out`; None where there is none, or it is named as lying elsewhere."""
    if not relative or PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        return None
    path = out / relative
    return path if path.is_file() else None


def _link(out: Path, relative: str | None) -> str | None:
    return quote(str(relative), errors="surrogateescape") if _file(out, relative) else None


def _pictures(out: Path, records: list[Record]) -> dict[int, str]:
    """By place: data URLs of up to MAX_PICTURES overlays, those with a tumor first."""
    places = [place for place, record in enumerate(records) if _file(out, record.get("overlay"))]
    places = sorted(places, key=lambda place: records[place].get("status") != "tumor")[:MAX_PICTURES]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda place: _picture(out, records[place]), places)
        return {place: picture for place, picture in zip(places, found, strict=True) if picture}


def _picture(out: Path, record: Record) -> str | None:
    """A small copy of the overlay, without its caption, which would be too small to read."""
    try:
        with Image.open(out / record["overlay"]) as overlay:
            picture = overlay.convert("RGB")
        if mask := _file(out, record.get("mask")):
            with Image.open(mask) as image:
                picture = picture.crop((0, 0, *image.size))
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=80)
    except Exception:  # on damaged bytes Pillow's decoders also raise IndexError, TypeError, struct.error, ...
        return None
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _facts(out: Path, results: dict[str, Any], run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the page's head tells of the run."""
    written = datetime.fromtimestamp((out / "results.json").stat().st_mtime).astimezone()
    yield ("started", str(run["started"])) if run.get("started") else ("written", f"{written:%Y-%m-%d %H:%M}")
    if isinstance(seconds := run.get("seconds"), int | float):
        yield "took", f"{seconds:,.1f} s"
    yield "backend", str(results.get("backend") or run.get("backend") or "unknown")
    for name, sha256 in (results.get("models") or {}).items():
        yield str(name), str(sha256)[:12]
    yield "cascade", str(results.get("cascade_version") or "unknown")
    yield "inputs", str(results.get("inputs") or "unknown")


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """{"options": {"batch": 8}} → ("options batch", "8")."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} {key}".strip())
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _remarks(results: dict[str, Any], slices: list[dict[str, Any]]) -> Iterator[str]:
    if not results.get("complete", True):
        yield "The run did not get to its end: these are the slices that it had done by then."
    pictures, overlays = (sum(bool(found[key]) for found in slices) for key in ("picture", "overlay"))
    if overlays > MAX_PICTURES:
        yield (
            f"Pictures of {pictures:,} of {overlays:,} slices are in this page, those with a tumor first. "
            "The details of each of the others link to its overlay."
        )


def _tiles(slices: list[dict[str, Any]]) -> str:
    counts = Counter(found["kind"] for found in slices)
    uncertain = sum(bool(found["uncertain"]) for found in slices)
    return "".join(
        f'<button type="button" class="tile" {filters} aria-pressed="false"{"" if count else " disabled"}>'
        f'<span class="count">{count:,}</span> <span class="swatch"></span>{label}</button>\n'
        for filters, label, count in [
            *((f'data-kind="{kind}"', kind, counts[kind]) for kind in KINDS),
            ("data-uncertain", "uncertain", uncertain),
        ]
    )


def _definitions(pairs: Iterator[tuple[str, str]]) -> str:
    return "".join(
        f"<div><dt>{html.escape(term)}</dt><dd><bdi>{html.escape(told)}</bdi></dd></div>" for term, told in pairs
    )


def _script_json(content: object) -> str:
    """JSON that no `</script>` or `<!--` in a name can end."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
