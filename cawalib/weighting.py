"""Class weights, static and adaptive, behind one face (METHOD.md sections 4 and 5).

A weighting has a buffer `weight` (C,) of mean 1 and an `update(feedback)` that may change it in every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.distributed
from torch import nn

from cawalib.cam import class_activation_maps, layer_activation_maps
from cawalib.config import RunConfig
from cawalib.datasets import IGNORE
from cawalib.datasets.statistics import ClassStatistics
from cawalib.scoring import (
    RunningScore,
    count,
    csps,
    prediction_masks,
    present_classes,
    pseudo_masks,
    score_labels,
)

# pixels of masks worked on at once, on a CPU and on a GPU
MASK_PIXELS = {False: 2**21, True: 2**26}


@dataclass
class Feedback:
    """What a training step knows before its loss is taken; all detached from the graph.

    Args:
        labels: (B, H, W) int64, 255 = ignore.
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

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", (weight / weight.mean()).float())
        self._recorded: list[torch.Tensor] = []

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
        return torch.stack(self._recorded) if self._recorded else torch.zeros(0, 4, len(self.weight))

    def set_extra_state(self, recorded: torch.Tensor) -> None:
        self._recorded = list(recorded.to(self.weight.device))

    def read_record(self) -> np.ndarray:
        """(updates, 4, C) float32: what was recorded since the last call."""
        recorded, self._recorded = self._recorded, []
        return torch.stack(recorded).cpu().numpy() if recorded else np.zeros((0, 4, len(self.weight)), np.float32)


# ---------------------------------------------------------------- static: from class counts

def static_weight(name: str, statistics: ClassStatistics) -> torch.Tensor:
    """Class weights (C,) of mean 1 from the counts of the training split.

    - uniform: 1.
    - inverse_frequency: 1 / p, p the class's share of the pixels.
    - inverse_sqrt: 1 / sqrt(p).
    - median_frequency: median(f) / f, f = pixels of the class over the pixels of the images that hold it
      (Eigen and Fergus 2015, as in SegNet).

    A class that does not occur in training has no frequency; it gets the mean of the others, and it never
    enters a loss.
    """
    pixels = torch.as_tensor(statistics.pixels, dtype=torch.float64)
    occurs = pixels > 0
    frequency = pixels / pixels.sum()
    where_present = pixels / torch.as_tensor(statistics.pixels_where_present, dtype=torch.float64).clamp_min(1)
    formulas = {
        "uniform": lambda: torch.ones_like(pixels),
        "inverse_frequency": lambda: 1 / frequency,
        "inverse_sqrt": lambda: frequency.rsqrt(),
        "median_frequency": lambda: torch.quantile(where_present[occurs], 0.5) / where_present,
    }
    weight = formulas[name]()
    weight = torch.where(occurs, weight, weight[occurs].mean())
    return (weight / weight.mean()).float()


def static_weight_table(statistics: ClassStatistics) -> pd.DataFrame:
    """Every static weighting side by side, most frequent class first; weights of mean 1."""
    names = ("uniform", "inverse_frequency", "inverse_sqrt", "median_frequency")
    table = pd.DataFrame({name: static_weight(name, statistics).numpy() for name in names}, index=statistics.classes)
    return table.iloc[np.argsort(-statistics.pixels, kind="stable")].round(3)


# ---------------------------------------------------------------- adaptive: from predictions

class RecallWeighting(Weighting):
    """Recall loss (Tian 2021): a class weighs its share of missed pixels, FN_c / N_c, in the present batch.

    As in the authors' code, both counts are at least 1, so that no class drops out of the loss altogether.
    A class that is absent from the batch has no pixel to weigh.
    """

    adaptive = True

    def __init__(self, num_classes: int):
        super().__init__(torch.ones(num_classes))

    @torch.no_grad()
    def update(self, feedback: Feedback) -> None:
        labels = feedback.labels.flatten()
        missed = (feedback.logits.argmax(dim=1) != feedback.labels).flatten()
        counts = torch.zeros(2, IGNORE + 1, dtype=torch.int64, device=labels.device)
        counts[0].scatter_add_(0, labels, missed.long())
        counts[1].scatter_add_(0, labels, torch.ones_like(labels))
        missed, total = _sum_over_processes(counts[:, :len(self.weight)].float()).clamp_min(1)
        self.weight.copy_(missed / total / (missed / total).mean())


# ---------------------------------------------------------------- adaptive: CAWA

def basic_weight(score: torch.Tensor) -> torch.Tensor:
    """BW = 1 + (1 - S): how far each class is from perfect. S (C,) in [0, 1] -> (C,) in [1, 2]."""
    return 2 - score


def ratio_weight(score: torch.Tensor) -> torch.Tensor:
    """RW = mean(S) / S, clipped to [1/8, 8]: how far each class lags behind the others. (C,) -> (C,)."""
    tiny = 1e-12  # all scores zero: nobody lags behind, RW = 1
    return (score.mean().clamp_min(tiny) / score.clamp_min(tiny)).clamp(1 / 8, 8)


def cawa_weight(score: torch.Tensor, terms: str = "basic*ratio") -> torch.Tensor:
    """w = BW * RW over its mean (METHOD.md section 4); `terms` leaves one factor out, or both."""
    factors = {"basic*ratio": basic_weight(score) * ratio_weight(score), "basic": basic_weight(score),
               "ratio": ratio_weight(score), "neither": torch.ones_like(score)}
    return factors[terms] / factors[terms].mean()


def weight_table(classes, score: torch.Tensor, terms: str = "basic*ratio") -> pd.DataFrame:
    """Score, BW, RW and weight per class, for reading; score (C,) in [0, 1]."""
    columns = {"score S": score, "Basic Weight": basic_weight(score), "Ratio Weight": ratio_weight(score),
               "weight w": cawa_weight(score, terms)}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=list(classes)).round(3)


class CAWAWeighting(Weighting):
    """Adaptive class weights driven by class activation maps. Every choice the abstract leaves open is an option.

    Args:
        num_classes: C.
        threshold: tau of the pseudo masks, in (0, 1).
        parts: what CSPS is the mean of.
        momentum: m of the running score.
        stride: labels are scored at 1/stride of their resolution.
        absent_images: "count" or "skip", see `scoring.count`.
        max_images: at most so many images of a batch are looked at.
        layer: "decoder" for the features a step gives; else the name of a module of the network's body.
        kind: of the maps: "grad_cam" | "hires_cam" | "layer_cam".
        source: "cam" | "prediction" | "shuffled"; shuffled gives every class the score of another one, the same
            one all through training: a control that has the right weights in the wrong places.
        terms: "basic*ratio" | "basic" | "ratio" | "neither".
        seed: of the shuffling.
    """

    adaptive = True

    def __init__(self, num_classes: int, *, threshold: float = 0.5,
                 parts: tuple[str, ...] = ("iou", "dice", "precision", "recall"), momentum: float = 0.95,
                 stride: int = 2, absent_images: str = "count", max_images: int = 8, layer: str = "decoder",
                 kind: str = "grad_cam", source: str = "cam", terms: str = "basic*ratio", seed: int = 0):
        super().__init__(torch.ones(num_classes))
        self.threshold, self.parts, self.stride, self.absent_images = threshold, parts, stride, absent_images
        self.max_images, self.layer, self.kind, self.source, self.terms = max_images, layer, kind, source, terms
        self.running = RunningScore(num_classes, momentum)
        order = derangement(num_classes, seed) if source == "shuffled" else torch.arange(num_classes)
        self.register_buffer("order", order)

    @torch.no_grad()
    def update(self, feedback: Feedback) -> None:
        counts = _sum_over_processes(self.count(feedback))
        # TP + FN: the class has labelled pixels on the score grid
        present = counts[:, 0] + counts[:, 2] > 0
        self.running.update(csps(counts, self.parts), present)
        self.weight.copy_(cawa_weight(self.score(), self.terms))

    def count(self, feedback: Feedback) -> torch.Tensor:
        """TP, FP, FN (C, 3) of this step's masks on the score grid."""
        labels = score_labels(feedback.labels[:self.max_images], self.stride)
        classes = self._asked(labels)
        counts = torch.zeros(len(self.weight), 3, device=labels.device)
        if not len(classes):
            return counts
        # some images at a time: the masks of all of them would take memory, and on a CPU leave its cache
        at_once = max(1, MASK_PIXELS[labels.is_cuda] // (len(classes) * labels[0].numel()))
        for start in range(0, len(labels), at_once):
            part = slice(start, min(start + at_once, len(labels)))
            masks = self._masks(feedback, part, classes, labels.shape[-2:])
            counts += count(masks, labels[part], classes, len(self.weight), self.absent_images)
        return counts

    def _masks(self, feedback, part, classes, size):
        """Masks (b, P, *size) of some images."""
        if self.source == "prediction":
            return prediction_masks(feedback.logits[part], classes, self.stride)
        if self.layer == "decoder":
            maps = class_activation_maps(feedback.features[part], feedback.head, classes, kind=self.kind)
        else:
            maps = layer_activation_maps(feedback.model, self.layer, feedback.images[part], classes, kind=self.kind)
        return pseudo_masks(maps, self.threshold, size)

    def _asked(self, labels):
        """The classes to look at (P,): those in the labels of any process, since an image counts for a class that
        only another process has.

        On a GPU all of them: their number would have to be waited for. What is absent is not scored either way.
        """
        if labels.is_cuda and (self.source == "prediction" or self.layer == "decoder"):
            return torch.arange(len(self.weight), device=labels.device)
        present = torch.zeros_like(self.weight)
        present[present_classes(labels)] = 1
        return _sum_over_processes(present).nonzero()[:, 0]

    def score(self) -> torch.Tensor:
        """S (C,) as the weights use it."""
        return self.running.value()[self.order]

    def state(self) -> torch.Tensor:
        score = self.score()
        return torch.stack([score, basic_weight(score), ratio_weight(score), self.weight])


def derangement(count: int, seed: int) -> torch.Tensor:
    """A permutation (count,) that leaves nothing in its place; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        if count < 2 or (order != torch.arange(count)).all():
            return order


def _sum_over_processes(tensor):
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor


# ---------------------------------------------------------------- by name

def build_weighting(config: RunConfig, statistics: ClassStatistics, frozen: torch.Tensor | None = None) -> Weighting:
    """The weighting a run asks for.

    Args:
        frozen: (C,) the weights to keep, for score_source "frozen".
    """
    num_classes = len(statistics.classes)
    if config.weighting == "recall":
        return RecallWeighting(num_classes)
    if config.weighting != "cawa":
        return Weighting(static_weight(config.weighting, statistics))
    if config.score_source == "frozen":
        return Weighting(frozen)
    return CAWAWeighting(
        num_classes, threshold=config.pseudo_mask_threshold, parts=tuple(config.score_parts.split(",")),
        momentum=config.score_momentum, stride=config.score_stride, absent_images=config.absent_images,
        max_images=config.feedback_images, layer=config.target_layer, kind=config.cam_kind,
        source=config.score_source, terms=config.weight_terms, seed=config.seed)
