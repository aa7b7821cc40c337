"""Adaptive class weights driven by class activation maps: Basic and Ratio Weight, and CAWA (METHOD.md section 4)."""

from __future__ import annotations

import math

import torch

from cawalib.method.cam import class_activation_maps
from cawalib.method.layers import layer_activation_maps
from cawalib.method.scoring import (
    RunningScore,
    count,
    csps,
    prediction_masks,
    present_classes,
    pseudo_masks,
    score_labels,
)
from cawalib.method.weighting import Feedback, Weighting, sum_over_processes

# pixels of masks worked on at once, on a CPU and on a GPU
MASK_PIXELS = {False: 2**21, True: 2**26}


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
        source: "cam" | "prediction" | "both" (the mean of the two scores) | "shuffled"; shuffled gives every class the
            score of another one, the same one all through training: a control that has the right weights in the wrong
            places.
        terms: "basic*ratio" | "basic" | "ratio" | "neither".
        seed: of the shuffling.
        exclusive: whether a pixel may be in one mask only.
        power: exponent of the weights before they are divided by their mean.
        prior: (C,) weights that those from the scores are multiplied with; None: 1.
        warmup: updates that only gather scores.
        until: updates after which the weights go back to their start; None: never.
        ignore_index: label of void pixels, above all classes.
    """

    adaptive = True

    def __init__(self, num_classes: int, *, threshold: float = 0.5,
                 parts: tuple[str, ...] = ("iou", "dice", "precision", "recall"), momentum: float = 0.95,
                 stride: int = 2, absent_images: str = "count", max_images: int = 8, layer: str = "decoder",
                 kind: str = "grad_cam", source: str = "cam", terms: str = "basic*ratio", seed: int = 0,
                 exclusive: bool = False, power: float = 1.0, prior: torch.Tensor | None = None, warmup: int = 0,
                 until: int | None = None, ignore_index: int = 255):
        super().__init__(torch.ones(num_classes) if prior is None else prior)
        self.exclusive, self.power, self.ignore_index = exclusive, power, ignore_index
        self.warmup, self.until = warmup, math.inf if until is None else until
        self.register_buffer("start", self.weight.clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.threshold, self.parts, self.stride, self.absent_images = threshold, parts, stride, absent_images
        self.max_images, self.layer, self.kind, self.source, self.terms = max_images, layer, kind, source, terms
        self.running = RunningScore(num_classes, momentum)
        order = derangement(num_classes, seed) if source == "shuffled" else torch.arange(num_classes)
        self.register_buffer("order", order)

    @torch.no_grad()
    def update(self, feedback: Feedback) -> None:
        sources = ("cam", "prediction") if self.source == "both" else (self.source,)
        counts = sum_over_processes(torch.stack([self.count(feedback, source) for source in sources]))
        # TP + FN: the class has labelled pixels on the score grid
        present = counts[0, :, 0] + counts[0, :, 2] > 0
        self.running.update(csps(counts, self.parts).mean(dim=0), present)
        weight = cawa_weight(self.score(), self.terms) ** self.power * self.start
        adaptive = (self.updates >= self.warmup) & (self.updates < self.until)
        self.weight.copy_(torch.where(adaptive, weight / weight.mean(), self.start))
        self.updates += 1

    def count(self, feedback: Feedback, source: str = "") -> torch.Tensor:
        """TP, FP, FN (C, 3) of this step's masks on the score grid: of predictions, or of maps (all other sources)."""
        source = source or self.source
        labels = score_labels(feedback.labels[:self.max_images], self.stride)
        classes = self._asked(labels, source)
        counts = torch.zeros(len(self.weight), 3, device=labels.device)
        if not len(classes):
            return counts
        # some images at a time: the masks of all of them would take memory, and on a CPU leave its cache
        at_once = max(1, MASK_PIXELS[labels.is_cuda] // (len(classes) * labels[0].numel()))
        for start in range(0, len(labels), at_once):
            part = slice(start, min(start + at_once, len(labels)))
            masks = self._masks(feedback, part, classes, labels.shape[-2:], source)
            counts += count(masks, labels[part], classes, len(self.weight), self.absent_images, self.ignore_index)
        return counts

    def _masks(self, feedback, part, classes, size, source):
        """Masks (b, P, *size) of some images."""
        if source == "prediction":
            return prediction_masks(feedback.logits[part], classes, self.stride)
        if self.layer == "decoder":
            maps = class_activation_maps(feedback.features[part], feedback.head, classes, kind=self.kind)
        else:
            maps = layer_activation_maps(feedback.model, self.layer, feedback.images[part], classes, kind=self.kind)
        return pseudo_masks(maps, self.threshold, size, self.exclusive)

    def _asked(self, labels, source):
        """The classes to look at (P,): those in the labels of any process, since an image counts for a class that
        only another process has.

        On a GPU all of them: their number would have to be waited for. What is absent is not scored either way.
        """
        if labels.is_cuda and (source == "prediction" or self.layer == "decoder"):
            return torch.arange(len(self.weight), device=labels.device)
        present = torch.zeros_like(self.weight)
        present[present_classes(labels, self.ignore_index)] = 1
        return sum_over_processes(present).nonzero()[:, 0]

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
