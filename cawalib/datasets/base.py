"""What every dataset is to the rest of the library: numbered pairs of an image and its labels."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cawalib.datasets.digests import pairs_digest

IGNORE = 255
# Data up to this size is kept decoded in memory: every file is then read once, before training starts.
KEEP_IN_MEMORY_BYTES = 1 << 30


class DatasetError(ValueError):
    """The data cannot be used. The message is one line: the file or folder, what was found, what was expected."""


class UnknownLabels(DatasetError):
    """A label file holds values that are no class and not void.

    Args:
        path: the file.
        counts: value (an id, or a colour as (r, g, b)) -> pixels.
        expected: what would have been right, for the message.
    """

    def __init__(self, path, counts: dict, expected: str):
        self.path, self.counts, self.expected = path, counts, expected
        value, pixels = max(counts.items(), key=lambda item: item[1])
        super().__init__(f"{path}: found label value {value} ({pixels} pixels), expected {expected}")

    def __reduce__(self):  # to come back whole from a worker process
        return UnknownLabels, (self.path, self.counts, self.expected)


@dataclass
class SegmentationDataset:
    """Pairs of an image (H, W, 3) uint8 RGB and its labels (H, W) uint8 with 255 = ignore.

    Args:
        name, split: which data this is.
        classes: names, in the order of the ids.
        palette: one RGB colour 0..255 per class.
        length: number of pairs.
        read: index -> (image, labels).
        digest: SHA-256 of all that the pairs hold, see `digests`, or of drawn scenes.
        survey: `statistics.Survey` of all pairs, once they were read and so verified.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    length: int
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    digest: str
    survey: Any = None
    _kept: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index in self._kept:
            return self._kept[index]
        return self.read(index)

    @cached_property
    def small(self) -> bool:
        """Whether all pairs, decoded, will fit in 1 GiB, as far as the first one tells."""
        try:
            return self.length * sum(array.nbytes for array in self[0]) <= KEEP_IN_MEMORY_BYTES
        except (DatasetError, IndexError):  # whoever reads them all will be told
            return True

    def keep(self) -> None:
        """Keep the pairs of a small dataset decoded in memory; one that cannot be used is left for the survey to name.

        With worker processes, this is done before they start, so that all of them share what is kept.
        """
        if not self.small:
            return
        room = KEEP_IN_MEMORY_BYTES
        for index in range(self.length):
            with contextlib.suppress(DatasetError):
                pair = self[index]
                room -= sum(array.nbytes for array in pair)
                if room > 0:
                    self._kept[index] = pair

    def first(self, count: int) -> SegmentationDataset:
        """The first `count` pairs."""
        digest = hashlib.sha256(f"{self.digest} first {count}".encode()).hexdigest()
        return dataclasses.replace(self, length=min(count, self.length), digest=digest, survey=None, _kept={})

    def chosen(self, indices, split: str) -> SegmentationDataset:
        """Some of the pairs, by their indices, as a split of its own."""
        indices = tuple(int(index) for index in indices)
        digest = hashlib.sha256(f"{self.digest} chosen {indices}".encode()).hexdigest()
        return dataclasses.replace(self, split=split, length=len(indices), digest=digest, survey=None, _kept={},
                                   read=partial(_read_chosen, self, indices))

    def shrunk(self, short_side: int, labels: bool) -> SegmentationDataset:
        """The same pairs, images whose short side is longer than `short_side` pixels brought down to it.

        Args:
            labels: also shrink the labels; without it they keep their size, to be judged at.
        """
        return dataclasses.replace(self, read=partial(_read_shrunk, self, short_side, labels), _kept={})


def _read_chosen(dataset, indices, index):
    return dataset[indices[index]]


def _read_shrunk(dataset, short_side, with_labels, index):
    image, labels = dataset[index]
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image, labels
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))  # Pillow's bilinear is antialiased
    if with_labels:
        labels = np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    return image, labels


# ---------------------------------------------------------------- pairs of files

def from_files(name, split, classes, palette, pairs, to_class, kept_in=None) -> SegmentationDataset:
    """A dataset of image and label files.

    Args:
        pairs: list of (image path, label path).
        to_class: (256,) table from the value on disk to the class id, 255 = ignore, -1 = not allowed.
        kept_in: see `digests.pairs_digest`.
    """
    to_class = np.asarray(to_class, dtype=np.int16)
    read = partial(_read_pair, tuple(pairs), to_class)
    return SegmentationDataset(name, split, classes, palette, len(pairs), read,
                               pairs_digest(pairs, to_class.tobytes(), kept_in))


def _read_pair(pairs, to_class, index):
    image_path, label_path = pairs[index]
    image, stored = read_image(image_path), read_labels(label_path)
    if stored.ndim != 2:
        raise DatasetError(f"{label_path}: found {stored.ndim} dimensions {stored.shape}, expected one label per pixel")
    if stored.dtype != np.uint8:
        raise DatasetError(f"{label_path}: found labels of type {stored.dtype}, expected 8 bits a pixel (0 to 255)")
    check_sizes(image_path, image, label_path, stored)
    labels = to_class[stored]
    if labels.min(initial=0) < 0:
        values, counts = np.unique(stored[labels < 0], return_counts=True)
        known = int((to_class[to_class != IGNORE] >= 0).sum())
        raise UnknownLabels(label_path, dict(zip(values.tolist(), counts.tolist(), strict=True)),
                            f"one of the {known} classes or void")
    return image, labels.astype(np.uint8)


def check_sizes(image_path, image: np.ndarray, label_path, labels: np.ndarray) -> None:
    """Raises DatasetError unless image and labels are of one size."""
    if image.shape[:2] != labels.shape[:2]:
        raise DatasetError(f"{label_path}: labels are {labels.shape[1]}x{labels.shape[0]}, its image {image_path.name} "
                           f"is {image.shape[1]}x{image.shape[0]}; they must be of one size")


def read_image(path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB; raises DatasetError if it cannot be read."""
    return _decode(path, "RGB")


def read_labels(path) -> np.ndarray:
    """A label file as it is stored, such as (H, W) uint8; raises DatasetError if it cannot be read."""
    return _decode(path, None)


def _decode(path, mode):
    try:
        with Image.open(path) as file:
            return np.array(file.convert(mode) if mode else file)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error}); fetch the file again") from None
