"""Set the detection threshold, the softmax temperature and the uncertainty threshold on slices not trained on."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cascade.evaluation.metrics import reliability
from cascade.runtime.models import ExportedModel
from cascade.volume.finding import VolumeRule

CALIBRATED = ("slices", "detection_threshold", "temperature", "uncertain_below", "segmenter_sha256")
"""Fields of an entry in models.json that a mean of several calibrations keeps of each."""

TRUSTED_ACCURACY = 0.98
"""Accuracy of the slices whose probability is at least `uncertain_below`, on validation data."""

TARGET_SENSITIVITY = 0.985
"""Sensitivity of the detection threshold on validation data.

At 0.975, 0.7 to 0.9 times as many tumor-free slices of other scanners are false positives, and four points fewer of
their tumors are seen (docs/experiments.md).
"""


TEMPERATURE_SPREAD = 0.5
"""Standard deviation of the logarithm of the temperature, before any slice is seen."""


def detection_threshold(tumor: Tensor, negative: Tensor) -> tuple[float, dict[str, Any]]:
    """Choose the probability of a tumor from which on one is reported.

    TARGET_SENSITIVITY of the slices with a tumor reach it, or as many as can: on slices without any tumor pixel the
    exported graph finds none, whatever the threshold. It lies halfway to the next lower logit, because the exported
    graph computes slightly different ones.

    Args:
        tumor: (N,) detection logits of slices with a tumor, -inf where no pixel is tumor.
        negative: (M,) those of tumor-free slices.

    Returns:
        The threshold in 0 to 1, and the entry for models.json.
    """
    ordered = tumor.sort().values
    possible = int((~ordered.isfinite()).sum())  # -inf first
    if possible == len(ordered):
        threshold = torch.zeros(())
    else:
        place = max(int(len(ordered) * (1 - TARGET_SENSITIVITY)), possible)
        least = ordered[place]
        below = ordered[possible:][ordered[possible:] < least]
        threshold = (least + below[-1].clamp(min=least - 1)) / 2 if len(below) else least - 0.5
    probability = float(threshold.sigmoid().clamp(1e-6, 1 - 1e-6))
    return probability, {
        "slices": len(tumor),
        "negatives": len(negative),
        "detection_threshold": probability,
        "sensitivity": float((tumor >= threshold).float().mean()),
        "false_positive_rate": float((negative >= threshold).float().mean()) if len(negative) else None,
        "false_positive_rate_at_half": float((negative >= 0).float().mean()) if len(negative) else None,
    }


def mean_calibration(models: Sequence[ExportedModel]) -> dict[str, Any]:
    """Average the calibrations of several models, each on slices that it was not trained on.

    Args:
        models: Segmenters or classifiers of one recipe.

    Returns:
        The entry for models.json: the detection threshold as the mean of logits; or temperature and uncertainty
        threshold; and what each model has.
    """
    records = [model.record["calibration"] for model in models]
    entry: dict[str, Any] = {
        "mean_of": [
            {"sha256": model.sha256, **{name: record[name] for name in CALIBRATED if name in record}}
            for model, record in zip(models, records, strict=True)
        ]
    }
    if "detection_threshold" in records[0]:
        logits = torch.tensor([record["detection_threshold"] for record in records]).logit()
        return entry | {"detection_threshold": float(logits.mean().sigmoid())}
    # No geometric mean: on few slices that are all classified correctly, a temperature is low.
    return entry | {name: mean(record[name] for record in records) for name in ("temperature", "uncertain_below")}


def mean_volume_rule(segmenters: Sequence[ExportedModel]) -> dict[str, Any]:
    """Average the rules for volumes of several segmenters, each set on subjects that it was not trained on.

    Args:
        segmenters: Segmenters of one recipe.

    Returns:
        `volume_rule` as the field of an entry in models.json, with the mean of `min_support`, the sums of the subjects,
        the other values of the first segmenter, and all rules in `mean_of`; nothing if one of them has no rule.
    """
    records = [segmenter.record.get("volume_rule") for segmenter in segmenters]
    rules = [record for record in records if record]
    if not rules or len(rules) < len(records):
        return {}
    subjects = ("healthy_subjects", "tumor_subjects")
    mean_of = [{"sha256": item.sha256, **rule} for item, rule in zip(segmenters, rules, strict=True)]
    return {
        "volume_rule": {
            **asdict(VolumeRule.from_record(rules[0])),
            "min_support": mean(rule["min_support"] for rule in rules),
            **{name: sum(rule[name] for rule in rules) for name in subjects},
            "mean_of": mean_of,
        }
    }


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, dict[str, Any]]:
    """Fit the temperature of the classifier.

    Args:
        logits: (N, 3).
        labels: (N,) int64.

    Returns:
        The temperature to divide the logits by, and the entry for models.json.
    """
    temperature = fit_temperature(logits, labels)
    before, after = logits.softmax(1), (logits / temperature).softmax(1)
    confidence, predicted = after.max(1)
    correct = predicted == labels
    threshold = uncertain_below(confidence, correct)
    trusted = confidence >= threshold
    return temperature, {
        "slices": len(labels),
        "temperature": temperature,
        "expected_calibration_error": {
            name: reliability(labels.numpy(), probabilities.double().numpy()).expected_calibration_error
            for name, probabilities in (("before", before), ("after", after))
        },
        "uncertain_below": threshold,
        "coverage": float(trusted.float().mean()),
        "accuracy_of_the_rest": float(correct[trusted].float().mean()) if trusted.any() else None,
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature of least cross-entropy (Guo et al. 2017, arXiv 1706.04599); above 1 for an overconfident network.

    Its logarithm has a normal prior, which matters on few slices only: if all of them are right, the cross-entropy
    alone falls until the temperature is 0.
    """
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = (log_temperature / TEMPERATURE_SPREAD).square() / (2 * len(labels))
        value = F.cross_entropy(logits.double() / log_temperature.exp(), labels) + prior
        value.backward()
        return value

    optimizer.step(loss)
    return float(log_temperature.detach().exp())


def uncertain_below(confidence: Tensor, correct: Tensor) -> float:
    """Lowest confidence from which on TRUSTED_ACCURACY of the classes are correct; above 1 if no confidence is enough.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) bool.
    """
    falling, order = confidence.sort(descending=True)
    accuracy = correct[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_its_value = falling != torch.cat([falling[1:], falling.new_full((1,), -1.0)])
    enough = torch.nonzero((accuracy >= TRUSTED_ACCURACY) & last_of_its_value)
    return float(falling[enough[-1]]) if len(enough) else math.nextafter(1, 2)
