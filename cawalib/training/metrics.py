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


def class_table(hits, predicted, truth) -> dict[str, np.ndarray]:
    """IoU, precision and recall per class, (C,) float64 in [0, 1]; NaN where there is nothing to divide by.

    The IoU of a class that no label holds is NaN whatever was predicted, so that networks are averaged over the same.

    Args:
        hits, predicted, truth: pixels (C,) of each class that are right, that are predicted, that are labelled so.
    """
    hits, predicted, truth = (np.asarray(count, dtype=np.float64) for count in (hits, predicted, truth))
    with np.errstate(invalid="ignore"):
        iou = np.where(truth > 0, hits / (truth + predicted - hits), np.nan)
        return {"iou": iou, "precision": hits / predicted, "recall": hits / truth}


def summary(confusion: np.ndarray, statistics: ClassStatistics) -> dict:
    """All metrics of a split, see `counted`, and the confusion matrix (C, C) that they are from."""
    confusion = np.asarray(confusion)
    counts = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return counted(*counts, statistics) | {"confusion": confusion}


def counted(hits, predicted, truth, statistics: ClassStatistics) -> dict:
    """All metrics of a split, in [0, 1]; means are over the classes that occur in its labels.

    Args: see `class_table`.
    """
    table = class_table(hits, predicted, truth)
    iou = dict(zip(statistics.classes, table["iou"], strict=True))
    return {
        "miou": _mean(table["iou"]),
        "mean_accuracy": _mean(table["recall"]),
        "pixel_accuracy": float(np.sum(hits) / max(np.sum(truth), 1)),
        "group_miou": {by: {name: _mean([iou[member] for member in members]) for name, members in groups.items()}
                       for by, groups in statistics.groups.items()},
        **table,
    }


def _mean(values):
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
