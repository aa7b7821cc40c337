"""Street scenes drawn by code: the same everywhere, well-formed, as unbalanced as asked for."""

import hashlib
from functools import lru_cache

import numpy as np
import pytest

from cawalib.datasets import streets

# sha256 of image and label bytes; a change here means that every stored result of the paper is stale.
STORED = {
    (0, "train", 96, 128, 1000.0): "2a5d8233f907cf0b89fa006dbfb22aaceddf011f42937495e0e6793030e4dfe1",
    (1_000_003, "val", 96, 128, 10.0): "7321194be444111d77def5ee7b2229b096144e31a167685c03af0a7ea6f61ab4",
    (2_000_011, "test", 64, 80, 250.0): "649fd2699416ff933b0967495a834c9bbfddc2c178a1174fb5793bb2d415d672",
    (7, "train", 128, 256, 10000.0): "5561ea49483b1ec901b9046e74dbc0861e1ffbcfc0ae2a8cf5b1d9101c761b36",
}


@lru_cache(maxsize=8)
def split_of(split: str, count: int, imbalance: float = 1000.0):
    return streets.draw_split(split, count, imbalance=imbalance)


def shares(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=256) / labels.size


@pytest.mark.parametrize("scene", STORED)
def test_scenes_are_the_stored_ones(scene):
    seed, split, height, width, imbalance = scene
    image, label = streets.draw_scene(seed, split, height, width, imbalance)
    assert hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest() == STORED[scene]


def test_a_scene_does_not_depend_on_what_was_drawn_before():
    first = streets.draw_scene(5)
    streets.draw_scene(6, "test", 64, 64, 10.0)
    again = streets.draw_scene(5)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


@pytest.mark.parametrize("size", [(32, 32), (96, 128), (40, 200), (200, 40)])
def test_shapes_types_and_values(size):
    image, label = streets.draw_scene(3, "val", *size, imbalance=50)
    assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert label.shape == size and label.dtype == np.uint8
    assert set(np.unique(label)) <= {*range(11), 255}


def test_names_and_colours_fit_together():
    assert len(streets.CLASSES) == len(streets.PALETTE) == len(set(streets.PALETTE)) == 11
    assert streets.CLASSES[0] == "sky" and streets.CLASSES[10] == "traffic light"


@pytest.mark.parametrize("imbalance, count", [(10, 120), (100, 200), (1000, 300)])
def test_imbalance_is_the_one_asked_for(imbalance, count):
    share = shares(split_of("train", count, imbalance)[1])
    found = share[:11].max() / share[:11].min()
    assert 0.75 * imbalance <= found <= 1.33 * imbalance
    assert share[:11].argmin() == streets.CLASSES.index("traffic light")
    assert 0.015 <= share[255] <= 0.045


def test_long_tail_at_imbalance_1000():
    labels = split_of("train", 300, 1000)[1]
    share = np.sort(shares(labels)[:11])[::-1]
    assert 0.28 <= share[0] <= 0.40
    assert (share[:-1] / share[1:]).max() < 4.5  # no gap: the shares fall step by step
    light = (labels == streets.CLASSES.index("traffic light")).any(axis=(1, 2)).mean()
    assert 0.05 <= light <= 0.30


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_class_in_every_split(split):
    labels = split_of(split, 100, 1000)[1]
    assert set(range(11)) <= set(np.unique(labels))


def test_splits_share_no_scene():
    pictures = [image.tobytes() for split in ("train", "val", "test") for image in split_of(split, 100)[0]]
    assert len(set(pictures)) == 300
    firsts = sorted(streets.FIRST_SEED.values())
    assert min(np.diff(firsts)) >= streets.SEEDS_PER_SPLIT


def test_weather_shifts_from_train_to_test():
    """Fog and rain take contrast and colour away, so the test split is greyer than the training split."""
    contrast, colour = {}, {}
    for split in ("train", "test"):
        images = split_of(split, 300 if split == "train" else 100, 1000)[0][:100].astype(np.float32)
        contrast[split] = images.mean(axis=3).std(axis=(1, 2)).mean()
        colour[split] = (images.max(axis=3) - images.min(axis=3)).mean()
    assert contrast["test"] < 0.97 * contrast["train"]
    assert colour["test"] < 0.98 * colour["train"]


@pytest.mark.parametrize("change, words", [
    ({"split": "dev"}, "split: found 'dev'"),
    ({"imbalance": 9.9}, "imbalance: found 9.9"),
    ({"imbalance": 10001}, "imbalance: found 10001"),
    ({"imbalance": "high"}, "imbalance: found 'high'"),
    ({"imbalance": float("nan")}, "imbalance: found nan"),
    ({"height": 31}, "height: found 31"),
    ({"width": 16}, "width: found 16"),
    ({"width": 64.5}, "width: found 64.5"),
    ({"seed": -1}, "seed: found -1"),
])
def test_wrong_scene_arguments(change, words):
    with pytest.raises(ValueError, match=words) as caught:
        streets.draw_scene(**{"seed": 0, **change})
    assert "expected" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, -3, 1.5, 1_000_001])
def test_wrong_count(count):
    with pytest.raises(ValueError, match="count: found"):
        streets.draw_split("train", count)


def test_logarithm_without_a_logarithm():
    for imbalance in (10.0, 20.0, 99.0, 100.0, 1000.0, 3000.0, 10000.0):
        assert abs(streets._decades(imbalance) - (np.log10(imbalance) - 1)) < 1e-6
