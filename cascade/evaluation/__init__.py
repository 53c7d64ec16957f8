"""The parts of `cascade.evaluate`: formulas, confidence intervals, summary, table and figures."""

FORMAT = "cascade evaluation 1"
"""Of metrics.json."""

PICTURES = frozenset(
    {
        *("accuracy.png", "confusion_matrix.png", "dice.png", "presence.png", "reliability.png"),
        *("best_slices.png", "median_slices.png", "worst_slices.png"),
    }
)
"""All that are drawn beside metrics.json: no run takes them for slices."""

FILES = PICTURES | {"metrics.json", "slices.csv", "tumor_free.csv"}
"""All that an evaluation writes."""
