"""Class activation maps of every asked class at once (METHOD.md section 1).

Grad-CAM (Selvaraju 2017), for segmentation as in Seg-Grad-CAM (Vinogradova 2020): with s the sum of class c's
logits over the image, alpha_k = mean over pixels of ds/dA_k and L = relu(sum_k alpha_k A_k). HiResCAM (Draelos 2020)
and LayerCAM (Jiang 2021) weigh every pixel by its own gradient. Only the
head is differentiated, and that comes down to less work than a backward pass:

1. s is taken before the logits are brought to the image's size: bilinear upsampling by a whole factor weighs every
   logit alike (`tests/test_cam.py`), so that all of s is multiplied by one number, which the scaling to [0, 1] drops.
2. Where the head is one convolution, its gradient is a constant of its weights.

Maps of layers deeper than the head's input are in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

KINDS = ("grad_cam", "hires_cam", "layer_cam")


def class_activation_maps(features: torch.Tensor, head: nn.Module | Callable, classes: torch.Tensor,
                          size: tuple[int, ...] | None = None, kind: str = "grad_cam",
                          closed_form: bool = True) -> torch.Tensor:
    """Maps of several classes for every image of a batch, from the input of the head.

    Nothing is left behind: parameters, `.grad`, buffers, train/eval flags and the random state stay as they are.

    Args:
        features: A (B, K, h, w), the target layer; it is detached here. Volumes, (B, K, d, h, w), have maps as well.
        head: maps A to logits (B, C, h', w'). A module is run in evaluation mode.
        classes: (P,) int64, the classes to explain.
        size: (H, W) to bring the maps to, bilinear; None keeps (h, w).
        kind: "grad_cam", "hires_cam" or "layer_cam".
        closed_form: use the closed form where the head is one convolution. The maps are the same.

    Returns:
        (B, P, h, w) or (B, P, H, W) float32 in [0, 1], scaled per image and class as pytorch-grad-cam does.
    """
    features = features.detach()
    with torch.autocast(features.device.type, enabled=False):  # in float32 also inside somebody's autocast
        features = features.float()
        if closed_form and is_affine(head) and (kind == "grad_cam" or _is_pointwise(head)):
            # the same for every image: the gradient of a convolution does not depend on its input
            weight = closed_form_alpha(head, features.shape[2:])[classes]
            weight = weight.relu() if kind == "layer_cam" else weight
            maps = (weight @ features.flatten(2)).relu_().unflatten(2, features.shape[2:])
        else:
            gradients = head_gradients(features, head, classes, closed_form)
            maps = weighted_sums(gradients, features, kind)
        return finished(maps, size)


def finished(maps: torch.Tensor, size: tuple[int, ...] | None) -> torch.Tensor:
    """Maps (B, P, h, w) scaled to [0, 1], and brought to a size if there is one, and then scaled again."""
    maps = scale_maps(maps)
    return maps if size is None else scale_maps(resize_maps(maps, size))


def weighted_sums(gradients: Iterable[torch.Tensor], features: torch.Tensor, kind: str) -> torch.Tensor:
    """relu(sum_k weight_k A_k) of every class (B, P, h, w); `gradients` yields ds/dA (1 or B, K, h, w) by class."""
    weigh = {"grad_cam": lambda gradient: gradient.mean(dim=_places(gradient), keepdim=True),
             "hires_cam": lambda gradient: gradient, "layer_cam": torch.relu}[kind]
    maps = [(weigh(gradient) * features).sum(dim=1).relu() for gradient in gradients]
    return torch.stack(maps, dim=1) if maps else features.new_zeros(len(features), 0, *features.shape[2:])


def head_gradients(features: torch.Tensor, head: nn.Module | Callable, classes: torch.Tensor,
                   closed_form: bool = True) -> Iterator[torch.Tensor]:
    """ds/dA at the head's input, class by class: (B, K, h, w), or (1, K, h, w) if it is alike for all images.

    All arguments are those of `class_activation_maps`.
    """
    if closed_form and is_affine(head):
        for index in classes.tolist():
            yield _spread(head, head.weight.detach().float()[[index]], features.shape[2:])
        return
    leaf = features.detach().requires_grad_()
    with evaluation_mode(head), torch.enable_grad():
        # images do not mix in evaluation mode, so one sum over the batch gives every image its own gradient
        logits = head(leaf.to(_precision(head, leaf))).float()
        sums = logits.sum(dim=(0, *_places(logits)))
    for one in functional.one_hot(classes, len(sums)).to(sums):
        yield torch.autograd.grad(sums, leaf, one, retain_graph=True)[0]


def _precision(head: nn.Module | Callable, features: torch.Tensor) -> torch.dtype:
    """The dtype in which a head computes: its parameters', where it is a module that has any."""
    parameters = head.parameters() if isinstance(head, nn.Module) else ()
    return next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), features.dtype)


def is_affine(head: nn.Module | Callable) -> TypeGuard[nn.Conv2d | nn.Conv3d]:
    """Whether the head is one plain convolution (of volumes, a 1x1x1 one): then alpha is a constant of its weights."""
    plain = isinstance(head, (nn.Conv2d, nn.Conv3d)) and head.groups == 1 and head.padding_mode == "zeros" \
        and not isinstance(head.padding, str)
    return plain and (isinstance(head, nn.Conv2d) or _is_pointwise(head))


def _is_pointwise(head):
    return set(head.kernel_size) | set(head.stride) == {1} and set(head.padding) == {0}


def _spread(head, weight, size):
    """ds/dA (1, K, h, w) of an affine head for the class with this weight (1, K, kh, kw)."""
    if _is_pointwise(head):
        return weight.expand(-1, -1, *size)
    outputs = [_outputs(length, head, axis) for axis, length in enumerate(size)]
    reached = [length + 2 * head.padding[axis] - head.dilation[axis] * (head.kernel_size[axis] - 1) - 1
               for axis, length in enumerate(size)]
    left_over = [length % head.stride[axis] for axis, length in enumerate(reached)]
    return functional.conv_transpose2d(weight.new_ones(1, 1, *outputs), weight, stride=head.stride,
                                       padding=head.padding, output_padding=left_over, dilation=head.dilation)


@torch.no_grad()
def closed_form_alpha(head: nn.Conv2d | nn.Conv3d, size: tuple[int, ...]) -> torch.Tensor:
    """alpha (C, K) of an affine head for all classes, without a backward pass.

    ds/dA_k[u, v] is the sum of the kernel's taps that reach (u, v). Its mean over (u, v) is therefore the sum of
    the taps, each times the share of output pixels for which it falls inside the image. For a 1x1 kernel that is
    the weight itself, and L = relu(z_c - bias_c) up to scale.
    """
    if _is_pointwise(head):
        return head.weight.detach().float().flatten(1)
    counts = [_taps_inside(length, head, axis) for axis, length in enumerate(size)]
    inside = torch.outer(*counts) / (size[0] * size[1])
    return torch.einsum("ckij,ij->ck", head.weight.detach().float(), inside)


def _outputs(length, head, axis):
    padding, dilation = head.padding[axis], head.dilation[axis]
    return (length + 2 * padding - dilation * (head.kernel_size[axis] - 1) - 1) // head.stride[axis] + 1


def _taps_inside(length, head, axis):
    """For each tap of the kernel along one axis, the number of output pixels for which it falls inside the image."""
    device = head.weight.device
    taps = torch.arange(head.kernel_size[axis], device=device)[:, None] * head.dilation[axis] - head.padding[axis]
    reached = torch.arange(_outputs(length, head, axis), device=device)[None] * head.stride[axis] + taps
    return ((reached >= 0) & (reached < length)).sum(dim=1).float()


def scale_maps(maps: torch.Tensor) -> torch.Tensor:
    """Maps (B, P, h, w) to [0, 1] per image and class: minus the minimum, over the maximum plus 1e-7."""
    maps = maps - maps.amin(dim=_places(maps), keepdim=True)
    return maps.div_(1e-7 + maps.amax(dim=_places(maps), keepdim=True))


def resize_maps(maps: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Maps (B, P, h, w) to (B, P, H, W), bilinear without antialiasing, as OpenCV does it for pytorch-grad-cam.

    Of volumes, (B, P, d, h, w), trilinear.
    """
    return functional.interpolate(maps, size, mode="trilinear" if len(size) == 3 else "bilinear", align_corners=False)


def _places(tensor):
    """The dimensions of a tensor (B, C, ...) behind its channels."""
    return tuple(range(2, tensor.dim()))


@contextmanager
def evaluation_mode(module: nn.Module | Callable) -> Iterator[None]:
    """Every submodule in evaluation mode; on exit each one has the flag that it had."""
    modules = list(module.modules()) if isinstance(module, nn.Module) else []
    flags = [child.training for child in modules]
    for child in modules:
        child.training = False
    try:
        yield
    finally:
        for child, flag in zip(modules, flags, strict=True):
            child.training = flag
