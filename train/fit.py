"""What both trainings share: settings, data loaders, the Lightning trainer, and the folder of a run."""

import gc
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from cascade.errors import CascadeError
from cascade.files import sha256_of, write_atomically
from train.history import History
from train.weights import splits_behind

AVERAGED_PART = 0.25
"""Part of a training that the moving average of its weights reaches back over; 1.8 % of the average are older ones."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of a training.

    Attributes:
        epochs: Number of epochs.
        batch_size: Slices per step, on each GPU.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        weights: What the network starts from: `imagenet`, `none`, a file of weights or an exported graph.
        ema_decay: Highest decay per step of the moving average of the weights, which is validated and exported; see
            `moving_average`.
        seed: Seed of all random numbers.
        devices: Number of GPUs or CPU processes; 0 uses all.
        epoch_slices: Slices drawn per epoch; 0 draws as many as there are.
        limit_batches: Batches per epoch, to try things out; 0 runs all.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    weights: str
    ema_decay: float = 0.995
    seed: int = 0
    devices: int = 0
    epoch_slices: int = 0
    limit_batches: int = 0

    def one_cycle(self, module: lightning.LightningModule) -> Any:
        """AdamW under a one-cycle schedule (Smith and Topin 2019) that warms up over the first tenth of all steps."""
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = schedule_steps(module.trainer)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def schedule_steps(trainer: lightning.Trainer) -> int:
    """Steps of the schedule. With 10 or fewer the warm-up has no step, and the schedule would divide by zero."""
    return max(11, int(trainer.estimated_stepping_batches))


def moving_average(highest_decay: float, training: lightning.LightningModule) -> Any:
    """Return the update of the moving average of a training's weights.

    It reaches back over AVERAGED_PART of all steps at most: in a short training, the weights of its start would
    otherwise make up most of the average.
    """

    @cache
    def update() -> Any:
        steps = schedule_steps(training.trainer)
        return get_ema_multi_avg_fn(min(highest_decay, 1 - 1 / (AVERAGED_PART * steps)))

    return lambda *tensors_and_count: update()(*tensors_and_count)


def loader(
    data: Dataset[Any], settings: FitSettings, *, shuffle: bool, weights: Tensor | None = None
) -> DataLoader[Any]:
    """Build a data loader with one worker per usable core but one.

    Args:
        data: The data set, which has a length.
        settings: Batch size and slices per epoch.
        shuffle: Whether the order is random.
        weights: (N,) how often each item is drawn, relative to others; None draws each once.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    workers = min(16, cores - 1)
    drawn = settings.epoch_slices or len(data)
    return DataLoader(
        data,
        batch_size=settings.batch_size,
        shuffle=shuffle and weights is None,
        sampler=None if weights is None else WeightedRandomSampler(weights.tolist(), drawn),
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
    """Create the folder of a run, or check that it is this run's, and seed all random numbers.

    Call it before the network is built: its weights are drawn at random. A resumed run draws other numbers than the
    epochs before.

    Args:
        settings: Settings of the training.
        out: Folder of the run.
        inputs: What it trains on: `split_sha256` and further hashes. They are saved with the settings, with the hash
            of the weights to start from, and with the `other_splits` that those learned from.
        built_on: Files of weights that it starts from besides the one that the settings name.
        resume: Whether to continue the run in `out`; it must have the same settings and inputs.

    Raises:
        CascadeError: `out` holds a run and `resume` is False, or holds no run or another one and `resume` is True.
    """
    gc.collect()  # Lightning's objects refer to each other: an earlier training's gigabytes stay until then.
    recorded = {**asdict(settings), **inputs, **_provenance(settings.weights, built_on, inputs, out, resume=resume)}
    check_run_dir(out, recorded, resume=resume)
    write_atomically(out / "settings.json", json.dumps(recorded, indent=1).encode())
    silence_lightning()
    seed = np.random.SeedSequence([settings.seed, epochs_done(out) if resume else 0]).generate_state(1)
    lightning.seed_everything(int(seed.item()), workers=True, verbose=False)


def _provenance(
    weights: str, built_on: Sequence[Path], inputs: dict[str, Any], out: Path, *, resume: bool
) -> dict[str, Any]:
    """Describe the files that a run starts from. Those of a resumed run may be gone by now."""
    if resume and (out / "settings.json").exists():
        earlier = json.loads((out / "settings.json").read_text())
        return {name: earlier[name] for name in ("weights_sha256", "other_splits") if name in earlier}
    file = Path(weights) if Path(weights).is_file() else None
    splits = {sha256 for path in (file, *built_on) if path for sha256 in splits_behind(path)}
    others = sorted(splits - {inputs.get("split_sha256")})
    hashes: dict[str, Any] = {"weights_sha256": sha256_of(file)} if file else {}
    return hashes | ({"other_splits": others} if others else {})


def epochs_done(out: Path) -> int:
    """Number of epochs that a run has finished."""
    last = torch.load(out / "last.ckpt", map_location="cpu", weights_only=True, mmap=True)
    return int(last["epoch"]) + 1


def fit(
    training: lightning.LightningModule,
    train: DataLoader[Any],
    validation: DataLoader[Any] | None,
    settings: FitSettings,
    *,
    out: Path,
    monitor: str,
    resume: bool,
) -> None:
    """Run or resume the training that `prepare_run` prepared in `out`.

    Args:
        training: The Lightning module.
        train: Loads the training slices.
        validation: Loads the validation slices. None trains to the last epoch, and leaves no best.ckpt.
        settings: Settings of the training.
        out: Folder of the run.
        monitor: Name of the validation score; higher is better.
        resume: Whether to continue from last.ckpt.

    Raises:
        CascadeError: If a GPU has less than a batch to train on, or the run was begun on another number of GPUs.
    """
    last = out / "last.ckpt"
    on_gpu = torch.cuda.is_available()
    callbacks: list[Callback] = [
        # It is made before the network is moved, and would stay on the CPU. Lightning's EMAWeightAveraging goes tensor
        # by tensor, which costs a GPU thousands of launches a step.
        WeightAveraging(device="cuda" if on_gpu else None, multi_avg_fn=moving_average(settings.ema_decay, training)),
        Resumption(),
        History(out),
    ]
    if validation is not None:
        best = ModelCheckpoint(dirpath=out, filename="best", monitor=monitor, mode="max", enable_version_counter=False)
        callbacks.append(best)
    # Nothing stops a training early: the schedule gives the last epochs the lowest learning rate.
    # Last, since it holds the score of `best`, whose `save_last` would save after better epochs only.
    callbacks.append(ModelCheckpoint(dirpath=out, filename="last", enable_version_counter=False))
    if sys.stderr.isatty():
        callbacks.append(RichProgressBar())
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        devices=settings.devices or "auto",
        precision=precision(),
        gradient_clip_val=1.0,
        benchmark=True,  # cuDNN times its ways once for each shape, and there are few
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        limit_train_batches=settings.limit_batches or 1.0,
        limit_val_batches=settings.limit_batches or 1.0,
        num_sanity_val_steps=0,
    )
    drawn = len(train.sampler) // trainer.world_size
    if train.drop_last and train.batch_size and drawn < train.batch_size:
        raise CascadeError(
            f"an epoch has {drawn} slices for each of {trainer.world_size} GPUs, which is less than a batch",
            fix="train with --devices 1, or with a smaller --batch-size",
        )
    trainer.fit(training, train, validation, ckpt_path=last if resume else None, weights_only=True if resume else None)


def precision() -> Literal["16-mixed", "bf16-mixed", "32-true"]:
    """Choose the precision: BF16 where the hardware has it, because it needs no loss scaling as FP16 does.

    Others emulate it: on a 2-core CPU with AVX2 alone a matrix product took 350 times as long as in FP32 (torch 2.14).
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"


class Resumption(Callback):
    """Completes what Lightning restores when it resumes a run."""

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the best score of a folder that was moved; otherwise a worse epoch would replace best.ckpt.

        Raises:
            CascadeError: If the schedule has another length.
        """
        steps = schedule_steps(trainer)
        for schedule in checkpoint["lr_schedulers"]:
            if schedule["total_steps"] != steps:
                raise CascadeError(
                    f"this run has {schedule['total_steps']} steps, and would have {steps} now",
                    fix="resume it on as many GPUs as before",
                )
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                state["dirpath"] = trainer.checkpoint_callback.dirpath


def check_run_dir(out: Path, recorded: dict[str, Any], *, resume: bool) -> None:
    """Raise CascadeError unless `out` is free for a new run, or holds the run to resume."""
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
            fix="resume with the same ones, or start a new run with another --out",
        )


def silence_lightning() -> None:
    """Show only warnings that a user can act on: Lightning also warns of the folder that was just created."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    ignored = r"Checkpoint directory .* exists", r".*treespec, LeafSpec", r".*does not have many workers"
    for message in (*ignored, r"You defined a `validation_step` but have no `val_dataloader`"):
        warnings.filterwarnings("ignore", message)
