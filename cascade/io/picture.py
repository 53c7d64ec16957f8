"""A picture or a .mat as the source of its one slice."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cascade.io.image import Slice, read_slice


@dataclass(frozen=True)
class Picture:
    """A `Source` (cascade/sources/__init__.py) of one slice.

    path  absolute.
    """

    name: str
    path: Path
    count: int = 1
    mask_suffix: str = ".png"
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def read(self, index: int) -> Slice:
        return read_slice(self.path)

    def mask_bytes(self, masks: NDArray[np.bool_]) -> bytes:
        return mask_png(masks[0])

    def close(self) -> None:
        """It holds nothing."""


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """(H, W) → one channel of 8 bits: 255 on tumor, 0 elsewhere."""
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(content, "PNG", compress_level=1)
    return content.getvalue()
