"""Tables that `cascade data` prints: the content of a data set, and a split."""

from collections import Counter
from pathlib import Path
from statistics import median

from rich.table import Table
from rich.text import Text

from cascade.cli.console import printable
from cascade.contract import CLASS_NAMES
from cascade.datasets.figshare import subject_id
from cascade.datasets.split import SUBSETS, Split
from cascade.datasets.summary import Inspection

MAX_NAMES = 8
"""Longest list of names that the table shows; it counts the rest."""


def inspection_table(inspection: Inspection) -> Table:
    """Return the content of a data set as a table, with long lists of names shortened."""
    table = Table(show_header=False, title="Data set", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {"slices": f"{inspection.slices:,}", "patient ids": f"{inspection.patients:,}"}
    rows["subjects"] = f"{inspection.subjects:,}; ids such as MR040240 and MR040240B count as one subject"
    per_patient = sorted(inspection.by_patient.values())
    if per_patient:
        rows["slices per patient id"] = f"{per_patient[0]} to {per_patient[-1]}, median {median(per_patient):g}"
    for name, counts in inspection.by_class.items():
        rows[name] = f"{counts.slices:,} slices of {counts.subjects:,} subjects"
    rows["size in pixels"] = ", ".join(f"{size}: {count:,}" for size, count in inspection.by_size.items()) or "none"
    if inspection.intensity_range and inspection.highest_intensity:
        rows["intensity range"] = "{:g} to {:g}".format(*inspection.intensity_range)
        rows["maximum per slice"] = "{0:g} to {2:g}, median {1:g}".format(*inspection.highest_intensity)
    rows["pixel spacing"] = (
        f"unknown for {inspection.without_spacing:,} slices" if inspection.without_spacing else "known for all slices"
    )
    rows["in several classes"] = _shortened(
        [f"{subject}: {' and '.join(classes)}" for subject, classes in inspection.subjects_in_several_classes.items()]
    )
    rows["empty masks"] = _shortened(inspection.empty_masks)
    rows["missing files"] = _shortened(inspection.missing)
    rows["cannot be used"] = _shortened(list(inspection.broken), separator="\n")
    for heading, text in rows.items():
        table.add_row(heading, Text(printable(text)))  # Text: brackets in a file name are not markup
    return table


def _shortened(names: list[str], separator: str = ", ") -> str:
    if not names:
        return "none"
    rest = [f"and {len(names) - MAX_NAMES:,} more"] if len(names) > MAX_NAMES else []
    return f"{len(names):,}: " + separator.join(names[:MAX_NAMES] + rest)


def split_table(split: Split, path: Path) -> Table:
    """Return the number of slices and subjects in each subset of a split as a table."""
    table = Table("subset", title=Text(printable(str(path))), title_justify="left")
    for heading in (*CLASS_NAMES, "slices", "subjects"):
        table.add_column(heading, justify="right")
    for subset in SUBSETS:
        slices = split.subset(subset)
        labels = Counter(item.label for item in slices)
        subjects = {subject_id(item.patient) for item in slices}
        table.add_row(subset, *(f"{labels[name]:,}" for name in CLASS_NAMES), f"{len(slices):,}", f"{len(subjects):,}")
    return table
