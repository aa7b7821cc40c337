"""Street scenes drawn by code: the same everywhere, well-formed, as unbalanced as asked for."""

import hashlib
from functools import lru_cache

import numpy as np
import pytest

from cawalib.datasets import load_streets, streets, streets_easy
from cawalib.settings import DataConfig

# sha256 of image and label bytes; a change here means that every stored result of the paper is stale.
STORED = {
    (0, "train", 96, 128, 1000.0): "2a5d8233f907cf0b89fa006dbfb22aaceddf011f42937495e0e6793030e4dfe1",
    (1_000_003, "val", 96, 128, 10.0): "7321194be444111d77def5ee7b2229b096144e31a167685c03af0a7ea6f61ab4",
    (2_000_011, "test", 64, 80, 250.0): "649fd2699416ff933b0967495a834c9bbfddc2c178a1174fb5793bb2d415d672",
    (7, "train", 128, 256, 10000.0): "5561ea49483b1ec901b9046e74dbc0861e1ffbcfc0ae2a8cf5b1d9101c761b36",
}
STORED_EASY = {
    (1_000_003, "val", 96, 128, 10.0): "9871d35436a9525cd2d1f4e0065387b020cd09161bec9ebeb42aceed86ca32cb",
    (2_000_011, "test", 64, 80, 100.0): "0a3f201be16991072345356b72a89476736585f3f7797aacc56ca2503ece0ed3",
}


@lru_cache(maxsize=8)
def split_of(split: str, count: int, imbalance: float = 1000.0, rare_classes: str = "hard"):
    return streets.draw_split(split, count, imbalance=imbalance, rare_classes=rare_classes)


def shares(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=256) / labels.size


@pytest.mark.parametrize("scene", STORED)
def test_scenes_are_the_stored_ones(scene):
    seed, split, height, width, imbalance = scene
    image, label = streets.draw_scene(seed, split, height, width, imbalance)
    assert hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest() == STORED[scene]


@pytest.mark.parametrize("scene", STORED_EASY)
def test_scenes_with_easy_rare_classes_are_the_stored_ones(scene):
    image, label = streets.draw_scene(*scene, rare_classes="easy")
    assert set(streets_easy.COLOURS) & set(np.unique(label))
    assert hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest() == STORED_EASY[scene]


def test_rare_classes_are_hard_unless_asked_for():
    default, hard, easy = (streets.draw_scene(4, imbalance=100, **kind)
                           for kind in ({}, {"rare_classes": "hard"}, {"rare_classes": "easy"}))
    assert np.array_equal(default[0], hard[0]) and np.array_equal(default[1], hard[1])
    assert not np.array_equal(default[0], easy[0])
    pair = [streets.draw_split("train", 2, 32, 32, 100, *kind)[0] for kind in ((), ("hard",), ("easy",))]
    assert np.array_equal(pair[0], pair[1]) and not np.array_equal(pair[0], pair[2])


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


def test_easy_and_hard_rare_classes_are_equally_rare():
    hard, easy = (shares(split_of("train", 150, 100, kind)[1])[:11] for kind in ("hard", "easy"))
    frequent = hard >= 0.05
    assert frequent.sum() == 6
    assert np.abs(easy / hard - 1)[frequent].max() < 0.08
    assert np.abs(easy / hard - 1).max() < 0.2


def test_easy_classes_come_in_fewer_and_larger_pieces():
    hard, easy = (split_of("train", 150, 100, kind)[1] for kind in ("hard", "easy"))
    for class_id in streets_easy.COLOURS:
        assert (easy == class_id).any(axis=(1, 2)).sum() < 0.8 * (hard == class_id).any(axis=(1, 2)).sum()


def test_no_other_class_has_the_colour_of_an_easy_one():
    images, labels = split_of("train", 60, 10, "easy")
    for class_id, colour in streets_easy.COLOURS.items():
        hue = np.array(colour) - np.mean(colour)  # grey has nothing of it
        strength = images @ (hue / np.sqrt((hue * hue).sum()))
        own, others = labels == class_id, (labels != class_id) & (labels != 255)
        assert np.percentile(strength[own], 2) > np.percentile(strength[others], 99.5)


def test_the_hard_class_differs_in_colour_alone(monkeypatch):
    """The empty street has the same labels, but its vegetation is hardly greener than its houses."""
    monkeypatch.setattr(streets, "_things", lambda *_: [])
    monkeypatch.setattr(streets, "_count", lambda *_: 0)
    labels, greener = {}, {}
    for kind in ("hard", "easy"):
        images, labels[kind] = split_of.__wrapped__("train", 30, 100, kind)
        green = images @ np.array([-0.5, 1.0, -0.5])
        building, vegetation = (green[labels[kind] == streets.CLASSES.index(name)].mean()
                                for name in ("building", "vegetation"))
        greener[kind] = vegetation - building
    assert np.array_equal(labels["hard"], labels["easy"])
    assert greener["easy"] < 0.5 * greener["hard"]


def test_drawn_scenes_of_both_kinds_are_kept_apart(tmp_path):
    config = {"image_height": 32, "image_width": 32, "data_root": str(tmp_path)}
    hard, easy, again = (load_streets(DataConfig(rare_classes=kind, **config), "val")
                         for kind in ("hard", "easy", "hard"))
    assert hard.digest == again.digest != easy.digest
    assert {path.name for path in (tmp_path / "streets").iterdir()} == {
        "val-80-32x32-imbalance1000-drawing1.npz", "val-80-32x32-imbalance1000-drawing1-rare-easy.npz"}
    assert DataConfig(dataset="camvid", rare_classes="easy") == DataConfig(dataset="camvid")


@pytest.mark.parametrize("rare_classes", ["hard", "easy"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_class_in_every_split(split, rare_classes):
    labels = split_of(split, 100, 1000, rare_classes)[1]
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
    ({"rare_classes": "soft"}, "rare_classes: found 'soft', expected 'hard' or 'easy'"),
    ({"rare_classes": None}, "rare_classes: found None"),
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
