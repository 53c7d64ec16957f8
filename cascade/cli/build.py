"""The command `cascade build`. It imports build_engines when it runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cascade.cli.console import stderr
from cascade.cli.options import Device, Models
from cascade.errors import CascadeError
from cascade.runtime.engines import FLAVORS, Engine, default_engines_folder
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.sidecar import BatchProfile


def build(
    flavor: Annotated[str, typer.Option("--flavor", help=f"{' or '.join(FLAVORS)}.")] = "tensorrt-rtx",
    models: Models = BUNDLED_MODELS,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the engines.", show_default="where `predict` looks")
    ] = None,
    arch: Annotated[
        str, typer.Option("--arch", help="GPUs to build for, tensorrt-rtx only.", show_default="sm86,sm89,sm120")
    ] = "",
    min_batch: Annotated[int, typer.Option("--min-batch", help="Smallest batch.")] = BatchProfile.min,
    opt_batch: Annotated[int, typer.Option("--opt-batch", help="Batch size to optimize for.")] = BatchProfile.opt,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Largest batch.")] = BatchProfile.max,
    verify_slices: Annotated[
        Path | None,
        typer.Option("--verify-slices", help="Slices for the accuracy check.", show_default="18 simulated slices"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the engines are up to date.")] = False,
) -> None:
    """Turn the models into FP16 TensorRT engines.

    tensorrt builds on the GPU that will run the engines, tensorrt-rtx ahead of time on any machine.
    A JSON file beside each engine describes it and how it was checked.
    Engines that are up to date are not built again.

    Example: [bold]cascade build --flavor tensorrt-rtx --arch sm86,sm89 --verify-slices samples/[/]
    """
    try:
        from build_engines.build import BuildRequest, build_all
    except ModuleNotFoundError as error:
        raise CascadeError(
            f"building needs the package {error.name}, which is not installed", fix="pip install 'cascade-mri[build]'"
        ) from error

    from cascade.runtime.tensorrt import engine_loader

    console = stderr()
    request = BuildRequest(
        models=models,
        out=out or default_engines_folder(),
        flavor=flavor,
        archs=[item.strip().lower() for item in arch.split(",") if item.strip()],
        batches=BatchProfile(min_batch, opt_batch, max_batch),
        check=[verify_slices] if verify_slices else [],
        force=force,
        device=device,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def show(name: str, step: str, fraction: float) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=1.0)
            progress.update(bars[name], description=f"{name}: {step}", completed=fraction)

        results = build_all(request, show, engine_loader(flavor, device))
    console.print(_engines_table([(result.engine, result.built) for result in results]))


def _engines_table(engines: list[tuple[Engine, bool]]) -> Table:
    """Table of the layers by precision and the results of the accuracy gate.

    Args:
        engines: Engines, each with True if it was built now.
    """
    table = Table(title=str(engines[0][0].path.parent), title_justify="left")
    for heading in ("engine", "MB", "seconds", "layers", "verified"):
        table.add_column(heading, justify="right" if heading in ("MB", "seconds") else "left")
    for engine, built in engines:
        sidecar, verified = engine.sidecar, engine.sidecar.verified
        results = [f"{key.replace('_', ' ')} {verified.results[key]:.3g}" for key in verified.limits]
        table.add_row(
            sidecar.spec.name,
            f"{engine.path.stat().st_size / 1e6:.1f}",
            f"{sidecar.build_seconds:.1f}" if built else "unchanged",
            "\n".join(f"{count} {kind}" for kind, count in _by_precision(sidecar.precision).items()),
            "\n".join([verified.ran, verified.source, *results]),
        )
    return table


def _by_precision(precision: dict[str, int]) -> dict[str, int]:
    """Sum up the layers of each floating-point type: {"REDUCE fp32": 7, "SOFTMAX fp32": 1} → {"fp16": 0, "fp32": 8}."""
    counts = {"fp16": 0, "fp32": 0}
    for layer, count in precision.items():
        kind = layer.rsplit(" ", 1)[1]
        if kind in counts:
            counts[kind] += count
    return counts
