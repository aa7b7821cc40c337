"""Adaptive class weights driven by class activation maps: Basic and Ratio Weight, and CAWA (METHOD.md section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from cawalib.method.cam import KINDS, class_activation_maps
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

# pixels of maps or masks worked on at once, on a CPU and on a GPU
MASK_PIXELS = {False: 2**21, True: 2**26}
PARTS = ("iou", "dice", "precision", "recall")
SOURCES = ("cam", "prediction", "both", "shuffled")
TERMS = ("basic*ratio", "basic", "ratio", "neither")


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
        num_classes: C, at least 2.
        pseudo_mask_threshold: tau of the pseudo masks, in (0, 1).
        score_parts: what CSPS is the mean of: a tuple, or one text with commas.
        score_momentum: m of the running score, in [0, 1).
        score_stride: labels are scored at 1/stride of their resolution.
        absent_images: "count" or "skip", see `scoring.count`.
        feedback_images: at most so many images of a batch are looked at.
        target_layer: "decoder" for the features a step gives; else the name of a module of the network's body.
        cam_kind: of the maps: "grad_cam" | "hires_cam" | "layer_cam".
        score_source: "cam" | "prediction" | "both" (the mean of the two scores) | "shuffled"; shuffled gives every
            class the score of another one, the same one all through training: a control that has the right weights in
            the wrong places.
        weight_terms: "basic*ratio" | "basic" | "ratio" | "neither".
        seed: of the shuffling.
        exclusive_masks: whether a pixel may be in one mask only.
        weight_power: exponent of the weights before they are divided by their mean.
        prior: (C,) weights that those from the scores are multiplied with; None: 1.
        warmup: updates that only gather scores.
        until: updates after which the weights go back to their start; None: never.
        ignore_index: label of void pixels, above all classes.

    Raises:
        ValueError: a value out of its range or not among the choices.
    """

    adaptive = True
    start: torch.Tensor
    updates: torch.Tensor
    order: torch.Tensor

    def __init__(self, num_classes: int, *, pseudo_mask_threshold: float = 0.5,
                 score_parts: str | tuple[str, ...] = PARTS, score_momentum: float = 0.95, score_stride: int = 2,
                 absent_images: str = "count", feedback_images: int = 8, target_layer: str = "decoder",
                 cam_kind: str = "grad_cam", score_source: str = "cam", weight_terms: str = "basic*ratio",
                 seed: int = 0, exclusive_masks: bool = False, weight_power: float = 1.0,
                 prior: torch.Tensor | None = None, warmup: int = 0, until: int | None = None, ignore_index: int = 255):
        parts = tuple(score_parts.split(",")) if isinstance(score_parts, str) else tuple(score_parts)
        for part in parts:
            in_choices("score_parts", part, PARTS)
        in_choices("absent_images", absent_images, ("count", "skip"))
        in_choices("cam_kind", cam_kind, KINDS)
        in_choices("score_source", score_source, SOURCES)
        in_choices("weight_terms", weight_terms, TERMS)
        in_range("num_classes", num_classes, 2)
        in_range("pseudo_mask_threshold", pseudo_mask_threshold, 0.001, 0.999)
        in_range("score_momentum", score_momentum, 0, 0.99999)
        in_range("score_stride", score_stride, 1)
        in_range("feedback_images", feedback_images, 1)
        in_range("weight_power", weight_power, 0.01, 10)
        super().__init__(torch.ones(num_classes, dtype=torch.float32) if prior is None else prior)
        self.exclusive, self.power, self.ignore_index = exclusive_masks, weight_power, ignore_index
        self.warmup, self.until = warmup, math.inf if until is None else until
        self.register_buffer("start", self.weight.clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.threshold, self.parts, self.stride = pseudo_mask_threshold, parts, score_stride
        self.absent_images, self.max_images, self.layer = absent_images, feedback_images, target_layer
        self.kind, self.source, self.terms = cam_kind, score_source, weight_terms
        self.running = RunningScore(num_classes, score_momentum)
        order = derangement(num_classes, seed) if score_source == "shuffled" else torch.arange(num_classes)
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
        counts = torch.zeros(len(self.weight), 3, dtype=torch.float32, device=labels.device)
        if not len(classes):
            return counts
        # some images at a time: the maps and masks of all of them would take memory, and on a CPU leave its cache
        maps = 0 if source == "prediction" or feedback.features is None else feedback.features[0, 0].numel()
        at_once = max(1, MASK_PIXELS[labels.is_cuda] // (len(classes) * max(maps, labels[0].numel())))
        for start in range(0, len(labels), at_once):
            part = slice(start, min(start + at_once, len(labels)))
            masks = self._masks(feedback, part, classes, labels.shape[1:], source)
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


def in_choices(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises ValueError unless an option is one of its choices."""
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")


def in_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises ValueError unless an option is a number from low to high."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
        raise ValueError(f"{name}: found {value!r}, expected a number, {expected}")


def derangement(count: int, seed: int) -> torch.Tensor:
    """A permutation (count,) that leaves nothing in its place; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        if count < 2 or (order != torch.arange(count)).all():
            return order
