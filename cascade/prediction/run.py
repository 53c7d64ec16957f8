"""`cascade predict`: from paths to a folder of results, and the record of how they came about."""

import json
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import Inputs, find_slices
from cascade.errors import CascadeError
from cascade.files import write_atomically
from cascade.io.checksums import sha256_of_files
from cascade.io.open import open_sources
from cascade.io.slices import Source
from cascade.pipeline import Cascade
from cascade.prediction.batch import THREADS, Run, predict_slices
from cascade.prediction.journal import Entry, Journal, earlier_files, read_journal
from cascade.prediction.recorder import Advance
from cascade.prediction.results import NOTE, ResultsFolder, claim, clear, written_files
from cascade.runtime.machine import installed_versions

SCHEMA = "cascade run 1"


@dataclass(frozen=True)
class RunOptions:
    """What a user may choose of a run.

    axis              of NIfTI volumes, along which slices lie; None takes that of the thickest.
    recursive         whether to look into folders inside folders.
    include, exclude  patterns of names (cascade/discovery/filters.py).
    overlays          whether pictures are drawn.
    report            whether report.html is made.
    keep_identifiers  whether a DICOM mask says whose it is.
    overwrite         replace an earlier run's results.
    resume            go on with an earlier run, and do nothing twice.
    """

    batch_size: int = 8
    axis: int | None = None
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overlays: bool = True
    report: bool = True
    keep_identifiers: bool = False
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Raises CascadeError for a batch without slices."""
        if self.batch_size < 1:
            raise CascadeError(f"a batch of {self.batch_size} slices is none", fix="give 1 or more")


Begin = Callable[[int], object]
"""Called once with the number of slices."""


def predict_paths(
    cascade: Cascade,
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: RunOptions = RunOptions(),
    *,
    begin: Begin = lambda count: None,
    advance: Advance = lambda count: None,
) -> Run:
    """Finds the slices, does them, and leaves masks, overlays, results.csv, results.json, run.json and report.html.

    Raises CascadeError, before anything is written, where there is nothing to do or the folder is not to be written.
    """
    out = Path(out)
    with found_inputs([Path(path) for path in paths], out, options) as inputs:
        sources, problems = open_sources(inputs, axis=options.axis, keep_identifiers=options.keep_identifiers)
        folder = ResultsFolder(
            *(out, inputs.folder, options.overlays, cascade.models, cascade.description, cascade.uncertain_below),
            unpacked=inputs.unpacked,
        )
        claim(out, overwrite=options.overwrite, resume=options.resume)
        depends_on = what_results_depend_on(cascade, options, inputs.folder)
        done = still_standing(read_journal(out, depends_on), inputs, sources, out) if options.resume else {}
        clear(folder, earlier_files(out), keep=(path for entry in done.values() for path in entry.files))
        folder.save((row for entry in done.values() for row in entry.rows), complete=False)
        record = RunRecord(cascade, options, inputs, sources)
        record.save(out, None)
        begin(sum(source.count for source in sources))
        journal = Journal(out, depends_on, done.values())
        try:
            run = predict_slices(
                cascade,
                [source for source in sources if source.name not in done],
                folder,
                batch_size=options.batch_size,
                problems=problems,
                journal=journal,
                done=list(done.values()),
                advance=advance,
            )
        finally:
            journal.close()
        run = replace(run, left_out=inputs.skipped)
        record.save(out, run)
    if options.report:
        from cascade.prediction.report import write_report

        write_report(out)
    return run


@contextmanager
def found_inputs(paths: Sequence[Path], out: Path, options: RunOptions) -> Iterator[Inputs]:
    """Zips lie unpacked in a temporary folder as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="cascade-") as unpacked:
        yield find_slices(
            paths,
            written_files(out),
            formats=FORMATS,
            recursive=options.recursive,
            include=options.include,
            exclude=options.exclude,
            unpack_into=Path(unpacked),
        )


def still_standing(done: dict[str, Entry], inputs: Inputs, sources: Sequence[Source], out: Path) -> dict[str, Entry]:
    """Of what an earlier run did, the inputs whose bytes and results are still what they were.

    Raises CascadeError where it did more than is given now: its results would go. Those of files that are gone go.
    """
    of_name = {source.name: source for source in sources}
    called = {inputs.path(name): name for name in inputs.names}
    for name in sorted({name for entry in done.values() for name in entry.read} - set(inputs.names)):
        if inputs.is_skipped(name):
            raise CascadeError(
                f"{out}: holds results of {inputs.folder / name}, which is not given now",
                fix="give all that its run was given, begin anew by --overwrite, or name another folder with --out",
            )

    def stands(entry: Entry) -> bool:
        files = of_name[entry.name].files
        if entry.read != tuple(called[path] for path in files):  # its rows name them
            return False
        try:
            return entry.sha256 == sha256_of_files(files) and entry.stands(out)
        except CascadeError:
            return False  # whoever reads it will say why

    entries = [entry for name, entry in done.items() if name in of_name]
    pool = ThreadPoolExecutor(THREADS)
    try:
        return {entry.name: entry for entry, stood in zip(entries, pool.map(stands, entries), strict=True) if stood}
    finally:
        pool.shutdown(cancel_futures=True)


def what_results_depend_on(cascade: Cascade, options: RunOptions, inputs: Path) -> dict[str, Any]:
    """Beside an input's own bytes: an earlier run's results stand only where all of this was the same.

    inputs  the folder that names are relative to.
    """
    return {
        "folder of inputs": str(inputs),
        "cascade_version": __version__,
        "models": cascade.models,
        "backend": cascade.description,
        "axis": options.axis,
        "overlays": options.overlays,
        "keep_identifiers": options.keep_identifiers,
    }


class RunRecord:
    """run.json: how the results came about, so that a figure in a paper can be traced to them."""

    def __init__(self, cascade: Cascade, options: RunOptions, inputs: Inputs, sources: Sequence[Source]) -> None:
        self._sources, self._folder = sources, inputs.folder
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "cascade_version": __version__,
            "research_use_only": NOTE,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "backend": cascade.description,
            "passed_over": cascade.skipped_backends,
            "models": cascade.models,
            "options": asdict(options),
            "versions": {"python": platform.python_version(), **installed_versions()},
            "platform": platform.platform(),
        }

    def save(self, out: Path, run: Run | None) -> None:
        """At the start without a run, at its end with it."""
        content = self._content | {"complete": run is not None and not run.interrupted}
        if run:
            content |= {
                "seconds": round(run.seconds, 3),
                "slices": dict(Counter(row.status for row in run.rows)),
                "slices_of_an_earlier_run": run.resumed,
                "failures": [{"slice": row.name, "problem": row.problem, "fix": row.fix} for row in run.failed],
            }
            content["left_out"] = dict(sorted(run.left_out.items()))
        hashes = run.sha256 if run else {}
        content["inputs_folder"] = str(self._folder)
        content["inputs"] = [
            {
                "name": source.name,
                "slices": source.count,
                "files": len(source.files),
                "sha256": hashes.get(source.name) or None,
                "notes": list(source.notes),
            }
            for source in self._sources
        ]
        write_atomically(out / "run.json", json.dumps(content, indent=1).encode())
