"""Which training images come next: rare class sampling (DAFormer, Hoyer 2022, equations 8 and 9); and which are held
out of training, for feedback alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from cawalib.datasets import SegmentationDataset, class_statistics

# DAFormer's 3000 pixels of 2048x1024 that make an image one of a class, and 1500 of 512x512 that its crop should keep
IMAGE_SHARE, CROP_SHARE = 3000 / (2048 * 1024), 1500 / (512 * 512)


class Draw(NamedTuple):
    """One image asked for: its index, the number of the draw in its epoch, and the class it was drawn for."""

    index: int
    number: int
    wanted: int


class RareClassSampler(Sampler):
    """Draws a class with P(c) = softmax((1 - f_c) / T), then one of the images that hold it; as many as there are.

    f_c is the class's share of the training split's labelled pixels. Classes without a training pixel are never drawn;
    one that no image holds enough of is drawn from those that hold any. The draws depend on (seed, epoch) alone.

    Args:
        dataset: the training split; its labels are read once, at the start.
        temperature: T; the smaller, the more often the rarest classes.
    """

    def __init__(self, dataset: SegmentationDataset, temperature: float, seed: int):
        pixels = class_statistics(dataset).pixels
        self.length, self.seed, self.epoch = len(dataset), seed, 0
        self.probability = class_probability(pixels, temperature)
        shares = np.stack([_shares(dataset[index][1], len(pixels)) for index in range(len(dataset))])
        enough = np.where((shares > IMAGE_SHARE).any(axis=0), shares > IMAGE_SHARE, shares > 0)
        self.holders = [np.flatnonzero(column) for column in enough.T]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        random = np.random.default_rng((self.seed, self.epoch))
        wanted = random.choice(len(self.probability), self.length, p=self.probability)
        return iter([Draw(int(random.choice(self.holders[index])), number, int(index))
                     for number, index in enumerate(wanted)])


def class_probability(pixels: np.ndarray, temperature: float) -> np.ndarray:
    """P(c) (C,) float64 from the classes' pixels (C,); 0 for a class without any."""
    exponent = np.where(pixels > 0, (1 - pixels / pixels.sum()) / temperature, -np.inf)
    power = np.exp(exponent - exponent.max())
    return power / power.sum()


def _shares(labels, num_classes):
    return np.bincount(labels.ravel(), minlength=256)[:num_classes] / labels.size


def held_out(dataset: SegmentationDataset, share: float, seed: int) -> tuple[SegmentationDataset, SegmentationDataset]:
    """A training split in two: what is trained on, and a random share of it (at least one pair) that is not."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    count = max(1, round(len(dataset) * share))
    return dataset.chosen(sorted(order[count:]), "train"), dataset.chosen(sorted(order[:count]), "train")
