"""What `cascade data` prints: the content of a data set, and a split."""

from collections import Counter
from pathlib import Path
from statistics import median

from rich.table import Table
from rich.text import Text

from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import person
from cascade.datasets.split import PARTS, Split
from cascade.datasets.summary import Inspection

NAMES_SHOWN = 8
"""The table names this many of a kind and counts the rest."""


def inspection_table(inspection: Inspection) -> Table:
    """For a person to read; of long lists of names the first few."""
    table = Table(show_header=False, title="Data set", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    per_patient = sorted(inspection.by_patient.values())
    rows = {"slices": f"{inspection.slices:,}", "patient ids": f"{inspection.patients:,}"}
    rows["people"] = f"{inspection.people:,}, ids such as MR040240 and MR040240B taken for one"
    if per_patient:
        rows["slices a patient"] = f"{per_patient[0]} to {per_patient[-1]}, median {median(per_patient):g}"
    rows |= {name: f"{slices:,} slices of {people:,} people" for name, (slices, people) in inspection.by_class.items()}
    rows["pixels"] = ", ".join(f"{size}: {count:,}" for size, count in inspection.by_size.items()) or "none"
    if inspection.intensity_range and inspection.highest_intensity:
        rows["intensities"] = "{:g} to {:g}".format(*inspection.intensity_range)
        rows["highest of a slice"] = "{0:g} to {2:g}, median {1:g}".format(*inspection.highest_intensity)
    rows["pixel spacing"] = (
        f"not known of {inspection.without_spacing:,} slices" if inspection.without_spacing else "known of every slice"
    )
    rows["people of two classes"] = _some(
        [f"{name}: {' and '.join(own)}" for name, own in inspection.of_two_classes.items()]
    )
    rows["empty masks"] = _some(inspection.empty_masks)
    rows["missing"] = _some(inspection.missing)
    rows["cannot be used"] = _some(list(inspection.broken), separator="\n")
    for name, text in rows.items():
        table.add_row(name, Text(text))  # Text: brackets in a file's name are no markup
    return table


def _some(names: list[str], separator: str = ", ") -> str:
    if not names:
        return "none"
    rest = [f"and {len(names) - NAMES_SHOWN:,} more"] if len(names) > NAMES_SHOWN else []
    return f"{len(names):,}: " + separator.join(names[:NAMES_SHOWN] + rest)


def split_table(split: Split, path: Path) -> Table:
    """Slices of each part and class, and how many patients they are from."""
    table = Table("part", title=str(path), title_justify="left")
    for heading in (*CLASS_NAMES, "slices", "patients"):
        table.add_column(heading, justify="right")
    for part in PARTS:
        slices = split.part(part)
        labels = Counter(item.label for item in slices)
        patients = {person(item.patient) for item in slices}
        table.add_row(part, *(f"{labels[name]:,}" for name in CLASS_NAMES), f"{len(slices):,}", f"{len(patients):,}")
    return table
