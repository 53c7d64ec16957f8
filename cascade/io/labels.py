"""Refuse maps of labels, such as segmentations: the models would find tumors in them, but they are no scans."""

import numpy as np

from cascade.errors import CascadeError
from cascade.io.source import HeaderSource, SliceReader

LABELS = (np.arange(11), np.array([0, 255]))
"""Values of which a map of labels consists: class numbers, or black and white. Scans have hundreds of others."""

STRIDE = 4
"""Every fourth pixel of every fourth row shows at once that a slice of a scan has other values."""


def check_scan(source: SliceReader) -> None:
    """Check that a volume is no map of labels: one that has no values but `LABELS`, and no value as often as 0.

    Reads the slice in the middle, and others only until one of them shows that the volume is a scan. Blank slices, and
    those that cannot be read, show nothing. A picture passes.

    Raises:
        CascadeError: If the volume is a map of labels.
    """
    if source.count == 1 and not (isinstance(source, HeaderSource) and source.is_volume_file):
        return
    possible = list(LABELS)
    counts = np.zeros(256, np.int64)
    for index in sorted(range(source.count), key=lambda index: abs(index - source.count // 2)):
        try:
            pixels = source.read(index).pixels
        except CascadeError:
            continue
        for part in (pixels[::STRIDE, ::STRIDE], pixels):
            possible = [labels for labels in possible if np.isin(part, labels).all()]
            if not possible:
                return
        counts += np.bincount(pixels.astype(np.uint8).ravel(), minlength=len(counts))
    if counts[0] > counts[1:].max():
        name = source.files[0] if isinstance(source, HeaderSource) else "the volume"
        values = ", ".join(map(str, np.flatnonzero(counts)))
        raise CascadeError(
            f"{name}: is a map of labels, not a scan: it has no other values than {values}",
            fix="give the scan on which the labels were drawn",
        )
