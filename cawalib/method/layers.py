"""Class activation maps of layers deeper than the head's input: any module of the network's body.

One pass forward, and one backward per class from the head's input (`cam.head_gradients`). HiResCAM and LayerCAM need
the gradient of every pixel of A, and their pass goes back to A. Grad-CAM needs the mean over pixels alone, which is
ds/db over the number of pixels, with an offset b (B, K, 1, 1) added to A. What reads A is mostly affine: convolutions,
BatchNorm in evaluation mode, average pooling. What comes out of it gains by b a few numbers per channel, each times a
pattern over the pixels that is known beforehand: ones, and for a kernel with padding what its taps leave out at the
borders. The backward pass therefore ends where the affine modules do, with its gradient summed up pattern by pattern;
what these sums say about b follows from the weights, for all classes at once, and the convolutions behind A, often
the dearest of all, are never gone through. The same gradient, by less work.

What reads A and is not known to be affine (attention, a sum, a call of `functional`) is gone through as ever.

At the other end, most bodies close with BatchNorm and ReLU on their largest tensor, which multiply the gradient pixel
by pixel whatever the class. What by, is found once (`Tail`), and each class's pass begins in front of them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from cawalib.method.cam import evaluation_mode, finished, head_gradients, weighted_sums

# linear, and alike for all channels
ALIKE = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.UpsamplingBilinear2d)
# what comes out at a pixel of a channel hangs on what went in there alone
ELEMENTWISE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.SiLU, nn.GELU, nn.Identity, nn.Dropout,
               nn.Dropout2d)
# of a kernel, times the patterns that it meets: more of them cost more than they spare
MOST_TAPS = 100


def layer_activation_maps(model: nn.Module, layer: str, images: torch.Tensor, classes: torch.Tensor,
                          size: tuple[int, int] | None = None, kind: str = "grad_cam") -> torch.Tensor:
    """Maps from any module of the network's body.

    Args:
        model: a `models.SegmentationModel`, left as it is (see `cam.class_activation_maps`).
        layer: a module's name as in `model.named_modules()`; its output must be one tensor (B, K, h, w).
        images: (B, 3, H, W) float32.
        classes, size, kind: as for `cam.class_activation_maps`, and so are the maps.

    Raises:
        ValueError: see `layer_output`.
    """
    with torch.autocast(images.device.type, enabled=False):
        offset = Offset() if kind == "grad_cam" else None
        tail = Tail()
        target, features = _run_body(model, layer, images, offset, tail)
        leaves = [target] if offset is None else [end for end, _ in offset.ends]
        gradients = _gradients(features, tail, leaves, model.classifier, classes)
        if offset is None:
            maps = weighted_sums((gradient for gradient, in gradients), target.detach(), kind)
        else:
            alpha = offset.gradient(list(gradients), target) / target[0, 0].numel()
            maps = torch.einsum("bpk,bkhw->bphw", alpha, target).relu()
        return finished(maps, size)


def layer_output(model: nn.Module, layer: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A of any module of the body, and what the body makes of it, in one pass in evaluation mode.

    Args:
        model: a `models.SegmentationModel`.
        layer: a module's name as in `model.named_modules()`.
        images: (B, 3, H, W) float32.

    Returns:
        A (B, K, h, w), a leaf of the graph, and the head's input as a function of it.

    Raises:
        ValueError: no module of that name, it is not on the way to the head, or its output is not one tensor
            (B, K, h, w).
    """
    return _run_body(model, layer, images)


def _gradients(features, tail, leaves, head, classes):
    """For each class, yields ds/d of every leaf of the graph behind `features`; None where s does not hang on it."""
    begin = tail.begin(features)
    slopes, = torch.autograd.grad(features, begin, torch.ones_like(features), retain_graph=True)
    for gradient in head_gradients(features.detach(), head, classes):
        yield torch.autograd.grad(begin, leaves, slopes * gradient, retain_graph=True, allow_unused=True)


def _run_body(model, layer, images, offset=None, tail=None):
    """A and the head's input: as a function of A, a leaf, or where there is an offset, of its ends."""
    module, targets = find_layer(model, layer), []

    def cut(module, inputs, output):
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            raise ValueError(f"parameter 'target_layer': the output of module '{layer}' is not one tensor "
                             "(B, K, h, w); choose another module")
        targets.append(output.detach())
        # a copy, since the next module may work in place
        return targets[-1].requires_grad_().clone() if offset is None else offset.start(targets[-1])

    hooks = [tail and tail.after, offset and offset.follow, _dense_gradient]
    parts = [part for part in model.body.modules() if not list(part.children())]
    handles = [part.register_forward_hook(hook) for part in parts for hook in hooks if hook]
    handles += [part.register_forward_pre_hook(tail.before) for part in parts if tail]
    handles.append(module.register_forward_hook(cut))
    try:
        # parameters are detached, so that the graph holds only what follows A
        parameters = {name: value.detach() for name, value in model.body.named_parameters()}
        with evaluation_mode(model), torch.enable_grad():
            features = torch.func.functional_call(model.body, parameters, (images,))
    finally:
        for handle in handles:
            handle.remove()
    if not targets or not features.requires_grad:
        raise ValueError(f"parameter 'target_layer': module '{layer}' is not on the way to the last classifier; "
                         "choose another module")
    return targets[-1], features


class Tail:
    """Which elementwise modules each tensor comes through last, known by the edge of the graph in front of them."""

    def __init__(self) -> None:
        self.known: dict[int, tuple] = {}
        self.edge: torch.autograd.graph.GradientEdge | None = None

    def before(self, module: nn.Module, inputs: tuple) -> None:
        """A forward pre-hook: a module may work in place, and its input then be its output."""
        self.edge = None
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].requires_grad and _is_elementwise(module):
            self.edge = self.begin(inputs[0])

    def after(self, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        """A forward hook."""
        if self.edge is not None:
            self.known[id(output)] = output, output._version, self.edge  # the tensor too: so its id stays its own

    def begin(self, tensor: torch.Tensor) -> torch.autograd.graph.GradientEdge:
        """The edge in front of the elementwise modules through which a tensor came last, or its own."""
        _, version, edge = self.known.get(id(tensor), (None,) * 3)
        return edge if version == tensor._version else torch.autograd.graph.get_gradient_edge(tensor)


def _is_elementwise(module):
    return type(module) in ELEMENTWISE and getattr(module, "track_running_stats", True)


class Offset:
    """b, added to A, and the tensors known to move with it: each gains `gains (B, K, T) @ patterns (T, h * w)`.

    In the graph each of them hangs on an end alone, a leaf (B, K, T) in the place of its gains; `back` goes the rest
    of the way, from ds/d gains (N, K, T) to ds/db (N, K). All ends are zero: no value changes.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple] = {}
        self.ends: list[tuple] = []

    def start(self, target: torch.Tensor) -> torch.Tensor:
        """A + b; whatever was known of an earlier call of the module no longer counts."""
        self.known, self.ends = {}, []
        return self._put(target, target.new_ones(1, *target.shape[2:]), lambda gradient: gradient[..., 0])

    def follow(self, module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
        """A forward hook: the output of an affine module as a function of its own end, cut off from what it read."""
        tensor, version, patterns, back = self.known.get(id(inputs[0]) if inputs else 0, (None,) * 4)
        if tensor is None or tensor._version != version:  # somebody worked on it in place
            return None
        answer = _answer(module, patterns, output.shape[2:])
        if answer is None:
            return None
        patterns, step = answer
        return self._put(output.detach(), patterns, lambda gradient: back(step(gradient)))

    def _put(self, value, patterns, back):
        end = value.new_zeros(*value.shape[:2], len(patterns), requires_grad=True)
        tensor = ByPattern.apply(end, patterns, value)
        self.known[id(tensor)] = tensor, tensor._version, patterns, back  # the tensor too: so its id stays its own
        self.ends.append((end, back))
        return tensor

    def gradient(self, gradients: list[tuple], target: torch.Tensor) -> torch.Tensor:
        """ds/db (B, P, K), from ds/d of every end, class by class; None where s does not hang on an end."""
        total = target.new_zeros(len(target), len(gradients), target.shape[1])
        for (_, back), *of_end in zip(self.ends, *gradients, strict=True):
            if of_end and of_end[0] is not None:
                total += back(torch.cat(of_end)).unflatten(0, (len(gradients), -1)).transpose(0, 1)
        return total


class ByPattern(torch.autograd.Function):
    """`value` (B, K, h, w) plus `end` (B, K, T), which is zero, times patterns (T, h, w)."""

    @staticmethod
    def forward(ctx, end, patterns, value):
        ctx.save_for_backward(patterns)
        return value.clone()  # the next module may work in place

    @staticmethod
    def backward(ctx, gradient):
        patterns, = ctx.saved_tensors
        return gradient.flatten(2) @ patterns.flatten(1).T, None, None


def _answer(module, patterns, size):
    """What an affine module makes of patterns (T, h, w): those of its output, and the way back for their gains.

    None if it is not known to be affine: only the classes named here are, since a subclass may do anything.
    """
    if type(module) in ALIKE:
        return module.forward(patterns[None])[0], lambda gradient: gradient
    if type(module) is nn.BatchNorm2d and module.running_var is not None:
        scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight.detach())
        return patterns, lambda gradient: gradient * scale[:, None]
    if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str) \
            and len(patterns) * module.weight[0, 0].numel() <= MOST_TAPS:
        return _convolved(module, patterns, size)
    return None


def _convolved(conv, patterns, size):
    """`_answer` of a convolution: each of its taps gives each pattern moved; those that are alike are one."""
    moved = functional.unfold(patterns[:, None], conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    different, place = torch.unique(moved.flatten(0, 1), dim=0, return_inverse=True)
    weight = conv.weight.detach().unflatten(0, (conv.groups, -1)).flatten(3)  # (group, output, input, tap)
    parted = functional.one_hot(place, len(different)).to(patterns).T

    def step(gradient):
        taps = (gradient @ parted).unflatten(2, moved.shape[:2]).unflatten(1, (conv.groups, -1))
        return torch.einsum("goik,ngotk->ngit", weight, taps).flatten(1, 2)

    return different.unflatten(1, size), step


def _dense_gradient(module, inputs, output):
    """Where channels were stacked, gradients are slices with gaps, on which upsampling is twenty times slower."""
    if isinstance(output, torch.Tensor) and output.requires_grad and output.ndim == 4:
        output.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))


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
