"""Class activation maps of every asked class at once (METHOD.md section 1).

Grad-CAM (Selvaraju 2017), for segmentation as in Seg-Grad-CAM (Vinogradova 2020): with s the sum of class c's
logits over the image, alpha_k = mean over pixels of ds/dA_k and L = relu(sum_k alpha_k A_k). Only the head, the
part of the network behind A, is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional


def class_activation_maps(features: torch.Tensor, head: nn.Module | Callable, classes: torch.Tensor,
                          size: tuple[int, int] | None = None, closed_form: bool = True) -> torch.Tensor:
    """Grad-CAM of several classes for every image of a batch.

    Nothing is left behind: parameters, `.grad`, buffers, train/eval flags and the random state stay as they are.

    Args:
        features: A (B, K, h, w), the target layer; it is detached here.
        head: maps A to logits (B, C, h', w'). A module is run in evaluation mode.
        classes: (P,) int64, the classes to explain.
        size: (H, W) to bring the maps to, bilinear; None keeps (h, w).
        closed_form: use the closed form where the head is one convolution. The maps are the same.

    Returns:
        (B, P, h, w) or (B, P, H, W) float32 in [0, 1], scaled per image and class as pytorch-grad-cam does.
    """
    features = features.detach().float()
    with torch.autocast(features.device.type, enabled=False):  # in float32 also inside somebody's autocast
        if closed_form and is_affine(head):
            # the same for every image: the gradient of a convolution does not depend on its input
            alpha = closed_form_alpha(head, features.shape[-2:])[classes].expand(len(features), -1, -1)
        else:
            alpha = gradient_alpha(features, head, classes)
        maps = scale_maps(torch.einsum("bpk,bkhw->bphw", alpha, features).relu())
        return maps if size is None else scale_maps(resize_maps(maps, size))


def is_affine(head) -> bool:
    """Whether the head is one plain convolution, so that alpha is a constant of its weights."""
    return isinstance(head, nn.Conv2d) and head.groups == 1 and head.padding_mode == "zeros" \
        and not isinstance(head.padding, str)


@torch.no_grad()
def closed_form_alpha(head: nn.Conv2d, size: tuple[int, int]) -> torch.Tensor:
    """alpha (C, K) of an affine head without a backward pass.

    ds/dA_k[u, v] is the sum of the kernel's taps that reach (u, v). Its mean over (u, v) is therefore the sum of
    the taps, each times the share of output pixels for which it falls inside the image. For a 1x1 kernel that is
    the weight itself, and L = relu(z_c - bias_c) up to scale.
    """
    counts = [_taps_inside(length, head, axis) for axis, length in enumerate(size)]
    inside = torch.outer(*counts).to(head.weight) / (size[0] * size[1])
    return torch.einsum("ckij,ij->ck", head.weight.detach().float(), inside)


def _taps_inside(length, head, axis):
    kernel, stride = head.kernel_size[axis], head.stride[axis]
    padding, dilation = head.padding[axis], head.dilation[axis]
    outputs = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    reached = torch.arange(outputs)[None] * stride - padding + torch.arange(kernel)[:, None] * dilation
    return ((reached >= 0) & (reached < length)).sum(dim=1).float()


def gradient_alpha(features: torch.Tensor, head: nn.Module | Callable, classes: torch.Tensor) -> torch.Tensor:
    """alpha (B, P, K) by vector-Jacobian products over the head, one per class for the whole batch."""
    leaf = features.detach().requires_grad_()
    with evaluation_mode(head), torch.enable_grad():
        # images do not mix in evaluation mode, so one sum over the batch gives every image its own gradient
        sums = head(leaf).float().sum(dim=(0, 2, 3))
        gradients = [torch.autograd.grad(sums[index], leaf, retain_graph=True)[0].mean(dim=(2, 3))
                     for index in classes.tolist()]
    return torch.stack(gradients, dim=1)


def scale_maps(maps: torch.Tensor) -> torch.Tensor:
    """Maps (B, P, h, w) to [0, 1] per image and class: minus the minimum, over the maximum plus 1e-7."""
    maps = maps - maps.amin(dim=(2, 3), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(2, 3), keepdim=True))


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (B, P, h, w) to (B, P, H, W), bilinear without antialiasing, as OpenCV does it for pytorch-grad-cam."""
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


@contextmanager
def evaluation_mode(module):
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


def target_layer(model: nn.Module, name: str, images: torch.Tensor) -> tuple[torch.Tensor, Callable]:
    """A of any named module, and the head that leads from there to the logits.

    Args:
        model: the network; calling it on the images gives logits (B, C, H, W).
        name: a module's name as in `model.named_modules()`; its output must be one tensor (B, K, h, w).
        images: (B, 3, H, W).

    Returns:
        A (B, K, h, w) and the head, A -> logits: the network run again with A put in place of the module's output.

    Raises:
        ValueError: no module of that name, or its output is not one tensor (B, K, h, w).
    """
    module = find_layer(model, name)
    held = {}

    def run(hook):
        handle = module.register_forward_hook(hook)
        try:
            # parameters are detached, so that the graph holds only the way from A to the logits
            parameters = {key: value.detach() for key, value in model.named_parameters()}
            with evaluation_mode(model), torch.autocast(images.device.type, enabled=False):
                return torch.func.functional_call(model, parameters, (images,))
        finally:
            handle.remove()

    with torch.no_grad():
        # copies, since the next module may work in place
        run(lambda module, inputs, output: held.update(output=output.clone() if torch.is_tensor(output) else output))
    if not isinstance(held.get("output"), torch.Tensor) or held["output"].ndim != 4:
        raise ValueError(f"parameter 'target_layer': the output of module '{name}' is not one tensor (B, K, h, w); "
                         "choose another module")
    return held["output"], lambda features: run(lambda module, inputs, output: features.clone())


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        ValueError: there is none; the message names some that are.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        some = ", ".join([key for key in modules if key.count(".") == 1][:8])
        raise ValueError(f"parameter 'target_layer': found {name!r}, expected 'decoder' or a module such as {some}")
    return modules[name]
