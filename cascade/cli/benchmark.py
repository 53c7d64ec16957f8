"""The command `cascade benchmark`; what it calls is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.console import stderr
from cascade.cli.options import Engines, Models
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.select import BACKENDS


def benchmark(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Slices, folders of slices, or patterns.", show_default="slices simulated by code"),
    ] = None,
    models: Models = BUNDLED_MODELS,
    engines: Engines = None,
    backends: Annotated[
        str, typer.Option("--backends", help="Separated by commas. Those that cannot run here are listed with why.")
    ] = ",".join(BACKENDS),
    batch_sizes: Annotated[
        str, typer.Option("--batch-sizes", help="Slices that go through the models at once, separated by commas.")
    ] = "1,8,32",
    rounds: Annotated[int, typer.Option("--rounds", help="In each, every backend has its turn.")] = 5,
    warm_up: Annotated[int, typer.Option("--warm-up", help="Untimed batches before each turn.")] = 2,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Backend that others are held against.", show_default="onnxruntime"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for benchmark.json and benchmark.png.")] = Path(
        "benchmark"
    ),
    compare: Annotated[
        Path | None, typer.Option("--compare", help="benchmark.json of an earlier run.", show_default=False)
    ] = None,
) -> None:
    """Measure how fast each backend is here, stage by stage, and how far from the machine's limit.

    Takes minutes; leave the machine alone meanwhile. Replaces benchmark.json and benchmark.png in --out.

    Example: [bold]cascade benchmark --batch-sizes 1,8 --out benchmark[/]
    """
    from cascade.benchmarking.benchmark import benchmark as run_benchmark
    from cascade.cli.benchmark_output import progress_bar, report_tables

    names, sizes = [name.strip() for name in backends.split(",") if name.strip()], batch_size_list(batch_sizes)
    console = stderr()
    with progress_bar(console) as progress:
        task = progress.add_task("", total=1)
        report, comparison = run_benchmark(
            paths or [],
            models=models,
            engines=engines,
            backends=names,
            batch_sizes=sizes,
            rounds=rounds,
            warm_up=warm_up,
            baseline=baseline,
            out=out,
            earlier=compare,
            step=lambda what, done: progress.update(task, completed=done, description=what),
        )
    console.print(report_tables(report, comparison, out))


def batch_size_list(text: str) -> list[int]:
    """`1,8` → [1, 8]."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise CascadeError(f"--batch-sizes {text}: is no list of numbers", fix="give one such as 1,8,32") from None
