"""run.json: the provenance of the results, from the models to the checksum of each input."""

import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.discovery.inputs import Inputs
from cascade.io.source import Source
from cascade.prediction.executor import Executor
from cascade.prediction.journal import Entry
from cascade.prediction.results import NOTE
from cascade.prediction.run_result import RunResult
from cascade.prediction.tables import open_json
from cascade.runtime.machine import installed_versions

SCHEMA = "cascade run 1"


class RunRecord:
    """Writes run.json."""

    def __init__(self, executor: Executor, options: dict[str, Any], inputs: Inputs, sources: Sequence[Source]) -> None:
        self._sources, self._location = sources, inputs.location
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "cascade_version": __version__,
            "research_use_only": NOTE,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "backend": executor.description,
            "passed_over": executor.skipped_backends,
            "models": executor.models,
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
                "slices": dict(result.statuses),
                "slices_of_an_earlier_run": result.resumed_rows,
                "left_out": dict(sorted(result.left_out.items())),
                "dropped": list(result.dropped),
            }
        content["inputs_folder"] = self._location
        with open_json(out / "run.json", content) as record:
            if result:
                record.begin("failures")
                for row in result.failed:
                    record.add({"slice": row.name, "problem": row.problem, "fix": row.fix})
            record.begin("inputs")
            for source, sha256 in self._with_checksums(result.entries() if result else ()):
                record.add(
                    {
                        "name": source.name,
                        "slices": source.count,
                        "files": len(source.files),
                        "sha256": sha256,
                        "notes": list(source.notes),
                    }
                )

    def _with_checksums(self, entries: Iterable[Entry]) -> Iterator[tuple[Source, str | None]]:
        """Yield each source, with the checksum of its files if it is among the finished inputs."""
        remaining = iter(entries)
        entry = next(remaining, None)
        for source in self._sources:
            while entry and entry.name < source.name:
                entry = next(remaining, None)
            yield source, entry.sha256 or None if entry and entry.name == source.name else None
