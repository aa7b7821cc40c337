"""The step-by-step batch of notebook 03 computes what training computes."""

import dataclasses

import numpy as np
import pytest
import torch

from cawalib.method import CAWAWeighting, Feedback, class_activation_maps, evaluation_mode, pseudo_masks
from cawalib.notebook.walkthrough import Walkthrough
from cawalib.runs import RunConfig
from cawalib.training import SegmentationModel


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    config = RunConfig(data_root=str(tmp_path_factory.mktemp("data")), train_images=16, feedback_images=1, device="cpu")
    return Walkthrough.prepare(config, steps=12)


def test_same_maps_as_pytorch_grad_cam(batch):
    assert batch.difference_from_pytorch_grad_cam() < 1e-4


class Twice(torch.nn.Module):
    def forward(self, features):
        return torch.cat([features, features * (1 - 1e-5)], dim=1)


def test_other_maps_are_told_from_equal_ones_that_are_faint(batch, monkeypatch):
    # every channel twice, once with the opposite weight: of a class's large terms almost nothing is left, and its map,
    # scaled to [0, 1], is their rounding
    weight = batch.network.classifier.weight.detach()
    classifier = torch.nn.Conv2d(2 * weight.shape[1], len(weight), kernel_size=1)
    with torch.no_grad():
        classifier.weight.copy_(torch.cat([weight, torch.zeros_like(weight)], dim=1))
        classifier.weight[batch.classes[0]] = torch.cat([weight[batch.classes[0]], -weight[batch.classes[0]]])
    network = SegmentationModel(torch.nn.Sequential(batch.network.body, Twice()), classifier)
    faint = dataclasses.replace(batch, network=network, features=Twice()(batch.features))
    ours, theirs, _ = faint._compared
    assert np.abs(ours - theirs).max() > 1e-3 and faint.difference_from_pytorch_grad_cam() < 1e-4
    # maps of the neighbouring class are other maps
    monkeypatch.setattr(Walkthrough, "maps", lambda self, size=None, closed_form=True: class_activation_maps(
        self.features, self.network.classifier, self.classes.roll(1), size))
    assert dataclasses.replace(batch).difference_from_pytorch_grad_cam() > 1e-2


def test_same_score_and_weights_as_in_training(batch):
    weighting = CAWAWeighting(11)
    weighting.update(Feedback(batch.labels, batch.logits, batch.features, batch.network.classifier))
    present = weighting.running.seen.numpy()
    assert 2 < present.sum() < 11  # some class is absent, so that its weight is tested as well
    np.testing.assert_allclose(batch.scores()["CSPS"], weighting.score().numpy()[present], atol=1e-3)
    np.testing.assert_allclose(batch.weights()["weight w"], weighting.weight.numpy(), atol=1e-3)


def test_pseudo_masks_under_bf16_autocast_agree_with_float32(batch):
    with torch.no_grad(), evaluation_mode(batch.network), torch.autocast("cpu", torch.bfloat16):
        features = batch.network.features(batch.images)
        assert features.dtype == torch.bfloat16
        maps = class_activation_maps(features, batch.network.classifier, batch.classes)
    size = batch.grid_labels.shape[-2:]
    masks = [pseudo_masks(part, 0.5, size) for part in (batch.maps(), maps)]
    assert 0.01 < masks[0].float().mean() < 0.99  # not agreement on nothing
    assert (masks[0] == masks[1]).float().mean() > 0.995


@pytest.mark.long
def test_bf16_and_a_deeper_layer(batch):
    config = batch.config.replace(mixed_precision="bf16", target_layer="body.down.1", feedback_images=2, smoke=True)
    deeper = Walkthrough.prepare(config)
    assert len(deeper.labels) == 2 and deeper.maps().shape[1:] == (len(deeper.classes), 12, 16)
    assert deeper.difference_from_pytorch_grad_cam() < 1e-4


def test_refused_before_any_work(batch):
    for changes, words in (({"train_images": 4}, "parameter 'batch_size'"), ({"target_layer": "no"}, "'target_layer'"),
                           ({"outputs_root": __file__}, "parameter 'outputs_root'")):
        with pytest.raises((ValueError, RuntimeError), match=words):
            Walkthrough.prepare(batch.config.replace(**changes))


def test_tables_and_pictures(batch):
    counts = batch.counts()
    assert (counts.sum(axis=1) == counts.sum(axis=1).iloc[0]).all()  # every valid pixel is one of the four
    assert list(batch.losses().index) == ["cross entropy", "weighted by BW · RW"]
    for draw in (batch.show_image, batch.show_maps, batch.show_masks, batch.show_weights,
                 batch.show_difference):
        assert draw().axes
