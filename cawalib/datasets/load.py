"""From settings to datasets: the splits that a run asks for, listed, verified and at their size."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from cawalib.datasets import ade20k, camvid, cityscapes, cocostuff, folder, layouts, prepared, streets
from cawalib.datasets.base import DatasetError, SegmentationDataset
from cawalib.datasets.statistics import survey
from cawalib.files import atomic, read_arrays
from cawalib.settings import DataConfig

# scenes drawn for each split of `streets`
STREETS_COUNTS = {"train": 160, "val": 80, "test": 160}
FILE_DATASETS = {dataset.name: dataset for dataset in (
    camvid.DATASET, cityscapes.DATASET, ade20k.DATASET, cocostuff.DATASET, cocostuff.DATASET_10K)}


def load_datasets(config: DataConfig, partly: bool = False, decoded: bool = True,
                  smoke: bool = False) -> dict[str, SegmentationDataset]:
    """The splits of a dataset, every pair of them read once and so verified, at the settings' `short_side`.

    Args:
        partly: also take a dataset of which only some splits are there, to look at it.
        decoded: read the decoded pairs that notebook 01 wrote, where it did.
        smoke: also train on validation pairs, where there are no others, only to see that it runs.

    With `data_workers` above 1, large data are read by spawned processes: a script that calls this then needs the
    usual `if __name__ == "__main__":` around it.

    Returns:
        split name -> dataset; `train` and `val` always, `test` where the dataset has one. Each carries its survey.

    Raises:
        DatasetError: a folder, a pair or a file that cannot be used.
    """
    return {split: _verified(dataset, config, decoded)
            for split, dataset in list_datasets(config, partly, smoke).items()}


def list_datasets(config: DataConfig, partly: bool = False, smoke: bool = False) -> dict[str, SegmentationDataset]:
    """The splits of a dataset as their files lie, not yet read; `partly` and `smoke` as for `load_datasets`.

    Raises:
        DatasetError: a folder is missing, or files do not pair up.
    """
    if config.dataset == "streets":
        splits = {split: load_streets(config, split) for split in STREETS_COUNTS}
    elif config.dataset == "folder":
        splits = {split: folder.load(config.data_root, split, config.val_fraction, config.split_seed,
                                      config.prepared_root)
                  for split in folder.splits(config.data_root)}
    else:
        splits = _from_layouts(config, partly, smoke)
        if config.val_is_test and {"train", "val"} <= set(splits):
            splits = _val_as_test(config, splits)
    if config.train_images and "train" in splits:
        splits["train"] = splits["train"].first(config.train_images)
    return splits


def _val_as_test(config, splits):
    """The official val to be judged on, and a random share of train to choose on, the same for a split_seed."""
    train = splits["train"]
    order = np.random.default_rng(config.split_seed).permutation(len(train))
    kept = max(1, round(len(train) * config.val_fraction))
    return {"train": train.chosen(sorted(order[kept:]), "train"), "val": train.chosen(sorted(order[:kept]), "val"),
            "test": dataclasses.replace(splits["val"], split="test")}


def _from_layouts(config, partly, smoke):
    dataset = FILE_DATASETS[config.dataset]
    found = {split: layouts.find(dataset, config.data_root, split) for split in dataset.expected}
    there = [split for split in found if found[split]]
    if "train" not in there and "val" in there and smoke:
        # a smoke run only shows that everything works, and is never compared: any pairs will do
        validation = layouts.load(dataset, config.data_root, "val", found["val"], config.prepared_root)
        return {"train": dataclasses.replace(validation, split="train"), "val": validation}
    try:
        return {split: layouts.load(dataset, config.data_root, split, found[split], config.prepared_root)
                for split in (there if partly and there else found)}
    except DatasetError as error:
        hint = ", or set smoke to only see that it runs, on the validation split" if there == ["val"] else ""
        raise DatasetError(f"{error}{hint}") from None


def _verified(listed, config, decoded):
    if config.dataset == "streets":
        listed.survey = survey(listed)
        return listed
    listed.keep()
    listed.survey = survey(listed, config.prepared_root, config.data_workers)
    if config.dataset == "cityscapes":
        cityscapes.check_ids(listed)
    dataset = listed.shrunk(config.short_side, labels=listed.split == "train") if config.short_side else listed
    if decoded and not listed.small:
        dataset = _from_decoded(listed, dataset, config)
    if dataset is not listed:
        dataset.keep()
        if len(dataset._kept) == len(dataset):
            listed._kept.clear()  # what was shrunk is kept instead
    return dataset


def _from_decoded(listed, dataset, config):
    """The same pairs, read from decoded ones where notebook 01 wrote some, at the run's size or at their own."""
    for side in dict.fromkeys((config.short_side, 0)):
        pairs = prepared.find(listed, config.prepared_root, side)
        if pairs is not None:
            print(f"{listed.split}: reading decoded pairs from {pairs.folder}")
            source = dataclasses.replace(listed, read=pairs)
            return source if side == config.short_side else source.shrunk(config.short_side, listed.split == "train")
    return dataset


def load_streets(config: DataConfig, split: str) -> SegmentationDataset:
    """One split of the built-in data, drawn on first use and kept under data_root/streets.

    Its digest is that of the pixels: what is drawn is what counts, not how the drawing code reads.
    """
    count, height, width = STREETS_COUNTS[split], config.image_height, config.image_width
    name = f"{split}-{count}-{width}x{height}-imbalance{config.imbalance:g}-drawing{streets.DRAWING}"
    if config.rare_classes != "hard":
        name += f"-rare-{config.rare_classes}"
    path = Path(config.data_root, "streets", f"{name}.npz")
    if not path.is_file():
        images, labels = streets.draw_split(split, count, height, width, config.imbalance, config.rare_classes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as unfinished:
                np.savez(unfinished, images=images, labels=labels)
        except OSError as error:
            raise DatasetError(f"parameter 'data_root': {path.parent} cannot be written ({error.strerror})") from None
    images, labels = _read_streets(path, (count, height, width))
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return SegmentationDataset("streets", split, streets.CLASSES, streets.PALETTE, count,
                               partial(_pair, images, labels), digest)


def _read_streets(path, shape):
    try:
        arrays = read_arrays(path)
        images, labels = arrays["images"], arrays["labels"]
        found, expected = (images.shape, labels.shape), ((*shape, 3), shape)
        if found != expected:
            raise ValueError(f"arrays of shapes {found}, expected {expected}")
    except (ValueError, KeyError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); delete it, and the scenes are drawn again") from None
    return images, labels


def _pair(images, labels, index):
    return images[index], labels[index]
