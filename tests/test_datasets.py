"""CamVid: read right, and every malformed folder refused in one line that names the file."""

import os
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from cawalib.datasets import DatasetError, SegmentationDataset, base, camvid, load, load_datasets
from cawalib.datasets.statistics import class_statistics
from cawalib.runs import RunConfig
from cawalib.settings import DataConfig
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


def loaded(folder):
    return load_datasets(RunConfig(dataset="camvid", data_root=str(folder)))


def test_labels_and_images(folder):
    splits = loaded(folder)
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


def same_name(folder):
    (folder / "train" / "deep").mkdir()
    shutil.copy(folder / "train" / "b.jpg", folder / "train" / "deep" / "a.jpg")


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
    (lambda folder: Image.fromarray(np.zeros((24, 16), np.uint8)).save(first_label(folder)),
     "trainannot/a.png: labels are 16x24, its image a.png is 32x24"),
    (unknown_value, r"trainannot/a.png: found label value 17 \(768 pixels\), expected one of the 11 classes"),
    (colour_label, "trainannot/a.png: found 3 dimensions"),
    (sixteen_bits, "trainannot/a.png: found labels of type uint16, expected 8 bits"),
    (one_bit, "trainannot/a.png: found labels of type bool, expected 8 bits"),
    (same_name, "train/deep/a.jpg: a file of the same name, .*train/a.png, is there already; names must be unique"),
    (cut_off, "train/b.jpg: cannot be read as an image"),
    (lambda folder: first_label(folder).write_text("no image"), "trainannot/a.png: cannot be read as an image"),
])
def test_malformed(folder, damage, words):
    damage(folder)
    with pytest.raises(DatasetError, match=words) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_of_the_data(folder):
    (folder / "train" / "._a.png").write_text("as macOS leaves them")
    assert len(loaded(folder)["train"]) == 2


def test_digest_tells_other_files(folder):
    before = loaded(folder)["train"].digest
    assert loaded(folder)["train"].digest == before
    assert loaded(folder)["train"].first(1).digest != before
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)).save(folder / "train" / "a.png")
    assert loaded(folder)["train"].digest != before


def made_up(sizes):
    """Images of one value, their index, of these sizes, with labels of 0 and 200 in columns."""
    pairs = [(np.full((*size, 3), index, np.uint8), np.tile([0, 200], (size[0], size[1] // 2)).astype(np.uint8))
             for index, size in enumerate(sizes)]
    read = partial(list.__getitem__, pairs)
    return SegmentationDataset("made up", "train", ("a",), ((0, 0, 0),), len(pairs), read, "digest")


def test_parts_of_data_are_other_data():
    data = made_up([(4, 4)] * 5)
    parts = [data, data.first(2), data.first(3), data.chosen([0, 1], "train"), data.chosen([0, 2], "train")]
    assert len({part.digest for part in parts}) == 5 and [len(part) for part in parts] == [5, 2, 3, 2, 2]
    assert len(data.first(9)) == 5
    chosen = data.chosen([3, 1], "val")
    assert chosen.split == "val" and [int(chosen[index][0].max()) for index in range(2)] == [3, 1]


def test_shrunk_pairs_keep_their_labels_values():
    data = made_up([(40, 60), (16, 90)])
    data.keep()
    for labels, size in ((True, (20, 30)), (False, (40, 60))):
        image, found = data.shrunk(20, labels)[0]
        assert image.shape == (20, 30, 3) and found.shape == size and set(np.unique(found)) <= {0, 200}
    assert data.shrunk(20, True)[1][0].shape == (16, 90, 3)  # none is made larger


def test_what_is_kept_in_memory_is_bounded(monkeypatch):
    data = made_up([(2, 2), (10, 10), (10, 10), (10, 10)])  # 4 bytes a pixel
    monkeypatch.setattr(base, "KEEP_IN_MEMORY_BYTES", 16 + 400 + 100)
    data.keep()
    assert list(data._kept) == [0, 1]


def test_scenes_are_kept_by_all_that_they_depend_on(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "STREETS_COUNTS", {"train": 2, "val": 2, "test": 2})
    random, drawn = np.random.default_rng(0), []

    def draw(split, count, height, width, imbalance, rare_classes):
        drawn.append((split, height, width, imbalance, rare_classes))
        return random.integers(0, 256, (count, height, width, 3), np.uint8), np.zeros((count, height, width), np.uint8)

    monkeypatch.setattr(load.streets, "draw_split", draw)

    def digest(split="train", **settings):
        place = {"data_root": str(tmp_path), "image_height": 32, "image_width": 32}
        return load.load_streets(DataConfig(**place | settings), split).digest

    some = [{}, {"split": "val"}, {"image_height": 64}, {"image_width": 64}, {"imbalance": 10.0},
            {"rare_classes": "easy"}]
    first = [digest(**settings) for settings in some]
    assert len(set(first)) == len(drawn) == 6  # by their images: all labels are alike
    assert [digest(**settings) for settings in some] == first and len(drawn) == 6
    monkeypatch.setattr(load.streets, "DRAWING", 2)
    assert digest() not in first

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        digest(imbalance=100.0)
    assert len(list((tmp_path / "streets").iterdir())) == 7


def cities(root, values, names=("train", "val"), ending="_gtFine_labelTrainIds.png"):
    """Cityscapes in miniature: eight pairs to train with, two for val, named by split and number."""
    for split in names:
        for number in range(8 if split == "train" else 2):
            for folder, array, end in (("images", np.zeros((4, 6, 3), np.uint8), ".png"),
                                       ("annotations", np.full((4, 6), values, np.uint8), ending)):
                path = root / folder / split / f"{split}{number}{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


def test_val_as_test_chooses_on_a_share_of_train(tmp_path):
    root = cities(tmp_path, 13)

    def stems(data):
        if isinstance(data.read.args[0], SegmentationDataset):
            return [data.read.args[0].read.args[0][index][0].stem for index in data.read.args[1]]
        return [image.stem for image, _ in data.read.args[0]]

    def splits(seed=0, fraction=0.25):
        settings = {"val_is_test": True, "val_fraction": fraction, "split_seed": seed}
        return load.list_datasets(DataConfig(dataset="cityscapes", data_root=str(root), **settings))

    official = load.list_datasets(DataConfig(dataset="cityscapes", data_root=str(root)))
    assert stems(official["train"]) == [f"train{number}" for number in range(8)]  # in the same order everywhere
    found = {split: stems(data) for split, data in splits().items()}
    assert found["test"] == ["val0", "val1"] and splits()["test"].split == "test"
    assert len(found["val"]) == 2 and sorted(found["train"] + found["val"]) == [f"train{number}" for number in range(8)]
    assert len({tuple(stems(splits(seed)["val"])) for seed in range(8)}) > 1
    assert splits()["train"][0][1].max() == 13  # a train id is its class
    assert stems(splits()["val"]) == found["val"] and len(splits(fraction=0.5)["val"]) == 4


def test_train_ids_taken_for_ids_are_told(tmp_path):
    root = cities(tmp_path, 13, ending=".png")  # a car, or as an id: a fence
    with pytest.raises(DatasetError, match="no label of 8 files is above 18, so they look like train ids"):
        load_datasets(DataConfig(dataset="cityscapes", data_root=str(root)))
    cities(tmp_path, 26, ending=".png")
    cities(tmp_path, 200, ("train",), "_gtFine_color.png")  # lie beside the labels, and are none
    assert load_datasets(DataConfig(dataset="cityscapes", data_root=str(root)))["train"][0][1].max() == 13


def test_lists_say_what_belongs_to_a_split(tmp_path):
    """COCO-Stuff 10k: its lists choose among the images of train2017, by names of 2014 as well."""
    for number in range(4):
        for folder, array, end in (("images", np.zeros((4, 6, 3), np.uint8), ".jpg"),
                                   ("annotations", np.full((4, 6), 12 + number, np.uint8), ".png")):
            path = tmp_path / folder / "train2017" / f"{number:012}{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    lists = tmp_path / "imageLists"
    lists.mkdir()
    (lists / "train.txt").write_text("000000000003\nCOCO_train2014_000000000001\n")
    (lists / "test.txt").write_text("000000000002\n")
    config = DataConfig(dataset="cocostuff10k", data_root=str(tmp_path))
    splits = load_datasets(config)
    # labels 13, 15 and 14 are COCO's ids 14, 16, 15: parking meter, bird and bench; 11 (id 12) is no class
    names = {split: [data.classes[data[index][1].max()] for index in range(len(data))]
             for split, data in splits.items()}
    assert names == {"train": ["parking meter", "bird"], "val": ["bench"]}
    for text, words in (("000000000003", "train.txt: names '000000000003', which imageLists/test.txt names too"),
                        ("000000000009", "test.txt: names '000000000009', for which there is neither image nor label"),
                        ("000000000002\n" * 2, "test.txt: names '000000000002' 2 times, expected each name once")):
        (lists / "test.txt").write_text(text)
        with pytest.raises(DatasetError, match=words):
            load_datasets(config)


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
    splits = loaded(camvid)
    assert {split: len(data) for split, data in splits.items()} == {"train": 367, "val": 101, "test": 233}
    statistics = class_statistics(splits["train"])
    share = dict(zip(statistics.classes, statistics.pixels / statistics.pixels.sum(), strict=True))
    assert share["road"] > 0.25 and share["sign"] < 0.02 and statistics.images[statistics.classes.index("road")] == 367
