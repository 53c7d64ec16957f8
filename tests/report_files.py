"""Results folders to make reports of, and a report taken apart."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cascade.contract import Box
from cascade.prediction.overlay import SIZE
from cascade.prediction.report import write_report
from cascade.prediction.results import ResultsFolder
from cascade.prediction.slices import SliceResult

MENINGIOMA, GLIOMA, UNSURE_GLIOMA = (0.9, 0.06, 0.04), (0.15, 0.8, 0.05), (0.3, 0.5, 0.2)
UNCERTAIN_BELOW = 0.6
HOSTILE = (
    "</script><script>window.hacked=1</script>.png",
    '"><img src=x onerror=window.hacked=1>.png',
    "<!--<script>.png",
    "it's & 100% #1?.png",
    "Füße ‮gnp.脑.png",
    "not UTF-8 \udcff.png",
)


def tumor(name, probabilities=GLIOMA, **more):
    return SliceResult(
        name,
        "tumor",
        probabilities=probabilities,
        uncertain=max(probabilities) < UNCERTAIN_BELOW,
        box=Box(2.5, 3, 20.25, 30),
        **{"mask_pixels": 100, "mask_mm2": 24.5, "latency_ms": 12.5} | more,
    )


def no_tumor(name):
    return SliceResult(name, "no_tumor", mask_pixels=0, mask_mm2=0.0, latency_ms=12.5)


def failed(name, problem="a.png: is blank", fix="leave blank slices out"):
    return SliceResult(name, "error", problem=problem, fix=fix)


FIVE = [
    tumor("a/1.png", MENINGIOMA, mask_pixels=300, mask_mm2=73.5),
    tumor("a/2.png", GLIOMA, mask_pixels=500, mask_mm2=122.5),
    tumor("b/10.png", UNSURE_GLIOMA),
    no_tumor("b/9.png"),
    failed("b/0.png"),
]


def write_results(out, rows, *, volumes=(), complete=True, inputs="/data"):
    """A results folder as a run leaves it: slices of 400 x 300 pixels, their overlays with a caption of 20 rows."""
    folder = ResultsFolder(
        out,
        Path(inputs),
        overlays=True,
        models={"segmenter": "a" * 64},
        backend="ONNX Runtime",
        uncertain_below=UNCERTAIN_BELOW,
    )
    saved = []
    for row in rows:
        if row.status != "error":
            mask, overlay = folder.mask_path(row.name), folder.overlay_path(row.name)
            size = PngInfo()
            size.add_text(SIZE, "400x300")
            for path, height in ((mask, 300), (overlay, 320)):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (400, height), 90).save(path, pnginfo=size if path is overlay else None)
            row = replace(row, mask=mask.relative_to(out).as_posix(), overlay=overlay.relative_to(out).as_posix())
        saved.append(row)
    folder.save(saved, volumes, complete=complete)
    return out


def change(out, **changes):
    """Rewrites keys of the first slice of results.json."""
    path = out / "results.json"
    results = json.loads(path.read_text())
    results["slices"][0] |= changes
    path.write_text(json.dumps(results))


class Page(HTMLParser):
    """The page taken apart: its elements' attributes, the text of all that is no script or style, and its data."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text("utf-8")
        self.elements, self.text, self.inline = [], "", {"script": [], "style": []}
        self.inside = ""
        self.feed(self.source)
        self.data = json.loads(self.inline["script"][0])
        self.slices = self.data["slices"]
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in self.inline:
            self.inline[self.inside].append(data)
        else:
            self.text += f" {data}"

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def policy(self):
        (policy,) = (a["content"] for _, a in self.elements if a.get("http-equiv") == "Content-Security-Policy")
        return dict(directive.split(" ", 1) for directive in policy.split("; "))


def page_of(out):
    return Page(write_report(out))
