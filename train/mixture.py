"""What both networks train on: the data set's slices mixed with made-up ones and slices of other scanners."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from cascade.contract import THRESHOLD
from train.augment import augmentation, jitter_mask
from train.dataset import SegmenterData, SliceStore, certain, pooled, without_tv
from train.external import ExternalStore
from train.pasting import Paster
from train.tumor_free import TumorFree


@dataclass(frozen=True)
class Mixture:
    """Shares of the training slices by kind. The rest are slices of the data set as they are.

    Attributes:
        inpainted: Slices of the data set whose tumor is replaced by healthy tissue.
        inpainted_controls: Slices with their tumor, and other tissue in a hole beside it: the traces of inpainting
            then do not tell that there is no tumor.
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
    inpainted=0.03,
    inpainted_controls=0.02,
    restyled=0.12,
    pasted=0.12,
    pasted_controls=0.05,
    external_tumors=0.12,
    external_negatives=0.2,
)

RESTYLED_NEGATIVES = 1 / 3
"""Share of the external tumor-free slices that take the gray values of the data set: gray values then tell nothing."""


@dataclass(frozen=True)
class ClassifierMixture:
    """Shares of the classifier's training slices by kind. The rest are slices of the data set as they are.

    Attributes:
        restyled: Slices with the gray values of an external slice.
        pasted: External tumor-free slices with a tumor of the data set pasted in.
        external_tumors: External slices with a tumor.
        pasted_odds: How often a pasted tumor is of each of CLASS_NAMES, relative to the others. External tumors are
            mostly gliomas: the other classes are pasted more often, so that an unknown scanner tells no class.
    """

    restyled: float = 0.0
    pasted: float = 0.0
    external_tumors: float = 0.0
    pasted_odds: tuple[float, ...] = (2.0, 1.0, 2.0)


CLASSIFIER_WITH_EXTERNAL = ClassifierMixture(restyled=0.3, pasted=0.24, external_tumors=0.1)

TRUE_MASKS = 0.5
"""Share of the data set's slices that come with their true mask; the others with the segmenter's."""


class MixedData(Dataset[tuple[Tensor, Tensor]]):
    """The data set's slices, replaced at random by slices of the other kinds, and augmented.

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
        self.data, self.mixture = SegmenterData(store), mixture
        self.augment = augmentation()
        self.inpainter = TumorFree(self.data.slices, self.data.masks, store.people) if mixture.inpainted else None
        if external is None:
            return
        self.external, self.targets = pooled(external.slices), pooled(external.targets)
        self.tumors, self.negatives = (
            torch.nonzero(chosen).flatten() for chosen in (external.labels >= 0, external.labels < 0)
        )
        self.weights = external.weights
        if mixture.pasted or mixture.pasted_controls or mixture.restyled:
            self.paster = Paster(
                self.data.slices,
                self.data.masks,
                store.labels,
                subject_weights,
                self.external[self.negatives],
                external.subjects[self.negatives],
                external.weights[self.negatives],
                self.external,
                external.weights,
            )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        slice_, target = self._drawn(index)
        return without_tv(self.augment(tv_tensors.Image(slice_), tv_tensors.Mask(target)))

    def _drawn(self, index: int) -> tuple[Tensor, Tensor]:
        shares, chance = self.mixture, float(torch.rand(()))
        slice_, target = self.data[index]
        none = torch.zeros_like(target)
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        if (chance := chance - shares.inpainted) < 0 and self.inpainter:
            return self.inpainter.without_tumor(index), none
        if (chance := chance - shares.inpainted_controls) < 0 and self.inpainter:
            return self.inpainter.retouched(index), target
        if (chance := chance - shares.restyled) < 0:
            return _tensor(self.paster.restyled(index, random)), target
        if (chance := chance - shares.pasted) < 0:
            plane, mask, _ = self.paster.pasted(random)
            return _tensor(plane), certain(_tensor(mask))
        if (chance := chance - shares.pasted_controls) < 0:
            return _tensor(self.paster.pasted(random, control=True)[0]), none
        if (chance := chance - shares.external_tumors) < 0:
            chosen = self._any_of(self.tumors)
            return self.external[chosen].float(), self.targets[chosen].float()
        if (chance := chance - shares.external_negatives) < 0:
            place = int(torch.multinomial(self.weights[self.negatives], 1))
            if random.random() < RESTYLED_NEGATIVES and hasattr(self, "paster"):
                return _tensor(self.paster.restyled_negative(place, random)), none
            return self.external[self.negatives[place]].float(), none
        return slice_, target

    def _any_of(self, choices: Tensor) -> int:
        return int(choices[torch.multinomial(self.weights[choices], 1)])


def _tensor(plane: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> Tensor:
    return torch.from_numpy(plane)[None]


class MixedCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """What the classifier trains on: the data set's slices, replaced at random by those of other kinds, augmented.

    Items are as those of `ClassifierData`. Half of the data set's slices come with their true mask, jittered as a
    segmenter errs, the others with the segmenter's own. Every item is drawn anew each time.

    Args:
        store: The data set's training slices.
        found: (S, 1, SLICE_SIZE, SLICE_SIZE) bool, the segmenter's masks of them.
        mixture: The shares of the kinds.
        subject_weights: (S,) how often the tumor of each slice is pasted, relative to others.
        external: External training slices.
        external_found: (E, 1, SLICE_SIZE, SLICE_SIZE) bool, the segmenter's masks of those.
    """

    def __init__(
        self,
        store: SliceStore,
        found: Tensor,
        mixture: ClassifierMixture,
        subject_weights: Tensor,
        external: ExternalStore | None = None,
        external_found: Tensor | None = None,
    ) -> None:
        self.store, self.found, self.mixture, self.augment = store, found, mixture, augmentation()
        self.external, self.external_found = external, external_found
        if external is None or external_found is None:
            return
        # A class-only slice without a found mask shows the classifier nothing of its tumor.
        usable = external_found.flatten(1).any(1) | ~external.targets[:, 1].flatten(1).all(1)
        self.tumors = torch.nonzero((external.labels >= 0) & usable).flatten()
        negatives = torch.nonzero(external.labels < 0).flatten()
        if mixture.pasted or mixture.restyled:
            self.paster = Paster(
                store.slices,
                store.masks,
                store.labels,
                subject_weights,
                external.slices[negatives],
                external.subjects[negatives],
                external.weights[negatives],
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
        shares, chance = self.mixture, float(torch.rand(()))
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        mask, label = self._mask(self.found[index], self.store.masks[index]), self.store.labels[index]
        if (chance := chance - shares.restyled) < 0:
            return _tensor(self.paster.restyled(index, random)), mask, label
        if (chance := chance - shares.pasted) < 0:
            plane, area, pasted = self.paster.pasted(random, class_odds=shares.pasted_odds)
            if pasted >= 0:
                return _tensor(plane), jitter_mask(_tensor(area)), torch.tensor(pasted)
        elif (chance := chance - shares.external_tumors) < 0:
            assert self.external is not None
            assert self.external_found is not None
            chosen = int(self.tumors[torch.multinomial(self.external.weights[self.tumors], 1)])
            true = self.external.targets[chosen].any(0, keepdim=True)
            mask = self._mask(self.external_found[chosen], true)
            return self.external.slices[chosen].float(), mask, self.external.labels[chosen]
        return self.store.slices[index].float(), mask, label

    def _mask(self, found: Tensor, true: Tensor) -> Tensor:
        return jitter_mask((true if not found.any() or torch.rand(()) < TRUE_MASKS else found).float())
