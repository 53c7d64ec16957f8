"""Options of a run, and what its results depend on."""

from dataclasses import asdict, dataclass
from typing import Any

from cascade import __version__
from cascade.errors import CascadeError
from cascade.prediction.executor import Executor


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        batch_size: Number of slices that go through the models at once, at least 1.
        axis: Slice axis (0, 1 or 2) of volumes; None selects the axis with the thickest slices.
        volume: Number of the volume to read from a file of several, from 0; None refuses such files.
        recursive: Search subfolders.
        include: Process only files whose name matches one of these patterns, if there are any.
        exclude: Leave out files and folders whose name matches one of these patterns.
        overlays: Draw overlays.
        report: Write report.html.
        keep_identifiers: Keep patient identifiers in DICOM masks.
        keep_all_components: Keep the components in masks of volumes that do not belong to the finding.
        probabilities: Write the tumor probability of each pixel.
        secondary_capture: Write DICOM secondary captures of the slices of DICOM inputs that show a tumor.
        overwrite: Replace the results of an earlier run.
        resume: Continue an earlier run; finished inputs are not computed again.
    """

    batch_size: int = 8
    axis: int | None = None
    volume: int | None = None
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overlays: bool = True
    report: bool = True
    keep_identifiers: bool = False
    keep_all_components: bool = False
    probabilities: bool = False
    secondary_capture: bool = False
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise CascadeError(f"a batch size of {self.batch_size} is invalid", fix="choose 1 or more")
        if self.axis not in (None, 0, 1, 2):
            raise CascadeError(f"a slice axis of {self.axis} is invalid", fix="choose 0, 1 or 2")
        if self.volume is not None and self.volume < 0:
            raise CascadeError(f"a volume of number {self.volume} is invalid", fix="count from 0")


def run_settings(executor: Executor, options: RunOptions, inputs: str) -> dict[str, Any]:
    """Return what the results depend on besides the inputs; a run can be resumed only with the same settings.

    Args:
        executor: What runs the models.
        options: Options of the run.
        inputs: Folder that the names of the inputs are relative to.
    """
    return {
        "folder of inputs": inputs,
        "cascade_version": __version__,
        "models": executor.models,
        "backend": executor.description,
        "axis": options.axis,
        "volume": options.volume,
        "overlays": options.overlays,
        "keep_identifiers": options.keep_identifiers,
        "keep_all_components": options.keep_all_components,
        "probabilities": options.probabilities,
        "secondary_capture": options.secondary_capture,
        "volume_rule": asdict(executor.volume_rule),
        "uncertain_below": executor.uncertain_below,
    }
