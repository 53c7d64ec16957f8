"""How good the cascade is on labelled slices: runs it over them and writes metrics.json, slices.csv and figures."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cascade import __version__
from cascade.datasets.dataset import Record, count_slices, read_labelled, scan
from cascade.datasets.figshare import LabelledSlice
from cascade.datasets.progress import progress_bar
from cascade.datasets.split import PARTS, check_files, read_split
from cascade.discovery.filters import FORMATS
from cascade.discovery.inputs import find_slices
from cascade.discovery.output_marker import EVALUATION, EVALUATION_PICTURES, has_marker
from cascade.errors import CascadeError
from cascade.evaluation.detection import TumorFreeSlice, look, presence, tumor_free_csv
from cascade.evaluation.figures import charts
from cascade.evaluation.gallery import choose, gallery
from cascade.evaluation.scores import as_csv, score
from cascade.evaluation.summary import summarise
from cascade.files import write_atomically
from cascade.io.open import open_sources
from cascade.io.slices import BlankSlice, Slice, Source, slice_name
from cascade.pipeline import Cascade
from cascade.runtime.models import CLASSIFIER
from cascade.runtime.select import open_backend

T = TypeVar("T")
R = TypeVar("R")

FILES = EVALUATION_PICTURES | {"metrics.json", "slices.csv", "tumor_free.csv"}
"""All files that an evaluation writes."""

WITH_TUMOR_FREE = {"presence.png", "tumor_free.csv"}
"""Written only where there are tumor-free slices."""

Found = tuple[Record, LabelledSlice] | CascadeError
"""A slice, opened, or why it cannot be used."""


def evaluate(
    folder: Path,
    *,
    split_file: Path | None,
    part: str,
    tumor_free: Path | None = None,
    models: Path,
    backend: str,
    engines: Path,
    batch_size: int,
    out: Path,
) -> dict[str, Any]:
    """The metrics of a part of a split, or of the whole folder where `split_file` is None; also written into `out`.

    tumor_free  a file, folder or zip, any that `predict` reads, in which no slice shows a tumor.

    A slice that cannot be used is named under `failed` and the rest evaluated. Raises CascadeError where the split's
    files are missing or changed, or no slice can be used.
    """
    _check_out(out, folder)
    found, total, split_sha256 = _slices(folder, split_file, part)
    choice = open_backend(backend, models, engines)
    graphs, cascade = choice.graphs, Cascade(choice.backend)
    scored, problems = _run("slices", map(_usable, found), total, batch_size, partial(score, cascade))
    if not scored:
        raise CascadeError(
            f"{folder}: no slice can be used: {problems[0]}", fix="mend the files or name another folder"
        )
    seen: list[TumorFreeSlice] = []
    if tumor_free:
        seen, more = _look_at(tumor_free, cascade, batch_size)
        problems += more
    metrics = {
        "format": EVALUATION,
        "cascade": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": {name: graph.sha256 for name, graph in graphs.items()},
        "models_trained_on_this_split": all(graph.splits == {split_sha256} for graph in graphs.values()),
        "backend": cascade.description,
        "part": part if split_file else "all",
        "split_sha256": split_sha256,
        "failed": {
            "slices": len(problems),
            "problems": [problem.removeprefix(f"{folder}{os.sep}") for problem in problems],
        },
        **summarise(scored, graphs[CLASSIFIER].uncertain_below),
        "presence": presence(np.array([item.peak for item in scored]), seen) if seen else None,
    }
    files = charts(metrics, scored)
    files |= {f"{name}_slices.png": gallery(name, some, folder, cascade) for name, some in choose(scored).items()}
    files["slices.csv"] = as_csv(scored).encode()
    if seen:
        files["tumor_free.csv"] = tumor_free_csv(seen).encode()
    files["metrics.json"] = json.dumps(metrics, indent=1, allow_nan=False).encode()
    for name in WITH_TUMOR_FREE - files.keys():  # an earlier evaluation's, which would be taken for this one's
        (out / name).unlink(missing_ok=True)
    for name, content in files.items():  # metrics.json last: where it is, the rest is
        write_atomically(out / name, content)
    return metrics


def _look_at(tumor_free: Path, cascade: Cascade, batch_size: int) -> tuple[list[TumorFreeSlice], list[str]]:
    """What the segmenter sees in every slice that is not blank, and every problem.

    Raises CascadeError where there is no such slice.
    """
    with tempfile.TemporaryDirectory(prefix="cascade-") as unpacked:
        inputs = find_slices([tumor_free], formats=FORMATS, unpack_into=Path(unpacked))
        sources, refused = open_sources(inputs)
        total = sum(source.count for source in sources)
        seen, problems = _run("tumor-free slices", _read_plain(sources), total, batch_size, partial(look, cascade))
    problems = [*(error.problem for error in refused.values()), *problems]
    problems = [problem.replace(unpacked, str(inputs.folder)) for problem in problems]
    if not seen:
        why = problems[0] if problems else "all are blank"
        raise CascadeError(f"{tumor_free}: no slice can be used: {why}", fix="mend the files or name another folder")
    return seen, problems


def _check_out(out: Path, folder: Path) -> None:
    """Raises CascadeError for a folder that cannot be written, before the models have run for nothing."""
    if out.resolve() == folder.resolve():
        raise CascadeError(f"{out}: holds the data set", fix="write into another folder with --out")
    there = [out / name for name in sorted(FILES) if (out / name).exists()]
    if there and not has_marker(out / "metrics.json"):
        raise CascadeError(
            f"{there[0]}: is in the way, and no evaluation wrote it", fix="name another folder with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise CascadeError(
            f"{out}: cannot be written ({error.strerror})", fix="name another folder with --out"
        ) from error


def _slices(folder: Path, split_file: Path | None, part: str) -> tuple[Iterator[Found], int, str | None]:
    """The slices to evaluate, read one by one; how many; the hash of the split, where there is one."""
    if split_file is None:
        return scan(folder), count_slices(folder), None
    if part not in PARTS:
        raise CascadeError(f"there is no part {part!r}", fix=f"choose one of {', '.join(PARTS)}")
    split = read_split(split_file)
    records = split.part(part)
    if not records:
        raise CascadeError(f"{split_file}: its part {part!r} is empty", fix="evaluate another part")
    check_files(folder, records)
    return _read(folder, records), len(records), split.sha256


def _read(folder: Path, records: Iterable[Record]) -> Iterator[Found]:
    for record in records:
        try:
            yield record, read_labelled(folder, record)
        except CascadeError as error:
            yield error


def _usable(found: Found) -> Found:
    """In place of a slice whose true mask is empty, the reason to leave it out: no Dice is defined there."""
    if isinstance(found, CascadeError) or found[1].mask.any():
        return found
    record, labelled = found
    return CascadeError(
        f"{record.path}: is labelled {labelled.label} but its mask is empty", fix="mend the mask or leave the slice out"
    )


def _read_plain(sources: Iterable[Source]) -> Iterator[tuple[str, Slice] | CascadeError | None]:
    """The slices with their names; None for a blank one of a volume, which shows nothing to look at."""
    for source in sources:
        for index in range(source.count):
            try:
                yield slice_name(source, index), source.read(index)
            except BlankSlice as error:
                yield error if source.count == 1 else None
            except CascadeError as error:
                yield error
        source.close()


def _run(
    what: str,
    found: Iterator[T | CascadeError | None],
    total: int,
    batch_size: int,
    do: Callable[[Sequence[T]], list[R]],
) -> tuple[list[R], list[str]]:
    """What came of every slice that is not None, and every problem; shows how far it is on stderr."""
    results: list[R] = []
    problems: list[str] = []
    with progress_bar(what, total) as advance:
        for batch in _read_ahead(found, batch_size):
            usable = [item for item in batch if item is not None and not isinstance(item, CascadeError)]
            problems += [item.problem for item in batch if isinstance(item, CascadeError)]
            if usable:
                results += do(usable)
            advance(len(batch))
    return results, problems


def _read_ahead(items: Iterator[T], count: int) -> Iterator[Sequence[T]]:
    """Lists of up to `count` items; a thread reads the next while the caller works on the last."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(lambda: list(islice(items, count)))
        while batch := coming.result():
            coming = reader.submit(lambda: list(islice(items, count)))
            yield batch
