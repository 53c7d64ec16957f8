"""The command `cascade info`: versions, models, and backends that can run on this machine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cascade import __version__
from cascade.cli.console import stderr
from cascade.cli.options import Models
from cascade.errors import CascadeError
from cascade.files import without_home
from cascade.runtime.models import BUNDLED_MODELS, CLASSIFIER, SEGMENTER, find_model
from cascade.runtime.select import BACKENDS, open_backend

SCHEMA = "cascade info 1"


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    models: Models = BUNDLED_MODELS,
) -> None:
    """Print versions, models, backends and devices, for a bug report.

    Example: [bold]cascade info --json[/]
    """
    content = collect_info(models)
    if as_json:
        print(json.dumps(content, indent=1))
    else:
        stderr().print(info_table(content))


def collect_info(models: Path, engines: Path | None = None) -> dict[str, Any]:
    """Collect what `cascade info` prints, ready for JSON, without names of users or data files.

    Each backend is loaded, to find out whether it can run.
    """
    from cascade.runtime.machine import this_machine

    backends: dict[str, dict[str, str | bool]] = {}
    for name in BACKENDS:
        try:
            backends[name] = {"runs": True, "what": open_backend(name, models, engines).backend.description}
        except CascadeError as error:
            backends[name] = {"runs": False, "what": without_home(error.problem)}
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
        "machine": asdict(this_machine()),
    }


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
        table.add_row(name, Text(str(backend["what"]), style="green" if backend["runs"] else "dim"))
    table.add_row("processor", f"{machine['cpu']}, {machine['cpu_threads']} threads")
    table.add_row("GPUs", "; ".join(machine["gpus"]) or "none")
    table.add_row("system", f"{machine['os']}, Python {machine['python']}")
    table.add_row("packages", ", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    return Group(table)
