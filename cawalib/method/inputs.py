"""What people's training loops hold, brought to one form: logits of classes, and integer labels.

Everything is looked at before anything is changed, and refused in one line that names the argument, what was found and
what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a network gives.

    Args:
        output: a tensor, {"out": ...} as in torchvision, or an object with `.logits` as in Hugging Face's transformers.

    Raises:
        TypeError: something else.
    """
    if isinstance(output, Mapping) and "out" in output:
        output = output["out"]
    elif not torch.is_tensor(output) and torch.is_tensor(getattr(output, "logits", None)):
        output = output.logits
    if not torch.is_tensor(output):
        raise TypeError(f"output: found {type(output).__name__}, expected a tensor of logits, a dict with 'out', or an "
                        "object with .logits")
    return output


def main_logits(output: Any, num_classes: int) -> torch.Tensor:
    """The logits (B, C, h, w) or (B, C, d, h, w) of what a network gives.

    Args:
        output: see `logits_of`.
        num_classes: C.

    Raises:
        TypeError, ValueError: something else, or another number of channels than classes.
    """
    output = logits_of(output)
    if output.dim() not in (4, 5) or output.shape[1] != num_classes or not output.is_floating_point():
        raise ValueError(f"output: found {str(output.dtype)[6:]} of shape {tuple(output.shape)}, expected logits (B, "
                         f"{num_classes}, height, width) or (B, {num_classes}, depth, height, width)")
    return output


def class_labels(labels: torch.Tensor, num_classes: int, ignore_index: int, dimensions: int) -> torch.Tensor:
    """Labels as (B, H, W) or (B, D, H, W) int64 with `num_classes` for void, whatever void was.

    Args:
        labels: integers of any type, (B, H, W) or (B, 1, H, W), or one-hot (B, C, H, W) (integers, booleans or floats);
            volumes accordingly. With one class, 0 and 1 (then 2 is void).
        num_classes: C; 1: sigmoid.
        ignore_index: void; it may lie among the classes, and below 0.
        dimensions: of the logits, 4 or 5.

    Raises:
        TypeError, ValueError: no labels, another shape, floats that are not one-hot, or (on a CPU) a class that there
            is not.
    """
    if not torch.is_tensor(labels):
        raise TypeError(f"labels: found {type(labels).__name__}, expected a tensor of integers")
    classes = max(num_classes, 2)
    if labels.dim() == dimensions and labels.shape[1] == num_classes > 1:
        return _from_one_hot(labels, classes)
    if labels.dim() == dimensions and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != dimensions - 1:
        expected = "(B, height, width)" if dimensions == 4 else "(B, depth, height, width)"
        raise ValueError(f"labels: found shape {tuple(labels.shape)}, expected {expected}")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels: found {str(labels.dtype)[6:]}, expected integers; call .long() on them")
    labels = labels.long()
    void = labels == ignore_index
    wrong = ~void & ((labels < 0) | (labels >= classes))
    # on a GPU the host would have to wait: there the loss takes what it does not know for void
    if not labels.is_cuda and wrong.any():
        raise ValueError(f"labels: found {int(labels[wrong][0])}, expected 0 to {classes - 1}, or {ignore_index} for "
                         "void (ignore_index)")
    return torch.where(void | wrong, classes, labels)


def _from_one_hot(labels, classes):
    found = labels.sum(dim=1)
    if not labels.is_cuda and not (((labels == 0) | (labels == 1)).all() and (found <= 1).all()):
        raise ValueError("labels: found channels that are not one 1 among zeros, expected integers, or one-hot classes")
    return torch.where(found > 0, labels.max(dim=1).indices, classes)


def at_size(logits: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Logits brought to the labels' size, bilinear (volumes: trilinear)."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, size, mode="trilinear" if len(size) == 3 else "bilinear", align_corners=False)


def two_classes(logits: torch.Tensor) -> torch.Tensor:
    """Logits (B, 1, ...) of a sigmoid as those of a softmax over two classes, the second the sigmoid's."""
    return torch.cat([-logits / 2, logits / 2], dim=1)
