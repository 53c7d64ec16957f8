"""The record of a training: metrics.csv and curves.png in its folder."""

import csv
import io
import math
import time
from pathlib import Path

import lightning
import matplotlib
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from cascade.files import write_atomically

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TABLE = "metrics.csv"


def read_history(run: Path) -> list[dict[str, float]]:
    """Read the rows of a run's metrics.csv, one per epoch."""
    with (run / TABLE).open(newline="") as lines:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    return [{**row, "epoch": int(row["epoch"])} for row in rows]


class History(Callback):
    """A row an epoch in metrics.csv, curves.png drawn from it, and a line for a reader without a progress bar.

    A resumed run goes on below the rows of the epochs that its checkpoint has behind it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[dict[str, float]] = []
        self.began = 0.0
        self.console = Console(stderr=True)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the epochs of a resumed run that come before the checkpoint."""
        if trainer.current_epoch > 0 and (self.out / TABLE).exists():
            self.rows = [row for row in read_history(self.out) if row["epoch"] < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the epoch to table and curves, and print it."""
        if not trainer.is_global_zero:
            return
        measured = {name: round(float(value), 5) for name, value in sorted(trainer.callback_metrics.items())}
        seconds = round(time.monotonic() - self.began, 1)
        self.rows.append({"epoch": trainer.current_epoch, **measured, "seconds": seconds})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[-1], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.out / TABLE, text.getvalue().encode())
        write_atomically(self.out / "curves.png", draw_curves(self.rows))
        line = "  ".join(f"{name} {value:g}" for name, value in self.rows[-1].items())
        self.console.print(line, highlight=False, soft_wrap=True)


def draw_curves(rows: list[dict[str, float]]) -> bytes:
    """Draw a PNG: the losses over the epochs on the left, accuracy, F1 and Dice on the right."""
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for name in rows[-1]:
        values = [row.get(name, math.nan) for row in rows]
        if name.endswith("loss"):
            losses.plot(epochs, values, label=name)
        elif name not in ("epoch", "seconds"):
            scores.plot(epochs, values, label=name)
    losses.set(xlabel="epoch", ylabel="loss", yscale="log")
    scores.set(xlabel="epoch", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    return content.getvalue()
