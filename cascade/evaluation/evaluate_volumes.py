"""Evaluate the models on labeled volumes, and write metrics.json and volumes.csv."""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cascade import __version__
from cascade.datasets.progress import track
from cascade.datasets.volumes import VolumeInfo, list_volumes, read_label
from cascade.errors import CascadeError
from cascade.evaluation.metrics_json import to_json
from cascade.evaluation.output_dir import check_output_dir, write_files
from cascade.evaluation.volume_schema import VolumeEvaluation, VolumeFailures
from cascade.evaluation.volume_scores import ScoredVolume, score_volume, volumes_to_csv
from cascade.evaluation.volume_summary import summarize_volumes
from cascade.pipeline import Cascade


def evaluate_volumes(folder: Path, cascade: Cascade, out: Path) -> VolumeEvaluation:
    """Evaluate the models on all volumes of a data set, with a progress bar on stderr.

    Args:
        folder: Folder of the data set.
        cascade: The models.
        out: Folder for metrics.json and volumes.csv.

    Returns:
        The content of metrics.json. Volumes that cannot be used are listed in `failed`.

    Raises:
        CascadeError: `out` cannot be written, or no volume can be used.
    """
    check_output_dir(out, folder)
    entries = list_volumes(folder)
    results = list(_score(folder, track(entries, "volumes", len(entries)), cascade))
    scored = [result for result in results if isinstance(result, ScoredVolume)]
    problems = [result.problem for result in results if isinstance(result, CascadeError)]
    if not scored:
        raise CascadeError(
            f"{folder}: no volume can be used: {problems[0]}", fix="repair the files or give another folder"
        )
    evaluation = VolumeEvaluation(
        cascade=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        models=cascade.models,
        backend=cascade.description,
        volume_rule=cascade.volume_rule,
        uncertain_below=cascade.uncertain_below,
        failed=VolumeFailures(len(problems), tuple(_relative_to(folder, problem) for problem in problems)),
        metrics=summarize_volumes(scored),
    )
    write_files(out, {"volumes.csv": volumes_to_csv(scored), "metrics.json": to_json(evaluation)})
    return evaluation


def _relative_to(folder: Path, problem: str) -> str:
    return problem.removeprefix(f"{folder.absolute()}{os.sep}").removeprefix(f"{folder}{os.sep}")


def _score(
    folder: Path, entries: Iterable[VolumeInfo | CascadeError], cascade: Cascade
) -> Iterator[ScoredVolume | CascadeError]:
    for entry in entries:
        if isinstance(entry, CascadeError):
            yield entry
            continue
        try:
            label = read_label(folder, entry)  # before the models run, which takes longer
            yield score_volume(entry, label, cascade.predict_volume(folder / entry.path))
        except CascadeError as error:
            is_named = str(folder) in error.problem  # not what the models or the slices together are refused for
            yield error if is_named else CascadeError(f"{folder / entry.path}: {error.problem}", fix=error.fix)
