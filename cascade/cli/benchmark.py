"""The command `cascade benchmark`. Slow imports are inside the command."""

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.console import stderr
from cascade.cli.options import Device, Engines, Models
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.select import BACKENDS


def benchmark(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Slices, folders of slices, or patterns.", show_default="simulated slices"),
    ] = None,
    models: Models = BUNDLED_MODELS,
    engines: Engines = None,
    device: Device = None,
    backends: Annotated[
        str, typer.Option("--backends", help="Comma-separated. Those that cannot run are listed with the reason.")
    ] = ",".join(BACKENDS),
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", help="Slices per batch, comma-separated.")] = "1,8,32",
    rounds: Annotated[int, typer.Option("--rounds", help="Measurements of each backend, round-robin.")] = 5,
    warm_up: Annotated[int, typer.Option("--warm-up", help="Untimed batches before each measurement.")] = 2,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Backend to compare with.", show_default="onnxruntime"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for benchmark.json and benchmark.png.")] = Path(
        "benchmark"
    ),
    compare: Annotated[
        Path | None,
        typer.Option("--compare", help="benchmark.json to compare with.", show_default=False),
    ] = None,
) -> None:
    """Measure the speed of each backend on this machine, stage by stage and relative to the machine's peak.

    Takes minutes, during which the machine should be idle. Replaces benchmark.json and benchmark.png in --out.

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
            device=device,
            backends=names,
            batch_sizes=sizes,
            rounds=rounds,
            warm_up=warm_up,
            baseline=baseline,
            out=out,
            earlier=compare,
            on_progress=lambda step, done: progress.update(task, completed=done, description=step),
        )
    console.print(report_tables(report, comparison, out))


def batch_size_list(text: str) -> list[int]:
    """Parse a comma-separated list: `1,8` → [1, 8]."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise CascadeError(
            f"--batch-sizes {text}: is not a list of integers", fix="choose a list such as 1,8,32"
        ) from None
