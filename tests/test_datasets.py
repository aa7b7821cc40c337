"""CamVid: read right, and every malformed folder refused in one line that names the file."""

import numpy as np
import pytest
from PIL import Image

from cawalib.datasets import DatasetError, camvid, load_datasets
from cawalib.datasets.statistics import class_statistics
from cawalib.runs import RunConfig
from cawalib.training import EvaluationImages, TrainingImages

CLASSES = 11


@pytest.fixture
def folder(tmp_path):
    """CamVid in miniature: two pairs a split, one image a .png and one a .jpg."""
    for split in camvid.DATASET.expected:
        images, labels = tmp_path / split, tmp_path / f"{split}annot"
        images.mkdir()
        labels.mkdir()
        for name, suffix in (("a", ".png"), ("b", ".jpg")):
            Image.fromarray(np.full((24, 32, 3), 100, np.uint8)).save(images / (name + suffix))
            values = np.arange(24 * 32).reshape(24, 32) % 12
            Image.fromarray(values.astype(np.uint8)).save(labels / f"{name}.png")
    return tmp_path


def load(folder):
    return load_datasets(RunConfig(dataset="camvid", data_root=str(folder)))


def test_labels_and_images(folder):
    splits = load(folder)
    assert {split: len(data) for split, data in splits.items()} == {"train": 2, "val": 2, "test": 2}
    image, labels = splits["train"][1]
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8 and abs(int(image.mean()) - 100) < 3
    expected = np.arange(24 * 32).reshape(24, 32) % 12
    np.testing.assert_array_equal(labels, np.where(expected == 11, 255, expected))  # 11 is void


def first_label(folder):
    return folder / "trainannot" / "a.png"


def remove_folder(folder):
    for path in (folder / "val").iterdir():
        path.unlink()
    (folder / "val").rmdir()


def empty_folder(folder):
    for path in [*(folder / "val").iterdir(), *(folder / "valannot").iterdir()]:
        path.unlink()


def other_size(folder):
    Image.fromarray(np.zeros((12, 32), np.uint8)).save(first_label(folder))


def unknown_value(folder):
    Image.fromarray(np.full((24, 32), 17, np.uint8)).save(first_label(folder))


def colour_label(folder):
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(first_label(folder))


def sixteen_bits(folder):
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(first_label(folder))


def one_bit(folder):
    Image.fromarray(np.zeros((24, 32), bool)).save(first_label(folder))


def cut_off(folder):
    path = folder / "train" / "b.jpg"
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("damage, words", [
    (remove_folder, "valannot/a.png: label without its image, .*; that folder is missing"),
    (empty_folder, "holds no split 'val' of camvid; expected val and valannot"),
    (lambda folder: first_label(folder).unlink(),
     "train/a.png: image without its label, expected one of the same name in .*trainannot$"),
    (lambda folder: (folder / "train" / "a.png").unlink(),
     "trainannot/a.png: label without its image, expected one of the same name in .*train$"),
    (other_size, "trainannot/a.png: labels are 32x12, its image a.png is 32x24"),
    (unknown_value, r"trainannot/a.png: found label value 17 \(768 pixels\), expected one of the 11 classes"),
    (colour_label, "trainannot/a.png: found 3 dimensions"),
    (sixteen_bits, "trainannot/a.png: found labels of type uint16, expected 8 bits"),
    (one_bit, "trainannot/a.png: found labels of type bool, expected 8 bits"),
    (cut_off, "train/b.jpg: cannot be read as an image"),
    (lambda folder: first_label(folder).write_text("no image"), "trainannot/a.png: cannot be read as an image"),
])
def test_malformed(folder, damage, words):
    damage(folder)
    with pytest.raises(DatasetError, match=words) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_digest_tells_other_files(folder):
    before = load(folder)["train"].digest
    assert load(folder)["train"].digest == before
    assert load(folder)["train"].first(1).digest != before
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)).save(folder / "train" / "a.png")
    assert load(folder)["train"].digest != before


def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path):
    import torch

    config = RunConfig(data_root=str(tmp_path), train_images=3, image_height=32, image_width=64)
    images = TrainingImages(load_datasets(config)["train"], config, config)
    first = images[1]
    state = torch.get_rng_state()
    images[0], torch.rand(5)
    again = images[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    images.epoch = 1
    assert not torch.equal(images[1][0], first[0])
    torch.set_rng_state(state)
    images[2]
    assert torch.equal(torch.get_rng_state(), state)  # drawing for an image leaves the global state alone
    assert first[0].shape == (3, 32, 64) and first[1].shape == (32, 64)
    assert set(first[1].unique().tolist()) <= {*range(CLASSES), 255}
    plain = EvaluationImages(load_datasets(config)["val"], config, config)[0]
    assert plain[0].shape == (3, 32, 64) and plain[1].dtype == torch.uint8


def test_real_camvid(camvid):
    splits = load(camvid)
    assert {split: len(data) for split, data in splits.items()} == {"train": 367, "val": 101, "test": 233}
    statistics = class_statistics(splits["train"])
    share = dict(zip(statistics.classes, statistics.pixels / statistics.pixels.sum(), strict=True))
    assert share["road"] > 0.25 and share["sign"] < 0.02 and statistics.images[statistics.classes.index("road")] == 367
