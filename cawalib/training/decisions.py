"""What a trained network decides when its line between classes is moved, from the one pass that evaluates it.

METHOD.md, section 6: the curve argmax_c (z_c - alpha log w_c), a few decisions beside it, and how well probabilities at
the two ends of the curve are calibrated. `results.decisions` reads what is written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from cawalib.datasets import ClassStatistics
from cawalib.method import POINTS, fit_decision, static_weight
from cawalib.training.metrics import confusion_matrix

# of a network with weights of its own, as trained at 0; and of one without, moved by the inverse square root
OWN_ALPHAS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
BORROWED_ALPHAS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.5, 1.0)
CLASSES_AT_ONCE = 16
CALIBRATION_BINS = 15
CALIBRATION_STRIDE = 2  # probabilities take longer than all decisions: every second row and column will do


@dataclass
class Line:
    """How a trained network's decisions are to be moved.

    Args:
        weight: w (C,), what the line was drawn with in training; of a method without weights the inverse square root's.
        own: whether w is the network's own.
        others: name -> offset (C,) that is added to the logits, for decisions beside the curve.
        fitted: v (C,) of `fit_decision`, where it was asked for.
        ranked: whether RankSEG decides as well.
    """

    weight: torch.Tensor
    own: bool
    others: dict[str, torch.Tensor] = field(default_factory=dict)
    fitted: torch.Tensor | None = None
    ranked: bool = False

    @property
    def alphas(self) -> tuple[float, ...]:
        return OWN_ALPHAS if self.own else BORROWED_ALPHAS

    @property
    def posterior(self) -> torch.Tensor:
        """What is added to the logits for those of the posterior (C,)."""
        return -self.weight.log() if self.own else torch.zeros_like(self.weight)

    def offsets(self) -> torch.Tensor:
        """What is added to the logits for each point of the curve, then for the others, (K, C)."""
        curve = [-alpha * self.weight.log() for alpha in self.alphas]
        return torch.stack([*curve, *self.others.values()])

    def written(self) -> dict:
        """For metrics.json."""
        return {"weight": self.weight.tolist(), "own": self.own,
                "fitted": None if self.fitted is None else self.fitted.tolist()}


def line_of(costs: torch.Tensor | None, statistics: ClassStatistics, device, ranked: bool = False) -> Line:
    """The curve of a network.

    Args:
        costs: see `criterion.Criterion.costs`; None: a network without weights.
    """
    weight = static_weight("inverse_sqrt", statistics.pixels) if costs is None else costs
    return Line(weight.to(device), costs is not None, ranked=ranked)


def with_others(line: Line, model, batches, prior: torch.Tensor) -> Line:
    """Adds what needs no training at all: logit adjustment after training, and a line fitted to training images.

    Args:
        model: the network; batches: of the training split, as `method.fit_decision` takes them.
        prior: shares (C,) of the training pixels; 1 for a class that has none, which leaves it alone.
    """
    weight = line.weight if line.own else None
    fitted = fit_decision(model, batches, weight)
    line.fitted = fitted.line
    line.others = {"logit adjustment": line.posterior - prior.log(),  # Menon 2021, section 4.2, tau 1
                   "fitted": fitted.offset, "half fitted": fitted.softened().offset}
    return line


class Tally:
    """Counts, image by image, what a network decides; all in one pass.

    Args:
        line: None: as trained, and no more.
    """

    def __init__(self, line: Line | None, num_classes: int, device):
        self.line, self.num_classes = line, num_classes
        self.offsets = torch.zeros(1, num_classes, device=device) if line is None else line.offsets()
        self.trained = 0 if line is None else line.alphas.index(0)
        # alpha -> where probabilities are held against what is right
        ends = {} if line is None else {0: self.trained} | ({1: line.alphas.index(1)} if line.own else {})
        self.bins = {alpha: torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64) for alpha in ends}
        self.ends = ends
        kinds = len(self.offsets) + (line is not None and line.ranked)
        self.confusions = torch.zeros(kinds, num_classes, num_classes, dtype=torch.int64, device=device)

    def add(self, logits: torch.Tensor, truth: torch.Tensor) -> None:
        """Logits (C, h, w) of one image, its labels (H, W) on the same device."""
        chosen, best = decide(logits, truth.shape, self.offsets)
        for kind, classes in enumerate(chosen):
            self.confusions[kind] += confusion_matrix(classes, truth, self.num_classes)
        grid = (slice(None, None, CALIBRATION_STRIDE),) * 2
        for alpha, kind in self.ends.items():
            confidence = confidence_of(logits, truth.shape, self.offsets[kind], best[kind], grid)
            right, valid = (chosen[kind] == truth)[grid], (truth < self.num_classes)[grid]
            self.bins[alpha] += _binned(confidence, right, valid)
        if self.line is not None and self.line.ranked:
            self.confusions[-1] += confusion_matrix(_ranked(logits, truth.shape, self.line), truth, self.num_classes)

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) int64 of the network as trained."""
        return self.confusions[self.trained].cpu().numpy()

    def result(self) -> dict:
        """For metrics.json: hits and predicted pixels per class (C,) for each alpha and each other decision, the
        confusion matrices of the named points, and expected calibration errors in [0, 1] by alpha."""
        line, confusions = self.line, self.confusions.cpu().numpy()
        counts = [{"hits": np.diagonal(matrix), "predicted": matrix.sum(axis=0)} for matrix in confusions]
        curve = counts[:len(line.alphas)]
        others = [*line.others, *(["RankSEG"] if line.ranked else [])]
        return {
            "alphas": line.alphas, "hits": [count["hits"] for count in curve],
            "predicted": [count["predicted"] for count in curve],
            "points": {name: confusions[line.alphas.index(alpha)] for name, alpha in POINTS.items()
                       if alpha and line.own},
            "others": dict(zip(others, counts[len(curve):], strict=True)),
            "calibration_error": {str(alpha): _calibration_error(bins) for alpha, bins in self.bins.items()},
        }


def decide(logits: torch.Tensor, size: tuple[int, int], offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of logits (C, h, w) of one image at every pixel of (H, W), under several offsets (K, C).

    Returns:
        Classes (K, H, W) uint8, and the largest logit itself, with its offset (K, H, W) float32.
    """
    best = torch.empty(len(offsets), *size, device=logits.device)
    chosen = torch.empty(len(offsets), *size, dtype=torch.uint8, device=logits.device)
    for start, part in _in_parts(logits, size):
        for k, offset in enumerate(offsets[:, start:start + CLASSES_AT_ONCE]):
            values, indices = (part + offset[:, None, None]).max(dim=0)  # on a CPU several times as fast as argmax
            if start:
                better = values > best[k]
                values = torch.where(better, values, best[k])
                indices = torch.where(better, indices + start, chosen[k])
            best[k], chosen[k] = values, indices
    return chosen, best


def _in_parts(logits, size):
    """A few classes at a time: 150 of them at the size of a large photograph are gigabytes."""
    for start in range(0, len(logits), CLASSES_AT_ONCE):
        part = logits[start:start + CLASSES_AT_ONCE]
        if tuple(part.shape[-2:]) != tuple(size):
            part = functional.interpolate(part[None], size, mode="bilinear", align_corners=False)[0]
        yield start, part


def confidence_of(logits: torch.Tensor, size: tuple[int, int], offset: torch.Tensor, best: torch.Tensor,
                  grid: tuple[slice, slice]) -> torch.Tensor:
    """Probability of the chosen class, whose logit with its offset (C,) is `best` (H, W), on a grid of pixels."""
    parts = [(part[:, *grid] + offset[start:start + len(part), None, None]).logsumexp(dim=0)
             for start, part in _in_parts(logits, size)]
    return (best[grid] - torch.stack(parts).logsumexp(dim=0)).exp()


def _binned(confidence, right, valid):
    """Pixels, sum of confidences and right pixels by confidence, (3, bins) float64."""
    confidence, right = confidence[valid].double(), right[valid].double()
    place = (confidence * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
    parts = [torch.bincount(place, values, CALIBRATION_BINS) for values in (torch.ones_like(right), confidence, right)]
    return torch.stack(parts).cpu()


def _calibration_error(bins):
    """Expected calibration error (Guo 2017): mean over pixels of |confidence - accuracy| of their bin."""
    pixels, confidence, right = bins
    return float((confidence - right).abs().sum() / pixels.sum().clamp_min(1))


def _ranked(logits, size, line):
    """RankSEG (Dai and Li 2023; for one class a pixel, Wang and Dai 2025) on the posterior, for IoU: (H, W)."""
    from rankseg import RankSEG  # imported here: an optional package

    logits = torch.cat([part for _, part in _in_parts(logits, size)])
    probabilities = (logits + line.posterior[:, None, None]).softmax(dim=0)
    return RankSEG(metric="iou")(probabilities[None])[0]
