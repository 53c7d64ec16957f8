"""Choose the contrast-enhanced T1 where a folder holds several MRI sequences of one subject, as in BraTS data sets."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath

ENHANCED_T1 = frozenset({"t1c", "t1ce", "t1gd"})
"""Tokens of the sequence that the models were trained on."""

SEQUENCE = re.compile(
    r"(?P<stem>.+)[-_.](?P<token>t1c|t1ce|t1gd|t1n|t1|t2w|t2f|t2|flair|seg)(?P<suffix>(\.[a-z]+)+)", re.IGNORECASE
)
"""A file name that ends in the token of a sequence: BraTS-GLI-00000-000-t1c.nii.gz, BraTS2021_00000_flair.nii.gz."""


def other_sequences(paths: Iterable[str]) -> dict[str, str]:
    """Return why files are left out beside the contrast-enhanced T1 of the same subject.

    Files belong to one subject if they lie in one folder and their names differ in nothing but the token. Without a
    contrast-enhanced T1 among them, or with several, none is left out.

    Args:
        paths: Files that were found in folders.

    Returns:
        Path → reason.
    """
    subjects: dict[tuple[PurePath, str, str], dict[str, str]] = defaultdict(dict)
    for path in paths:
        file = PurePath(path)
        if match := SEQUENCE.fullmatch(file.name):
            subject = (file.parent, match["stem"], match["suffix"].lower())
            subjects[subject][path] = match["token"].lower()
    reasons = {}
    for files in subjects.values():
        enhanced = [path for path, token in files.items() if token in ENHANCED_T1]
        if len(enhanced) == 1:
            for path in files.keys() - enhanced:
                what = "segmentation" if files[path] == "seg" else f"sequence {files[path]}"
                reasons[path] = f"is the {what} beside {PurePath(enhanced[0]).name}, which is read"
    return reasons
