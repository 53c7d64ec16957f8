"""What both networks train on: the data set's slices mixed with made-up ones and slices of other scanners."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from cascade.contract import CLASS_NAMES, THRESHOLD
from train.augment import augmentation, jitter_mask
from train.dataset import SegmenterData, SliceStore, certain, pooled, without_tv
from train.external_store import ExternalStore, sampling_weights
from train.heads import FloatPlane
from train.inpainting import TumorInpainter
from train.paster import Paster


@dataclass(frozen=True)
class Mixture:
    """Shares of the training slices by kind. The rest are slices of the data set as they are.

    Attributes:
        inpainted: Slices of the data set whose tumor is replaced by healthy tissue.
        inpainted_controls: Slices with their tumor, and other tissue in a hole beside it: the traces of inpainting
            then mean nothing.
        restyled: Slices with the gray values of an external slice.
        pasted: External tumor-free slices with a tumor of the data set pasted in.
        pasted_controls: External tumor-free slices with a tumor-free patch pasted in.
        external_tumors: External slices with a tumor.
        external_negatives: External tumor-free slices; a third of them with the gray values of the data set.
    """

    inpainted: float = 0.25
    inpainted_controls: float = 0.15
    restyled: float = 0.0
    pasted: float = 0.0
    pasted_controls: float = 0.0
    external_tumors: float = 0.0
    external_negatives: float = 0.0


DATA_SET_ONLY = Mixture()
WITH_NEGATIVES = Mixture(inpainted=0.1, inpainted_controls=0.06, external_negatives=0.15)
WITH_EXTERNAL = Mixture(
    inpainted=0,
    inpainted_controls=0,
    restyled=0.12,
    pasted=0.12,
    pasted_controls=0.05,
    external_tumors=0.08,
    external_negatives=0.25,
)

KINDS = tuple(field.name for field in fields(Mixture))

RESTYLED_NEGATIVES = 1 / 3
"""Share of the external tumor-free slices with the gray values of the data set: these must not suggest a tumor."""


@dataclass(frozen=True)
class ClassifierMixture:
    """Shares of the classifier's training slices by kind. The rest are slices of the data set as they are.

    Attributes:
        restyled: Slices with the gray values of an external slice.
        pasted: External tumor-free slices with a tumor of the data set pasted in.
        external_tumors: External slices with a tumor.
        pasted_odds: How often a pasted tumor is of each of CLASS_NAMES, relative to the others. External tumors are
            mostly gliomas: the other classes are pasted more often, so that the scanner does not suggest a class.
    """

    restyled: float = 0.0
    pasted: float = 0.0
    external_tumors: float = 0.0
    pasted_odds: tuple[float, ...] = (2.0, 1.0, 2.0)


CLASSIFIER_WITH_EXTERNAL = ClassifierMixture(restyled=0.3, pasted=0.24, external_tumors=0.1)

TRUE_MASKS = 0.5
"""Share of the data set's slices that come with their true mask; the others with the segmenter's."""


def draw_kind(mixture: Mixture | ClassifierMixture) -> str:
    """Draw the name of a kind by its share; an empty string for a slice of the data set as it is."""
    chance = float(torch.rand(()))
    for field in fields(mixture):
        if field.name in KINDS:
            chance -= getattr(mixture, field.name)
        if chance < 0:
            return field.name
    return ""


class MixedData(Dataset[tuple[Tensor, Tensor]]):
    """What the segmenter trains on: the data set's slices, replaced at random by those of other kinds, augmented.

    Items are as those of `SegmenterData`. Every item is drawn anew each time.

    Args:
        store: The data set's training slices.
        mixture: The shares of the kinds.
        subject_weights: (S,) how often the tumor of each slice is pasted, relative to others.
        external: External training slices; None where the mixture needs none.
    """

    def __init__(
        self, store: SliceStore, mixture: Mixture, subject_weights: Tensor, external: ExternalStore | None = None
    ) -> None:
        self.data, self.mixture, self.augment = SegmenterData(store), mixture, augmentation()
        if mixture.inpainted or mixture.inpainted_controls:
            self.inpainter = TumorInpainter(self.data.slices, self.data.masks, store.subjects)
        if external is None:
            return
        self.slices, self.targets = pooled(external.slices), pooled(external.targets)
        self.tumors, self.negatives = External(external, tumors=True), External(external, tumors=False)
        if mixture.restyled or mixture.pasted or mixture.pasted_controls:
            self.paster = Paster(
                self.data.slices,
                self.data.masks,
                store.labels,
                subject_weights,
                self.slices[self.negatives.places],
                external.subjects[self.negatives.places],
                self.negatives.weights,
                self.slices,
                external.weights,
            )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        slice_, target = self._drawn(index)
        return without_tv(self.augment(tv_tensors.Image(slice_), tv_tensors.Mask(target)))

    def _drawn(self, index: int) -> tuple[Tensor, Tensor]:
        kind, random = draw_kind(self.mixture), np.random.default_rng(int(torch.randint(2**62, ())))
        slice_, target = self.data[index]
        empty = torch.zeros_like(target)
        match kind:
            case "inpainted":
                return self.inpainter.inpaint(index), empty
            case "inpainted_controls":
                return self.inpainter.control(index), target
            case "restyled":
                return _tensor(self.paster.restyled(index, random)), target
            case "pasted":
                plane, mask, _ = self.paster.pasted(random)
                return _tensor(plane), certain(_tensor(mask))
            case "pasted_controls":
                return _tensor(self.paster.pasted(random, control=True)[0]), empty
            case "external_tumors":
                place = self.tumors.places[self.tumors.draw()]
                return self.slices[place].float(), self.targets[place].float()
            case "external_negatives":
                number = self.negatives.draw()
                if self.mixture.restyled and random.random() < RESTYLED_NEGATIVES:
                    return _tensor(self.paster.restyled_negative(number, random)), empty
                return self.slices[self.negatives.places[number]].float(), empty
            case _:
                return slice_, target


class External:
    """The external slices with a tumor, or those without, and how often each is drawn.

    Attributes:
        places: (K,) int64, their places in the store.
        labels: (K,) int64, their classes.
        weights: (K,) float64, how often each is drawn: by set, then evenly by subject, then evenly by slice.
    """

    def __init__(self, store: ExternalStore, *, tumors: bool, usable: Tensor | None = None) -> None:
        chosen = (store.labels >= 0) == tumors
        self.places = torch.nonzero(chosen if usable is None else chosen & usable).flatten()
        self.labels = store.labels[self.places]
        self.weights = sampling_weights([store.items[place] for place in self.places.tolist()])

    def draw(self) -> int:
        """Draw an index into `places`."""
        return int(torch.multinomial(self.weights, 1))


def usable_tumors(external: ExternalStore, predicted: Tensor) -> External:
    """Return the external tumors that show the classifier something: those with an outline or a predicted mask.

    Args:
        external: External training slices.
        predicted: (E, 1, SLICE_SIZE, SLICE_SIZE) bool, the segmenter's masks of them.
    """
    usable = predicted.flatten(1).any(1) | ~external.targets[:, 1].flatten(1).all(1)
    return External(external, tumors=True, usable=usable)


def class_shares(labels: Tensor, drawn: Tensor, mixture: ClassifierMixture, tumors: External | None = None) -> Tensor:
    """Return the share of each of CLASS_NAMES among the classifier's training slices, (3,) float64.

    Args:
        labels: (S,) int64, classes of the data set's slices.
        drawn: (S,) how often each of these is drawn, relative to the others.
        mixture: The shares of the kinds.
        tumors: External tumors; None where the mixture needs none.
    """

    def shares(labels: Tensor, weights: Tensor) -> Tensor:
        mass = labels.bincount(weights=weights.double(), minlength=len(CLASS_NAMES))
        return mass / mass.sum()

    own = shares(labels, drawn)
    pasted = shares(torch.arange(len(CLASS_NAMES)), torch.tensor(mixture.pasted_odds) * (own > 0))
    if tumors is None or not len(tumors.places):
        return (1 - mixture.pasted) * own + mixture.pasted * pasted
    total = (1 - mixture.pasted - mixture.external_tumors) * own + mixture.pasted * pasted
    return total + mixture.external_tumors * shares(tumors.labels, tumors.weights)


class MixedCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """What the classifier trains on: the data set's slices, replaced at random by those of other kinds, augmented.

    Items are as those of `ClassifierData`. Half of the data set's slices come with their true mask, the others with the
    segmenter's own; both are jittered as a segmenter errs. Every item is drawn anew each time.

    Args:
        store: The data set's training slices.
        predicted: (S, 1, SLICE_SIZE, SLICE_SIZE) bool, the segmenter's masks of them.
        mixture: The shares of the kinds.
        subject_weights: (S,) how often the tumor of each slice is pasted, relative to others.
        external: External training slices.
        external_predicted: (E, 1, SLICE_SIZE, SLICE_SIZE) bool, the segmenter's masks of those.
    """

    def __init__(
        self,
        store: SliceStore,
        predicted: Tensor,
        mixture: ClassifierMixture,
        subject_weights: Tensor,
        external: ExternalStore | None = None,
        external_predicted: Tensor | None = None,
    ) -> None:
        self.store, self.predicted, self.mixture, self.augment = store, predicted, mixture, augmentation()
        self.external, self.external_predicted = external, external_predicted
        if external is None or external_predicted is None:
            return
        self.tumors = usable_tumors(external, external_predicted)
        negatives = External(external, tumors=False)
        if mixture.restyled or mixture.pasted:
            self.paster = Paster(
                store.slices,
                store.masks,
                store.labels,
                subject_weights,
                external.slices[negatives.places],
                external.subjects[negatives.places],
                negatives.weights,
                external.slices,
                external.weights,
            )

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        slice_, mask, label = self._drawn(index)
        slice_, mask = without_tv(self.augment(tv_tensors.Image(slice_), tv_tensors.Mask(mask)))
        return slice_.half(), mask >= THRESHOLD, label

    def _drawn(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        kind, random = draw_kind(self.mixture), np.random.default_rng(int(torch.randint(2**62, ())))
        slice_, label = self.store.slices[index].float(), self.store.labels[index]
        if kind == "pasted":
            plane, area, pasted = self.paster.pasted(random, class_odds=self.mixture.pasted_odds)
            if pasted >= 0:
                return _tensor(plane), jitter_mask(_tensor(area)), torch.tensor(pasted)
        if kind == "external_tumors" and len(self.tumors.places):
            return self._external(int(self.tumors.places[self.tumors.draw()]))
        if kind == "restyled":
            slice_ = _tensor(self.paster.restyled(index, random))
        return slice_, self._mask(self.predicted[index], self.store.masks[index]), label

    def _external(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        assert self.external is not None
        assert self.external_predicted is not None
        certain_tumor, uncertain = self.external.targets[place]
        true = certain_tumor if certain_tumor.any() else uncertain  # the tumor lies somewhere in it
        mask = self._mask(self.external_predicted[place], true[None])
        return self.external.slices[place].float(), mask, self.external.labels[place]

    def _mask(self, predicted: Tensor, true: Tensor) -> Tensor:
        return jitter_mask((true if not predicted.any() or torch.rand(()) < TRUE_MASKS else predicted).float())


def _tensor(plane: FloatPlane) -> Tensor:
    """(H, W) → (1, H, W)."""
    return torch.from_numpy(plane)[None]
