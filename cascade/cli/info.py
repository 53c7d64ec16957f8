"""The command `cascade info`: versions, models, and the backends, GPUs and engines that can run on this machine."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cascade import __version__
from cascade.cli.console import stderr
from cascade.cli.options import Engines, Models
from cascade.errors import CascadeError
from cascade.files import without_home
from cascade.runtime.engines import FLAVORS, build_command, default_engines_folder, misfits
from cascade.runtime.gpu import Gpu, cuda_version, find_gpus
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, ExportedModel, find_model
from cascade.runtime.select import BACKENDS, open_backend

SCHEMA = "cascade info 1"
FITS = "fits"


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    models: Models = BUNDLED_MODELS,
    engines: Engines = None,
) -> None:
    """Print versions, models, backends, GPUs and the engines that fit them, for a bug report.

    Example: [bold]cascade info --json[/]
    """
    content = collect_info(models, engines)
    if as_json:
        print(json.dumps(content, indent=1))
    else:
        stderr().print(info_table(content))


def collect_info(models: Path, engines: Path | None = None) -> dict[str, Any]:
    """Collect what `cascade info` prints, ready for JSON, without names of users or data files.

    Each backend is loaded, to find out whether it can run.
    """
    from cascade.runtime.machine import nvidia_smi, this_machine

    backends: dict[str, dict[str, str | bool]] = {}
    for name in BACKENDS:
        try:
            backends[name] = {"runs": True, "what": open_backend(name, models, engines).backend.description}
        except CascadeError as error:
            backends[name] = {"runs": False, "what": without_home(error.problem), "fix": without_home(error.fix)}
    graphs = {name: find_model(name, models) for name in (SEGMENTER, CLASSIFIER)}
    return {
        "schema": SCHEMA,
        "cascade_version": __version__,
        "models": {
            name: {
                "sha256": graph.sha256,
                "megabytes": round(graph.path.stat().st_size / 1e6, 1),
                **{key: graph.record[key] for key in ("date", "data", "validation") if key in graph.record},
            }
            for name, graph in graphs.items()
        },
        "backends": backends,
        "driver": {"version": next(iter(nvidia_smi("driver_version")), None), "cuda": cuda_version()},
        "gpus": [
            asdict(gpu)
            | {
                "engines": _engines(engines, graphs, gpu),
                "build": without_home(build_command("tensorrt-rtx", engines, models, gpu=gpu)),
            }
            for gpu in find_gpus()
        ],
        "machine": asdict(this_machine()),
    }


def _engines(folder: Path | None, graphs: dict[str, ExportedModel], gpu: Gpu) -> dict[str, str]:
    """Return "fits", or the reason why it does not run, for each engine that was built."""
    from cascade.runtime.tensorrt import import_tensorrt

    versions = {}
    for flavor in FLAVORS:
        with suppress(CascadeError):
            versions[flavor] = str(import_tensorrt(flavor, flavor).__version__)
    try:
        reasons = misfits(folder or default_engines_folder(), graphs, gpu, versions)
    except CascadeError:  # no home directory
        return {}
    return {name: without_home(reason) if reason else FITS for name, reason in reasons.items()}


def info_table(content: dict[str, Any]) -> RenderableType:
    """Show the same as a table."""
    machine = content["machine"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("cascade", content["cascade_version"])
    for name, model in content["models"].items():
        table.add_row(
            name, f"{model['sha256'][:12]}, {model['megabytes']} MB, exported {model.get('date', 'at an unknown date')}"
        )
    for name, backend in content["backends"].items():
        what = str(backend["what"])
        if content["gpus"] and "fix" in backend and name in FLAVORS:
            what += f"\nfix: {backend['fix']}"
        table.add_row(name, Text(what, style="green" if backend["runs"] else "dim"))
    table.add_row("processor", f"{machine['cpu']}, {machine['cpu_threads']} threads")
    if content["gpus"]:
        table.add_row("GPU driver", f"{content['driver']['version']}, CUDA {content['driver']['cuda']}")
    else:
        table.add_row("GPUs", "; ".join(machine["gpus"]) or "none")
    for gpu in content["gpus"]:
        what = f"{gpu['name']}, {gpu['memory_mb']} MiB, compute capability {gpu['compute_capability']}"
        engines = [f"{name}: {fits}" for name, fits in gpu["engines"].items()]
        table.add_row(f"GPU {gpu['number']}", "\n".join([what, *(engines or [f"no engines: run `{gpu['build']}`"])]))
    table.add_row("system", f"{machine['os']}, Python {machine['python']}")
    table.add_row("packages", ", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    return Group(table)
