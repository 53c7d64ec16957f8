"""run.json: the provenance of the results, from the models to the checksum of each input."""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.discovery.inputs import Inputs
from cascade.files import write_atomically
from cascade.io.slices import Source
from cascade.pipeline import Cascade
from cascade.prediction.batch import RunResult
from cascade.prediction.results import NOTE
from cascade.runtime.machine import installed_versions

SCHEMA = "cascade run 1"


class RunRecord:
    """Writes run.json."""

    def __init__(self, cascade: Cascade, options: dict[str, Any], inputs: Inputs, sources: Sequence[Source]) -> None:
        self._sources, self._folder = sources, inputs.folder
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "cascade_version": __version__,
            "research_use_only": NOTE,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "backend": cascade.description,
            "passed_over": cascade.skipped_backends,
            "models": cascade.models,
            "options": options,
            "versions": {"python": platform.python_version(), **installed_versions()},
            "platform": platform.platform(),
        }

    def save(self, out: Path, result: RunResult | None) -> None:
        """Write run.json: at the start of the run without a result, at its end with it.

        Raises:
            CascadeError: The file cannot be written.
        """
        content = self._content | {"complete": result is not None and not result.interrupted}
        if result:
            content |= {
                "seconds": round(result.seconds, 3),
                "slices": dict(Counter(row.status for row in result.rows)),
                "slices_of_an_earlier_run": result.resumed_rows,
                "failures": [{"slice": row.name, "problem": row.problem, "fix": row.fix} for row in result.failed],
                "left_out": dict(sorted(result.left_out.items())),
                "dropped": list(result.dropped),
            }
        sha256 = result.sha256 if result else {}
        content["inputs_folder"] = str(self._folder)
        content["inputs"] = [
            {
                "name": source.name,
                "slices": source.count,
                "files": len(source.files),
                "sha256": sha256.get(source.name) or None,
                "notes": list(source.notes),
            }
            for source in self._sources
        ]
        write_atomically(out / "run.json", json.dumps(content, indent=1).encode())
