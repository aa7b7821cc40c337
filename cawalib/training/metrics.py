"""One confusion matrix over a whole split, and everything that is read off it (METHOD.md, Metrics)."""

from __future__ import annotations

import numpy as np
import torch

from cawalib.datasets import ClassStatistics


def confusion_matrix(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Pixels by true class (rows) and predicted class (columns), (C, C) int64; labels of 255 are left out."""
    pairs = labels.flatten().long() * num_classes + predicted.flatten()
    # a row for each of the 256 values a label may have, so that void needs no mask
    return torch.bincount(pairs, minlength=256 * num_classes).reshape(256, num_classes)[:num_classes]


def class_table(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """IoU, precision and recall per class, (C,) float64 in [0, 1]; NaN where the denominator is empty."""
    confusion = np.asarray(confusion, dtype=np.float64)
    hits, truth, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {"iou": hits / (truth + predicted - hits), "precision": hits / predicted, "recall": hits / truth}


def summary(confusion: np.ndarray, statistics: ClassStatistics) -> dict:
    """All metrics of a split, in [0, 1]. Means are over the classes that occur in its labels, whatever was predicted:
    the same classes for every network. The IoU of any other class is 0 where it was predicted, else NaN.
    """
    table, confusion = class_table(confusion), np.asarray(confusion)
    occurring = np.where(confusion.sum(axis=1) > 0, table["iou"], np.nan)
    iou = dict(zip(statistics.classes, occurring, strict=True))
    return {
        "miou": _mean(occurring),
        "mean_accuracy": _mean(table["recall"]),
        "pixel_accuracy": float(np.trace(confusion) / max(confusion.sum(), 1)),
        "group_miou": {by: {name: _mean([iou[member] for member in members]) for name, members in groups.items()}
                       for by, groups in statistics.groups.items()},
        **table,
        "confusion": confusion,
    }


def _mean(values):
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
