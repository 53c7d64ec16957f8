"""Set the support from which on a volume shows a tumor, on volumes of healthy subjects and of subjects with a tumor.

    python -m train.calibrate_volumes MODELS INDEX [INDEX ...] [--subjects-of FILE] [--csv FILE] [--dry-run]

An index is a table as train/external.py reads it. Slices of one subject whose file names differ in their last number
are a stack in the order of that number; a volume file, such as .nii.gz, is a stack by itself. Stacks of a part of a
head are left out. A stack shows a tumor if one of its slices does. The rule is written to models.json, as a part of the
segmenter that it was set for. Each subject is also decided on by a rule that was set without it: that is what to expect
of other subjects, if the segmenter learned from none of these.

The models of a fold of `cascade train crossval` did not see the subjects in its external.csv: --subjects-of takes
these.
"""

import argparse
import csv
import io
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from cascade.discovery.filters import format_of_name
from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically
from cascade.io.open import open_source
from cascade.pipeline import Cascade
from cascade.runtime.models import SEGMENTER
from cascade.volume.finding import VolumeRule
from cascade.volume.stack import Stack
from train.external import NEGATIVE, ExternalSlice, index_file, read_index
from train.external_evaluation import from_csv
from train.png import exit_on_cascade_error

MAX_FALSE_POSITIVES = 0.05
"""Fraction of the subjects without a tumor who may have a finding."""

MAX_MISSED = 0.05
"""Fraction of the subjects with a tumor who may have none."""

MIN_SLICES = 12
"""Stacks of fewer slices show a part of a head, and say little about whole ones."""


@dataclass(frozen=True)
class LabeledVolume:
    """A volume or stack of slices of a known subject.

    Attributes:
        name: File name, without the number of the slice.
        set_name: Data set.
        subject: Subject, unique over all sets.
        part: train, validation or test: whether the segmenter was trained on this subject.
        tumor: Whether a slice shows a tumor.
        paths: One file per slice, in their order; or one file.
    """

    name: str
    set_name: str
    subject: str
    part: str
    tumor: bool
    paths: tuple[Path, ...]


Supports = Mapping[str, float]
"""Subject → highest support of a component in any of its volumes."""


def labeled_volumes(items: Iterable[ExternalSlice]) -> list[LabeledVolume]:
    """Put the slices of an index together to stacks, and leave out pictures that form no stack of MIN_SLICES."""
    groups: dict[tuple[str, Path, str], list[tuple[int, ExternalSlice]]] = defaultdict(list)
    for item in items:
        volume = format_of_name(item.path.name) != "image"
        name, number = (item.path.name, "") if volume else _without_number(item.path)
        groups[item.subject, item.path.parent, name].append((int(number or 0), item))
    volumes = []
    for (subject, _, name), numbered in sorted(groups.items()):
        slices = [item for _, item in sorted(numbered, key=lambda entry: entry[0])]
        if len(slices) < MIN_SLICES and format_of_name(slices[0].path.name) == "image":
            continue
        tumor = any(item.label != NEGATIVE for item in slices)
        paths = tuple(item.path for item in slices)
        volumes.append(LabeledVolume(name, slices[0].set_name, subject, slices[0].part, tumor, paths))
    return volumes


def items_of_fold(items: Iterable[ExternalSlice], table: Path, index: Path) -> list[ExternalSlice]:
    """Choose the items of an index whose subjects are in the external.csv of a fold: its test part.

    Raises:
        CascadeError: If no subject is in both.
    """
    subjects = {score.subject for score in from_csv(table.read_bytes())}
    found = [replace(item, part="test") for item in items if item.subject in subjects]
    if not found:
        raise CascadeError(
            f"{index}: none of its subjects is in {table}",
            fix="name the sets of the subjects in the column set as in the index of the training; "
            "without it, the set has the name of the folder",
        )
    return found


def shows_whole_head(volume: LabeledVolume, rule: VolumeRule) -> bool:
    """Return False for a volume file of so few or thin slices that the rule asks for less support there.

    Raises:
        CascadeError: The file cannot be opened.
    """
    if len(volume.paths) > 1:
        return True
    source = open_source(volume.paths[0])
    return math.isclose(rule.limit(Stack.empty((source.count, 1, 1), slab_mm=source.slab_mm)), rule.min_support)


def _without_number(path: Path) -> tuple[str, str]:
    """scan_T1c_007.png → scan_T1c_, 007."""
    number = re.search(r"\d*$", path.stem)
    digits = number.group() if number else ""
    return path.stem.removesuffix(digits), digits


def check_groups(volumes: Sequence[LabeledVolume]) -> None:
    """Raise CascadeError if there are fewer than two subjects with a tumor, or without one."""
    with_tumor = {volume.subject for volume in volumes if volume.tumor}
    without = {volume.subject for volume in volumes} - with_tumor
    for subjects, name in ((with_tumor, "with"), (without, "without")):
        if len(subjects) < 2:
            raise CascadeError(
                f"the indexes list volumes of fewer than two subjects {name} a tumor",
                fix=f"add volume files, or {MIN_SLICES} numbered slices or more of each subject",
            )


def volume_support(cascade: Cascade, volume: LabeledVolume) -> float:
    """Return the highest support of a component."""
    if len(volume.paths) == 1:
        return cascade.predict_volume(volume.paths[0]).finding.support
    return cascade.predict_volume(volume.paths).finding.support


def best_limit(healthy: Sequence[float], tumor: Sequence[float], one_slice: float) -> float:
    """Choose the support from which on a subject has a tumor.

    It lies in the middle, on a logarithmic scale, between the lowest limit with at most MAX_FALSE_POSITIVES and the
    highest with at most MAX_MISSED. Where these cannot both be kept, the former decides.

    Args:
        healthy: Support of each subject without a tumor; at least one.
        tumor: Support of each subject with one; at least one.
        one_slice: Highest support of one slice, which is never enough, even if all healthy subjects have less.
    """
    above = max(one_slice, sorted(healthy, reverse=True)[math.floor(MAX_FALSE_POSITIVES * len(healthy))])
    up_to = sorted(tumor)[math.floor(MAX_MISSED * len(tumor))]
    return math.sqrt(above * up_to) if above < up_to else math.nextafter(above, math.inf)


def leave_one_out(healthy: Supports, tumor: Supports, one_slice: float) -> dict[str, float]:
    """Decide on each subject by the limit that the others give; see `best_limit`."""

    def found(subjects: Supports, limit_without: Callable[[str], float]) -> float:
        return sum(support >= limit_without(subject) for subject, support in subjects.items()) / len(subjects)

    def without(subject: str, supports: Supports) -> list[float]:
        return [support for other, support in supports.items() if other != subject]

    def limit(healthy: Iterable[float], tumor: Iterable[float]) -> float:
        return best_limit([*healthy], [*tumor], one_slice)

    return {
        "false_positive_rate": found(healthy, lambda subject: limit(without(subject, healthy), tumor.values())),
        "sensitivity": found(tumor, lambda subject: limit(healthy.values(), without(subject, tumor))),
    }


def calibrated_rule(rule: VolumeRule, volumes: Sequence[tuple[LabeledVolume, float]]) -> dict[str, Any]:
    """Set the limit of a rule, and return its entry for models.json.

    Args:
        rule: The rest of the rule, by which the supports were computed.
        volumes: Volumes and their supports.
    """
    with_tumor = {volume.subject for volume, _ in volumes if volume.tumor}
    healthy: dict[str, float] = {}
    tumor: dict[str, float] = {}
    for volume, support in volumes:
        if volume.tumor or volume.subject not in with_tumor:
            subjects = tumor if volume.tumor else healthy
            subjects[volume.subject] = max(support, subjects.get(volume.subject, 0.0))
    rule = replace(rule, min_support=best_limit([*healthy.values()], [*tumor.values()], rule.max_log_odds))
    return {
        **asdict(rule),
        "healthy_subjects": len(healthy),
        "tumor_subjects": len(tumor),
        "leave_one_out": leave_one_out(healthy, tumor, rule.max_log_odds),
        "sets": _by_set(volumes, rule.min_support),
    }


def _by_set(volumes: Sequence[tuple[LabeledVolume, float]], limit: float) -> dict[str, dict[str, Any]]:
    """Count the subjects with a finding, by set, part and whether they have a tumor."""
    groups: dict[tuple[str, str, bool], dict[str, bool]] = defaultdict(dict)
    for volume, support in volumes:
        group = groups[volume.set_name, volume.part, volume.tumor]
        group[volume.subject] = group.get(volume.subject, False) or support >= limit
    return {
        f"{set_name}, {part}, {'tumor' if tumor else 'no tumor'}": {
            "subjects": len(found),
            "with_finding": sum(found.values()),
        }
        for (set_name, part, tumor), found in sorted(groups.items())
    }


def write_rule(models: Path, record: dict[str, Any]) -> None:
    """Add the rule to the entry of the segmenter in models.json."""
    table = models / "models.json"
    entries = json.loads(table.read_text())
    entries[SEGMENTER]["volume_rule"] = record
    write_atomically(table, json.dumps(entries, indent=1, allow_nan=False).encode() + b"\n")


def supports_as_csv(volumes: Sequence[tuple[LabeledVolume, float]]) -> str:
    """Return a table of the support of each volume."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["volume", "set", "subject", "part", "tumor", "support"])
    for volume, support in volumes:
        writer.writerow([volume.name, volume.set_name, volume.subject, volume.part, int(volume.tumor), support])
    return text.getvalue()


def main() -> None:
    """Set the rule of a folder of models on the volumes of some indexes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of both graphs and models.json")
    parser.add_argument("index", type=Path, nargs="+", help="tables of slices and volumes")
    parser.add_argument("--subjects-of", type=Path, metavar="FILE", help="only the subjects of this external.csv")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--csv", type=Path, help="write the support of each volume to this file")
    parser.add_argument("--dry-run", action="store_true", help="do not write models.json")
    options = parser.parse_args()
    with exit_on_cascade_error():
        cascade = Cascade.open(options.models, options.backend)
        items = []
        for index in options.index:
            listed = read_index(index)
            items += items_of_fold(listed, options.subjects_of, index) if options.subjects_of else listed
        listed_volumes = labeled_volumes(items)
        volumes = [volume for volume in listed_volumes if shows_whole_head(volume, cascade.volume_rule)]
        if parts := len(listed_volumes) - len(volumes):
            print(f"left out: {parts} volumes, which show a part of a head", file=sys.stderr)
        check_groups(volumes)
        if trained := {volume.subject for volume in volumes if volume.part == "train"}:
            print(
                f"warning: subjects in the part train: {len(trained)}. If the segmenter learned from them, they have "
                "more support than others, whose tumors the rule may then miss.",
                file=sys.stderr,
            )
        hashes = [sha256_of(index_file(index)) for index in options.index]
        progress = track(volumes, "predicting volumes", console=Console(stderr=True))
        supports = [(volume, volume_support(cascade, volume)) for volume in progress]
        if options.csv:
            write_atomically(options.csv, supports_as_csv(supports).encode())
        rule = calibrated_rule(cascade.volume_rule, supports)
        record = {**rule, "index_sha256": hashes, "backend": cascade.description}
        print(json.dumps(record, indent=1))
        if not options.dry_run:
            write_rule(options.models, record)


if __name__ == "__main__":
    main()
