"""`cascade predict`: paths → a folder of results."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.discovery.inputs import Inputs
from cascade.discovery.store import is_url
from cascade.errors import CascadeError
from cascade.io.open import open_sources
from cascade.io.slices import Source
from cascade.pipeline import Cascade
from cascade.prediction.accounting import check_accounting
from cascade.prediction.batch import InProcess
from cascade.prediction.collect import collect_inputs
from cascade.prediction.collisions import find_collisions
from cascade.prediction.driver import RunResult, predict_sources
from cascade.prediction.earlier import previous_files, read_entries, reusable_names
from cascade.prediction.executor import Executor
from cascade.prediction.fetched import remove_beginnings
from cascade.prediction.journal import Entry, journal_line
from cascade.prediction.output import Output, open_output
from cascade.prediction.recorder import ProgressCallback
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run_record import RunRecord


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        batch_size: Number of slices that go through the models at once, at least 1.
        axis: Slice axis (0, 1 or 2) of volumes; None selects the axis with the thickest slices.
        volume: Number of the volume to read from a file of several, from 0; None refuses such files.
        recursive: Search subfolders.
        include: Process only files whose name matches one of these patterns, if there are any.
        exclude: Leave out files and folders whose name matches one of these patterns.
        overlays: Draw overlays.
        report: Write report.html.
        keep_identifiers: Keep patient identifiers in DICOM masks.
        keep_all_components: Keep the components in masks of volumes that do not belong to the finding.
        probabilities: Write the tumor probability of each pixel.
        secondary_capture: Write DICOM secondary captures of the slices of DICOM inputs that show a tumor.
        overwrite: Replace the results of an earlier run.
        resume: Continue an earlier run; finished inputs are not computed again.
    """

    batch_size: int = 8
    axis: int | None = None
    volume: int | None = None
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overlays: bool = True
    report: bool = True
    keep_identifiers: bool = False
    keep_all_components: bool = False
    probabilities: bool = False
    secondary_capture: bool = False
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise CascadeError(f"a batch size of {self.batch_size} is invalid", fix="choose 1 or more")
        if self.axis not in (None, 0, 1, 2):
            raise CascadeError(f"a slice axis of {self.axis} is invalid", fix="choose 0, 1 or 2")
        if self.volume is not None and self.volume < 0:
            raise CascadeError(f"a volume of number {self.volume} is invalid", fix="count from 0")


def predict_paths(
    cascade: Cascade | Executor,
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: RunOptions = RunOptions(),
    *,
    on_start: ProgressCallback = lambda count: None,
    on_progress: ProgressCallback = lambda count: None,
) -> RunResult:
    """Predict all slices in files and folders, and write the results.

    Writes masks, overlays, results.csv, volumes.csv, results.json, run.json and report.html; if requested, probability
    maps and secondary captures too.

    Args:
        cascade: Loaded models, or the workers of a cluster that have loaded them.
        paths: Images, volumes, folders, zips, or patterns such as `scans/*.png`. With a cluster, also URLs of these.
        out: Results folder; created if needed. With a cluster, also a URL.
        options: Options of the run.
        on_start: Called once with the total number of slices.
        on_progress: Called with the number of slices that have just been finished.

    Raises:
        CascadeError: There is nothing to process, or the results folder cannot be used. Nothing has been written then.
        AccountingError: A file has disappeared in the run, which is a bug. The results have been written.
    """
    executor = InProcess(cascade) if isinstance(cascade, Cascade) else cascade
    if not executor.is_remote and (urls := [str(path) for path in (*paths, out) if is_url(path)]):
        raise CascadeError(f"{urls[0]}: only the workers of a cluster use URLs", fix="add --cluster local")
    with (
        open_output(out if isinstance(out, str) else Path(out)) as output,
        collect_inputs(paths, output.folder, options, shared=executor.is_remote and output.store is None) as inputs,
        output.lock(overwrite=options.overwrite, resume=options.resume),
    ):
        return _predict_inputs(executor, inputs, output, options, on_start, on_progress)


def _predict_inputs(
    executor: Executor,
    inputs: Inputs,
    output: Output,
    options: RunOptions,
    on_start: ProgressCallback,
    on_progress: ProgressCallback,
) -> RunResult:
    """Predict all slices of the inputs. The output is locked."""
    out = output.folder
    sources, problems, left_out = open_sources(
        inputs, axis=options.axis, volume=options.volume, keep_identifiers=options.keep_identifiers
    )
    problems = {inputs.with_urls(name): error for name, error in problems.items()}
    if inputs.store:
        remove_beginnings(sources, inputs.store)
    folder = ResultsFolder(
        out=out,
        inputs=inputs.folder,
        overlays=options.overlays,
        models=executor.models,
        backend=executor.description,
        uncertain_below=executor.uncertain_below,
        volume_rule=executor.volume_rule,
        keep_all_components=options.keep_all_components,
        probabilities=options.probabilities,
        secondary_capture=options.secondary_capture,
        unpacked=inputs.unpacked,
        parquet=executor.is_remote,
        store=inputs.store,
        output_store=output.store,
    )
    executor.check_access(_shared_paths(inputs, sources, output))
    settings = run_settings(executor, options, inputs.location)
    earlier: Mapping[str, Entry] = read_entries(out, settings) if options.resume else {}
    kept = reusable_names(earlier, inputs, sources, folder)
    finished = set(kept)
    dropped = earlier.keys() - {source.name for source in sources} - problems.keys()
    folder.files.remove_previous(previous_files(out, finished))
    folder.save(
        (row for name in kept for row in earlier[name].rows),
        (volume for name in kept if (volume := earlier[name].volume)),
        complete=False,
    )
    record = RunRecord(executor, asdict(options), inputs, sources)
    record.save(out, None)
    output.publish(at_end=False)
    on_start(sum(source.count for source in sources))
    collisions = find_collisions(folder, sorted(sources, key=lambda source: source.name not in finished))
    journal = output.open_journal(settings, (journal_line(earlier[name]) for name in kept))
    try:
        result = predict_sources(
            executor,
            [source for source in sources if source.name not in finished],
            folder,
            batch_size=options.batch_size,
            problems=problems,
            collisions=collisions,
            journal=journal,
            on_progress=on_progress,
        )
        left_out = {inputs.with_urls(path): reason for path, reason in left_out.items()}
        result = replace(result, left_out=left_out, dropped=tuple(sorted(dropped)))
        record.save(out, result)
        if options.report:
            from cascade.prediction.report import write_report

            write_report(out, folder.files)
    finally:
        journal.close()  # first, since results.json says that everything is there
        output.publish(at_end=True)
    check_accounting(inputs, folder, sources, problems, result)
    return result


def _shared_paths(inputs: Inputs, sources: Sequence[Source], output: Output) -> list[Path | str]:
    """Return paths and URLs that a worker must see, if it is to see all inputs and the results."""
    paths: list[Path | str] = [output.lock_path, *([inputs.unpacked] if inputs.zipped else [])]
    first = [path for source in sources[:1] for path in source.files[:1] if not path.is_relative_to(inputs.unpacked)]
    if inputs.store is None:
        return [*paths, *first]
    # Volumes are fetched to a folder beside a results folder. With results at a URL, each worker fetches its own.
    return [*paths, *(map(inputs.store.url, first) if output.store else [inputs.store.folder])]


def run_settings(executor: Executor, options: RunOptions, inputs: str) -> dict[str, Any]:
    """Return what the results depend on besides the inputs; a run can be resumed only with the same settings.

    Args:
        executor: What runs the models.
        options: Options of the run.
        inputs: Folder that the names of the inputs are relative to.
    """
    return {
        "folder of inputs": inputs,
        "cascade_version": __version__,
        "models": executor.models,
        "backend": executor.description,
        "axis": options.axis,
        "volume": options.volume,
        "overlays": options.overlays,
        "keep_identifiers": options.keep_identifiers,
        "keep_all_components": options.keep_all_components,
        "probabilities": options.probabilities,
        "secondary_capture": options.secondary_capture,
        "volume_rule": asdict(executor.volume_rule),
    }
