"""Maps of deeper layers: the gradient by offset is that of the whole backward pass, and goes through less."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from test_cam import CLASSES, SIZE, network, oracle
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from cawalib.method import layer_activation_maps, layer_output
from cawalib.method.cam import KINDS
from cawalib.training import SegmentationModel


def whole_pass(model, layer, images):
    """Grad-CAM (B, P, h, w) as it is defined, not scaled, and the size of what is summed up for it."""
    leaves = []

    def cut(module, inputs, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    model.eval()
    handle = dict(model.named_modules())[layer].register_forward_hook(cut)
    logits = model.classifier(model.body(images))
    handle.remove()
    maps, sizes = [], []
    for index in CLASSES.tolist():
        gradient, = torch.autograd.grad(logits[:, index].sum(), leaves[-1], retain_graph=True)
        terms = gradient.mean((2, 3), keepdim=True) * leaves[-1].detach()
        maps.append(terms.sum(1).relu())
        sizes.append(terms.abs().sum(1).amax((1, 2)))
    return torch.stack(maps, 1), torch.stack(sizes, 1)[:, :, None, None]


@pytest.fixture
def unscaled(monkeypatch):
    monkeypatch.setattr("cawalib.method.layers.finished", lambda maps, size: maps)


def assert_equal(model, layer, images):
    """In float64 behind the head, whose gradient is taken in float32, and before scaling, which enlarges rounding."""
    model, images = model.double().requires_grad_(False), images.double()
    expected, size = whole_pass(model, layer, images)
    assert (size > 0).all()
    found = layer_activation_maps(model, layer, images, CLASSES)
    assert ((found - expected).abs() <= 1e-6 * size).all(), ((found - expected).abs() / size).max()


LAYERS = {
    "small": ["body", "body.stem", "body.stem.1", "body.down.0", "body.down.1.0.0", "body.down.2", "body.lateral.0",
              "body.fuse.1", "body.narrow"],
    "lraspp_mobilenet_v3_large": ["body.backbone.4", "body.backbone.15.block.1.0", "body.backbone.16", "body.cbr",
                                  "body.scale.1"],
    "unet": ["body.encoder.layer2.0.bn1", "body.encoder.layer4", "body.decoder.blocks.1"],
    "deeplabv3plus": ["body.encoder.features.3", "body.encoder.features.13", "body.encoder.features.18",
                      "body.decoder.aspp.0.project", "body.decoder.aspp", "body.decoder.block1"],
    "segformer": ["body.encoder.patch_embed1.proj", "body.encoder.patch_embed3.proj", "body.decoder.fuse_stage.0"],
    "pspnet": ["body.encoder.maxpool", "body.encoder.layer2", "body.decoder.psp", "body.decoder.conv.0"],
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.long) if name == "deeplabv3plus" else name for name in LAYERS])
def test_gradient_is_that_of_the_whole_backward_pass(name, unscaled):
    model = network(name, **({"encoder": "mobilenet_v2"} if name == "deeplabv3plus" else {}))
    images = torch.randn(2, 3, *(SIZE if name == "deeplabv3plus" else (32, 64)))
    for layer in LAYERS[name]:
        assert_equal(model, layer, images)


@pytest.mark.parametrize("name, layer", [
    ("small", "body.down.1"), ("small", "body.stem.1"),  # the latter is followed by a ReLU in place
    ("lraspp_mobilenet_v3_large", "body.cbr"), ("unet", "body.encoder.layer3"),
    ("deeplabv3plus", "body.encoder.features.18"), ("deeplabv3plus", "body.decoder.aspp"),
    ("pspnet", "body.encoder.layer2"),
    # blocks give tokens; an image comes out of the patch embedding's convolution
    ("segformer", "body.encoder.patch_embed3.proj")])
def test_maps_of_any_named_layer_equal_pytorch_grad_cam(name, layer):
    model = network(name, **({"encoder": "mobilenet_v2"} if name == "deeplabv3plus" else {})).eval()
    images = torch.randn(2, 3, *SIZE)
    plain = copy.deepcopy(model)  # pytorch-grad-cam would see what a ReLU in place has made of the activations
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for kind in KINDS if name == "small" else ("grad_cam",):
        expected = oracle(plain, dict(plain.named_modules())[layer], images, kind)
        maps = layer_activation_maps(model, layer, images, CLASSES, SIZE, kind)
        np.testing.assert_allclose(maps.numpy(), expected, atol=1e-4)


class Body(nn.Module):
    """A convolution, whose output is the layer, and whatever reads it."""

    def __init__(self, readers, read=None):
        super().__init__()
        self.layer, self.readers = nn.Conv2d(3, 12, 3, padding=1), nn.ModuleList(readers)
        self.read = read or (lambda readers, x: [reader(x) for reader in readers])

    def forward(self, images):
        return torch.cat([functional.adaptive_avg_pool2d(functional.gelu(one), 5)
                          for one in self.read(self.readers, self.layer(images))], dim=1)


def synthetic(*readers, read=None):
    torch.manual_seed(0)
    body = Body(readers, read)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
    with torch.no_grad():
        channels = body.eval()(torch.randn(1, 3, 13, 17)).shape[1]
    return SegmentationModel(body, nn.Conv2d(channels, 5, 1))


def convolution(*sizes, **settings):
    return nn.Conv2d(12, *sizes, **settings)


KNOWN = {
    "pointwise": lambda: [convolution(8, 1)],
    "dense": lambda: [convolution(8, 3, padding=1), convolution(8, 5, padding=(2, 1)), convolution(8, (1, 7))],
    "strided": lambda: [convolution(8, 3, stride=2, padding=1), convolution(8, 2, stride=(3, 2)),
                        convolution(8, 1, stride=2)],
    "dilated": lambda: [convolution(8, 3, dilation=rate, padding=rate) for rate in (2, 6, 15, 40)],
    "grouped": lambda: [convolution(8, 3, groups=4, padding=1), convolution(24, 3, groups=12, padding=2)],
    "pooled": lambda: [nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False),
                       nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((5, 4))],
    "upsampled": lambda: [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Upsample((20, 31))],
    "chains": lambda: [
        nn.Sequential(convolution(12, 3, groups=12, padding=4, dilation=4), convolution(8, 1), nn.BatchNorm2d(8)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), convolution(8, 1, bias=False), nn.BatchNorm2d(8, affine=False)),
        nn.Sequential(nn.Identity(), nn.Dropout(), convolution(6, 3, stride=2, padding=1), nn.Upsample(scale_factor=2),
                      nn.AvgPool2d(2), nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.Dropout2d(), nn.Conv2d(6, 4, 1)),
        nn.BatchNorm2d(12)],
}


class Odd(nn.Conv2d):
    """A convolution by its class only."""

    def forward(self, images):
        return super().forward(images).square()


def in_place_between(readers, x):
    before = readers[0](x)
    functional.relu_(x)  # the same tensor from here on, but no longer A + b
    return [before, readers[0](x), readers[1](x)]


def in_place_behind(readers, x):
    first = readers[0](x)
    functional.hardswish(first, inplace=True)
    return [first, readers[1](first)]


UNKNOWN = {
    "functional": lambda: synthetic(convolution(12, 3, padding=1), read=lambda readers, x: [
        x, readers[0](x) + x, x * x.mean((2, 3), keepdim=True), functional.interpolate(x, (3, 3)), readers[0](2 * x)]),
    "keyword": lambda: synthetic(convolution(8, 3), read=lambda readers, x: [readers[0](input=x)]),
    "in place between": lambda: synthetic(nn.Upsample((20, 31)), convolution(6, 1), read=in_place_between),
    "in place behind": lambda: synthetic(convolution(8, 1), nn.Conv2d(8, 6, 3), read=in_place_behind),
    "padded otherwise": lambda: synthetic(convolution(8, 3, padding=1, padding_mode="reflect"),
                                          convolution(8, 3, padding="same")),
    "subclass": lambda: synthetic(Odd(12, 8, 3)),
    "parametrized": lambda: synthetic(nn.utils.parametrizations.weight_norm(convolution(8, 3)),
                                      nn.utils.parametrizations.spectral_norm(convolution(8, 3))),
    "statistics of the batch": lambda: synthetic(nn.BatchNorm2d(12, track_running_stats=False)),
    "not affine": lambda: synthetic(nn.MaxPool2d(2), nn.GroupNorm(3, 12), nn.InstanceNorm2d(12), nn.SiLU()),
    "largest of a border": lambda: synthetic(nn.Sequential(convolution(8, 3, padding=1), nn.MaxPool2d(3, 1, 1))),
    "many taps": lambda: synthetic(convolution(6, 11, padding=5), nn.Sequential(
        convolution(12, 5, padding=2), convolution(12, 5, padding=2), convolution(6, 5, padding=2))),
    "read twice": lambda: synthetic(convolution(8, 3), read=lambda readers, x: [readers[0](x), readers[0](x), x]),
}


class Backward(TorchDispatchMode):
    """Counts the backward operations that are gone through."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), settings=None):
        name = operation.overloadpacket.__name__
        self.calls.update([name] if name.endswith("_backward") else [])
        return operation(*arguments, **(settings or {}))


@pytest.mark.parametrize("known", KNOWN)
def test_readers_that_are_known_to_be_affine_are_not_gone_through(known, unscaled):
    model, images = synthetic(*KNOWN[known]()), torch.randn(3, 3, 13, 17)
    assert_equal(model, "body.layer", images)
    with Backward() as backward:
        layer_activation_maps(model, "body.layer", images.double(), CLASSES)
    times = len(model.body.readers) * len(CLASSES)
    assert backward.calls == {"gelu_backward": times, "_adaptive_avg_pool2d_backward": times}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_readers_that_are_not_known_to_be(unknown, unscaled):
    assert_equal(UNKNOWN[unknown](), "body.layer", torch.randn(3, 3, 13, 17))


@pytest.mark.parametrize("kind, convolutions, norms", [("grad_cam", 5, 2), ("hires_cam", 13, 7), ("layer_cam", 13, 7)])
def test_what_is_gone_through_behind_the_encoder(kind, convolutions, norms):
    """Of 13 convolutions between the encoder's output and the head, the eight next to it are not, for Grad-CAM; and
    the BatchNorm in front of the head is gone through once for all classes."""
    model, images = network("deeplabv3plus", encoder="mobilenet_v2"), torch.randn(1, 3, *SIZE)
    with Backward() as backward:
        layer_activation_maps(model, "body.encoder.features.18", images, CLASSES, kind=kind)
    assert backward.calls["convolution_backward"] == convolutions * len(CLASSES)
    assert backward.calls["native_batch_norm_backward"] == norms * len(CLASSES) + 1


def changed_between(modules, x):
    x = modules[0](x)
    x.mul_(x.detach() + 2)
    return modules[1](x)


def mixed_between(modules, x):
    x = modules[0](x)
    x.sub_(x.mean(dim=1, keepdim=True))
    return modules[1](x)


ENDS = {
    "elementwise": ([nn.BatchNorm2d(9), nn.ReLU6(inplace=True), nn.Dropout(), nn.SiLU(), nn.BatchNorm2d(9)], None),
    "one module twice": ([nn.BatchNorm2d(9)], lambda modules, x: modules[0](modules[0](x))),
    "changed between": ([nn.BatchNorm2d(9), nn.ReLU(inplace=True)], changed_between),
    "mixed between": ([nn.GELU(), nn.ReLU(inplace=True)], mixed_between),
    "read twice": ([nn.BatchNorm2d(9), nn.GELU()], lambda modules, x: modules[1](modules[0](x)) * modules[0](x)),
    "over channels": ([nn.GELU(), nn.Softmax(dim=1), nn.ReLU()], None),
    "over pixels": ([nn.BatchNorm2d(9, track_running_stats=False), nn.SiLU()], None),
    "over groups": ([nn.GroupNorm(3, 9), nn.ReLU()], None),
    "no module": ([], lambda modules, x: functional.gelu(x)),
}


@pytest.mark.parametrize("end", ENDS)
def test_ends_of_a_body(end, unscaled):
    modules, call = ENDS[end]
    model = synthetic(nn.Sequential(nn.Conv2d(12, 9, 3)), *modules, read=lambda modules, x: [modules[0](x)])
    ends = model.body.readers[1:]
    model.body.forward = lambda images: (call or in_turn)(ends, model.body.readers[0](model.body.layer(images)))
    model.classifier = nn.Conv2d(9, 5, 3)
    for layer in ("layer", "readers.0", "readers.1", f"readers.{len(ends)}")[:4 if len(ends) else 2]:
        assert_equal(model, f"body.{layer}", torch.randn(2, 3, 13, 17))


def in_turn(modules, x):
    for module in modules:
        x = module(x)
    return x


def test_a_layer_that_is_called_twice_is_looked_at_where_it_is_called_last(unscaled):
    model = synthetic(nn.Conv2d(12, 3, 3, padding=1), nn.Conv2d(12, 6, 3))
    layer = model.body.layer
    model.body.read = lambda readers, x: [x, readers[1](layer(readers[0](x)))]
    with torch.no_grad():
        model.classifier = nn.Conv2d(model.body(torch.randn(1, 3, 13, 17)).shape[1], 5, 1)
    assert_equal(model, "body.layer", torch.randn(2, 3, 13, 17))


def test_maps_in_float32_inside_autocast_and_of_no_class():
    model, images = network("small"), torch.randn(2, 3, *SIZE)
    expected = layer_activation_maps(model, "body.down.1", images, CLASSES)
    assert expected.shape == (2, 3, 8, 12) and expected.amax() > 0.99
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer_activation_maps(model, "body.down.1", images, CLASSES), expected)
    for kind in KINDS:
        assert layer_activation_maps(model, "body.down.1", images, CLASSES[:0], kind=kind).shape == (2, 0, 8, 12)


def test_output_of_a_layer_is_a_leaf_and_what_comes_of_it():
    model, images = network("small").train(), torch.randn(2, 3, *SIZE)
    target, features = layer_output(model, "body.down.1", images)
    gradient, = torch.autograd.grad(features.sum(), target)
    assert target.is_leaf and gradient.shape == target.shape and gradient.any() and model.training
    with torch.no_grad():
        torch.testing.assert_close(features.detach(), model.eval().features(images))


@pytest.mark.parametrize("layer, words", [
    ("body.nowhere", "found 'body.nowhere'.*body.stem"), ("classifier", "module 'classifier' is not on the way"),
    ("body.unused", "module 'body.unused' is not on the way"),
    ("body.tokens", "the output of module 'body.tokens' is not one tensor")])
def test_layers_that_are_none(layer, words):
    model, images = network("small"), torch.randn(1, 3, *SIZE)
    model.body.unused, model.body.tokens = nn.Identity(), nn.Flatten()
    model.body.stem.register_forward_hook(lambda module, inputs, output: (
        model.body.unused(output), model.body.tokens(output), None)[-1])
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"parameter 'target_layer': {words}"):
            layer_activation_maps(model, layer, images, CLASSES, kind=kind)
