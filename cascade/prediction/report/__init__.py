"""A run's results folder → report.html, one page to look through them that loads nothing from anywhere."""

import json
from pathlib import Path
from typing import Any

from cascade.discovery.output_marker import RESULTS
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.prediction.report.page import report_page


def write_report(out: Path) -> Path:
    """Makes out/report.html of out/results.json, run.json where there is one, and the overlays beside them.

    An overlay that is not there or cannot be read leaves its slice without a picture. Raises CascadeError where there
    is no readable results.json or the page cannot be written.
    """
    results = _read_results(out / "results.json")
    path = out / "report.html"
    write_atomically(path, report_page(out, results, _read_run(out / "run.json")))
    return path


def _read_results(path: Path) -> dict[str, Any]:
    fix = "name a folder that `cascade predict` wrote to"
    try:
        results = _loads(path.read_bytes())
        if results["schema"] == RESULTS and all(isinstance(record["slice"], str) for record in results["slices"]):
            return dict(results)
    except FileNotFoundError:
        raise CascadeError(f"{path}: there is no such file", fix=fix) from None
    except OSError as error:
        raise CascadeError(f"{path}: cannot be read ({error.strerror})", fix=fix) from error
    except (ValueError, KeyError, TypeError):
        pass
    raise CascadeError(f"{path}: holds no results of this version of cascade", fix=fix)


def _read_run(path: Path) -> dict[str, Any]:
    """Empty where there is none to read: the page then tells less."""
    try:
        run = _loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def _loads(content: bytes) -> Any:
    """NaN and infinities become None: Python writes them into JSON, and no browser reads them."""
    return json.loads(content, parse_constant=lambda _: None)
