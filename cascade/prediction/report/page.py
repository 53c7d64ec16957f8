"""What a run left → the bytes of its page: page.html filled in, page.css, page.js and the slices as JSON inside it."""

import base64
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any

from cascade.colors import CLASS_COLORS
from cascade.contract import CLASS_NAMES
from cascade.prediction.report import pictures
from cascade.prediction.report.pictures import Record
from cascade.prediction.results import NOTE

HERE = Path(__file__).parent

STATUS_NAMES = {"no_tumor": "no tumor", "error": "failed"}
KINDS = (*CLASS_NAMES, *STATUS_NAMES.values())
"""What can come of a slice; each is a tile of the page that filters."""

Shown = dict[str, Any]
"""A slice as page.js takes it."""


def report_page(out: Path, results: dict[str, Any], run: dict[str, Any]) -> bytes:
    """HTML of the contents of results.json and run.json, the second empty where there is none."""
    records = sorted(results["slices"], key=_natural)
    embedded = pictures.embed(out, records)
    slices = [_shown(out, place, record, embedded.get(place)) for place, record in enumerate(records)]
    style, script = _style(), (HERE / "page.js").read_text("utf-8")
    filled = Template((HERE / "page.html").read_text("utf-8")).substitute(
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
    return filled.encode(errors="xmlcharrefreplace")  # the bytes of file names need not be UTF-8


def _natural(record: Record) -> list[str | int]:
    """Sorts slice_10 behind slice_2."""
    return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(re.split(r"(\d+)", record["slice"]))]


def _shown(out: Path, place: int, record: Record, picture: str | None) -> Shown:
    probabilities = record.get("probabilities") or {}
    status, notes = str(record.get("status")), record.get("notes") or []
    return {
        "name": record["slice"],
        "place": place,
        "kind": record.get("class") or STATUS_NAMES.get(status, status),
        "probability": probabilities.get(record.get("class")),
        "probabilities": probabilities,
        "notes": [notes] if isinstance(notes, str) else [str(note) for note in notes],
        "picture": picture,
        "mask": pictures.link(out, record.get("mask")),
        "overlay": pictures.link(out, record.get("overlay")),
        **{key: record.get(key) for key in ("uncertain", "box", "mask_pixels", "mask_mm2", "latency_ms")},
        **{key: record.get(key) for key in ("input", "index", "file", "problem", "fix")},
    }


def _facts(out: Path, results: dict[str, Any], run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the page's head tells of the run."""
    written = datetime.fromtimestamp((out / "results.json").stat().st_mtime).astimezone()
    yield ("started", str(run["started"])) if run.get("started") else ("written", f"{written:%Y-%m-%d %H:%M}")
    if isinstance(seconds := run.get("seconds"), int | float):
        yield "took", f"{seconds:,.1f} s"
    yield "backend", str(results.get("backend") or "unknown")
    for name, sha256 in (results.get("models") or {}).items():
        yield name, str(sha256)[:12]
    yield "cascade", str(results.get("cascade_version") or "unknown")
    yield "inputs", str(results.get("inputs") or "unknown")


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """{"options": {"batch": 8}} → ("options batch", "8")."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} {key}".strip())
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _remarks(results: dict[str, Any], slices: list[Shown]) -> Iterator[str]:
    if not results.get("complete", True):
        yield "The run did not get to its end: these are the slices that it had done by then."
    embedded, overlays = (sum(bool(shown[key]) for shown in slices) for key in ("picture", "overlay"))
    if overlays > pictures.MAX_PICTURES:
        yield (
            f"Pictures of {embedded:,} of {overlays:,} slices are in this page, those with a tumor first. "
            "The details of each of the others link to its overlay."
        )


def _tiles(slices: list[Shown]) -> str:
    counts = Counter(shown["kind"] for shown in slices)
    uncertain = sum(bool(shown["uncertain"]) for shown in slices)
    return "".join(
        f'<button type="button" class="tile" {filters} aria-pressed="false"{"" if count else " disabled"}>'
        f'<span class="count">{count:,}</span> <span class="swatch"></span>{name}</button>\n'
        for filters, name, count in [
            *((f'data-kind="{kind}"', kind, counts[kind]) for kind in KINDS),
            ("data-uncertain", "uncertain", uncertain),
        ]
    )


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f"<div><dt>{html.escape(term)}</dt><dd><bdi>{html.escape(told)}</bdi></dd></div>" for term, told in pairs
    )


def _style() -> str:
    rules = "\n".join(f'[data-kind="{name}"] {{ --kind: rgb{color}; }}' for name, color in CLASS_COLORS.items())
    return f"{(HERE / 'page.css').read_text('utf-8')}\n{rules}\n"


def _script_json(content: object) -> str:
    """JSON that no `</script>` or `<!--` in a name can end."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
