"""Results folder → report.html: one page to browse the slices of a run, which loads nothing from the network."""

import json
from pathlib import Path
from typing import Any

from cascade.discovery.output_marker import RESULTS
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.prediction.output_dir import REPORT
from cascade.prediction.output_files import LocalFiles, OutputFiles
from cascade.prediction.report.page import report_page


def write_report(out: Path, files: OutputFiles | None = None) -> Path:
    """Write report.html from results.json, run.json and the overlays in a results folder.

    run.json may be missing. A slice whose overlay is missing or damaged has no thumbnail.

    Args:
        out: Results folder.
        files: Where the overlays are; None if they are in the folder.

    Returns:
        Path of report.html.

    Raises:
        CascadeError: results.json cannot be read, or the page cannot be written.
    """
    results = _read_results(out / "results.json")
    path = out / REPORT
    write_atomically(path, report_page(out, results, _read_run(out / "run.json"), files or LocalFiles(out)))
    return path


def _read_results(path: Path) -> dict[str, Any]:
    fix = "choose a folder that `cascade predict` has written"
    try:
        results = _loads(path.read_bytes())
        if results["schema"] == RESULTS and all(isinstance(record["slice"], str) for record in results["slices"]):
            return dict(results)
    except FileNotFoundError:
        raise CascadeError(f"{path}: file not found", fix=fix) from None
    except OSError as error:
        raise CascadeError(f"{path}: cannot be read ({error.strerror})", fix=fix) from error
    except (ValueError, KeyError, TypeError):
        pass
    raise CascadeError(f"{path}: is not a results file of this version of cascade", fix=fix)


def _read_run(path: Path) -> dict[str, Any]:
    """Return the content of run.json; empty if it is missing or damaged, since the page can do without it."""
    try:
        run = _loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def _loads(content: bytes) -> Any:
    """Parse JSON with None for NaN and infinity, which Python writes and browsers reject."""
    return json.loads(content, parse_constant=lambda _: None)
