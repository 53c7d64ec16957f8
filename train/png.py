"""What the modules with a `main` share: writing PNGs, and printing errors."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.text import Text

from cascade.cli.console import printable, stderr
from cascade.errors import CascadeError
from cascade.files import write_atomically


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG. Raises CascadeError if it cannot be written."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_atomically(path, content.getvalue())


@contextmanager
def exit_on_cascade_error() -> Iterator[None]:
    """Print a CascadeError as `cascade` does, and exit with 1."""
    try:
        yield
    except CascadeError as error:
        stderr().print(Text(printable(f"error: {error}"), style="red"), soft_wrap=True)
        sys.exit(1)
