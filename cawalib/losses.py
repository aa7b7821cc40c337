"""Losses under one contract: weights of mean 1, divided by the weight of the valid pixels (METHOD.md section 5)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from cawalib.config import RunConfig
from cawalib.datasets import IGNORE
from cawalib.weighting import CAWAWeighting, Feedback, Weighting


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum w[y] CE / sum w[y] over valid pixels: PyTorch's weighted mean, but 0 for a batch without any.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64, 255 = ignore.
        weight: (C,); it carries no gradient.
    """
    weight = weight.detach()
    total = functional.cross_entropy(logits.float(), labels, weight, ignore_index=IGNORE, reduction="sum")
    valid = labels != IGNORE
    return total / (weight[labels.where(valid, 0)] * valid).sum().clamp_min(1e-12)


def focal(logits: torch.Tensor, labels: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss (Lin 2017) on the softmax: the mean of (1 - p)^gamma * -log p over valid pixels.

    Own code, since the ones at hand (torchvision, segmentation-models-pytorch) take a sigmoid per class, which
    is another model than the softmax of all other methods here.
    """
    entropy = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    # clamped: the gradient of 0 ** gamma is infinite for gamma < 1
    missing = (-torch.expm1(-entropy)).clamp_min(1e-12)
    return (missing**gamma * entropy * valid).sum() / valid.sum().clamp_min(1)


class Criterion(nn.Module):
    """A weighting and a loss: what a method is. Call `update(feedback)`, then the criterion itself."""

    def __init__(self, config: RunConfig, weighting: Weighting):
        super().__init__()
        self.weighting = weighting
        self.loss, self.gamma = config.loss, config.focal_gamma

    def update(self, feedback: Feedback) -> None:
        self.weighting.update(feedback)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, H, W), labels (B, H, W) -> scalar."""
        if self.loss == "focal":
            return focal(logits, labels, self.gamma)
        return cross_entropy(logits, labels, self.weighting.weight)


class CAWALoss(nn.Module):
    """CAWA as a drop-in criterion for anybody's training loop.

        criterion = CAWALoss(num_classes=19)
        features = backbone(images)                      # the input of the last classifier
        logits = upsample(classifier(features))
        criterion.update(features, labels, classifier)   # feedback from the class activation maps
        loss = criterion(logits, labels)

    Args:
        num_classes: C.
        options: those of `weighting.CAWAWeighting`.
    """

    def __init__(self, num_classes: int, **options):
        super().__init__()
        self.weighting = CAWAWeighting(num_classes, **options)

    def update(self, features: torch.Tensor, labels: torch.Tensor, head: nn.Module,
               logits: torch.Tensor | None = None) -> None:
        """Score this step's maps and move the weights.

        Args:
            features: (B, K, h, w), the input of `head`.
            labels: (B, H, W) int64, 255 = ignore.
            head: what turns features into logits (B, C, h', w').
            logits: (B, C, H, W), needed only for source "prediction".
        """
        logits = None if logits is None else logits.detach()
        self.weighting.update(Feedback(labels, logits, features.detach(), head))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, H, W), labels (B, H, W) -> scalar."""
        return cross_entropy(logits, labels, self.weighting.weight)
