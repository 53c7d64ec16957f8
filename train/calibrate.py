"""What the models' numbers mean, set by slices that they were not trained on: no tumor, and how sure a class is."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cascade.evaluation.metrics import reliability

TRUSTED_ACCURACY = 0.98
"""Of the slices whose class is stated with at least `uncertain_below`."""

TUMORS_KEPT = 0.995
"""Of the slices with a tumor, by the threshold for there being one: people never seen lose some 2 % more."""


def presence_threshold(tumor: Tensor, tumor_free: Tensor) -> tuple[float, dict[str, Any]]:
    """Logits of a tumor's presence, (N,) of slices with one and (M,) without → the threshold for there to be one.

    The probability that TUMORS_KEPT of the tumors reach, and what models.json says of it. It lies halfway to the next
    tumor below, since on the exported graph a logit comes out a little different.
    """
    ordered = tumor.sort().values
    least = ordered[int(len(tumor) * (1 - TUMORS_KEPT))]
    below = ordered[ordered < least]
    threshold = (least + below[-1].clamp(min=least - 1)) / 2 if len(below) else least - 0.5
    return float(threshold.sigmoid().clamp(1e-6, 1 - 1e-6)), {
        "slices": len(tumor),
        "tumor_free_slices": len(tumor_free),
        "presence_threshold": float(threshold.sigmoid()),
        "tumors_kept": float((tumor >= threshold).float().mean()),
        "false_alarms": float((tumor_free >= threshold).float().mean()),
        "false_alarms_at_half": float((tumor_free >= 0).float().mean()),
    }


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, dict[str, Any]]:
    """(N, 3) and (N,) → the temperature that the logits are to be divided by, and what models.json says of it."""
    temperature = fit_temperature(logits, labels)
    before, after = logits.softmax(1), (logits / temperature).softmax(1)
    confidence, given = after.max(1)
    right = given == labels
    threshold = uncertain_below(confidence, right)
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
        "accuracy_of_the_rest": float(right[trusted].float().mean()) if trusted.any() else None,
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Of least cross-entropy (Guo et al. 2017, arXiv 1706.04599): above 1 for a network too sure of itself."""
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)  # its logarithm: a temperature is above 0
    optimizer = torch.optim.LBFGS([scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(logits.double() / scale.exp(), labels)
        value.backward()
        return value

    optimizer.step(loss)
    return float(scale.detach().exp())


def uncertain_below(confidence: Tensor, right: Tensor) -> float:
    """(N,) twice → the least confidence from which on TRUSTED_ACCURACY of the classes are right; above 1 for none."""
    falling, order = confidence.sort(descending=True)
    accuracy = right[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_its_value = falling != torch.cat([falling[1:], falling.new_full((1,), -1.0)])
    enough = torch.nonzero((accuracy >= TRUSTED_ACCURACY) & last_of_its_value)
    return float(falling[enough[-1]]) if len(enough) else math.nextafter(1, 2)
