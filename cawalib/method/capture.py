"""The last classifier of somebody's network, found by itself, and what goes into it, captured as the network runs."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

CLASSIFIERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Capture:
    """Keeps the input of each layer that may be the last classifier, from the latest forward pass that trains.

    Which of them is, the first output that is given to `take` tells: from it back through the graph of autograd, the
    first of these layers that is met. An auxiliary head is not on that way.

    Args:
        heads: name -> layer; a forward hook is put on each.
    """

    def __init__(self, heads: dict[str, nn.Module]):
        self.heads = heads
        self.calls: dict[str, tuple] = {}  # name -> input, and the node of the output in the graph
        for name, head in heads.items():
            head.register_forward_hook(_Hook(self, name))

    def __getstate__(self) -> dict:
        return {"heads": self.heads, "calls": {}}  # features are of one step, and are not stored

    def keep(self, name: str, features: torch.Tensor, output: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            self.calls[name] = features.detach(), output.grad_fn

    def take(self, output: torch.Tensor) -> tuple[torch.Tensor, nn.Module] | None:
        """The captured input of the classifier that led to an output, and the classifier; they are let go here.

        Returns:
            None where no forward pass was seen since the last call.

        Raises:
            ValueError: several of the layers fit.
        """
        calls, self.calls = self.calls, {}
        if not calls:
            return None
        nodes = {node: name for name, (_, node) in calls.items()}
        names = list(calls) if len(calls) == 1 else _nearest(output.grad_fn, nodes) or list(calls)
        if len(names) != 1:
            raise ValueError(f"model: found {len(names)} layers that may be the last classifier ({', '.join(names)}), "
                             "expected one; pass it as 'head', or leave out 'model' for scores from predictions")
        if len(self.heads) > 1:
            self.heads = {names[0]: self.heads[names[0]]}  # the others' hooks find nothing to do
        return calls[names[0]][0], _whole(self.heads[names[0]])


class _Hook:
    """A forward hook that can be stored and copied along with its layer."""

    def __init__(self, capture: Capture, name: str):
        self.capture, self.name = capture, name

    def __call__(self, module, inputs, output):
        if module.training and self.name in self.capture.heads:
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


def candidates(model: nn.Module, num_classes: int) -> dict[str, nn.Module]:
    """The layers of a network that make as many channels as there are classes, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CLASSIFIERS)
            and module.out_channels == num_classes}
