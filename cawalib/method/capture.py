"""The last classifier of somebody's network, found by itself, and what goes into it, captured as the network runs."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn

CLASSIFIERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
# what may stand between a linear layer and the logits, as autograd's graph names it: nothing that mixes channels
MOVING = ("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Unflatten", "Squeeze", "Unsqueeze",
          "Clone", "ToCopy", "Alias", "UpsampleNearest2D", "UpsampleBilinear2D",
          "UpsampleBicubic2D", "UpsampleTrilinear3D", "_DDPSink")


class Capture:
    """Keeps the input of each layer that may be the last classifier, from the latest forward pass that trains.

    Which of them is, the first output that is given to `take` tells: from it back through the graph of autograd, the
    first of these layers that is met. An auxiliary head is not on that way.

    A linear layer, on tokens (B, N, K) or channels last (B, h, w, K), is given as the 1x1 convolution that it is.

    Args:
        heads: name -> layer; a forward hook is put on each.
        sure: that it is one of them. Otherwise nothing but reshaping and resizing may stand between a linear layer
            and the logits, since layers of that width are common elsewhere.
    """

    def __init__(self, heads: dict[str, nn.Module], sure: bool = False):
        self.heads, self.sure = heads, sure
        self.calls: dict[str, tuple] = {}  # name -> input, and the node of the output in the graph
        for name, head in heads.items():
            head.register_forward_hook(_Hook(self, name))

    def __getstate__(self) -> dict:
        return {"heads": self.heads, "calls": {}, "sure": self.sure}  # features are of one step, and are not stored

    def keep(self, name: str, features: torch.Tensor, output: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            self.calls[name] = features.detach(), output.grad_fn

    def take(self, output: torch.Tensor) -> tuple[torch.Tensor, nn.Module] | None:
        """The captured input of the classifier that led to an output, and the classifier; they are let go here.

        Returns:
            None where no forward pass was seen since the last call.

        Raises:
            ValueError: several of the layers fit, or a linear layer's tokens are no grid.
        """
        calls, self.calls = self.calls, {}
        if not calls:
            return None
        nodes = {node: name for name, (_, node) in calls.items()}
        names = list(calls) if len(calls) == 1 else _nearest(output.grad_fn, nodes) or list(calls)
        if len(names) != 1:
            raise ValueError(f"model: found {len(names)} layers that may be the last classifier ({', '.join(names)}), "
                             "expected one; pass it as 'head', or leave out 'model' for scores from predictions")
        name, (features, node) = names[0], calls[names[0]]
        head = _whole(self.heads[name])
        if isinstance(head, nn.Linear):
            if not self.sure:
                _refuse_mixing(output.grad_fn, node, name)
            features = on_a_grid(features, output.shape[2:])
            head = pointwise(head, features.dim() - 2)
        self.heads, self.sure = {name: self.heads[name]}, True  # the others' hooks find nothing to do
        return features, head


class _Hook:
    """A forward hook that can be stored and copied along with its layer."""

    def __init__(self, capture: Capture, name: str):
        self.capture, self.name = capture, name

    def __call__(self, module, inputs, output):
        # a linear layer on (B, K) classifies images
        if module.training and self.name in self.capture.heads and inputs[0].dim() > 2:
            self.capture.keep(self.name, inputs[0], output)


def _whole(head):
    """The layer with all of its parameters, where FSDP has shared them out to processes."""
    own = head._parameters
    if not any(hasattr(parameter, "full_tensor") for parameter in own.values()):
        return head
    # of its plain kind, and without the hooks by which FSDP would share them out again
    kind = next(kind for kind in type(head).__mro__ if kind in CLASSIFIERS)
    twin = kind.__new__(kind)
    twin.__dict__ = head.__dict__ | {"_forward_hooks": OrderedDict(), "_forward_pre_hooks": OrderedDict()}
    twin._parameters = {name: None if value is None else value.detach().full_tensor() for name, value in own.items()}
    return twin


def _nearest(start, wanted):
    """The names of the nodes that are met first on all ways back from a node of autograd's graph."""
    found, seen, front = [], set(), [start]
    while front:
        node = front.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in wanted:
            found.append(wanted[node])
        else:
            front += [following for following, _ in node.next_functions]
    return found


def _refuse_mixing(start, end, name):
    """Raises ValueError if anything but `MOVING` stands between two nodes of autograd's graph."""
    seen, front = {end}, [start]
    while front:
        node = front.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().split("Backward")[0] not in MOVING:
            raise ValueError(f"model: found {node.name()} between the linear layer {name} and the output, expected "
                             "nothing but reshaping and resizing; pass the last classifier as 'head', or leave out "
                             "'model' for scores from predictions")
        front += [following for following, _ in node.next_functions]


def on_a_grid(features: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """A linear layer's input (B, h, w, K), or tokens (B, N, K) row by row, as (B, K, h, w); of volumes accordingly.

    Args:
        size: of the logits. N tokens are a grid of its proportions.

    Raises:
        ValueError: N tokens cannot be one.
    """
    if features.dim() == 3 and len(size) > 1:
        count = features.shape[1]
        share = (count / math.prod(size)) ** (1 / len(size))
        grid = [round(length * share) for length in size]
        if math.prod(grid) != count:
            raise ValueError(f"model: found {count} tokens before the last classifier, expected a grid of the "
                             f"proportions of the output's {' x '.join(map(str, size))}; keep others "
                             "(of the class) away, or leave out 'model' for scores from predictions")
        features = features.unflatten(1, grid)
    return features.movedim(-1, 1)


def pointwise(linear: nn.Linear, dimensions: int = 2) -> nn.Module:
    """A linear layer on channels as the convolution of one pixel that it is; it shares the weights."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    convolution = kind(linear.in_features, linear.out_features, 1, device="meta")
    weight = linear.weight.detach()
    convolution.weight = nn.Parameter(weight.reshape(*weight.shape, *[1] * dimensions))
    convolution.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach())
    return convolution


def candidates(model: nn.Module, num_classes: int) -> dict[str, nn.Module]:
    """The layers of a network that make as many channels as there are classes, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CLASSIFIERS)
            and getattr(module, "out_channels", getattr(module, "out_features", 0)) == num_classes}
