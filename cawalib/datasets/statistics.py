"""How often each class occurs: the long tail that every class weighting answers to. Training split only.

All of it comes from one pass over a split, the survey, which also is its verification: every image and every label
file is read once. For data too large for memory, it is kept under the digest of what the files hold, so that the next
run starts at once.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cawalib.datasets.base import DatasetError, SegmentationDataset, UnknownLabels
from cawalib.datasets.processes import in_processes
from cawalib.files import content_sum, plain, write_json
from cawalib.progress import progress


@dataclass(frozen=True)
class ClassStatistics:
    """Counts per class over a split; arrays (C,) int64.

    Args:
        classes: names.
        pixels: pixels of the class.
        images: images that hold the class.
        pixels_where_present: labelled pixels, of any class, of the images that hold the class.
        size: number of images.
    """

    classes: tuple[str, ...]
    pixels: np.ndarray
    images: np.ndarray
    pixels_where_present: np.ndarray
    size: int

    @property
    def groups(self) -> dict[str, dict[str, list[str]]]:
        """Head, body and tail: thirds of the classes by training pixels, and by training images."""
        return {"pixels": _thirds(self.classes, self.pixels), "images": _thirds(self.classes, self.images)}

    def table(self) -> pd.DataFrame:
        """Counts, shares and groups per class, most pixels first."""
        group_of = {by: {name: group for group, names in groups.items() for name in names}
                    for by, groups in self.groups.items()}
        table = pd.DataFrame({
            "pixels": self.pixels, "share of pixels (%)": (100 * self.pixels / max(self.pixels.sum(), 1)).round(4),
            "images": self.images, "share of images (%)": (100 * self.images / max(self.size, 1)).round(1),
            "group by pixels": [group_of["pixels"][name] for name in self.classes],
            "group by images": [group_of["images"][name] for name in self.classes],
        }, index=pd.Index(self.classes, name="class"))
        return table.iloc[np.argsort(-self.pixels, kind="stable")]


def class_statistics(dataset: SegmentationDataset) -> ClassStatistics:
    """Class counts of a dataset, which should be a training split; from its survey, made now if there is none."""
    return (dataset.survey or survey(dataset)).statistics


def _thirds(classes, counts):
    # a stable sort: equal counts keep the order of the class ids
    order = np.argsort(-counts, kind="stable")
    return {name: [classes[index] for index in part]
            for name, part in zip(("head", "body", "tail"), np.array_split(order, 3), strict=True)}


# ---------------------------------------------------------------- one pass over a split

@dataclass(frozen=True)
class Survey:
    """What one pass over all pairs of a split finds.

    Args:
        statistics: class counts.
        together: (C, C) int64, images that hold both classes; its diagonal is `statistics.images`.
        sizes: "WIDTHxHEIGHT" -> images of that size.
        all_pixels: pixels of all labels, void ones too.
    """

    statistics: ClassStatistics
    together: np.ndarray
    sizes: dict[str, int]
    all_pixels: int

    @property
    def void_share(self) -> float:
        """Share of the pixels that are void, in [0, 1]."""
        return 1 - int(self.statistics.pixels.sum()) / max(self.all_pixels, 1)


def survey(dataset: SegmentationDataset, folder=None, workers: int = 0) -> Survey:
    """Read every pair of a dataset once: verify it and count its classes.

    Args:
        folder: where the result is kept, under the dataset's digest, and found again; None: nowhere. A dataset
            small enough for memory is not kept there: every run reads it whole anyway.
        workers: processes that read; 0 or 1: this one. A small dataset is always counted by this one.

    Raises:
        DatasetError: a pair that cannot be used, the first one by name and how many there are; or the label
            values that are no class, counted over all files.
    """
    path = survey_path(dataset, folder) if folder and not dataset.small else None
    if path and path.is_file():
        return _read(path, dataset)
    if path:
        _check_folder(path.parent)
    result = _add_up(dataset, workers)
    if path:
        _write(path, dataset, result)
    return result


def _check_folder(folder):
    # before all pairs are read, not after
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission")
    except OSError as error:
        raise DatasetError(f"parameter 'prepared_root': {folder} cannot be written ({error.strerror}); choose another "
                           "folder") from None


def survey_path(dataset: SegmentationDataset, folder) -> Path:
    """The file that keeps the survey of a dataset."""
    return Path(folder, dataset.name, f"{dataset.split}-{dataset.digest[:16]}.json")


def _add_up(dataset, workers):
    num_classes = len(dataset.classes)
    pixels, images, where_present = np.zeros((3, num_classes), dtype=np.int64)
    together = np.zeros((num_classes, num_classes), dtype=np.int64)
    sizes, all_pixels, problems = Counter(), 0, []
    for found in progress(_each(dataset, workers), len(dataset), f"reading {dataset.name} {dataset.split}"):
        if isinstance(found, DatasetError):
            problems.append(found)
            continue
        counts, size = found
        present = counts > 0
        pixels += counts
        images += present
        where_present += np.where(present, counts.sum(), 0)
        together += np.outer(present, present)
        sizes[f"{size[1]}x{size[0]}"] += 1
        all_pixels += size[0] * size[1]
    _refuse(dataset, problems)
    if len(dataset) and not pixels.any():
        raise DatasetError(f"{dataset.name}, split '{dataset.split}': found no pixel of a class, all {all_pixels} are "
                           "void; expected masks that name some; see what the class table makes of their values")
    statistics = ClassStatistics(dataset.classes, pixels, images, where_present, len(dataset))
    return Survey(statistics, together, dict(sizes.most_common()), all_pixels)


def _each(dataset, workers):
    count = partial(_count, dataset)
    if workers < 2 or dataset.small:
        yield from map(count, range(len(dataset)))
        return
    yield from in_processes(count, range(len(dataset)), workers, max(1, min(64, len(dataset) // (4 * workers))))


def _count(dataset, index):
    """Pixels per class (C,) and size (H, W) of one pair; or what is wrong with it, for all to be told at the end."""
    try:
        labels = dataset[index][1]
    except DatasetError as error:
        return error
    return np.bincount(labels.ravel(), minlength=256)[:len(dataset.classes)], labels.shape


def _refuse(dataset, problems):
    """Raise what is wrong with a dataset, if anything is."""
    unknown = [problem for problem in problems if isinstance(problem, UnknownLabels)]
    more = f"; {len(problems) - 1} more files of this split cannot be used" if len(problems) > 1 else ""
    if problems and len(unknown) < len(problems):
        raise DatasetError(f"{next(p for p in problems if p not in unknown)}{more}")
    if len(unknown) == 1:
        raise unknown[0]
    if unknown:
        pixels, files = Counter(), Counter()
        for problem in unknown:
            pixels.update(problem.counts)
            files.update(problem.counts.keys())
        shown = ", ".join(f"{value} ({pixels[value]} pixels in {files[value]} files)"
                          for value, _ in pixels.most_common(10))
        rest = f" and {len(pixels) - 10} more" if len(pixels) > 10 else ""
        raise DatasetError(f"{dataset.name}, split '{dataset.split}': found label values {shown}{rest}, first in "
                           f"{unknown[0].path}; expected {unknown[0].expected}")


def _write(path, dataset, result):
    try:
        kept = plain({
            "digest": dataset.digest, "classes": dataset.classes, "size": len(dataset),
            "pixels": result.statistics.pixels, "images": result.statistics.images,
            "pixels_where_present": result.statistics.pixels_where_present, "together": result.together,
            "sizes": result.sizes, "all_pixels": result.all_pixels})
        write_json(path, kept | {"checksum": content_sum(kept)})
    except OSError as error:
        raise DatasetError(f"parameter 'prepared_root': {path} cannot be written ({error.strerror})") from None


def _read(path, dataset):
    """The kept survey."""
    try:
        kept = json.loads(path.read_text())
        if kept.pop("checksum") != content_sum(kept):
            raise ValueError("it is not what was written")
        if kept["digest"] != dataset.digest or kept["classes"] != list(dataset.classes):
            raise ValueError("it is of other data")
        statistics = ClassStatistics(dataset.classes, *(np.array(kept[name], dtype=np.int64) for name in (
            "pixels", "images", "pixels_where_present")), kept["size"])
        return Survey(statistics, np.array(kept["together"], dtype=np.int64), kept["sizes"], kept["all_pixels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); delete it, and the data are counted again") from None


def split_table(splits: dict[str, SegmentationDataset]) -> pd.DataFrame:
    """Pairs, image sizes and share of void pixels of each split, from their surveys."""
    rows = []
    for split, dataset in splits.items():
        found = dataset.survey or survey(dataset)
        sizes = [*list(found.sizes)[:3], *(["..."] if len(found.sizes) > 3 else [])]
        rows.append({"split": split, "pairs": len(dataset), "size": ", ".join(sizes),
                     "void (%)": round(100 * found.void_share, 2)})
    return pd.DataFrame(rows).set_index("split")
