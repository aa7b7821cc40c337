"""Notebook 07: a network that is there or is trained now, photographs that are there or are drawn, and what is said."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cawalib.notebook import own_photographs as own
from cawalib.predict import TrainedNetwork
from cawalib.runs import RunConfig, RunError
from cawalib.settings import ConfigError
from cawalib.training import SegmentationModel


@pytest.fixture
def network():
    """Red to the first class, green to the second, blue to the third, which weighs as much as it takes to lose."""
    classifier = torch.nn.Conv2d(3, 3, 1, bias=False)
    classifier.weight.data = torch.eye(3)[..., None, None]
    model = SegmentationModel(torch.nn.Identity(), classifier).eval().requires_grad_(False)
    return TrainedNetwork(model, RunConfig(), ("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)),
                          torch.tensor([1.0, 1.0, 1000.0]), "nowhere")


def test_the_point_moves_classes_and_is_told(network, tmp_path):
    image = np.zeros((96, 128, 3), np.uint8)
    image[:, :64, 0], image[:, 64:, 2] = 255, 255  # left red, right blue
    Image.fromarray(image).save(tmp_path / "half.png")
    given = own.photographs_of(own.PhotographsConfig(photographs=str(tmp_path)))
    points = own.by_point(network, given)
    shares = {point: np.bincount(labels.ravel(), minlength=3) / labels.size for point, labels in points[0].items()}
    np.testing.assert_allclose(shares["rare"], [0.5, 0, 0.5], atol=0.02)
    assert shares["accurate"][2] == 0  # log 1000 is more than what tells blue from the others
    told = own.what_the_point_moves(network, points)
    assert told.startswith("From accurate to rare, 'blue' goes from 0.0 % to 50.0 % of the pixels and '")
    figure = own.lines_drawn(network, given, points)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["photograph", "rare", "balanced", "accurate"]
    plain = TrainedNetwork(network.model, network.config, network.classes, network.palette, torch.ones(3), "nowhere")
    assert own.what_the_point_moves(plain, own.by_point(plain, given)).startswith("The point makes no difference here")


def test_a_point_that_there_is_not_is_named_before_anything_is_done():
    with pytest.raises(ConfigError, match="parameter 'point': found 'middle'; expected one of rare"):
        own.PhotographsConfig(point="middle")


def test_where_nothing_is_there(tmp_path):
    with pytest.raises(RunError, match="found no finished run"):
        own.network_of(own.PhotographsConfig(network=str(tmp_path)))  # only the default is trained
    scenes = own.photographs_of(own.PhotographsConfig(out=str(tmp_path / "out")))
    assert list(scenes) == ["scene 1", "scene 2", "scene 3"] and Image.open(scenes["scene 1"]).size == (256, 192)


def test_shares_are_per_cent_and_the_largest_class_stands_first():
    areas = pd.DataFrame([("a", "sky", 10, 0.1), ("a", "road", 90, 0.9), ("a", "sign", 0, 0.0)],
                         columns=["photograph", "class", "pixels", "share"])
    assert own.shares(areas)["a"].to_dict() == {"road": 90.0, "sky": 10.0}
