"""Where a weighted network draws the line between classes, apart from what it has learned (METHOD.md, section 6).

Trained with weights w, a network's softmax tends to w_c p_c / sum_k w_k p_k, p the posterior (Elkan 2001). So its
logits know the posterior, log p = z - log w, and every line between classes can be drawn after training::

    argmax_c ( z_c - log w_c + log v_c )        v: the cost of missing a pixel of class c

v = w is the network as trained, v = 1 the most likely class. None of it is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cawalib.method.cam import evaluation_mode
from cawalib.method.cawa import cawa_weight
from cawalib.method.inputs import logits_of
from cawalib.method.scoring import csps

# v = w ** (1 - alpha); fixed before anything was measured, so that nothing is tuned
POINTS = {"rare": 0.0, "balanced": 0.5, "accurate": 1.0}


class Decision(nn.Module):
    """argmax_c (z_c - log w_c + log v_c): classes from the logits of a finished network, which it need not know.

    Args:
        weight: w (C,), positive: the class weights the network was trained with; ones for plain cross entropy.
        line: v (C,), positive: where the line is drawn; None: ones. Of both only ratios matter.
    """

    weight: torch.Tensor
    line: torch.Tensor

    def __init__(self, weight: torch.Tensor, line: torch.Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", weight.detach().float())
        self.register_buffer("line", torch.ones_like(self.weight) if line is None else line.detach().float())

    @property
    def offset(self) -> torch.Tensor:
        """What is added to the logits, log v - log w (C,)."""
        return self.line.log() - self.weight.log()

    def forward(self, output: Any) -> torch.Tensor:
        """Logits (B, C, ...), or what holds them (`inputs.logits_of`) -> classes (B, ...) int64."""
        logits = logits_of(output)
        return (logits.float() + self.offset.view(-1, *[1] * (logits.dim() - 2))).max(dim=1).indices

    def softened(self, share: float = 0.5) -> Decision:
        """The same with a share of log v: half way between this line and the most likely class."""
        return Decision(self.weight, self.line**share)

    def fold_into(self, head: nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
        """Add the offset to the bias of a network's last classifier, so that its plain argmax is this decision.

        Upsampling after the classifier changes nothing: an offset is the same at every pixel. To be done once.

        Args:
            head: a convolution or a linear layer with C outputs, changed in place.

        Raises:
            ValueError: it has other outputs.
        """
        outputs = getattr(head, "out_channels", getattr(head, "out_features", None))
        if outputs != len(self.weight):
            raise ValueError(f"head: found {type(head).__name__} with {outputs} outputs, expected the last classifier, "
                             f"with {len(self.weight)}")
        offset = self.offset.to(head.weight)
        head.bias = nn.Parameter(offset if head.bias is None else head.bias.detach() + offset,
                                 requires_grad=head.weight.requires_grad)


def decision_at(weight: torch.Tensor, point: str | float = "balanced") -> Decision:
    """A point of the curve argmax_c (z_c - alpha log w_c) of a network that was trained with weights w (C,).

    Args:
        point: "rare" (alpha 0, as trained), "balanced" (1/2), "accurate" (1, the weights taken out), or alpha itself.

    Raises:
        ValueError: another name.
    """
    if isinstance(point, str):
        if point not in POINTS:
            raise ValueError(f"point: found {point!r}, expected one of {', '.join(POINTS)}, or a number")
        point = POINTS[point]
    return Decision(weight, weight ** (1 - point))


@torch.no_grad()
def fit_decision(model: nn.Module, batches: Iterable, weight: torch.Tensor | None = None, rounds: int = 8,
                 values: int = 2**27, ignore_index: int = 255) -> Decision:
    """A line for a finished network from one pass over its *training* images: no training, no validation labels.

    In each round v moves half way towards BW * RW of the Dice that the present line gives on these pixels, which is
    1/IoU up to the clipping (METHOD.md, section 4). That can run away: more weight, more false positives, a lower IoU,
    still more weight. So a step is taken only if mean IoU over these pixels does not fall, else halved, thrice at most;
    when none helps, the line stays.

    Args:
        model: images -> logits (B, C, h, w), or what holds them (`inputs.logits_of`); it is called in evaluation mode,
            and left in the mode it had.
        batches: anything with a length that gives pairs of images as the model takes them, best not augmented, and
            labels, (B, H, W) integers or a list of (H, W).
        weight: w (C,) the network was trained with, on the model's device; None: ones, as for plain cross entropy.
        rounds: of the iteration.
        values: at most so many logits are kept, 4 bytes each; of more, every second, third, ... row and column.
        ignore_index: label of the pixels that are left out.

    Returns:
        A Decision with the line that was found; classes that no label holds have the mean of the others' score.

    Raises:
        ValueError: no labelled pixel in the batches.
    """
    logits, labels = _gather(model, batches, values, ignore_index)
    weight = torch.ones(len(logits), device=logits.device) if weight is None else weight.float()
    line = torch.zeros_like(weight)  # log v
    counts = _counts(logits, labels, line - weight.log())
    for _ in range(rounds):
        goal = cawa_weight(_dice(counts)).log() - line
        for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16):
            tried = _counts(logits, labels, line + share * goal - weight.log())
            if _mean_iou(tried) >= _mean_iou(counts):
                line, counts = line + share * goal, tried
                break
        else:
            break
    return Decision(weight, (line - line.mean()).exp())


def _gather(model, batches, values, ignore_index):
    """Logits (C, N) float32 and labels (N,) of the labelled pixels on a grid that keeps at most `values` logits."""
    kept, truths, stride = [], [], 0
    with evaluation_mode(model):
        for images, labels in batches:
            for logits, truth in zip(logits_of(model(images)).float(), labels, strict=True):
                truth = truth.to(logits.device).long()
                # all images are taken to be about as large as the first
                stride = stride or _stride(len(batches) * len(labels) * len(logits), truth.shape, values)
                if logits.shape[-2:] != truth.shape:
                    logits = functional.interpolate(logits[None], truth.shape, mode="bilinear", align_corners=False)[0]
                truth = truth[::stride, ::stride]
                valid = truth != ignore_index
                kept.append(logits[:, ::stride, ::stride][:, valid])
                truths.append(truth[valid])
    if not sum(map(len, truths)):
        raise ValueError("batches: found no labelled pixel, expected images with labels other than "
                         f"ignore_index {ignore_index}")
    return torch.cat(kept, dim=1), torch.cat(truths)


def _stride(count, size, values):
    stride = 1
    while count * -(-size[0] // stride) * -(-size[1] // stride) > values:
        stride += 1
    return stride


def _counts(logits, labels, offset):
    """TP, FP, FN (C, 3) of the largest logit + offset."""
    chosen = (logits + offset[:, None]).max(dim=0).indices
    hits, claimed, truth = (torch.bincount(part, minlength=len(logits)).float()
                            for part in (labels[chosen == labels], chosen, labels))
    return torch.stack([hits, claimed - hits, truth - hits], dim=1)


def _occurs(counts):
    return counts[:, 0] + counts[:, 2] > 0


def _dice(counts):
    dice, occurs = csps(counts, ("dice",)), _occurs(counts)
    return torch.where(occurs, dice, dice[occurs].mean())


def _mean_iou(counts):
    return csps(counts, ("iou",))[_occurs(counts)].mean()
