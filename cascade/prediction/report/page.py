"""Contents of results.json and run.json → report.html, from page.html, page.css, page.js and the slices as JSON."""

import base64
import hashlib
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any

from cascade.colors import CLASS_COLORS
from cascade.contract import CLASS_NAMES
from cascade.prediction.output_files import OutputFiles
from cascade.prediction.report import thumbnails
from cascade.prediction.report.thumbnails import SliceRecord
from cascade.prediction.results import NOTE

HERE = Path(__file__).parent

STATUS_NAMES = {"no_tumor": "no tumor", "error": "failed"}
KINDS = (*CLASS_NAMES, *STATUS_NAMES.values())
"""Possible outcomes for a slice or volume; the page has a filter button for each."""

MEASURES = ("volume_ml", "longest_mm", "perpendicular_mm")
"""Keys of the measures of a volume."""

LISTS = ("inputs", "failures", "left_out", "dropped")
"""Keys of run.json whose values the page shows elsewhere, or which may be longer than the rest of the page."""

SliceData = dict[str, Any]
"""A slice as page.js reads it."""


def report_page(out: Path, results: dict[str, Any], run: dict[str, Any], files: OutputFiles) -> bytes:
    """Return the HTML of the report.

    Args:
        out: Results folder.
        results: Content of results.json.
        run: Content of run.json; empty if the file is missing.
        files: The overlays and masks.
    """
    records = sorted(results["slices"], key=_natural_key)
    frames, found = _frames(records), {record["input"]: record for record in results.get("volumes") or []}
    volumes = [_volume_data(files, found[name], records, frames[name]) for name in found if name in frames]
    key_slices = {volume["frames"][volume["key"]] for volume in volumes}
    urls = thumbnails.embed_thumbnails(files, records, key_slices)
    slices = [
        # A volume of one slice, or that cannot be opened, is shown as its slice.
        _slice_data(files, place, record, found.get(record.get("input"), {}), urls.get(place))
        for place, record in enumerate(records)
    ]
    style, script = _style(), (HERE / "page.js").read_text("utf-8")
    page = Template((HERE / "page.html").read_text("utf-8")).substitute(
        title=html.escape(out.resolve().name),
        note=html.escape(NOTE),
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        summary=_definitions(_summary(out, results, run)),
        run=_definitions(_flatten({key: value for key, value in run.items() if key not in LISTS})),
        remarks="".join(f"<p>{html.escape(remark)}</p>" for remark in _remarks(results, slices)),
        tiles=_tiles(_cards(slices, volumes)),
        data=_script_json(
            {"slices": slices, "volumes": volumes, "uncertainBelow": results.get("uncertain_below") or 0}
        ),
    )
    return page.encode(errors="xmlcharrefreplace")  # file names need not be UTF-8


def _natural_key(record: SliceRecord) -> list[str | int]:
    """Sort slice_10 after slice_2."""
    return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(re.split(r"(\d+)", record["slice"]))]


def _slice_data(
    files: OutputFiles, place: int, record: SliceRecord, volume: dict[str, Any], thumbnail: str | None
) -> SliceData:
    probabilities = record.get("probabilities") or {}
    status, notes = str(record.get("status")), record.get("notes") or []
    return {
        "name": record["slice"],
        "place": place,
        "kind": record.get("class") or STATUS_NAMES.get(status, status),
        "probability": probabilities.get(record.get("class")),
        "probabilities": probabilities,
        "notes": [notes] if isinstance(notes, str) else [str(note) for note in notes],
        "thumbnail": thumbnail,
        "mask": thumbnails.link(files, record.get("mask")),
        "map": thumbnails.link(files, record.get("probability_map")),
        "overlay": thumbnails.link(files, record.get("overlay")),
        **{key: record.get(key) for key in ("uncertain", "box", "mask_pixels", "mask_mm2", "accepted_pixels")},
        **{key: record.get(key) for key in ("input", "index", "file", "latency_ms", "problem", "fix")},
        **{key: volume.get(key) for key in MEASURES},
    }


def _frames(records: list[SliceRecord]) -> dict[str, list[int]]:
    """Return the positions in `records` of the slices of each volume, in their order."""
    numbered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, record in enumerate(records):
        if record.get("index") is not None:
            numbered[record["input"]].append((record["index"], place))
    return {name: [place for _, place in sorted(pairs)] for name, pairs in numbered.items()}


def _volume_data(
    files: OutputFiles, record: dict[str, Any], records: list[SliceRecord], frames: list[int]
) -> SliceData:
    """Return a volume as page.js reads it: its frames are positions of slices, and `key` is a position in those."""
    probabilities = record.get("probabilities") or {}
    status, key = str(record.get("status")), record.get("key_slice")
    if not (isinstance(key, int) and 0 <= key < len(frames)):  # no tumor: the picture nearest to the middle
        has_none = [not records[place].get("overlay") for place in frames]
        key = min(range(len(frames)), key=lambda index: (has_none[index], abs(index - len(frames) // 2)))
    return {
        "name": record["input"],
        "place": min(frames),
        "kind": record.get("class") or STATUS_NAMES.get(status, status),
        "probability": probabilities.get(record.get("class")),
        "probabilities": probabilities,
        "notes": [record["notes"]] if record.get("notes") else [],
        "mask": thumbnails.link(files, record.get("mask")),
        "frames": frames,
        "key": key,
        **{name: record.get(name) for name in ("uncertain", "slices", "tumor_slices", "problem", "fix", *MEASURES)},
    }


def _cards(slices: list[SliceData], volumes: list[SliceData]) -> list[SliceData]:
    """Return what the page shows as one card each: volumes, and the slices that belong to none."""
    in_volumes = {place for volume in volumes for place in volume["frames"]}
    return [*(data for data in slices if data["place"] not in in_volumes), *volumes]


def _summary(out: Path, results: dict[str, Any], run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield term and value of each item in the head of the page."""
    written = datetime.fromtimestamp((out / "results.json").stat().st_mtime).astimezone()
    yield ("started", str(run["started"])) if run.get("started") else ("written", f"{written:%Y-%m-%d %H:%M}")
    if isinstance(seconds := run.get("seconds"), int | float):
        yield "duration", f"{seconds:,.1f} s"
    yield "backend", str(results.get("backend") or "unknown")
    for name, sha256 in (results.get("models") or {}).items():
        yield name, str(sha256)[:12]
    yield "cascade", str(results.get("cascade_version") or "unknown")
    yield "inputs", str(results.get("inputs") or "unknown")


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """{"options": {"batch": 8}} → ("options batch", "8")."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name} {key}".strip())
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _remarks(results: dict[str, Any], slices: list[SliceData]) -> Iterator[str]:
    if not results.get("complete", True):
        yield "This run is incomplete. The page shows the slices that were finished before it stopped."
    embedded, overlays = (sum(bool(data[key]) for data in slices) for key in ("thumbnail", "overlay"))
    if overlays > thumbnails.MAX_THUMBNAILS:
        yield (
            f"This page contains {embedded:,} of {overlays:,} overlays: first the key slices of volumes, then slices "
            "with a tumor. For the other slices, open the details and follow the link to the overlay."
        )


def _tiles(shown: list[SliceData]) -> str:
    counts = Counter(data["kind"] for data in shown)
    uncertain = sum(bool(data["uncertain"]) for data in shown)
    return "".join(
        f'<button type="button" class="tile" {attribute} aria-pressed="false"{"" if count else " disabled"}>'
        f'<span class="count">{count:,}</span> <span class="swatch"></span>{name}</button>\n'
        for attribute, name, count in [
            *((f'data-kind="{kind}"', kind, counts[kind]) for kind in KINDS),
            ("data-uncertain", "uncertain", uncertain),
        ]
    )


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f"<div><dt>{html.escape(term)}</dt><dd><bdi>{html.escape(value)}</bdi></dd></div>" for term, value in pairs
    )


def _style() -> str:
    rules = "\n".join(f'[data-kind="{name}"] {{ --kind: rgb{color}; }}' for name, color in CLASS_COLORS.items())
    return f"{(HERE / 'page.css').read_text('utf-8')}\n{rules}\n"


def _script_json(content: object) -> str:
    """Return JSON that no `</script>` or `<!--` in a file name can end."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
