"""Rows of results → results.csv and results.json."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.contract import CLASS_NAMES, Box
from cascade.discovery.output_marker import CAPTURES, MASKS, OVERLAYS, PROBABILITIES, RESULTS
from cascade.discovery.store import Store
from cascade.errors import CascadeError
from cascade.io.source import CapturedSource, Source, slice_number
from cascade.prediction.output_dir import (
    PARQUET,
    VOLUMES,
    capture_path,
    mask_path,
    output_name,
    overlay_path,
    probability_path,
    slice_output_name,
)
from cascade.prediction.output_files import LocalFiles, OutputFiles, StoredFiles
from cascade.prediction.output_store import OutputStore
from cascade.prediction.slices import SliceResult, slice_record
from cascade.prediction.tables import AddRecord, open_csv, open_json
from cascade.prediction.volumes import VolumeResult, volume_record
from cascade.runtime.models import CLASSIFIER, SEGMENTER
from cascade.volume.finding import VolumeRule

NOTE = "For research only. Not a medical device: do not use it to diagnose or treat anyone."


@dataclass(frozen=True)
class ResultsFolder:
    """Writes the tables of a run and names the files beside them.

    Attributes:
        out: Results folder. Masks and overlays lie below it, named like the inputs.
        inputs: Absolute folder that the names of the inputs are relative to.
        overlays: True if overlays are drawn.
        models: Model name → SHA-256 of its ONNX graph.
        backend: Description of the backend.
        uncertain_below: A class with a lower probability is marked as uncertain.
        volume_rule: When a component of a volume is a tumor.
        keep_all_components: True if masks of volumes also hold the components that are no tumor by this rule.
        probabilities: True if probability maps are written.
        secondary_capture: True if secondary captures of DICOM inputs are written.
        unpacked: Folder that zips were unpacked to, under the names that they have below `inputs`.
        parquet: True if results.parquet is written too.
        store: The object store that `inputs` stands for; None if the inputs are on this machine.
        output_store: The object store that `out` stands for; None if the results are written to `out`.
    """

    out: Path
    inputs: Path
    overlays: bool
    models: dict[str, str]
    backend: str
    uncertain_below: float = 0.0
    volume_rule: VolumeRule = field(default_factory=VolumeRule)
    keep_all_components: bool = False
    probabilities: bool = False
    secondary_capture: bool = False
    unpacked: Path | None = None
    parquet: bool = False
    store: Store | None = None
    output_store: OutputStore | None = None

    @property
    def files(self) -> OutputFiles:
        """Writes the masks and all other files of inputs."""
        return StoredFiles(self.output_store) if self.output_store else LocalFiles(self.out)

    @property
    def csv_path(self) -> Path:
        """Path of results.csv."""
        return self.out / "results.csv"

    @property
    def json_path(self) -> Path:
        """Path of results.json."""
        return self.out / "results.json"

    def input_name(self, path: Path) -> str:
        """Return the path of an input file below `inputs`; a file of a zip is named as if the zip were a folder."""
        unzipped = self.unpacked is not None and path.is_relative_to(self.unpacked)
        return path.relative_to(self.unpacked if unzipped and self.unpacked else self.inputs).as_posix()

    def error_row(self, name: str, error: CascadeError, index: int | None = None) -> SliceResult:
        """Return the row of a slice or input that has failed.

        A file of a zip is named as part of the zip, and one of a store by its URL.
        """
        problem = error.problem
        if self.unpacked:
            problem = problem.replace(str(self.unpacked), str(self.inputs))
        if self.store:
            problem = self.store.with_urls(problem)
        if self.output_store:
            problem = self.output_store.with_urls(problem)
        return SliceResult(name, "error", index, problem=problem, fix=error.fix)

    def mask_path(self, name: str, suffix: str = ".png") -> Path:
        """Return the path of the mask of an input."""
        return mask_path(self.out, name, suffix)

    def overlay_path(self, name: str, number: str | None = None) -> Path:
        """Return the path of the overlay of an input, or of the slice with this number in it."""
        return overlay_path(self.out, name, number)

    def probability_path(self, name: str, suffix: str = ".png") -> Path:
        """Return the path of the probability map of an input."""
        return probability_path(self.out, name, suffix)

    def capture_path(self, name: str, number: str | None = None) -> Path:
        """Return the path of the secondary capture of an input, or of the slice with this number in it."""
        return capture_path(self.out, name, number)

    def output_files(self, source: Source) -> list[str]:
        """Return all files that may be written for an input, as paths below `out`."""
        name, suffix = source.name, source.mask_suffix
        numbers = [slice_number(source, index) for index in range(source.count)]
        files = [f"{MASKS}/{output_name(name, suffix)}"]  # not by paths, which take ten times as long
        if self.probabilities:
            files.append(f"{PROBABILITIES}/{output_name(name, suffix)}")
        if self.overlays:
            files += [f"{OVERLAYS}/{slice_output_name(name, number, '.png')}" for number in numbers]
        if self.secondary_capture and isinstance(source, CapturedSource):
            files += [f"{CAPTURES}/{slice_output_name(name, number, '.dcm')}" for number in numbers]
        return files

    def save(self, rows: Iterable[SliceResult], volumes: Iterable[VolumeResult] = (), *, complete: bool) -> None:
        """Replace the tables. The rows are written as they come, and never all in memory.

        Args:
            rows: One row per slice, in the order of the tables: by input, then by slice.
            volumes: One row per volume, in the order of the tables: by input.
            complete: True if the run came to its end.

        Raises:
            CascadeError: A file cannot be written.
        """
        header = {
            "schema": RESULTS,
            "cascade_version": __version__,
            "research_use_only": NOTE,
            "complete": complete,
            "inputs": self.store.with_urls(str(self.inputs)) if self.store else str(self.inputs),
            "backend": self.backend,
            "models": self.models,
            "uncertain_below": self.uncertain_below,
            "volume_rule": asdict(self.volume_rule),
        }
        with ExitStack() as stack:
            slice_tables = [stack.enter_context(open_csv(self.csv_path, CSV_COLUMNS))]
            slice_tables += [stack.enter_context(self._open_parquet())] if self.parquet else []
            volume_tables = [stack.enter_context(open_csv(self.out / VOLUMES, VOLUME_COLUMNS))]
            # Opened last, it is put in its place first: without it, the next run takes the tables for those of others.
            json_file = stack.enter_context(open_json(self.json_path, header))
            for key, records, tables in (
                ("volumes", map(volume_record, volumes), volume_tables),
                ("slices", map(slice_record, rows), slice_tables),
            ):
                json_file.begin(key)
                for record in records:
                    json_file.add(record)
                    cells = self._cells(record)
                    for add in tables:
                        add(cells)

    def _cells(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the cells of a row of a table, with a column for each probability, box edge and model."""
        probabilities, box = record["probabilities"] or {}, record.get("box") or {}
        return (
            record
            | {PROBABILITY_COLUMNS[label]: value for label, value in probabilities.items()}
            | {f"box_{edge}": value for edge, value in box.items()}
            | {f"{name}_sha256": sha256 for name, sha256 in self.models.items()}
        )

    def _open_parquet(self) -> AbstractContextManager[AddRecord]:
        from cascade.prediction.parquet import open_parquet  # needs the extra `cluster`

        return open_parquet(self.out / PARQUET, CSV_COLUMNS, {"schema": RESULTS, "research_use_only": NOTE})


PROBABILITY_COLUMNS = {label: f"probability_{label.replace(' ', '_')}" for label in CLASS_NAMES}

CSV_COLUMNS = (
    "slice",
    "input",
    "index",
    "file",
    "status",
    "class",
    "uncertain",
    *PROBABILITY_COLUMNS.values(),
    *(f"box_{edge}" for edge in Box._fields),
    "mask_pixels",
    "mask_mm2",
    "accepted_pixels",
    "latency_ms",
    "mask",
    "probability_map",
    "overlay",
    "secondary_capture",
    "notes",
    "problem",
    "fix",
    f"{SEGMENTER}_sha256",
    f"{CLASSIFIER}_sha256",
)

VOLUME_COLUMNS = (
    "input",
    "status",
    "class",
    "uncertain",
    *PROBABILITY_COLUMNS.values(),
    "volume_ml",
    "longest_mm",
    "perpendicular_mm",
    "slices",
    "tumor_slices",
    "key_slice",
    "support",
    "mask",
    "probability_map",
    "notes",
    "problem",
    "fix",
    f"{SEGMENTER}_sha256",
    f"{CLASSIFIER}_sha256",
)
