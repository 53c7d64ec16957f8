"""Options and arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from cascade.runtime.select import BACKENDS

Folder = Annotated[Path, typer.Argument(help="Folder of the labelled data set.", show_default=False)]
Models = Annotated[Path, typer.Option("--models", help="Folder of the two models.", show_default="those shipped")]
Engines = Annotated[
    Path | None, typer.Option("--engines", help="Folder of engines.", show_default="where `cascade build` puts them")
]
BackendName = Annotated[str, typer.Option("--backend", help=f"{', '.join(BACKENDS)}; auto: the fastest.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, metavar="N", help="Slices in the models at once.")]
