"""Measure what a cluster costs: the speed of its driver, or of two workers against one process.

    python tests/benchmarks/benchmark_cluster.py                          300 slices: ratio of slices/s in each round
    python tests/benchmarks/benchmark_cluster.py --driver --count 1000000 inputs/s and memory with a stub for the models

The first compares two workers of one thread with one process of two threads on the same slices, from files to results.
They alternate, so that other programs slow both. Starting the cluster and loading the models is not measured. In the
second, workers return a row for each input without reading or writing a file.
"""

import argparse
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from benchmark_predict import make_slices, resident_mb

from cascade.io.image import ImageSource
from cascade.io.source import Source
from cascade.pipeline import Cascade
from cascade.prediction import cluster
from cascade.prediction.cluster import ClusterOptions, open_cluster
from cascade.prediction.earlier import read_entries
from cascade.prediction.executor import Executor
from cascade.prediction.journal import Entry, Journal, JournalLine, journal_line
from cascade.prediction.ray_executor import RayExecutor
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run import predict_paths, predict_sources
from cascade.prediction.run_options import RunOptions
from cascade.prediction.slices import SliceResult
from cascade.prediction.worker import ModelOptions, Worker, WorkerInfo
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, find_model
from cascade.volume.finding import VolumeRule

WORKERS = 2


class StubWorker(Worker):
    """Returns the row of a tumor for each input at once."""

    def open(self, options: ModelOptions, paths: Sequence[Path] = ()) -> WorkerInfo:
        """Load nothing."""
        models = {name: find_model(name, options.models).sha256 for name in (SEGMENTER, CLASSIFIER)}
        return WorkerInfo(models, "stub", 0.0, VolumeRule(), {})

    def predict(self, sources: Sequence[Source], folder: ResultsFolder, batch_size: int) -> list[JournalLine]:
        """Return made-up rows."""
        return [journal_line(self._entry(source)) for source in sources]

    def _entry(self, source: Source) -> Entry:
        mask, overlay = f"masks/{source.name}", f"overlays/{source.name}"
        row = SliceResult(
            source.name,
            "tumor",
            probabilities=(0.25, 0.5, 0.25),
            mask_pixels=100,
            latency_ms=12.5,
            mask=mask,
            overlay=overlay,
        )
        return Entry(source.name, 64 * "0", (row,), {mask: 64 * "0", overlay: 64 * "0"}, (source.name,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", action="store_true", help="measure the driver, with a stub for the models")
    parser.add_argument("--models", type=Path, default=BUNDLED_MODELS)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--count", type=int, default=300, help="slices")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cluster.usable_threads = lambda: WORKERS  # as if the machine had two cores
    models = ModelOptions(options.models.absolute(), options.backend)
    worker_class = StubWorker if options.driver else Worker
    with tempfile.TemporaryDirectory() as folder, open_cluster(ClusterOptions(), models, worker_class) as executor:
        if options.driver:
            measure_driver(executor, Path(folder), options.count, options.batch_size)
        else:
            one_process = Cascade.open(models.models, models.backend, threads=WORKERS)
            compare_speed(one_process, executor, Path(folder), options)


def measure_driver(executor: Executor, folder: Path, count: int, batch_size: int) -> None:
    """Print the average speed from the start, and the memory, at each tenth of a run."""
    sources = [
        ImageSource(f"{number // 1000:04}/{number:08}.png", folder / f"{number // 1000:04}/{number:08}.png")
        for number in range(count)
    ]
    results = ResultsFolder(folder / "out", folder, True, {}, "stub", parquet=True)
    step, done, start, cpu_start = max(1, count // 10), 0, time.perf_counter(), time.process_time()
    print(f"{resident_mb():.0f} MB with the list of {count:,} inputs", flush=True)

    def advance(slices: int) -> None:
        nonlocal done
        tenths = done // step
        done += slices
        if done // step > tenths:
            rate = done / (time.perf_counter() - start)
            print(f"{done:>10,} inputs: {rate:,.0f} inputs/s, {resident_mb():.0f} MB", flush=True)

    journal = Journal(results.out, {})
    run = predict_sources(executor, sources, results, batch_size=batch_size, journal=journal, on_progress=advance)
    journal.close()
    cpu_seconds = time.process_time() - cpu_start
    print(f"{count / run.seconds:,.0f} inputs/s with the tables, {resident_mb():.0f} MB at the end")
    print(f"{count / cpu_seconds:,.0f} inputs per second of CPU time of the driver", flush=True)
    tracemalloc.start()
    entries = read_entries(results.out, {})
    print(f"--resume: {tracemalloc.get_traced_memory()[0] / len(entries):.0f} bytes per finished input")


def compare_speed(cascade: Cascade, executor: RayExecutor, folder: Path, options: argparse.Namespace) -> None:
    """Print the ratio of both speeds in each round."""
    make_slices(folder / "slices", options.count)
    run_options = RunOptions(batch_size=options.batch_size, report=False)

    def seconds(what: Cascade | Executor, name: str) -> float:
        run = predict_paths(what, [folder / "slices"], folder / name, run_options)
        assert run.exit_code == 0
        return run.seconds

    seconds(cascade, "warm-process"), seconds(executor, "warm-cluster")
    ratios = []
    for number in range(options.rounds):
        alone, together = seconds(cascade, f"process{number}"), seconds(executor, f"cluster{number}")
        ratios.append(alone / together)
        speeds = [options.count / value for value in (alone, together)]
        print(f"round {number + 1}: {speeds[0]:.1f} and {speeds[1]:.1f} slices/s, {ratios[-1]:.1%}", flush=True)
        different = differences(folder / f"process{number}", folder / f"cluster{number}")
        print(f"{different} of {options.count} masks differ")
    print(f"the cluster reaches {statistics.median(ratios):.1%} ({min(ratios):.1%} to {max(ratios):.1%})")


def differences(one: Path, other: Path) -> int:
    """Count the masks that differ in any byte."""
    return sum(path.read_bytes() != (other / path.relative_to(one)).read_bytes() for path in one.glob("masks/*"))


if __name__ == "__main__":
    main()
