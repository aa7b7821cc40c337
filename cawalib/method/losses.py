"""Losses under one contract: weights of mean 1, divided by the weight of the valid pixels (METHOD.md section 5)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor,
                  ignore_index: int = 255, label_smoothing: float = 0.0) -> torch.Tensor:
    """sum w[y] CE / sum w[y] over valid pixels: PyTorch's weighted mean, but 0 for a batch without any.

    Args:
        logits: (B, C, H, W); of volumes (B, C, D, H, W).
        labels: (B, H, W) int64; of volumes (B, D, H, W).
        weight: (C,); it carries no gradient.
        ignore_index: label of the pixels that are left out.
        label_smoothing: as PyTorch has it, in [0, 1].
    """
    weight = weight.detach()
    total = functional.cross_entropy(logits.float(), labels, weight, ignore_index=ignore_index, reduction="sum",
                                     label_smoothing=label_smoothing)
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
    """Logit adjustment (Menon 2021, equation 10): z_c + tau log p_c, in the loss alone; prior p (C,), positive."""
    return logits.float() + tau * prior.log()[:, None, None]


def varied(logits: torch.Tensor, prior: torch.Tensor, sigma: float = 4.0) -> torch.Tensor:
    """Balanced logit variation (BLV, Wang 2023): z_c + abs(noise) c_c, noise N(0, sigma) cut at +-1, in the loss alone.

    c_c = log(1 / p_c) over its largest value: the rarer a class, the more noise. Prior p (C,), positive.
    """
    scale = -prior.log()
    noise = (sigma * torch.randn_like(logits, dtype=torch.float32)).clamp(-1, 1).abs()
    return logits.float() + noise * (scale / scale.max())[:, None, None]
