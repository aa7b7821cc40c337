"""Class weights behind one face: from class counts and from predictions (METHOD.md, section 5 and Competitors).

A weighting has a buffer `weight` (C,) of mean 1 and an `update(feedback)` that may change it in every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from torch import nn


@dataclass
class Feedback:
    """What a training step knows before its loss is taken; all detached from the graph.

    Args:
        labels: (B, H, W) int64; void pixels hold the weighting's `ignore_index`, 255 by default.
        logits: (B, C, H, W).
        features: A (B, K, h, w), the last classifier's input.
        head: what follows A.
        model, images: needed only for a target layer other than A.
    """

    labels: torch.Tensor
    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None
    head: nn.Module | None = None
    model: nn.Module | None = None
    images: torch.Tensor | None = None


class Weighting(nn.Module):
    """Constant class weights; the base of those that change (`adaptive`).

    Args:
        weight: (C,) positive numbers; they are divided by their mean.
    """

    adaptive = False
    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", (weight / weight.mean()).float())
        self._recorded: list[torch.Tensor] = []

    @property
    def usual(self) -> torch.Tensor:
        """The weights (C,) that the network tends to, those at the end, but for weights that jump with each batch."""
        return self.weight

    def update(self, feedback: Feedback) -> None:
        """Change the weights after a step's forward pass. Constant weights stay."""

    def state(self) -> torch.Tensor:
        """(4, C): score, Basic Weight, Ratio Weight, weight; NaN for what this weighting does not have."""
        missing = torch.full_like(self.weight, float("nan"))
        return torch.stack([missing, missing, missing, self.weight])

    def record(self) -> None:
        """Remember the present state. It stays on the device, so that training does not wait for it."""
        self._recorded.append(self.state())

    def get_extra_state(self) -> torch.Tensor:
        """What is recorded goes into the state dict, so that a resumed run has all of it."""
        if not self._recorded:
            return torch.zeros(0, 4, len(self.weight), dtype=torch.float32)
        return torch.stack(self._recorded)

    def set_extra_state(self, recorded: torch.Tensor) -> None:
        self._recorded = list(recorded.to(self.weight.device))

    def read_record(self) -> np.ndarray:
        """(updates, 4, C) float32: what was recorded since the last call."""
        recorded, self._recorded = self._recorded, []
        return torch.stack(recorded).cpu().numpy() if recorded else np.zeros((0, 4, len(self.weight)), np.float32)


# ---------------------------------------------------------------- static: from class counts

STATIC = ("uniform", "inverse_frequency", "inverse_sqrt", "median_frequency", "enet", "effective_number")
Counts = np.ndarray | torch.Tensor | Sequence[float]


def static_weight(name: str, pixels: Counts, images: Counts | None = None, pixels_where_present: Counts | None = None,
                  beta: float = 0.9999) -> torch.Tensor:
    """Class weights (C,) of mean 1 from the counts of the training split.

    - uniform: 1.
    - inverse_frequency: 1 / p, p the class's share of the pixels.
    - inverse_sqrt: 1 / sqrt(p).
    - median_frequency: median(f) / f, f = pixels of the class over the pixels of the images that hold it
      (Eigen and Fergus 2015, as in SegNet).
    - enet: 1 / ln(1.02 + p) (Paszke 2016).
    - effective_number: (1 - beta) / (1 - beta^n), n = images that hold the class (Cui 2019). A sample is an image
      here: with n = pixels, millions of them, beta^n is 0 and all weights would be alike.

    A class that does not occur in training has no frequency; it gets the mean of the others, and it never
    enters a loss.

    Args:
        name: one of STATIC.
        pixels: (C,) pixels of each class.
        images: (C,) images that hold it; effective_number alone asks for them.
        pixels_where_present: (C,) labelled pixels, of any class, of these images; median_frequency alone asks for them.
        beta: of effective_number.

    Returns:
        (C,) float32 of mean 1.
    """
    pixels = torch.as_tensor(pixels, dtype=torch.float64)
    occurs = pixels > 0
    frequency = pixels / pixels.sum()
    formulas = {
        "uniform": lambda: torch.ones_like(pixels),
        "inverse_frequency": lambda: 1 / frequency,
        "inverse_sqrt": lambda: frequency.rsqrt(),
        "median_frequency": lambda: _median_frequency(pixels, pixels_where_present),
        "enet": lambda: 1 / torch.log(1.02 + frequency),
        "effective_number": lambda: (
            (1 - beta) / -torch.expm1(torch.as_tensor(images, dtype=torch.float64) * math.log(beta))),
    }
    weight = formulas[name]()
    weight = torch.where(occurs, weight, weight[occurs].mean())
    return (weight / weight.mean()).float()


def _median_frequency(pixels, pixels_where_present):
    share = pixels / torch.as_tensor(pixels_where_present, dtype=torch.float64).clamp_min(1)
    return torch.quantile(share[pixels > 0], 0.5) / share


# ---------------------------------------------------------------- adaptive: from predictions

class RecallWeighting(Weighting):
    """Recall loss (Tian 2021): a class weighs its share of missed pixels, FN_c / N_c, in the present batch.

    As in the authors' code, both counts are at least 1, so that no class drops out of the loss altogether.
    A class that is absent from the batch has no pixel to weigh.
    """

    adaptive = True
    running: torch.Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255):
        super().__init__(torch.ones(num_classes, dtype=torch.float32))
        self.ignore_index = ignore_index
        self.register_buffer("running", self.weight.clone())

    @property
    def usual(self) -> torch.Tensor:
        return self.running

    @torch.no_grad()
    def update(self, feedback: Feedback) -> None:
        missed, total = _missed_and_total(feedback, len(self.weight), self.ignore_index).clamp_min(1)
        self.weight.copy_(missed / total / (missed / total).mean())
        self.running.mul_(0.95).add_(self.weight, alpha=0.05)  # as smooth as CAWA's scores


class ClassDifficultyWeighting(Weighting):
    """Class-wise difficulty (CDB, Sinha 2020, equations 2 to 4): w = (1 - A_c)^tau, A_c the class's accuracy.

    The paper takes A_c from a balanced validation set after each epoch; here it is that of the training batches of the
    epoch before, since nothing is learned from the validation split. Weights are 1 in the first epoch. A class that did
    not occur keeps the accuracy it had, 0 at the start.

    Args:
        num_classes: C.
        updates: of an epoch.
        exponent: tau; 0: dynamic, 2 sigmoid(max A / (min A + 0.01) - 1), as the paper recommends.
    """

    adaptive = True
    counts: torch.Tensor
    accuracy: torch.Tensor
    batches: torch.Tensor

    def __init__(self, num_classes: int, updates: int, exponent: float = 0.0, ignore_index: int = 255):
        super().__init__(torch.ones(num_classes, dtype=torch.float32))
        self.updates, self.exponent, self.ignore_index = updates, exponent, ignore_index
        self.register_buffer("counts", torch.zeros(2, num_classes, dtype=torch.float64))
        self.register_buffer("accuracy", torch.zeros(num_classes, dtype=torch.float32))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, feedback: Feedback) -> None:
        # at the start of an epoch, from the one before; on the device, so that no step waits for it
        new = (self.batches > 0) & (self.batches % self.updates == 0)
        missed, total = self.counts
        measured = torch.where(total > 0, 1 - missed / total.clamp_min(1), self.accuracy).float()
        self.accuracy.copy_(torch.where(new, measured, self.accuracy))
        self.weight.copy_(torch.where(new, difficulty_weight(self.accuracy, self.exponent), self.weight))
        self.counts.mul_(~new).add_(_missed_and_total(feedback, len(self.weight), self.ignore_index))
        self.batches += 1


def difficulty_weight(accuracy: torch.Tensor, exponent: float = 0.0) -> torch.Tensor:
    """(1 - A)^tau over its mean; accuracy (C,) in [0, 1] -> (C,). See `ClassDifficultyWeighting`."""
    dynamic = 2 * torch.sigmoid(accuracy.max() / (accuracy.min() + 0.01) - 1)
    weight = (1 - accuracy).clamp_min(1e-6) ** (exponent or dynamic)
    return weight / weight.mean()


def _missed_and_total(feedback, num_classes, ignore_index):
    """Missed pixels and pixels of each class in the batch (2, C) float32, over all processes."""
    labels = feedback.labels.flatten()
    missed = (feedback.logits.max(dim=1).indices != feedback.labels).flatten()
    counts = torch.zeros(2, ignore_index + 1, dtype=torch.int64, device=labels.device)
    counts[0].scatter_add_(0, labels, missed.long())
    counts[1].scatter_add_(0, labels, torch.ones_like(labels))
    return sum_over_processes(counts[:, :num_classes].float())


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, added up in place over all processes of a distributed training."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor
