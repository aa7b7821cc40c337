"""Datasets: one file each, all of them giving `SegmentationDataset`."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from cawalib.config import RunConfig
from cawalib.datasets import camvid, streets
from cawalib.datasets.base import IGNORE, DatasetError, SegmentationDataset
from cawalib.files import atomic

__all__ = ["IGNORE", "DatasetError", "SegmentationDataset", "load_datasets", "load_streets"]

# scenes drawn for each split of `streets`
STREETS_COUNTS = {"train": 160, "val": 80, "test": 160}


def load_datasets(config: RunConfig) -> dict[str, SegmentationDataset]:
    """The splits of the run's dataset, every pair of them read once and so verified.

    Returns:
        split name -> dataset; `train` and `val` always, `test` where the dataset has one.

    Raises:
        DatasetError: a folder, a pair or a file that cannot be used.
    """
    if config.dataset == "streets":
        splits = {split: load_streets(config, split) for split in STREETS_COUNTS}
    else:
        splits = {split: camvid.load(config.data_root, split) for split in camvid.SPLITS}
    if config.train_images:
        splits["train"] = splits["train"].first(config.train_images)
    for dataset in splits.values():
        dataset.keep()
    return splits


def load_streets(config: RunConfig, split: str) -> SegmentationDataset:
    """One split of the built-in data, drawn on first use and kept under data_root/streets."""
    count, height, width = STREETS_COUNTS[split], config.image_height, config.image_width
    settings = f"{split}-{count}-{width}x{height}-imbalance{config.imbalance:g}"
    digest = hashlib.sha256(settings.encode() + _drawing_code()).hexdigest()
    path = Path(config.data_root, "streets", f"{settings}-{digest[:8]}.npz")
    if not path.is_file():
        images, labels = streets.draw_split(split, count, height, width, config.imbalance)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as unfinished:
                np.savez(unfinished, images=images, labels=labels)
        except OSError as error:
            raise DatasetError(f"parameter 'data_root': {path.parent} cannot be written ({error.strerror})") from None
    with np.load(path) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return SegmentationDataset("streets", split, streets.CLASSES, streets.PALETTE, count,
                               partial(_pair, images, labels), digest)


def _pair(images, labels, index):
    return images[index], labels[index]


def _drawing_code():
    return b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("streets*.py")))
