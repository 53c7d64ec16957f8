"""Measure how much faster the backends are than PyTorch with the same two models.

    python tests/benchmarks/benchmark_pytorch.py                                  simulated slices
    python tests/benchmarks/benchmark_pytorch.py figshare/ --batch-sizes 1,8      your own

The script of pytorch_script.py runs in plain FP32, in BF16, and compiled. First its outputs are compared with those of
ONNX Runtime: none is fast because it is wrong. Then all scripts and backends are measured round-robin on the same
slices. Like the scripts, the backends write no overlays and run the classifier only on slices with a tumor.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pytorch_script import PLAIN, PRECISIONS, Difference, Script, load_script

from cascade.benchmarking.benchmark import check_request, slices_to_run
from cascade.benchmarking.report import Settings, Spread, paired_ratio
from cascade.benchmarking.rounds import Measure, Measurements, run_rounds, slices_per_round, start_backends
from cascade.benchmarking.worker import Worker
from cascade.cli.benchmark import batch_size_list
from cascade.files import write_atomically
from cascade.runtime.machine import this_machine
from cascade.runtime.models import BUNDLED_MODELS

SPEEDS = {"models": "models_slices_per_second", "end_to_end": "end_to_end_slices_per_second"}
"""What is compared: the models only, and from files to results."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*", help="slices; simulated ones by default")
    parser.add_argument("--models", type=Path, default=BUNDLED_MODELS)
    parser.add_argument("--engines", type=Path)
    parser.add_argument("--segmenter-run", type=Path, help="take PyTorch's weights from the best.ckpt of this run")
    parser.add_argument("--classifier-run", type=Path, help="likewise for the classifier")
    parser.add_argument("--backends", default="openvino,onnxruntime")
    parser.add_argument("--scripts", default=",".join(PRECISIONS), help=f"in addition to {PLAIN}")
    parser.add_argument("--batch-sizes", default="8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    names, sizes = options.backends.split(","), batch_size_list(options.batch_sizes)
    scripts_to_run = options.scripts.split(",")
    if unknown := set(scripts_to_run) - set(PRECISIONS):
        parser.error(f"unknown script {min(unknown)!r}: choose from {', '.join(PRECISIONS)}")
    check_request(names, sizes, options.rounds, options.warm_up, baseline=None)
    with ExitStack() as stack:
        slices, source = stack.enter_context(slices_to_run(options.paths, max(map(slices_per_round, sizes))))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(f"{source}; PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
        scripts, differences, failures = start_scripts(
            [PLAIN, *(name for name in scripts_to_run if name != PLAIN)],
            lambda name: load_script(name, slices, options.models, options.segmenter_run, options.classifier_run),
            options.models,
            sizes,
        )
        ready, unavailable = start_backends(
            names,
            lambda name: stack.enter_context(closing(Worker(name, options.models, options.engines, slices, scratch))),
            sizes,
            options.warm_up,
        )
        failures |= {name: reason.problem for name, reason in unavailable.items()}
        measures = {name: script.measure for name, script in scripts.items()}
        measures |= {name: without_overlays(worker.measure) for name, worker in ready.items()}
        settings = Settings(tuple(sizes), options.rounds, options.warm_up, PLAIN)
        measurements = run_rounds(measures, settings, on_progress=lambda step, fraction: print(step, flush=True))
    figures = [row for size in sizes for row in compare(measurements, size)]
    for row in figures:
        print(row.line())
    for name, reason in failures.items():
        print(f"{name} cannot run: {reason}")
    if options.out:
        content = {
            "slices": source,
            "pytorch": {"torch": torch.__version__, "threads": torch.get_num_threads(), "scripts": PRECISIONS},
            "machine": asdict(this_machine()),
            "backends": {name: worker.loaded.description for name, worker in ready.items()},
            "cannot_run": failures,
            "differences": {name: asdict(item) for name, item in differences.items()},
            "figures": [asdict(row) for row in figures],
        }
        write_atomically(options.out, json.dumps(content, indent=1).encode())


def start_scripts(
    names: Sequence[str], load: Callable[[str], Script], models: Path, batch_sizes: Sequence[int]
) -> tuple[dict[str, Script], dict[str, Difference], dict[str, str]]:
    """Load scripts, compare them with ONNX Runtime, and compile them for all batch sizes.

    Returns:
        The scripts that run, their differences, and why the others do not run.
    """
    scripts, differences, failures = {}, {}, {}
    for name in names:
        try:
            script = load(name)
            differences[name] = script.difference(models)
            for size in batch_sizes:
                script.run(next(script.batches(size)))
        except Exception as error:  # the compiler of torch raises nearly every type
            failures[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            print(f"{name} cannot run: {failures[name]}", flush=True)
            continue
        scripts[name] = script
        print(f"{name}, {PRECISIONS[name]}; maximum difference from ONNX Runtime: {differences[name]}", flush=True)
    return scripts, differences, failures


def without_overlays(measure: Measure) -> Measure:
    """Measure a backend without drawing overlays, like the scripts."""
    return lambda request: measure(replace(request, overlays=False))


@dataclass(frozen=True)
class Row:
    """Speed of a script or backend at one batch size; dictionaries have the keys of SPEEDS.

    Attributes:
        slices_per_second: Median, minimum and maximum over the rounds.
        fastest: The fastest script.
        over_plain: Speed-up over plain FP32 in the same round.
        over_fastest: Speed-up over the fastest script in the same round.
    """

    name: str
    batch_size: int
    slices_per_second: dict[str, Spread]
    fastest: dict[str, str]
    over_plain: dict[str, Spread]
    over_fastest: dict[str, Spread]

    def line(self) -> str:
        """Describe the row in one line."""
        parts = [
            f"{label} {self.slices_per_second[speed].median:.1f} slices/s, {spread(self.over_plain[speed])} x {PLAIN}, "
            f"{spread(self.over_fastest[speed])} x {self.fastest[speed]}"
            for speed, label in (("models", "models"), ("end_to_end", "files to results"))
        ]
        return f"batch {self.batch_size:>3}  {self.name:<21} {'; '.join(parts)}"


def compare(measurements: Measurements, batch_size: int) -> list[Row]:
    """Compare all scripts and backends at one batch size, round by round."""
    values = {
        speed: {name: [getattr(item, field) for item in sizes[batch_size]] for name, sizes in measurements.items()}
        for speed, field in SPEEDS.items()
    }
    scripts = [name for name in measurements if name in PRECISIONS]
    fastest = {
        speed: max(scripts, key=lambda name: Spread.of(by_name[name]).median) for speed, by_name in values.items()
    }
    return [
        Row(
            name,
            batch_size,
            {speed: Spread.of(by_name[name]) for speed, by_name in values.items()},
            fastest,
            {speed: paired_ratio(by_name[name], by_name[PLAIN]) for speed, by_name in values.items()},
            {speed: paired_ratio(by_name[name], by_name[fastest[speed]]) for speed, by_name in values.items()},
        )
        for name in measurements
    ]


def spread(value: Spread) -> str:
    return f"{value.median:.2f} ({value.least:.2f} to {value.greatest:.2f})"


if __name__ == "__main__":
    main()
