"""How often each class occurs: the long tail that every class weighting answers to. Training split only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cawalib.datasets.base import IGNORE, SegmentationDataset


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


def split_table(splits: dict[str, SegmentationDataset]) -> pd.DataFrame:
    """Pairs, image sizes and share of void pixels of each split."""
    rows = []
    for split, dataset in splits.items():
        labels = [dataset[index][1] for index in range(len(dataset))]
        sizes = sorted({f"{one.shape[1]}x{one.shape[0]}" for one in labels})
        void = sum(int((one == IGNORE).sum()) for one in labels) / sum(one.size for one in labels)
        rows.append({"split": split, "pairs": len(dataset), "size": ", ".join(sizes[:3]),
                     "void (%)": round(100 * void, 2)})
    return pd.DataFrame(rows).set_index("split")


def class_statistics(dataset: SegmentationDataset) -> ClassStatistics:
    """Count the classes of a dataset, which should be a training split."""
    num_classes = len(dataset.classes)
    pixels, images, where_present = np.zeros((3, num_classes), dtype=np.int64)
    for index in range(len(dataset)):
        labels = dataset[index][1]
        counts = np.bincount(labels[labels != IGNORE], minlength=num_classes)
        pixels += counts
        images += counts > 0
        where_present += np.where(counts > 0, counts.sum(), 0)
    return ClassStatistics(dataset.classes, pixels, images, where_present, len(dataset))


def _thirds(classes, counts):
    # a stable sort: equal counts keep the order of the class ids
    order = np.argsort(-counts, kind="stable")
    return {name: [classes[index] for index in part]
            for name, part in zip(("head", "body", "tail"), np.array_split(order, 3), strict=True)}
