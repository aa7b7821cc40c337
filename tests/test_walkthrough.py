"""The step-by-step batch of notebook 03 computes what training computes."""

import numpy as np
import pytest

from cawalib.config import RunConfig
from cawalib.walkthrough import Walkthrough
from cawalib.weighting import CAWAWeighting, Feedback


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    config = RunConfig(data_root=str(tmp_path_factory.mktemp("data")), train_images=16, device="cpu")
    return Walkthrough.prepare(config, steps=12)


def test_same_maps_as_pytorch_grad_cam(batch):
    assert batch.difference_from_pytorch_grad_cam() < 1e-3


def test_same_score_and_weights_as_in_training(batch):
    weighting = CAWAWeighting(11)
    weighting.update(Feedback(batch.labels, batch.logits, batch.features, batch.head))
    present = weighting.running.seen.numpy()
    np.testing.assert_allclose(batch.scores()["CSPS"], weighting.score().numpy()[present], atol=1e-3)


def test_tables_and_pictures(batch):
    counts = batch.counts()
    assert (counts.sum(axis=1) == counts.sum(axis=1).iloc[0]).all()  # every valid pixel is one of the four
    assert list(batch.losses().index) == ["cross entropy", "weighted by BW · RW"]
    for draw in (batch.show_image, batch.show_maps, batch.show_masks, batch.show_weights):
        assert draw().axes
