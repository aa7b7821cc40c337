"""Rare class sampling: probabilities by hand, and draws that hold what they were drawn for."""

import numpy as np
import pytest
import torch

from cawalib.datasets import SegmentationDataset
from cawalib.runs import RunConfig
from cawalib.training import TrainingImages, transforms
from cawalib.training.sampling import CROP_SHARE, Draw, RareClassSampler, class_probability, held_out


@pytest.fixture
def dataset():
    """Ten images of 64x64: class 0 everywhere, class 1 in a corner of images 3 and 7 and in too few pixels of image 9,
    class 2 in one pixel of image 5, class 3 nowhere."""
    labels = np.zeros((10, 64, 64), np.uint8)
    labels[[3, 7], :20, :20] = 1
    labels[5, 0, 0] = 2
    labels[9, 0, :5] = 1  # 0.12 %
    images = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), np.uint8)
    return SegmentationDataset("test", "train", tuple("abcd"), ((0, 0, 0),) * 4, 10,
                               lambda index: (images[index], labels[index]), "")


def test_probabilities_by_hand():
    # exp((1 - f) / T) with T 0.5 and f 0.5, 0.3, 0.2; the class without a pixel has none
    expected = np.exp([1.0, 1.4, 1.6])
    found = class_probability(np.array([50, 30, 20, 0]), 0.5)
    assert found.tolist() == pytest.approx([*(expected / expected.sum()), 0])
    assert np.isfinite(class_probability(np.array([10**9, 1, 0]), 0.001)).all()
    assert class_probability(np.array([50, 0]), 0.001).tolist() == [1, 0]


def test_draws_hold_their_class(dataset):
    sampler = RareClassSampler(dataset, temperature=0.5, seed=0)
    draws = [draw for epoch in range(200) if sampler.set_epoch(epoch) is None for draw in sampler]
    holders = {0: set(range(10)), 1: {3, 7}, 2: {5}}
    assert all(draw.index in holders[draw.wanted] for draw in draws)
    assert {(draw.wanted, draw.index) for draw in draws} == {(c, index) for c in holders for index in holders[c]}
    drawn = np.bincount([draw.wanted for draw in draws], minlength=4) / len(draws)
    assert drawn.tolist() == pytest.approx(sampler.probability.tolist(), abs=0.03)
    assert len(sampler) == 10 and [draw.number for draw in sampler] == list(range(10))


def test_draws_depend_on_seed_and_epoch_alone(dataset):
    first, same, other = (RareClassSampler(dataset, 0.5, seed) for seed in (0, 0, 1))
    assert list(first) == list(same) != list(other)
    first.set_epoch(1)
    assert list(first) != list(same)


def test_an_image_drawn_twice_is_augmented_twice_and_keeps_the_class(dataset):
    config = RunConfig(image_height=32, image_width=32, scale_min=1.5)
    images = TrainingImages(dataset, config, config)
    crops = [images[Draw(3, number, wanted=1)] for number in range(20)]
    assert not (crops[0][0] == crops[1][0]).all()
    held = [(labels == 1).float().mean() > CROP_SHARE for _, labels in crops]
    plain = [(images[Draw(3, number, wanted=0)][1] == 1).float().mean() > CROP_SHARE for number in range(20)]
    assert all(held) and not all(plain)
    again = images[Draw(3, 0, wanted=1)]
    assert (again[0] == crops[0][0]).all() and (again[1] == crops[0][1]).all()


def test_a_crop_is_drawn_again_until_enough_of_its_class_is_left(dataset, monkeypatch):
    drawn = []

    def augment(image, labels, data, training):
        """One pixel of class 1 more each time."""
        drawn.append(None)
        part = torch.zeros(32 * 32, dtype=torch.uint8)
        part[:len(drawn)] = 1
        return torch.zeros(3, 32, 32, dtype=torch.uint8), part.view(32, 32)

    monkeypatch.setattr(transforms, "augment", augment)
    config = RunConfig(image_height=32, image_width=32)
    images = TrainingImages(dataset, config, config)
    # 1500 pixels of 512x512 are 5.9 of 32x32; ten times at most; an image that was not drawn for a class is taken
    for item, times in ((Draw(3, 0, wanted=1), 6), (Draw(3, 0, wanted=2), 10), (3, 1)):
        drawn.clear()
        images[item]
        assert len(drawn) == times


def test_held_out_share_is_apart_and_depends_on_the_seed(dataset):
    trained, kept = held_out(dataset, 0.25, seed=0)
    indices = [part.read.args[1] for part in (trained, kept)]
    assert sorted(indices[0] + indices[1]) == list(range(len(dataset)))
    assert len(kept) == max(1, round(len(dataset) / 4))
    assert len(held_out(dataset, 0.01, seed=0)[1]) == 1
    assert len({held_out(dataset, 0.25, seed)[1].read.args[1] for seed in range(20)}) > 1
    np.testing.assert_array_equal(kept[0][1], dataset[indices[1][0]][1])
