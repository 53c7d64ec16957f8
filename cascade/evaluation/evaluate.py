"""Evaluate the models on labeled slices, and write metrics.json, slices.csv and figures."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from cascade import __version__
from cascade.datasets.figshare import LabeledSlice
from cascade.datasets.reader import SliceInfo, count_slices, read_labeled, scan
from cascade.datasets.split import SUBSETS, check_files, read_split
from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.errors import CascadeError
from cascade.evaluation.batches import process_batches
from cascade.evaluation.detection import Negative, detection, negatives_to_csv, score_negatives
from cascade.evaluation.figures import charts
from cascade.evaluation.gallery import choose, gallery
from cascade.evaluation.metrics_json import to_json
from cascade.evaluation.output_dir import check_output_dir, write_files
from cascade.evaluation.schema import Evaluation, Failures
from cascade.evaluation.scores import score_batch, to_csv
from cascade.evaluation.summary import summarize
from cascade.io.labels import check_scan
from cascade.io.open import open_sources
from cascade.io.slices import BlankSlice, Slice
from cascade.io.source import Source, slice_name
from cascade.pipeline import Cascade
from cascade.runtime.models import CLASSIFIER
from cascade.runtime.select import open_backend

LabeledEntry = tuple[SliceInfo, LabeledSlice] | CascadeError
"""A labeled slice, or the error for a slice that cannot be used."""


def evaluate(
    folder: Path,
    *,
    split_file: Path | None,
    subset: str,
    negatives: Path | None = None,
    models: Path,
    backend: str,
    engines: Path | None,
    device: int | None = None,
    batch_size: int,
    out: Path,
) -> Evaluation:
    """Evaluate the models on a subset of a split, or on a whole data set.

    Args:
        folder: Folder of the data set.
        split_file: The split; None evaluates the whole data set.
        subset: Subset of the split.
        negatives: File, folder or zip in any format that `predict` reads, of slices without a tumor.
        models: Folder of the models.
        backend: Name of the backend, or `auto`.
        engines: Folder of the TensorRT engines.
        device: Number of the GPU; None for the first.
        batch_size: Number of slices in a batch.
        out: Folder for metrics.json, slices.csv and the figures.

    Returns:
        The content of metrics.json. Slices that cannot be used are listed in `failed`.

    Raises:
        CascadeError: `out` cannot be written, a file of the split is missing or has changed, or no slice can be used.
    """
    check_output_dir(out, folder)
    entries, total, split_sha256 = _select(folder, split_file, subset)
    choice = open_backend(backend, models, engines, device=device)
    graphs, cascade = choice.models, Cascade(choice.backend)
    scored_negatives: list[Negative] = []
    negative_problems: list[str] = []
    if negatives:  # first: a wrong path is then noticed before the models have run on everything else
        scored_negatives, negative_problems = _evaluate_negatives(negatives, cascade, batch_size)
    scored, problems = process_batches(
        "slices", map(_require_tumor, entries), total, batch_size, partial(score_batch, cascade)
    )
    if not scored:
        raise CascadeError(
            f"{folder}: no slice can be used: {problems[0]}", fix="repair the files or give another folder"
        )
    problems += negative_problems
    peaks = np.array([item.peak for item in scored])
    evaluation = Evaluation(
        cascade=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        models={name: graph.sha256 for name, graph in graphs.items()},
        models_trained_on_this_split=all(graph.splits == {split_sha256} for graph in graphs.values()),
        backend=cascade.description,
        subset=subset if split_file else "all",
        split_sha256=split_sha256,
        failed=Failures(len(problems), tuple(problem.removeprefix(f"{folder}{os.sep}") for problem in problems)),
        metrics=summarize(scored, graphs[CLASSIFIER].uncertain_below),
        detection=detection(peaks, scored_negatives) if scored_negatives else None,
    )
    files = charts(evaluation.metrics, scored, evaluation.detection)
    files |= {f"{name}_slices.png": gallery(name, some, folder, cascade) for name, some in choose(scored).items()}
    files["slices.csv"] = to_csv(scored)
    if scored_negatives:
        files["negatives.csv"] = negatives_to_csv(scored_negatives)
    files["metrics.json"] = to_json(evaluation)
    write_files(out, files)
    return evaluation


def _evaluate_negatives(path: Path, cascade: Cascade, batch_size: int) -> tuple[list[Negative], list[str]]:
    """Score all negatives that are not blank, and list the problems of the others.

    Raises:
        CascadeError: No slice can be used.
    """
    with tempfile.TemporaryDirectory(prefix="cascade-") as unpacked:
        inputs = find_slices([path], formats=FORMATS, unpack_into=Path(unpacked))
        sources, refused, _ = open_sources(inputs)
        total = sum(source.count for source in sources)
        scored, problems = process_batches(
            "negatives", _read_negatives(sources), total, batch_size, partial(score_negatives, cascade)
        )
    problems = [*(error.problem for error in refused.values()), *problems]
    problems = [problem.replace(unpacked, str(inputs.folder)) for problem in problems]
    if not scored:
        reason = problems[0] if problems else "all slices are blank"
        raise CascadeError(f"{path}: no slice can be used: {reason}", fix="repair the files or give another folder")
    return scored, problems


def _select(folder: Path, split_file: Path | None, subset: str) -> tuple[Iterator[LabeledEntry], int, str | None]:
    """Return the slices to evaluate, read one by one, their number, and the hash of the split."""
    if split_file is None:
        return scan(folder), count_slices(folder), None
    if subset not in SUBSETS:
        raise CascadeError(f"unknown subset {subset!r}", fix=f"use one of {', '.join(SUBSETS)}")
    split = read_split(split_file)
    infos = split.subset(subset)
    if not infos:
        raise CascadeError(f"{split_file}: subset {subset!r} is empty", fix="evaluate another subset")
    check_files(folder, infos)
    return _read(folder, infos), len(infos), split.sha256


def _read(folder: Path, infos: Iterable[SliceInfo]) -> Iterator[LabeledEntry]:
    for info in infos:
        try:
            yield info, read_labeled(folder, info)
        except CascadeError as error:
            yield error


def _require_tumor(entry: LabeledEntry) -> LabeledEntry:
    """Replace a slice with an empty true mask by an error, since its Dice is not defined."""
    if isinstance(entry, CascadeError) or entry[1].mask.any():
        return entry
    info, labeled = entry
    return CascadeError(
        f"{info.path}: is labeled {labeled.label} but its mask is empty", fix="correct the mask or remove the slice"
    )


def _read_negatives(sources: Iterable[Source]) -> Iterator[tuple[str, Slice] | CascadeError | None]:
    """Yield slices with their paths, errors, and None for blank slices of a volume, which are skipped."""
    for source in sources:
        try:
            check_scan(source)
        except CascadeError as error:
            yield error
            source.close()
            continue
        for index in range(source.count):
            try:
                yield slice_name(source, index), source.read(index)
            except BlankSlice as error:
                yield error if source.count == 1 else None
            except CascadeError as error:
                yield error
        source.close()
