"""The command `cascade build`; all of build_engines/ is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cascade.cli.console import stderr
from cascade.cli.options import Models
from cascade.errors import CascadeError
from cascade.runtime.engines import ENGINES, FLAVORS, Batches, Engine
from cascade.runtime.models import SHIPPED


def build(
    flavor: Annotated[str, typer.Option("--flavor", help=f"Of TensorRT: {' or '.join(FLAVORS)}.")] = "tensorrt-rtx",
    models: Models = SHIPPED,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the engines.", show_default="where `predict` looks")
    ] = ENGINES,
    arch: Annotated[
        str, typer.Option("--arch", help="GPUs to build for, tensorrt-rtx only.", show_default="sm86,sm89,sm120")
    ] = "",
    min_batch: Annotated[int, typer.Option("--min-batch", help="Slices a run, at least.")] = Batches.min,
    opt_batch: Annotated[int, typer.Option("--opt-batch", help="Slices a run that it is fastest at.")] = Batches.opt,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Slices a run, at most.")] = Batches.max,
    verify_slices: Annotated[
        Path | None,
        typer.Option("--verify-slices", help="Slices for the accuracy check.", show_default="12 synthetic slices"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also what is there unchanged.")] = False,
) -> None:
    """Turn the models into FP16 TensorRT engines.

    tensorrt builds on the GPU that it is for, tensorrt-rtx ahead of time anywhere.
    A JSON file beside each engine says what it is and how it was checked.
    One that is there unchanged is left as it is.

    Example: [bold]cascade build --flavor tensorrt-rtx --arch sm86,sm89 --verify-slices samples/[/]
    """
    try:
        from build_engines.build import Order, build_all
    except ModuleNotFoundError as error:
        raise CascadeError(
            f"building needs the package {error.name}, which is not installed", fix="pip install 'cascade[build]'"
        ) from error

    from cascade.runtime.tensorrt import engine_opener

    console = stderr()
    order = Order(
        models=models,
        out=out,
        flavor=flavor,
        archs=[item.strip().lower() for item in arch.split(",") if item.strip()],
        batches=Batches(min_batch, opt_batch, max_batch),
        check=[verify_slices] if verify_slices else [],
        force=force,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def tell(name: str, doing: str, share: float) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=1.0)
            progress.update(bars[name], description=f"{name}: {doing}", completed=share)

        outcomes = build_all(order, tell, engine_opener(flavor))
    console.print(_engines_table([(outcome.engine, outcome.built) for outcome in outcomes]))


def _engines_table(engines: list[tuple[Engine, bool]]) -> Table:
    """Layers by precision, and how far what ran in the accuracy gate is from the ONNX graph.

    engines  each with whether it was built now.
    """
    table = Table(title=str(engines[0][0].path.parent), title_justify="left")
    for heading in ("engine", "MB", "seconds", "layers", "verified"):
        table.add_column(heading, justify="right" if heading in ("MB", "seconds") else "left")
    for engine, built in engines:
        sidecar, verified = engine.sidecar, engine.sidecar.verified
        results = [f"{key.replace('_', ' ')} {verified.results[key]:.3g}" for key in verified.limits]
        table.add_row(
            sidecar.recipe.name,
            f"{engine.path.stat().st_size / 1e6:.1f}",
            f"{sidecar.build_seconds:.1f}" if built else "unchanged",
            "\n".join(f"{count} {kind}" for kind, count in _by_precision(sidecar.precision).items()),
            "\n".join([verified.ran, verified.source, *results]),
        )
    return table


def _by_precision(precision: dict[str, int]) -> dict[str, int]:
    """{"REDUCE fp32": 7, "SOFTMAX fp32": 1, "SHAPE int64": 6} → {"fp32": 8}: of those that compute with fractions."""
    counts = {"fp16": 0, "fp32": 0}
    for layer, count in precision.items():
        kind = layer.rsplit(" ", 1)[1]
        if kind in counts:
            counts[kind] += count
    return counts
