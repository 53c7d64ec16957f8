"""What both trainings share: settings, loaders, the Lightning trainer, and the folder that a run leaves."""

import gc
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically
from train.history import History
from train.weights import splits_behind


@dataclass(frozen=True)
class FitSettings:
    """What can be set for a training.

    patience   epochs without a better validation result after which it stops.
    weights    what the network starts from: `imagenet`, `none`, a file or an exported graph.
    ema_decay  of the weights' exponential moving average, a step; the average is what is validated and exported.
    devices    how many GPUs (or CPU processes); 0 takes all there are.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    weights: str
    ema_decay: float = 0.995
    seed: int = 0
    devices: int = 0
    epoch_slices: int = 0  # slices drawn in an epoch; 0 draws as many as there are
    limit_batches: int = 0  # of each epoch, to try things out; 0 takes all

    def one_cycle(self, module: lightning.LightningModule) -> Any:
        """AdamW under a one-cycle schedule that warms up over the first tenth of all steps."""
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        # Over 10 steps its warm-up takes no step, and the schedule would divide by that.
        steps = max(11, int(module.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loader(
    data: Dataset[Any], settings: FitSettings, *, shuffle: bool, weights: Tensor | None = None
) -> DataLoader[Any]:
    """Workers for all cores that this process may use but one; with one core the training itself reads.

    weights  (N,) how often each of the data is to be drawn, over the others; None of data that are shuffled alike.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    workers = min(16, cores - 1)
    drawn = settings.epoch_slices or len(data)  # ours have a length
    return DataLoader(
        data,
        batch_size=settings.batch_size,
        shuffle=shuffle and weights is None,
        sampler=None
        if weights is None
        else WeightedRandomSampler(weights.tolist(), settings.epoch_slices or len(data)),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        drop_last=shuffle and drawn > settings.batch_size,
    )


def subject_weights(subjects: Tensor, by_subject: float) -> Tensor:
    """How often each slice is drawn, relative to others.

    Args:
        subjects: (S,) int64, whose slice each is.
        by_subject: Of a subject who has n slices, each is drawn n ** -by_subject as often.

    Returns:
        (S,) float64.
    """
    return subjects.bincount()[subjects].double() ** -by_subject


def prepare_run(
    settings: FitSettings, out: Path, inputs: dict[str, Any], *, built_on: Sequence[Path] = (), resume: bool
) -> None:
    """Makes `out` a run's folder, or sees that it is this run's, and seeds all random numbers.

    To be called before the network is built, whose weights are drawn. A resumed run draws other numbers than the
    epochs that are behind it.

    inputs    hashes of what it trains on, its split among them; saved with the settings, the hash of a file of weights
              that it starts from, and the `other_splits` that this learned from. A run is resumed only with the same.
    built_on  files of weights that it starts from besides the one that the settings name.

    Raises CascadeError where `out` already holds a run and `resume` was not asked for, or the other way round.
    """
    gc.collect()  # An earlier training's data: Lightning's objects name each other, so gigabytes stay until then.
    recorded = {**asdict(settings), **inputs, **_provenance(settings.weights, built_on, inputs, out, resume=resume)}
    check_run_dir(out, recorded, resume=resume)
    write_atomically(out / "settings.json", json.dumps(recorded, indent=1).encode())
    silence_lightning()
    seed = np.random.SeedSequence([settings.seed, epochs_done(out) if resume else 0]).generate_state(1)
    lightning.seed_everything(int(seed.item()), workers=True, verbose=False)


def _provenance(
    weights: str, built_on: Sequence[Path], inputs: dict[str, Any], out: Path, *, resume: bool
) -> dict[str, Any]:
    """What is to be known of the files that a run starts from; a resumed run's may be gone by now."""
    if resume and (out / "settings.json").exists():
        begun = json.loads((out / "settings.json").read_text())
        return {name: begun[name] for name in ("weights_sha256", "other_splits") if name in begun}
    file = Path(weights) if Path(weights).is_file() else None
    splits = {sha256 for path in (file, *built_on) if path for sha256 in splits_behind(path)}
    others = sorted(splits - {inputs.get("split_sha256")})
    told: dict[str, Any] = {"weights_sha256": sha256_of(file)} if file else {}
    return told | ({"other_splits": others} if others else {})


def epochs_done(out: Path) -> int:
    """That a run's last.ckpt has behind it."""
    last = torch.load(out / "last.ckpt", map_location="cpu", weights_only=True, mmap=True)
    return int(last["epoch"]) + 1


def fit(
    training: lightning.LightningModule,
    train: DataLoader[Any],
    validation: DataLoader[Any],
    settings: FitSettings,
    *,
    out: Path,
    monitor: str,
    resume: bool,
) -> None:
    """Runs or resumes the training that was begun in the folder `out`, validated by `monitor` (higher is better)."""
    last = out / "last.ckpt"
    on_gpu = torch.cuda.is_available()
    callbacks: list[Callback] = [
        # It is made before the network is moved, and would stay on the CPU. Lightning's EMAWeightAveraging goes tensor
        # by tensor, which costs a GPU thousands of launches a step.
        WeightAveraging(device="cuda" if on_gpu else None, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay)),
        ModelCheckpoint(dirpath=out, filename="best", monitor=monitor, mode="max", enable_version_counter=False),
        # The other's `save_last` would save after better epochs only.
        ModelCheckpoint(dirpath=out, filename="last", enable_version_counter=False),
        EarlyStopping(monitor=monitor, mode="max", patience=settings.patience),
        Resumption(),
        History(out),
    ]
    if sys.stderr.isatty():
        callbacks.append(RichProgressBar())
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        devices=settings.devices or "auto",
        precision=precision(),
        gradient_clip_val=1.0,
        benchmark=True,  # cuDNN times its ways once: shapes stay the same
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        limit_train_batches=settings.limit_batches or 1.0,
        limit_val_batches=settings.limit_batches or 1.0,
        num_sanity_val_steps=0,
    )
    trainer.fit(training, train, validation, ckpt_path=last if resume else None, weights_only=True if resume else None)


def precision() -> Literal["16-mixed", "bf16-mixed", "32-true"]:
    """What the trainer computes in: BF16 where the hardware does, since it needs no scaling of the loss as FP16 does.

    Others emulate it: on a 2-core CPU with AVX2 alone a matrix product took 350 times as long as in FP32 (torch 2.14).
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"


class Resumption(Callback):
    """What Lightning leaves out when it resumes a run."""

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Of a folder that was moved it would forget the best score, and replace best.ckpt by a worse epoch's."""
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                state["dirpath"] = trainer.checkpoint_callback.dirpath

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A run that EarlyStopping ended would train on."""
        trainer.should_stop = trainer.early_stopping_callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED


def check_run_dir(out: Path, recorded: dict[str, Any], *, resume: bool) -> None:
    """A run is never overwritten, and is resumed only as what it was."""
    begun = (out / "last.ckpt").exists()
    if begun and not resume:
        raise CascadeError(
            f"{out}: holds a training run", fix="continue it with --resume, or name another folder with --out"
        )
    if resume and not begun:
        raise CascadeError(f"{out}: holds no run to resume", fix="start without --resume")
    if resume and json.loads((out / "settings.json").read_text()) != recorded:
        raise CascadeError(
            f"{out}: was begun with other settings or another split (see its settings.json)",
            fix="resume with the same ones, or start anew with another --out",
        )


def silence_lightning() -> None:
    """Lets through what a reader can act on: Lightning also advertises, and warns of the folder that we just made."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (r"Checkpoint directory .* exists", r".*treespec, LeafSpec", r".*does not have many workers"):
        warnings.filterwarnings("ignore", message)
