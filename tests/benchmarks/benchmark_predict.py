"""Measure which part of the bare models' speed `cascade predict` reaches, what it costs beside them, or its memory.

    python tests/benchmarks/benchmark_predict.py                          500 slices: ratio of slices/s in each round
    python tests/benchmarks/benchmark_predict.py --cpu                    CPU time of reading and of writing a slice
    python tests/benchmarks/benchmark_predict.py --memory --count 10000   one run of 3 GB: memory at each tenth of it

Both process the same slices in the same batches. The bare models get arrays in memory. `cascade predict` reads PNG
files and writes masks, overlays, results.csv and results.json with its progress bar on. They alternate, so that other
programs slow both. CPU time hardly depends on other programs, so it can be compared between runs.
"""

import argparse
import io
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from cascade.cli.predict_output import progress_bar
from cascade.contract import THRESHOLD
from cascade.discovery.inputs import Inputs, find_slices
from cascade.io.checksums import file_stats
from cascade.io.image import ImageSource, read_slice
from cascade.io.preprocess import Letterbox
from cascade.pipeline import Cascade
from cascade.prediction.recorder import InputState, Recorder
from cascade.prediction.results import ResultsFolder
from cascade.prediction.run import predict_paths
from cascade.prediction.run_options import RunOptions
from cascade.prediction.run_result import RunResult
from cascade.runtime.models import BUNDLED_MODELS

SAMPLES = Path(__file__).parents[2] / "samples"
DIFFERENT_SLICES = 100
"""Further slices are links to these: 10,000 files then take 15 MB instead of 1.5 GB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=BUNDLED_MODELS)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--count", type=int, default=500, help="slices")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="measure reading and writing instead of the speed")
    parser.add_argument("--memory", action="store_true", help="measure the memory of one run instead of the speed")
    options = parser.parse_args()
    cascade = Cascade.open(options.models, options.backend)
    with tempfile.TemporaryDirectory() as folder:
        make_slices(Path(folder, "slices"), options.count)
        inputs = find_slices([Path(folder, "slices")])
        if options.memory:
            watch_memory(cascade, inputs, Path(folder), options.batch_size)
        elif options.cpu:
            measure_cpu(cascade, inputs, Path(folder), options.rounds)
        else:
            compare_speed(cascade, inputs, Path(folder), options.batch_size, options.rounds)


def make_slices(folder: Path, count: int) -> None:
    """Write PNG files of the samples, each shifted a little and with different noise."""
    folder.mkdir()
    samples = [np.asarray(Image.open(path)) for path in sorted(SAMPLES.glob("*.png"))]
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:05}.png"
        if number >= DIFFERENT_SLICES:
            os.link(folder / f"{number % DIFFERENT_SLICES:05}.png", path)
            continue
        sample = samples[number % len(samples)]
        moved = np.roll(sample, random.integers(-8, 9, 2), (0, 1)).astype(np.float32)
        noisy = moved + random.normal(0, 0.005 * moved.max(), moved.shape)
        Image.fromarray(noisy.clip(0, np.iinfo(sample.dtype).max).astype(sample.dtype)).save(path)


def compare_speed(cascade: Cascade, inputs: Inputs, folder: Path, batch_size: int, rounds: int) -> None:
    batches = load_batches(cascade, inputs, batch_size)
    run_bare(cascade, batches[:2])
    predict(cascade, inputs, folder / "warm", batch_size)
    ratios = []
    for number in range(rounds):
        seconds = run_bare(cascade, batches)
        run = predict(cascade, inputs, folder / f"out{number}", batch_size)
        ratios.append(seconds / run.seconds)
        bare, whole = (len(inputs.names) / value for value in (seconds, run.seconds))
        print(f"round {number + 1}: bare models {bare:.1f} slices/s, predict {whole:.1f} slices/s, {ratios[-1]:.1%}")
    print(f"{len(inputs.names)} slices, batches of {batch_size}, {os.cpu_count()} cores, {rounds} rounds")
    print(f"predict reaches {statistics.median(ratios):.1%} (median; {min(ratios):.1%} to {max(ratios):.1%})")


def load_batches(cascade: Cascade, inputs: Inputs, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Load batches of squares, with the indices of the slices to classify: those with a tumor, as in predict."""
    once = [read_slice(inputs.folder / name).pixels for name in inputs.names[:DIFFERENT_SLICES]]
    squares = [Letterbox(*pixels.shape).square(pixels) for pixels in once]
    batches = []
    for start in range(0, len(inputs.names), batch_size):
        numbers = range(start, min(start + batch_size, len(inputs.names)))
        batch = np.stack([squares[number % len(squares)] for number in numbers])[:, None]
        batches.append((batch, np.flatnonzero(cascade.segment(batch).max(axis=(1, 2, 3)) >= THRESHOLD)))
    positive = sum(len(indices) for _, indices in batches)
    print(f"{positive} of {len(inputs.names)} slices contain a tumor and are classified")
    return batches


def run_bare(cascade: Cascade, batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Run both models on all batches. Returns the seconds."""
    began = time.perf_counter()
    for batch, positive in batches:
        probability = cascade.segment(batch)
        if len(positive) == len(batch):
            cascade.classify(batch, probability)
        elif len(positive):
            cascade.classify(batch[positive], probability[positive])
    return time.perf_counter() - began


def predict(cascade: Cascade, inputs: Inputs, out: Path, batch_size: int) -> RunResult:
    """As the command does it, with a progress bar drawn to nowhere."""
    with progress_bar(Console(file=io.StringIO(), force_terminal=True), quiet=False) as progress:
        task = progress.add_task("Predicting", total=len(inputs.names))
        run = predict_paths(
            cascade,
            [inputs.folder],
            out,
            RunOptions(batch_size=batch_size, report=False),
            on_progress=lambda count: progress.advance(task, count),
        )
    if run.exit_code != 0:
        sys.exit(f"{len(run.failed)} slices failed")
    return run


def measure_cpu(cascade: Cascade, inputs: Inputs, folder: Path, rounds: int) -> None:
    """Print the CPU time of reading and of writing a slice in one thread, the best of all rounds."""
    sources = [ImageSource(name, inputs.path(name)) for name in inputs.names[:DIFFERENT_SLICES]]
    slices = [source.read(0) for source in sources]
    predictions = [cascade.predict(slice_) for slice_ in slices]
    read_ms, write_ms = [], []
    for number in range(rounds):
        began = time.process_time()
        for source in sources:
            source.read(0)
        read_ms.append(1000 * (time.process_time() - began) / len(sources))
        results = ResultsFolder(folder / f"out{number}", inputs.folder, True, {}, cascade.description)
        recorder = Recorder(results, on_finished=lambda entry: None)
        began = time.process_time()
        for source, slice_, prediction in zip(sources, slices, predictions, strict=True):
            recorder.record(InputState(source, file_stats(source.files)), 0, slice_, prediction)
        write_ms.append(1000 * (time.process_time() - began) / len(sources))
    print(f"CPU time a slice: reading {min(read_ms):.2f} ms, writing {min(write_ms):.2f} ms (best of {rounds} rounds)")


def watch_memory(cascade: Cascade, inputs: Inputs, folder: Path, batch_size: int) -> None:
    step, done = max(1, len(inputs.names) // 10), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done % step == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{done:>6} slices: {resident_mb():.0f} MB resident, {peak:.0f} MB peak", flush=True)

    predict_paths(
        cascade, [inputs.folder], folder / "out", RunOptions(batch_size=batch_size, report=False), on_progress=advance
    )


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
