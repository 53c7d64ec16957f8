"""Options and arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of the labelled data set.", show_default=False)]
Models = Annotated[Path, typer.Option("--models", help="Folder of the two models.", show_default="those shipped")]
Engines = Annotated[
    Path, typer.Option("--engines", help="Folder of engines.", show_default="where `cascade build` puts them")
]
