"""Choose the scan to read where a folder holds several MRI sequences or label maps of one subject, as in BraTS."""

# Paths are strings here: there may be a million, and pathlib takes several times as long.
# ruff: noqa: PTH119, PTH120

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

ENHANCED_T1 = frozenset({"t1c", "t1ce", "t1gd"})
"""Tokens of the sequence that the models were trained on."""

TOKENS = ENHANCED_T1 | {"t1n", "t1", "t2w", "t2f", "t2", "flair"}
"""All tokens of sequences."""

SEQUENCE = re.compile(
    rf"((?P<stem>.+)[-_.])?(?P<token>{'|'.join(sorted(TOKENS))})(?P<suffix>(\.[a-z]+)+)", re.IGNORECASE
)
"""A file name that ends in the token of a sequence: BraTS-GLI-00000-000-t1c.nii.gz, BraTS2021_00000_flair.nii.gz."""

BRATS_2015 = re.compile(
    r"(?P<stem>VSD\.Brain)(_\d*more[\w.]*|[\w.]*\.(OT|MR_(?P<token>T1c|T1|T2|Flair)))\.\d+(?P<suffix>(\.[a-z]+)+)",
    re.IGNORECASE,
)
"""A file name of BraTS 2013 to 2015. The number at its end differs between the files of a subject."""

LABELS = frozenset(
    {"seg", "segm", "segmentation", "mask", "brainmask", "label", "labels", "labelmap", "gtv", "roi", "glistrboost"}
)
"""Words of a file name that say that it holds labels of pixels, not a scan."""

SUFFIX = re.compile(r"(\.nii)?\.[a-z]+$", re.IGNORECASE)

NNUNET_LABELS = re.compile(r"(?<![^/\\])labels(?=T[rs]$)")
"""Folder of the label maps of nnU-Net. The scans are in imagesTr or imagesTs beside it."""

WORD = re.compile(r"[^\W_]+")

Words = tuple[str, ...]


class Sequence(NamedTuple):
    """What the name of a file says about its content.

    Attributes:
        folder: The folder of its subject.
        stem: The subject; empty if the name is a token alone.
        token: The sequence, in lower case; "seg" for a segmentation.
        suffix: The suffix of the file, in lower case.
    """

    folder: str
    stem: str
    token: str
    suffix: str


def other_sequences(paths: Iterable[str]) -> dict[str, str]:
    """Return why files are left out beside the contrast-enhanced T1 of the same subject, or beside scans for nnU-Net.

    Files belong to one subject if they lie in one folder and their names differ in nothing but the token. Without a
    contrast-enhanced T1 among them, or with several, no sequence is left out. A map of labels may have any suffix, and
    further words in its name.

    Args:
        paths: Files that were found in folders.

    Returns:
        Path → reason.
    """
    files = {path: os.path.split(path) for path in sorted(paths)}
    sequences = {path: sequence for path, file in files.items() if (sequence := _sequence(*file))}
    reasons = _nnunet_labels(files) | _label_maps(files, sequences)
    subjects: dict[Sequence, list[str]] = defaultdict(list)
    for path, sequence in sequences.items():
        if path not in reasons:
            subjects[sequence._replace(token="")].append(path)
    for same in subjects.values():
        enhanced = [path for path in same if sequences[path].token in ENHANCED_T1]
        if len(enhanced) == 1:
            for path in set(same) - set(enhanced):
                token = sequences[path].token
                what = "segmentation" if token == "seg" else f"sequence {token}"
                reasons[path] = f"is the {what} beside {files[enhanced[0]][1]}, which is read"
    return reasons


def _sequence(folder: str, name: str) -> Sequence | None:
    if match := BRATS_2015.fullmatch(name):
        if os.path.basename(folder) == SUFFIX.sub("", name):  # each file has a folder of its name
            folder = os.path.dirname(folder)
        return Sequence(folder, match["stem"], (match["token"] or "seg").lower(), match["suffix"].lower())
    if match := SEQUENCE.fullmatch(name):
        return Sequence(folder, match["stem"] or "", match["token"].lower(), match["suffix"].lower())
    return None


def _nnunet_labels(files: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the reasons for label maps beside a folder of scans."""
    folders = {folder for folder, _ in files.values()}
    reasons = {}
    for labels in folders:
        scans = NNUNET_LABELS.sub("images", labels)
        if scans != labels and scans in folders:
            reasons[labels] = f"is in {os.path.basename(labels)}, beside {os.path.basename(scans)}, which is read"
    return {path: reasons[folder] for path, (folder, _) in files.items() if folder in reasons}


def _label_maps(files: dict[str, tuple[str, str]], sequences: dict[str, Sequence]) -> dict[str, str]:
    """Return the reasons for label maps beside a contrast-enhanced T1."""
    scans: dict[str, dict[Words, str]] = defaultdict(dict)
    for path, sequence in sequences.items():
        if sequence.token in ENHANCED_T1:
            folder, name = files[path]
            scans[folder].setdefault(_words(sequence.stem), name)
    reasons = {}
    for path, (folder, name) in files.items():
        words = _words(SUFFIX.sub("", name)) if folder in scans else ()
        if not LABELS.isdisjoint(words) and (scan := _scan_of(words, scans[folder])):
            reasons[path] = f"holds labels according to its name, beside {scan}, which is read"
    return reasons


def _words(name: str) -> Words:
    return tuple(WORD.findall(name.lower()))


def _scan_of(words: Words, scans: dict[Words, str]) -> str | None:
    """Return the contrast-enhanced T1 to which a label map belongs, or None if it is not known to be one.

    Args:
        words: Of the name of the file.
        scans: Words of the name of a subject → name of its contrast-enhanced T1.
    """
    # The shortest first: longer ones may be of another label map. A scan without a subject in its name must be alone.
    for end in range(0 if len(scans) == 1 else 1, len(words)):
        if words[:end] in scans and not LABELS.isdisjoint(words[end:]):  # the subject itself may be named "mask"
            return scans[words[:end]]
    if words[-1] in ENHANCED_T1:
        return None
    subject = tuple(word for word in words if word not in LABELS | TOKENS)
    return scans.get(subject) if subject or len(scans) > 1 else next(iter(scans.values()))
