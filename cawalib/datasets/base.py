"""What every dataset is to the rest of the library: numbered pairs of an image and its labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

IGNORE = 255
# Data up to this size is kept decoded in memory: every file is then read once, before training starts.
KEEP_IN_MEMORY_BYTES = 1 << 30


class DatasetError(ValueError):
    """The data cannot be used. The message is one line: the file or folder, what was found, what was expected."""


@dataclass
class SegmentationDataset:
    """Pairs of an image (H, W, 3) uint8 RGB and its labels (H, W) uint8 with 255 = ignore.

    Args:
        name, split: which data this is.
        classes: names, in the order of the ids.
        palette: one RGB colour 0..255 per class.
        length: number of pairs.
        read: index -> (image, labels).
        digest: SHA-256 of what identifies the pairs (file list with sizes, or the settings of drawn scenes).
    """

    name: str
    split: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    length: int
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    digest: str
    _kept: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index in self._kept:
            return self._kept[index]
        return self.read(index)

    def keep(self) -> None:
        """Read every pair now, which also verifies it, and keep it in memory if all of them fit in 1 GiB.

        Raises:
            DatasetError: the first pair that cannot be used.
        """
        room = KEEP_IN_MEMORY_BYTES
        for index in range(self.length):
            pair = self[index]
            room -= sum(array.nbytes for array in pair)
            if room > 0:
                self._kept[index] = pair

    def first(self, count: int) -> SegmentationDataset:
        """The first `count` pairs."""
        digest = hashlib.sha256(f"{self.digest} first {count}".encode()).hexdigest()
        return dataclasses.replace(self, length=min(count, self.length), digest=digest, _kept={})


def from_files(name, split, classes, palette, pairs, to_class) -> SegmentationDataset:
    """A dataset of image and label files.

    Args:
        pairs: list of (image path, label path).
        to_class: (256,) int16 table from the value on disk to the class id, 255 = ignore, -1 = not allowed.
    """
    digest = hashlib.sha256()
    for image, label in pairs:
        for path in (image, label):
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
    read = partial(_read_pair, tuple(pairs), np.asarray(to_class, dtype=np.int16), len(classes))
    return SegmentationDataset(name, split, classes, palette, len(pairs), read, digest.hexdigest())


def _read_pair(pairs, to_class, num_classes, index):
    image_path, label_path = pairs[index]
    image = _decode(image_path, "RGB")
    stored = _decode(label_path, None)
    if stored.ndim != 2:
        raise DatasetError(f"{label_path}: found {stored.ndim} dimensions {stored.shape}, expected one label per pixel")
    if stored.dtype != np.uint8:
        raise DatasetError(f"{label_path}: found labels of type {stored.dtype}, expected 8 bits a pixel (0 to 255)")
    if image.shape[:2] != stored.shape:
        raise DatasetError(f"{label_path}: labels are {stored.shape[1]}x{stored.shape[0]}, its image {image_path.name} "
                           f"is {image.shape[1]}x{image.shape[0]}; they must be of one size")
    labels = to_class[stored]
    if labels.min() < 0:
        raise DatasetError(f"{label_path}: found label value {int(stored[labels < 0][0])}, which is none of the "
                           f"{num_classes} classes and not void")
    return image, labels.astype(np.uint8)


def _decode(path, mode):
    try:
        with Image.open(path) as file:
            return np.array(file.convert(mode) if mode else file)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error}); fetch the file again") from None


def list_pairs(images: Path, labels: Path, image_suffixes=(".png", ".jpg", ".jpeg"), label_suffix=".png"):
    """Images and labels of two folders, matched by stem.

    Raises:
        DatasetError: a folder is missing or empty, or an image or label has no partner.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise DatasetError(f"{folder}: folder not found")
    image_of = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in image_suffixes}
    label_of = {path.stem: path for path in sorted(labels.iterdir()) if path.suffix.lower() == label_suffix}
    if not image_of:
        raise DatasetError(f"{images}: holds no image ({', '.join(image_suffixes)})")
    for stem in sorted(image_of.keys() ^ label_of.keys()):
        if stem in image_of:
            raise DatasetError(f"{image_of[stem]}: image without its label, expected {labels / (stem + label_suffix)}")
        raise DatasetError(f"{label_of[stem]}: label without its image, expected {images / stem} "
                           f"with one of {', '.join(image_suffixes)}")
    return [(image_of[stem], label_of[stem]) for stem in sorted(image_of)]
