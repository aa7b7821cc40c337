"""From class activation maps to one score per class: pseudo masks, counts, CSPS (METHOD.md sections 2 and 3)."""

from __future__ import annotations

import torch
from torch import nn

from cawalib.method.cam import resize_maps, scale_maps


def score_labels(labels: torch.Tensor, stride: int) -> torch.Tensor:
    """Labels (B, H, W) on the score grid, by nearest neighbour: every stride-th pixel."""
    return labels[(slice(None), *[slice(None, None, stride)] * (labels.dim() - 1))]


def present_classes(labels: torch.Tensor, ignore_index: int = 255) -> torch.Tensor:
    """The classes that occur in labels (any shape), sorted, (P,) int64; `ignore_index`, above all classes, is none."""
    return torch.bincount(labels.flatten(), minlength=ignore_index + 1)[:ignore_index].nonzero()[:, 0]


def pseudo_masks(maps: torch.Tensor, threshold: float = 0.5, size: tuple[int, int] | None = None,
                 exclusive: bool = False) -> torch.Tensor:
    """P = (L >= tau) at a given size; one pixel may be in several masks.

    Args:
        maps: (B, P, h, w) in [0, 1] as `cam.class_activation_maps` gives them.
        threshold: tau.
        size: (H, W), the score grid; None: that of the maps.
        exclusive: keep a pixel only in the mask of the class whose map, scaled to [0, 1], is largest there
            (one of them where two are equally large, as two peaks may be).

    Returns:
        (B, P, H, W) bool.
    """
    if exclusive:
        maps = maps if size is None else scale_maps(resize_maps(maps, size))
        largest = maps.max(dim=1, keepdim=True).indices
        index = torch.arange(maps.shape[1], device=maps.device).view(-1, *[1] * (maps.dim() - 2))
        return (largest == index) & (maps >= threshold)
    if size is None:
        return maps >= threshold
    if tuple(maps.shape[2:]) != tuple(size):
        maps = resize_maps(maps, size)
    places = tuple(range(2, maps.dim()))
    low, high = maps.amin(dim=places, keepdim=True), maps.amax(dim=places, keepdim=True)
    # scale_maps(maps) >= threshold, without writing the scaled maps down
    return maps >= low + threshold * (1e-7 + high - low)


def prediction_masks(logits: torch.Tensor, classes: torch.Tensor, stride: int) -> torch.Tensor:
    """Masks (B, P, h, w) of the predicted classes on the score grid: the rival source of the score."""
    grid = (slice(None), slice(None), *[slice(None, None, stride)] * (logits.dim() - 2))
    predicted = logits[grid].max(dim=1).indices  # on a CPU several times as fast as argmax
    return predicted[:, None] == classes.view(1, -1, *[1] * (logits.dim() - 2))


def count(masks: torch.Tensor, labels: torch.Tensor, classes: torch.Tensor, num_classes: int,
          absent_images: str = "count", ignore_index: int = 255) -> torch.Tensor:
    """True positives, false positives and false negatives of masks, over the batch.

    Args:
        masks: (B, P, h, w) bool, one mask per image and asked class.
        labels: (B, h, w); pixels of `ignore_index`, above all classes, are left out.
        classes: (P,) the asked classes.
        num_classes: C.
        absent_images: "count": every image counts for every asked class; "skip": only images that hold it.

    Returns:
        (C, 3) float32: TP, FP, FN; zeros for a class that was not asked.
    """
    places = torch.full((ignore_index + 1,), len(classes), device=labels.device)  # of every label among the asked ones
    places[classes] = torch.arange(len(classes), device=labels.device)
    places = places[labels]
    truth = _per_class(torch.ones_like(places, dtype=torch.float32), places, len(classes))
    # only the mask of a pixel's own class can make it a true positive
    own = masks.gather(1, places.clamp_max(len(classes) - 1)[:, None])[:, 0]
    true_positives = _per_class(own.float(), places, len(classes))
    # bytes are summed four times as fast as booleans
    positives = (masks & (labels != ignore_index)[:, None]).view(torch.uint8).flatten(2).sum(dim=2, dtype=torch.int32)
    parts = torch.stack([true_positives, positives - true_positives, truth - true_positives], dim=2)
    if absent_images == "skip":
        parts = parts * (truth > 0)[:, :, None]
    counts = torch.zeros(num_classes, 3, dtype=torch.float32, device=labels.device)
    counts[classes] = parts.sum(dim=0)
    return counts


def _per_class(values, places, num_classes):
    """Sums (B, P) of values (B, h, w) over the pixels of each place; pixels of place P are left out.

    Sums of ones are exact in float32 up to 16 million pixels an image, whatever their order.
    """
    sums = torch.zeros(len(values), num_classes + 1, dtype=values.dtype, device=values.device)
    return sums.scatter_add_(1, places.flatten(1), values.flatten(1))[:, :num_classes]


def csps(counts: torch.Tensor, parts: tuple[str, ...] = ("iou", "dice", "precision", "recall")) -> torch.Tensor:
    """Comprehensive Segmentation Performance Score: the mean of the parts, each in [0, 1].

    Args:
        counts: (..., 3) TP, FP, FN.
        parts: some of iou, dice, precision, recall. Which ones is our reading of the paper.

    Returns:
        (...) float32. A part whose denominator is zero, such as the precision of an empty mask, is 0.
    """
    true_positives, false_positives, false_negatives = counts.unbind(dim=-1)
    denominators = {
        "iou": true_positives + false_positives + false_negatives,
        "dice": true_positives + (false_positives + false_negatives) / 2,
        "precision": true_positives + false_positives,
        "recall": true_positives + false_negatives,
    }
    # where the denominator is zero, so is TP: any positive number in its place gives 0
    ratios = [true_positives / denominators[part].where(denominators[part] > 0, 1.0) for part in parts]
    return torch.stack(ratios).mean(dim=0)


class RunningScore(nn.Module):
    """S, the running CSPS of every class: an exponential mean over the updates in which the class was present.

    Args:
        num_classes: C.
        momentum: m in S = m S + (1 - m) CSPS. The first CSPS of a class is taken as it is.
    """

    score: torch.Tensor
    seen: torch.Tensor

    def __init__(self, num_classes: int, momentum: float = 0.95):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("score", torch.zeros(num_classes, dtype=torch.float32))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, score: torch.Tensor, present: torch.Tensor) -> None:
        """Take in one CSPS (C,); classes that are not present (C,) bool keep what they had."""
        moved = torch.where(self.seen, self.momentum * self.score + (1 - self.momentum) * score, score)
        self.score.copy_(torch.where(present, moved, self.score))
        self.seen.logical_or_(present)

    def value(self) -> torch.Tensor:
        """S (C,) in [0, 1]; a class not seen yet has the mean of the seen ones, 1 when none was seen."""
        seen = self.seen.float()
        mean = (self.score * seen).sum() / seen.sum().clamp_min(1)
        return torch.where(self.seen, self.score, torch.where(self.seen.any(), mean, torch.ones_like(mean)))
