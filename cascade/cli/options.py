"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

MODELS_PANEL = "Models"
"""Heading in `--help` of the options that select and run the models."""

Folder = Annotated[Path, typer.Argument(help="Folder of the labeled data set.", show_default=False)]
Models = Annotated[
    Path,
    typer.Option("--models", help="Model folder.", show_default="bundled models", rich_help_panel=MODELS_PANEL),
]
Engines = Annotated[
    Path | None,
    typer.Option(
        "--engines",
        help="Engine folder.",
        show_default="user cache",
        rich_help_panel=MODELS_PANEL,
    ),
]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        help="One that `cascade info` lists; default: auto.",
        show_default=False,
        rich_help_panel=MODELS_PANEL,
    ),
]
Device = Annotated[
    int | None,
    typer.Option(
        "--device",
        min=0,
        metavar="N",
        help="GPU number; else 0 or the CPU.",
        show_default=False,
        rich_help_panel=MODELS_PANEL,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        metavar="N",
        help="Slices processed at once.",
        rich_help_panel=MODELS_PANEL,
    ),
]
