"""Losses under one contract: weights of mean 1, divided by the weight of the valid pixels (METHOD.md section 5)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from cawalib.method.cawa import CAWAWeighting
from cawalib.method.decision import Decision, decision_at
from cawalib.method.weighting import Feedback


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor,
                  ignore_index: int = 255) -> torch.Tensor:
    """sum w[y] CE / sum w[y] over valid pixels: PyTorch's weighted mean, but 0 for a batch without any.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        weight: (C,); it carries no gradient.
        ignore_index: label of the pixels that are left out.
    """
    weight = weight.detach()
    total = functional.cross_entropy(logits.float(), labels, weight, ignore_index=ignore_index, reduction="sum")
    valid = labels != ignore_index
    return total / (weight[labels.where(valid, 0)] * valid).sum().clamp_min(1e-12)


def focal(logits: torch.Tensor, labels: torch.Tensor, gamma: float = 2.0, ignore_index: int = 255) -> torch.Tensor:
    """Focal loss (Lin 2017) on the softmax: the mean of (1 - p)^gamma * -log p over valid pixels.

    Own code, since the ones at hand (torchvision, segmentation-models-pytorch) take a sigmoid per class, which
    is another model than the softmax of all other methods here.
    """
    entropy = functional.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="none")
    valid = labels != ignore_index
    # clamped: the gradient of 0 ** gamma is infinite for gamma < 1
    missing = (-torch.expm1(-entropy)).clamp_min(1e-12)
    return (missing**gamma * entropy * valid).sum() / valid.sum().clamp_min(1)


def ohem(logits: torch.Tensor, labels: torch.Tensor, threshold: float = 0.7, ignore_index: int = 255) -> torch.Tensor:
    """Online hard example mining (Shrivastava 2016; for pixels, Wu 2016): the mean of -log p over the hard pixels.

    Hard are valid pixels with p < threshold, and in any case the hardest sixteenth of all pixels. Own code, since
    torchvision and segmentation-models-pytorch have none.
    """
    entropy = functional.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="none").flatten()
    least = entropy.detach().topk(max(1, len(entropy) // 16)).values[-1].clamp_max(-math.log(threshold))
    hard = (entropy >= least) & (labels.flatten() != ignore_index)
    return (entropy * hard).sum() / hard.sum().clamp_min(1)


def adjusted(logits: torch.Tensor, prior: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """Logit adjustment (Menon 2021, equation 10): z_c + tau log p_c, in the loss alone; prior p (C,) sums to 1."""
    return logits.float() + tau * prior.log()[:, None, None]


def varied(logits: torch.Tensor, prior: torch.Tensor, sigma: float = 4.0) -> torch.Tensor:
    """Balanced logit variation (BLV, Wang 2023): z_c + |noise| c_c, noise N(0, sigma) cut at +-1, in the loss alone.

    c_c = log(1 / p_c) over its largest value: the rarer a class, the more noise. Prior p (C,) sums to 1.
    """
    scale = -prior.log()
    noise = (sigma * torch.randn_like(logits, dtype=torch.float32)).clamp(-1, 1).abs()
    return logits.float() + noise * (scale / scale.max())[:, None, None]


class CAWALoss(nn.Module):
    """CAWA as a drop-in criterion for anybody's training loop.

        criterion = CAWALoss(num_classes=19)
        features = backbone(images)                      # the input of the last classifier
        logits = upsample(classifier(features))
        criterion.update(features, labels, classifier)   # feedback from the class activation maps
        loss = criterion(logits, labels)

    After training, `criterion.decision("balanced")(logits)` gives the classes, at one of three points between rare
    classes and overall accuracy, see `decision.decision_at`.

    Args:
        num_classes: C.
        options: those of `cawa.CAWAWeighting`.
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
        return cross_entropy(logits, labels, self.weighting.weight, self.weighting.ignore_index)

    def decision(self, point: str | float = "balanced") -> Decision:
        """What turns logits into classes, with the present weights: "rare" as trained, "balanced", or "accurate"."""
        return decision_at(self.weighting.weight, point)
