"""The command `cascade predict`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group

from cascade.cli.console import stderr
from cascade.cli.options import BackendName, BatchSize, Device, Engines, Models
from cascade.errors import CascadeError
from cascade.runtime.models import BUNDLED_MODELS
from cascade.runtime.select import AUTO

if TYPE_CHECKING:  # loads NumPy, which --help does not need
    from cascade.prediction.executor import Executor

INPUT, OUTPUT, LOGGING = "Input", "Output", "Logging"


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files, folders, zips; - (stdin).", show_default=False),
    ],
    recursive: Annotated[
        bool, typer.Option(help="Search subfolders.", show_default=False, rich_help_panel=INPUT)
    ] = True,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="PATTERN",
            help="Read only files that match.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave out files that match.", rich_help_panel=INPUT),
    ] = None,
    axis: Annotated[
        int | None,
        typer.Option(
            "--axis",
            metavar="0|1|2",
            help="Slice axis of volumes.",
            show_default=False,
            rich_help_panel=INPUT,
        ),
    ] = None,
    volume: Annotated[
        int | None,
        typer.Option("--volume", metavar="N", help="Volume of 4-D files, from 0.", rich_help_panel=INPUT),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the inputs and stop.", rich_help_panel=INPUT),
    ] = False,
    out: Annotated[
        str, typer.Option("--out", help="Folder; default: results.", show_default=False, rich_help_panel=OUTPUT)
    ] = "results",
    overlays: Annotated[bool, typer.Option(help="Draw overlays.", show_default=False, rich_help_panel=OUTPUT)] = True,
    report: Annotated[bool, typer.Option(help="Write report.html.", show_default=False, rich_help_panel=OUTPUT)] = True,
    keep_identifiers: Annotated[
        bool,
        typer.Option("--keep-identifiers", help="Keep IDs in DICOM files.", rich_help_panel=OUTPUT),
    ] = False,
    keep_all_components: Annotated[
        bool,
        typer.Option("--keep-all-components", help="Keep rejected components.", rich_help_panel=OUTPUT),
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Write probability maps.", rich_help_panel=OUTPUT),
    ] = False,
    secondary_capture: Annotated[
        bool,
        typer.Option("--secondary-capture", help="Write secondary captures.", rich_help_panel=OUTPUT),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results in --out.", rich_help_panel=OUTPUT)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel=OUTPUT)
    ] = False,
    models: Models = BUNDLED_MODELS,
    backend: BackendName = AUTO,
    engines: Engines = None,
    device: Device = None,
    batch_size: BatchSize = 8,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Ray cluster: local, auto, HOST:PORT.",
            show_default=False,
        ),
    ] = None,
    gpus_per_worker: Annotated[int, typer.Option("--gpus-per-worker", metavar="N", help="GPUs of a worker.")] = 0,
    cpus_per_worker: Annotated[int, typer.Option("--cpus-per-worker", metavar="N", help="CPUs of a worker.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=LOGGING)] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print notes on single inputs.", rich_help_panel=LOGGING)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results.json to stdout.", rich_help_panel=LOGGING)
    ] = False,
) -> None:
    """Segment and classify tumors in pictures, DICOM and volumes. For research only.

    Exit code: 0 all succeeded, 1 all failed, 2 some failed, 130 interrupted.

    Example: [bold]cascade predict scans/ --out results[/]
    """
    from cascade.cli.predict_output import backend_line, dry_run_table, failure_lines, progress_bar, run_summary
    from cascade.discovery.inputs import read_list
    from cascade.prediction.output import open_output
    from cascade.prediction.run import collect_inputs, predict_paths
    from cascade.prediction.run_options import RunOptions

    if overwrite and resume:
        raise CascadeError("--overwrite and --resume cannot be combined", fix="use one of them")
    if dry_run and (quiet or as_json):
        raise CascadeError("--dry-run cannot be combined with --quiet or --json", fix="omit --quiet and --json")
    if "-" in paths and not sys.stdin:
        raise CascadeError("the list of inputs cannot be read: stdin is closed", fix="pipe the list to the command")
    console = stderr()
    input_paths = [path for item in paths for path in (read_list(sys.stdin.buffer) if item == "-" else [item])]
    if "" in (*map(str, input_paths), out):
        raise CascadeError("an input or --out is empty", fix="check the variable that stands for it, or give a path")
    options = RunOptions(
        batch_size=batch_size,
        axis=axis,
        volume=volume,
        recursive=recursive,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        overlays=overlays,
        report=report,
        keep_identifiers=keep_identifiers,
        keep_all_components=keep_all_components,
        probabilities=probabilities,
        secondary_capture=secondary_capture,
        overwrite=overwrite,
        resume=resume,
    )
    if dry_run:
        with open_output(out) as output:
            output.check(overwrite=overwrite, resume=resume)
            with collect_inputs(input_paths, output.folder, options) as inputs:
                console.print(dry_run_table(inputs, options), soft_wrap=True)
        return
    with progress_bar(console, quiet=quiet) as progress:
        task = progress.add_task("Loading models", total=None)

        def start(count: int) -> None:
            progress.update(task, description="Predicting", total=count)
            progress.advance(task, 0)  # the speed counts from here

        with open_executor(models, backend, engines, device, cluster, gpus_per_worker, cpus_per_worker) as executor:
            if not quiet:
                progress.console.print(backend_line(executor), soft_wrap=True)
            progress.update(task, description="Searching inputs")
            result = predict_paths(
                executor,
                input_paths,
                out,
                options,
                on_start=start,
                on_progress=lambda count: progress.advance(task, count),
            )
    summary = Group(*failure_lines(result)) if quiet else run_summary(result, out, options, verbose=verbose)
    console.print(summary, soft_wrap=True)
    if as_json:
        with open_output(out) as output:
            print(output.read_results().decode())
    raise typer.Exit(result.exit_code)


@contextmanager
def open_executor(
    models: Path,
    backend: str,
    engines: Path | None,
    device: int | None,
    cluster: str | None,
    gpus_per_worker: int,
    cpus_per_worker: int,
) -> "Iterator[Executor]":
    """Load the models in this process, or in the workers of a cluster, which end with the block.

    Raises:
        CascadeError: The models cannot be loaded, or there is no such cluster.
    """
    if cluster is None:
        if gpus_per_worker or cpus_per_worker != 1:
            raise CascadeError("--gpus-per-worker and --cpus-per-worker need --cluster", fix="add --cluster local")
        from cascade.pipeline import Cascade
        from cascade.prediction.batch import InProcess

        yield InProcess(Cascade.open(models, backend, engines, device=device))
        return
    if cluster.startswith("-"):  # the next option
        raise CascadeError("--cluster needs an address", fix="--cluster local starts a cluster on this machine")
    if device is not None:
        raise CascadeError(
            "--device cannot be combined with --cluster, which assigns a GPU to each worker",
            fix="omit --device; CUDA_VISIBLE_DEVICES restricts the GPUs of --cluster local",
        )
    try:
        from cascade.prediction.cluster import ClusterOptions, open_cluster
    except ImportError as error:
        raise CascadeError(f"Ray is not installed ({error})", fix="pip install 'cascade-mri[cluster]'") from error
    from cascade.prediction.worker import ModelOptions

    options = ClusterOptions(cluster, gpus_per_worker, cpus_per_worker)
    paths = ModelOptions(models.absolute(), backend, engines.absolute() if engines else None)
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),  # Ray prints there when a worker is lost, whatever its options
        open_cluster(options, paths) as executor,
    ):
        yield executor
