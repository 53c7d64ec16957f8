"""`cascade predict`: paths → a folder of results."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any

from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import Inputs, find_slices
from cascade.discovery.store import is_url, without_password
from cascade.errors import CascadeError
from cascade.io.mirror import find_stored_slices
from cascade.io.open import open_sources
from cascade.io.source import Source
from cascade.pipeline import Cascade
from cascade.prediction.accounting import check_accounting
from cascade.prediction.batch import InProcess
from cascade.prediction.collisions import find_collisions
from cascade.prediction.earlier import previous_files, read_entries, reusable_names
from cascade.prediction.executor import Executor, Job
from cascade.prediction.failures import failed_source, unopened_input
from cascade.prediction.fetched import remove_beginnings
from cascade.prediction.journal import Entry, Journal, journal_line
from cascade.prediction.ledger import Ledger
from cascade.prediction.output import Output, open_output
from cascade.prediction.output_dir import PARQUET, output_paths
from cascade.prediction.recorder import ProgressCallback
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run_options import RunOptions, run_settings
from cascade.prediction.run_record import RunRecord
from cascade.prediction.run_result import RunResult
from cascade.prediction.stop_signals import stop_signals
from cascade.prediction.temporary_folder import temporary_folder

MAX_FOLDERS = 256
"""Folders of inputs of which a worker looks for a file. On network storage, that takes about a millisecond each."""


def predict_paths(
    cascade: Cascade | Executor,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
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
        paths: One or several images, volumes, folders, zips, or patterns such as `scans/*.png`. With a cluster, also
            URLs of these.
        out: Results folder; created if needed. With a cluster, also a URL.
        options: Options of the run.
        on_start: Called once with the total number of slices.
        on_progress: Called with the number of slices that have just been finished.

    Raises:
        CascadeError: There is nothing to process, or the results folder cannot be used. Nothing has been written then.
        AccountingError: A file has disappeared in the run, which is a bug. The results have been written.
    """
    executor = InProcess(cascade) if isinstance(cascade, Cascade) else cascade
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not executor.is_remote and (urls := [str(path) for path in (*paths, out) if is_url(path)]):
        raise CascadeError(
            f"{without_password(urls[0])}: only the workers of a cluster use URLs", fix="add --cluster local"
        )
    with (
        _checked_output(out, options) as output,
        collect_inputs(paths, output.folder, options, shared=executor.is_remote and output.store is None) as inputs,
        output.lock(overwrite=options.overwrite, resume=options.resume),
        output.access_file() if executor.is_remote else nullcontext() as access_file,
    ):
        shared = [access_file] if access_file else []
        return _predict_inputs(executor, inputs, output, shared, options, on_start, on_progress)


@contextmanager
def _checked_output(out: str | os.PathLike[str], options: RunOptions) -> Iterator[Output]:
    """Open the output, and check it: before all inputs are fetched, which may take hours."""
    with open_output(out if isinstance(out, str) else Path(out)) as output:
        output.check(overwrite=options.overwrite, resume=options.resume)
        yield output


@contextmanager
def collect_inputs(
    paths: Sequence[str | os.PathLike[str]], out: Path, options: RunOptions, *, shared: bool = False
) -> Iterator[Inputs]:
    """Find the inputs of a run. Zips are unpacked to a temporary folder, which is removed at the end.

    What is needed of inputs in an object store is fetched to this folder too.

    Args:
        paths: Files, folders and patterns; or URLs of these.
        out: Results folder.
        options: Options of the run.
        shared: Put the temporary folder on the storage of the results, where other machines see it.

    Raises:
        CascadeError: There is nothing to process, or the temporary folder cannot be created.
    """
    search: dict[str, Any] = {
        "own_output": output_paths(out),
        "formats": FORMATS,
        "recursive": options.recursive,
        "include": options.include,
        "exclude": options.exclude,
    }
    with temporary_folder(out if shared else None) as temporary:
        if any(map(is_url, paths)):
            yield find_stored_slices(list(map(str, paths)), temporary, **search)
        else:
            yield find_slices(map(Path, paths), unpack_into=temporary, **search)


def _predict_inputs(
    executor: Executor,
    inputs: Inputs,
    output: Output,
    shared: Sequence[Path | str],
    options: RunOptions,
    on_start: ProgressCallback,
    on_progress: ProgressCallback,
) -> RunResult:
    """Predict all slices of the inputs. The output is locked. All workers must see the `shared` paths and URLs."""
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
    executor.check_access([*shared, *_paths_to_read(inputs, sources, output)])
    settings = run_settings(executor, options, inputs.location)
    earlier: Mapping[str, Entry] = read_entries(out, settings) if options.resume else {}
    kept = reusable_names(earlier, inputs, sources, folder)
    finished = set(kept)
    gone = earlier.keys() - {source.name for source in sources}
    dropped = [name for name in gone if not _prefixes(name) & problems.keys()]  # a zip that cannot be read is not gone
    previous = previous_files(out, finished)
    folder.save(
        (row for name in kept for row in earlier[name].rows),
        (volume for name in kept if (volume := earlier[name].volume)),
        complete=False,
    )
    record = RunRecord(executor, asdict(options), inputs, sources)
    record.save(out, None)
    output.publish(at_end=False)
    # After the tables, which say now that the run is not complete: a run that ends here misses no file of a row.
    folder.files.remove_previous(previous, keep=[PARQUET] if folder.parquet else [])
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


def predict_sources(
    executor: Executor | Cascade,
    sources: Sequence[Source],
    folder: ResultsFolder,
    *,
    batch_size: int,
    problems: Mapping[str, CascadeError] | None = None,
    collisions: Mapping[str, CascadeError] | None = None,
    journal: Journal | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> RunResult:
    """Predict all slices of the sources and write their results.

    The tables are written once, however the run ends; until then, the journal is the record of what is finished.

    Args:
        executor: What runs the models. A `Cascade` runs in this process.
        sources: Inputs to process.
        folder: Where the results go.
        batch_size: Number of slices that go through the models at once.
        problems: Name → error, for inputs that could not be opened.
        collisions: Name → error, for those of the sources that are not processed: see `find_collisions`.
        journal: Journal to add finished inputs to. Inputs that it contains keep their rows.
        on_progress: Called with the number of slices that have just been finished.

    Raises:
        CascadeError: The models computed NaN, all workers are lost, or the journal or a table cannot be written.
    """
    if isinstance(executor, Cascade):
        executor = InProcess(executor)
    journal = Journal(folder.out, {}) if journal is None else journal
    problems, collisions = problems or {}, collisions or {}
    ledger = Ledger(folder, journal, [*(source.name for source in sources), *problems])
    resumed_rows = ledger.slices
    expected = resumed_rows + len(problems) + sum(source.count for source in sources)
    start = time.monotonic()
    with stop_signals() as stop:
        try:
            if resumed_rows:
                on_progress(resumed_rows)
            for name, error in problems.items():
                ledger.add([journal_line(unopened_input(folder, name, error))])
            for source in sources:
                if source.name in collisions:
                    ledger.add([journal_line(failed_source(folder, source, collisions[source.name]))])
            job = Job(folder, batch_size, ledger.begin, ledger.add, on_progress, stop)
            executor.run([source for source in sources if source.name not in collisions], job)
            journal.sync()  # tables and report of many slices take minutes
        finally:
            rows, volumes = ledger.rows, ledger.volumes
            folder.save(rows, volumes, complete=len(rows) == expected)
    seconds = time.monotonic() - start
    return RunResult(rows, seconds, expected - len(rows), resumed_rows, rows.entries, volumes=volumes)


def _prefixes(name: str) -> set[str]:
    """Return a name, and those of the zips and folders that contain the input."""
    return {name, *map(str, PurePosixPath(name).parents)}


def _paths_to_read(inputs: Inputs, sources: Sequence[Source], output: Output) -> list[Path | str]:
    """Return paths and URLs that a worker must see, if it is to see all inputs: one file of each folder."""
    paths: list[Path | str] = [inputs.unpacked] if inputs.zipped else []
    if inputs.store and not output.store:
        return [*paths, inputs.store.folder]  # volumes are fetched to the storage of the results folder
    folders: dict[Path, Path] = {}
    for source in sources:
        folders.setdefault(source.files[0].parent, source.files[0])
    files = [path for path in folders.values() if not path.is_relative_to(inputs.unpacked)]
    if inputs.store:
        return [*paths, *map(inputs.store.url, files[:1])]  # with results at a URL, each worker fetches its own
    return [*paths, *files[:: ceil(len(files) / MAX_FOLDERS) or 1]]
