"""Class activation maps against pytorch-grad-cam, and that taking them leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import nn

from cawalib.method import CAWAWeighting, Feedback, class_activation_maps
from cawalib.method.cam import KINDS, closed_form_alpha, head_gradients, is_affine
from cawalib.runs import RunConfig
from cawalib.training import build_model

SIZE = (64, 96)
CLASSES = torch.tensor([0, 2, 3])


def network(name, **settings):
    torch.manual_seed(3)
    model = build_model(RunConfig(network=name, method="none", **settings), num_classes=5)
    # random statistics: with the initial ones BatchNorm would do nothing
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


ORACLES = {"grad_cam": GradCAM, "hires_cam": HiResCAM, "layer_cam": LayerCAM}


def oracle(model, layer, images, kind="grad_cam"):
    """pytorch-grad-cam's maps (B, P, H, W), class by class."""
    everywhere = np.ones(images.shape[-2:], np.float32)
    model.eval()
    with ORACLES[kind](model, [layer]) as cam:
        maps = [cam(images, [SemanticSegmentationTarget(int(c), everywhere)] * len(images)) for c in CLASSES]
    return np.stack(maps, axis=1)


EVERY_NETWORK = [
    ("small", {}), ("lraspp_mobilenet_v3_large", {}), ("unet", {}), ("deeplabv3plus", {"encoder": "mobilenet_v2"}),
    ("pspnet", {}), ("segformer", {})]


@pytest.mark.parametrize("name, settings", EVERY_NETWORK)
def test_maps_equal_pytorch_grad_cam(name, settings):
    model = network(name, **settings).eval()
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        features = model.features(images)
    # heads of 1x1 and of 3x3, each in closed form and by a gradient
    for kind in KINDS if name in ("small", "unet") else ("grad_cam",):
        expected = oracle(model, model.body, images, kind)
        assert (expected.max(axis=(2, 3)) > 0.99).any(axis=1).all()  # each image has maps that are not empty
        for closed_form in (True, False):
            maps = class_activation_maps(features, model.classifier, CLASSES, SIZE, kind, closed_form)
            np.testing.assert_allclose(maps.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kernel, stride, padding, dilation", [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2)])
def test_closed_form_is_the_gradient(kernel, stride, padding, dilation):
    head = nn.Conv2d(6, 5, kernel, stride, padding, dilation)
    features = torch.randn(2, 6, 9, 8)
    expected = list(head_gradients(features, head, CLASSES, closed_form=False))
    found = list(head_gradients(features, head, CLASSES))
    alpha = closed_form_alpha(head, (9, 8))[CLASSES]
    for index, gradient in enumerate(expected):
        torch.testing.assert_close(found[index].expand(2, -1, -1, -1), gradient, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alpha[index].expand(2, -1), gradient.mean(dim=(2, 3)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_by_a_whole_factor_weighs_every_logit_alike(factor):
    logits = torch.zeros(1, 1, 5, 6, requires_grad=True)
    nn.functional.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False).sum().backward()
    torch.testing.assert_close(logits.grad, torch.full_like(logits, factor**2))


@pytest.mark.parametrize("closed_form", [True, False])
def test_engine_computes_in_float32_inside_autocast(closed_form):
    head, features = nn.Conv2d(6, 5, 1), torch.randn(2, 6, 9, 7)
    expected = class_activation_maps(features, head, CLASSES, closed_form=closed_form)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(class_activation_maps(features, head, CLASSES, closed_form=closed_form), expected)


def test_map_of_a_1x1_head_is_the_logit_without_bias():
    head = nn.Conv2d(6, 5, 1)
    features = torch.randn(2, 6, 9, 7)
    logits = (head(features) - head.bias[:, None, None]).relu()[:, CLASSES]
    logits = logits - logits.amin((2, 3), keepdim=True)
    expected = logits / (logits.amax((2, 3), keepdim=True) + 1e-7)
    torch.testing.assert_close(class_activation_maps(features, head, CLASSES), expected, atol=1e-5, rtol=0)


def test_heads_that_are_not_affine_take_the_gradient():
    assert not is_affine(nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU()))
    assert not is_affine(nn.Conv2d(6, 6, 1, groups=2))
    for mode in ("reflect", "replicate", "circular"):
        assert not is_affine(nn.Conv2d(6, 5, 3, padding=1, padding_mode=mode))


def fingerprint(model):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "hooks": hooks,
        "random": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("layer, closed_head", [("decoder", True), ("decoder", False), ("body.down.1", True)])
def test_update_leaves_no_trace(layer, closed_head):
    model = network("small").train()
    model.body.down[0].eval()  # flags that differ from module to module must all come back
    if not closed_head:
        model.classifier = nn.Sequential(nn.BatchNorm2d(16), nn.Dropout(0.5), nn.Conv2d(16, 5, 1))
    images, labels = torch.randn(2, 3, *SIZE), torch.randint(0, 5, (2, *SIZE))
    logits, features = model(images, return_features=True)
    logits.square().mean().backward()
    weighting = CAWAWeighting(5, target_layer=layer)
    before = copy.deepcopy(fingerprint(model))
    weighting.update(Feedback(labels, logits.detach(), features.detach(), model.classifier, model, images))
    after = fingerprint(model)
    for key in ("training", "requires_grad", "hooks", "grad_mode"):
        assert before[key] == after[key], key
    assert torch.equal(before["random"], after["random"])
    assert all(torch.equal(before["state"][name], after["state"][name]) for name in before["state"])
    for one, other in zip(before["grad"], after["grad"], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert not torch.equal(weighting.weight, torch.ones(5))  # and yet it did its work
