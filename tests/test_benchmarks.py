"""Cityscapes, ADE20K and COCO-Stuff: every id, every layout, real files, and malformed data refused in one line."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cawalib.datasets import ade20k, cityscapes, cocostuff, layouts, load_datasets
from cawalib.datasets.base import DatasetError
from cawalib.runs import RunConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DATASETS = {dataset.name: dataset for dataset in (
    cityscapes.DATASET, ade20k.DATASET, cocostuff.DATASET, cocostuff.DATASET_10K)}
VOID = 255

CITYSCAPES_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}
CITYSCAPES_VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)
ADE20K_IDS = {
    1: "wall", 2: "building", 3: "sky", 4: "floor", 5: "tree", 8: "bed", 13: "person", 21: "car", 49: "skyscraper",
    65: "coffee table", 90: "television", 91: "airplane", 100: "buffet", 117: "minibike", 128: "bicycle",
    137: "traffic light", 142: "crt screen", 149: "clock", 150: "flag",
}
COCO_MISSING = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
COCO_IDS = {  # the labels before and after each missing one, and some of the stuff
    0: "person", 1: "bicycle", 10: "fire hydrant", 12: "stop sign", 24: "giraffe", 26: "backpack", 27: "umbrella",
    30: "handbag", 43: "bottle", 45: "wine glass", 64: "bed", 66: "dining table", 69: "toilet", 71: "tv",
    81: "refrigerator", 83: "book", 88: "hair drier", 89: "toothbrush", 91: "banner", 92: "blanket", 105: "clouds",
    147: "river", 156: "sky-other", 168: "tree", 181: "wood",
}


# ---------------------------------------------------------------- ids, names, colours

def expected_mapping(name):
    """Value on disk -> class or void, written without the tables of the library."""
    if name == "cityscapes":
        mapping = dict.fromkeys(CITYSCAPES_VOID, VOID)
        for number, value in enumerate(CITYSCAPES_IDS):
            mapping[value] = number
    elif name == "ade20k":
        mapping = {0: VOID}
        for value in range(1, 151):
            mapping[value] = value - 1
    else:
        mapping, number = {255: VOID}, 0
        for value in range(182):
            if value not in COCO_MISSING:
                mapping[value] = number
                number += 1
        assert number == 171
    return mapping


@pytest.mark.parametrize("name", DATASETS)
def test_every_value_maps_as_documented(name):
    mapping = expected_mapping(name)
    assert DATASETS[name].to_class.tolist() == [mapping.get(value, -1) for value in range(256)]


@pytest.mark.parametrize("name, ids", [("cityscapes", CITYSCAPES_IDS), ("ade20k", ADE20K_IDS), ("cocostuff", COCO_IDS)])
def test_names_by_value_on_disk(name, ids):
    dataset = DATASETS[name]
    assert {value: dataset.classes[dataset.to_class[value]] for value in ids} == ids


def test_train_ids_are_the_classes():
    table = cityscapes.TRAIN_IDS_TO_CLASS
    assert table.tolist() == [*range(19), *[-1] * 236, VOID]


@pytest.mark.parametrize("name, count, pairs", [
    ("cityscapes", 19, {"train": 2975, "val": 500}), ("ade20k", 150, {"train": 20210, "val": 2000}),
    ("cocostuff", 171, {"train": 118287, "val": 5000}), ("cocostuff10k", 171, {"train": 9000, "val": 1000}),
])
def test_tables_are_whole(name, count, pairs):
    dataset = DATASETS[name]
    assert len(dataset.classes) == len(set(dataset.classes)) == len(dataset.palette) == count
    assert all(text == text.strip() and text for text in dataset.classes)
    assert dataset.expected == pairs
    assert all(len(colour) == 3 and 0 <= min(colour) <= max(colour) <= 255 for colour in dataset.palette)
    for archive in dataset.archives:
        assert len(archive.sha1) in (0, 40) and archive.size > 1e8 and (archive.url or dataset.login)


@pytest.mark.parametrize("name, names, colours", [
    # of mcordts/cityscapesScripts 0bcc4a7, labels.py
    ("cityscapes", "5995d02d6c574d51", "5af5a8d200c61cb3"),
    # of CSAILVision/sceneparsing e202229, objectInfo150.txt and color150.mat
    ("ade20k", "ffd47f2fcbad6c48", "ce475c9151035eff"),
    # of nightrome/cocostuff 876a7db, labels.txt; no colours there
    ("cocostuff", "8ea44449837dceb3", None),
])
def test_tables_are_those_of_the_official_files(name, names, colours):
    """Start of the SHA-256 of the names, one a line, and of the colours' bytes, made from the official files."""
    dataset = DATASETS[name]
    assert hashlib.sha256("\n".join(dataset.classes).encode()).hexdigest().startswith(names)
    flat = bytes(value for colour in dataset.palette for value in colour)
    assert colours is None or hashlib.sha256(flat).hexdigest().startswith(colours)


def colour_of(name, text):
    return DATASETS[name].palette[DATASETS[name].classes.index(text)]


def test_official_colours():
    assert colour_of("cityscapes", "road") == (128, 64, 128) and colour_of("cityscapes", "train") == (0, 80, 100)
    assert colour_of("cityscapes", "bicycle") == (119, 11, 32) and len(set(cityscapes.PALETTE)) == 19
    assert colour_of("ade20k", "wall") == (120, 120, 120) and colour_of("ade20k", "sky") == (6, 230, 230)
    assert colour_of("ade20k", "bus") == (255, 0, 245) and colour_of("ade20k", "flag") == (92, 0, 255)
    assert len(set(ade20k.PALETTE)) == 149 and colour_of("ade20k", "road") == colour_of("ade20k", "skyscraper")


def test_cocostuff_colours_are_vocs_and_all_different():
    vocs = [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
            (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128),
            (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)]
    del vocs[11]  # COCO's id 12, "street sign", is no class
    assert list(cocostuff.PALETTE[:19]) == vocs
    assert len(set(cocostuff.PALETTE)) == 171 and (0, 0, 0) not in cocostuff.PALETTE
    assert cocostuff.DATASET_10K.classes is cocostuff.CLASSES


# ---------------------------------------------------------------- real files

def shared(name):
    """A folder of real data; the test is skipped, and says so, where it is not."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"real data are not at ../shared/data/{name} beside this repository")
    return SHARED / name


@pytest.mark.parametrize("name, folder, split, count", [
    ("cityscapes", "cityscapes", "train", 4), ("cityscapes", "cityscapes", "val", 4),
    ("cityscapes", "cityscapes-256", "train", 372), ("cityscapes", "cityscapes-256", "val", 122),
    ("cocostuff", "cocostuff", "train", 8), ("cocostuff", "cocostuff", "val", 4), ("ade20k", "ade20k", "val", 2),
])
def test_real_files(name, folder, split, count):
    dataset, mapping, root = DATASETS[name], expected_mapping(name), shared(folder)
    loaded = layouts.load(dataset, root, split)
    assert len(loaded) == count
    for index, (image_path, label_path) in enumerate(layouts.find(dataset, root, split).pairs):
        image, labels = loaded[index]
        assert image.shape == (*labels.shape, 3) and image.dtype == labels.dtype == np.uint8
        if index < 2:
            assert image_path.name.split("_leftImg8bit")[0].split(".")[0] in label_path.name
            with Image.open(label_path) as file:
                stored = np.array(file)
            values, where = np.unique(stored, return_inverse=True)
            mapped = np.array([mapping[value] for value in values.tolist()])
            np.testing.assert_array_equal(labels, mapped[where.reshape(stored.shape)])
            assert len(values) > 2


def test_real_ade20k_has_no_training_split():
    with pytest.raises(DatasetError, match="holds no split 'train' of ade20k; expected images/training and "
                                           "annotations/training, or images/train and annotations/train$") as caught:
        layouts.load(ade20k.DATASET, shared("ade20k"), "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cityscapes", "ade20k", "cocostuff"])
def test_folder_above_will_do(name):
    shared(name)
    found = layouts.find(DATASETS[name], SHARED / name if name == "ade20k" else SHARED, "val")
    assert len(found.pairs) == {"cityscapes": 4, "ade20k": 2, "cocostuff": 4}[name]


def test_real_ade20k_from_its_own_folder():
    assert len(layouts.load(ade20k.DATASET, shared("ade20k") / "ADEChallengeData2016", "val")) == 2


# ---------------------------------------------------------------- layouts, in miniature

def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_pair(root, image, label, value):
    write(root / image, np.full((4, 6, 3), 99, np.uint8))
    write(root / label, np.full((4, 6), value, np.uint8))


CITY_IMAGE, CITY_IDS, CITY_TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
SPLITS, ADE_SPLITS = {"train": "train", "val": "val"}, {"train": "training", "val": "validation"}


@pytest.mark.parametrize("name, image, label, value, text, names", [
    ("cityscapes", "leftImg8bit/{}/ulm/*" + CITY_IMAGE, "gtFine/{}/ulm/*" + CITY_IDS, 26, "car", SPLITS),
    ("cityscapes", "leftImg8bit/{}/ulm/*" + CITY_IMAGE, "gtFine/{}/ulm/*" + CITY_TRAIN_IDS, 13, "car", SPLITS),
    ("cityscapes", "cityscapes/leftImg8bit/{}/ulm/*" + CITY_IMAGE, "cityscapes/gtFine/{}/ulm/*" + CITY_IDS, 33,
     "bicycle", SPLITS),
    ("cityscapes", "images/{}/*" + CITY_IMAGE, "annotations/{}/*" + CITY_IDS, 26, "car", SPLITS),
    ("cityscapes", "images/{}/ulm/*" + CITY_IMAGE, "annotations/{}/ulm/*" + CITY_IDS, 26, "car", SPLITS),
    ("cityscapes", "images/{}/*" + CITY_IMAGE, "annotations/{}/ulm/*" + CITY_IDS, 26, "car", SPLITS),
    ("cityscapes", "images/{}/*.png", "annotations/{}/*" + CITY_IDS, 26, "car", SPLITS),
    ("cityscapes", "images/{}/*" + CITY_IMAGE, "annotations/{}/*" + CITY_TRAIN_IDS, 13, "car", SPLITS),
    ("cityscapes", "images/{}/ulm/*" + CITY_IMAGE, "annotations/{}/ulm/*" + CITY_TRAIN_IDS, 18, "bicycle", SPLITS),
    ("cityscapes", "images/{}/*.png", "annotations/{}/*.png", 26, "car", SPLITS),
    ("cityscapes", "images/{}/*.jpg", "annotations/{}/*.png", 26, "car", SPLITS),
    ("cityscapes", "cityscapes/images/{}/*.JPG", "cityscapes/annotations/{}/*.png", 26, "car", SPLITS),
    ("ade20k", "ADEChallengeData2016/images/{}/*.jpg", "ADEChallengeData2016/annotations/{}/*.png", 21, "car",
     ADE_SPLITS),
    ("ade20k", "images/{}/*.jpg", "annotations/{}/*.png", 21, "car", ADE_SPLITS),
    ("ade20k", "images/{}/*.jpg", "annotations/{}/*.png", 150, "flag", SPLITS),
    ("cocostuff", "images/{}2017/*.jpg", "annotations/{}2017/*.png", 2, "car", SPLITS),
    ("cocostuff", "images/{}2017/*.jpg", "stuffthingmaps/{}2017/*.png", 2, "car", SPLITS),
    ("cocostuff", "{}2017/*.jpg", "stuffthingmaps/{}2017/*.png", 181, "wood", SPLITS),
    ("cocostuff", "{}2017/*.jpg", "annotations/{}2017/*.png", 2, "car", SPLITS),
    ("cocostuff", "cocostuff/images/{}2017/*.jpg", "cocostuff/annotations/{}2017/*.png", 2, "car", SPLITS),
])
def test_layouts(tmp_path, name, image, label, value, text, names):
    for split, keys in (("train", ["b_1", "a_1"]), ("val", ["c_1"])):
        for key in keys:
            paths = [pattern.format(names[split]).replace("*", key) for pattern in (image, label)]
            write_pair(tmp_path, *paths, value)
            for path in paths:  # what macOS leaves beside each file
                (tmp_path / path).with_name("._" + Path(path).name).write_bytes(b"\0\5\26\7")
    dataset = DATASETS[name]
    for split, count in (("train", 2), ("val", 1)):
        loaded = layouts.load(dataset, tmp_path, split)
        assert (len(loaded), loaded.name, loaded.split) == (count, name, split)
        for index in range(count):
            assert (loaded[index][1] == dataset.classes.index(text)).all()
    first = layouts.find(dataset, tmp_path, "train").pairs[0]
    assert all(path.name.startswith("a_1") for path in first)


@pytest.mark.parametrize("image, label", [("leftImg8bit/train/ulm/a", "gtFine/train/ulm/a"),
                                          ("images/train/a", "annotations/train/a")])
def test_label_ids_come_before_train_ids(tmp_path, image, label):
    write_pair(tmp_path, image + CITY_IMAGE, label + CITY_IDS, 26)
    for ending, value in ((CITY_TRAIN_IDS, 3), ("_gtFine_instanceIds.png", 26), ("_gtFine_color.png", 70)):
        write(tmp_path / (label + ending), np.full((4, 6), value, np.uint8))
    loaded = layouts.load(cityscapes.DATASET, tmp_path, "train")
    assert len(loaded) == 1 and (loaded[0][1] == cityscapes.CLASSES.index("car")).all()
    (tmp_path / (label + CITY_IDS)).unlink()
    loaded = layouts.load(cityscapes.DATASET, tmp_path, "train")
    assert len(loaded) == 1 and (loaded[0][1] == 3).all()


def test_official_layout_comes_before_another_one(tmp_path):
    write_pair(tmp_path, "images/train/a.png", "annotations/train/a.png", 7)
    write_pair(tmp_path, "leftImg8bit/train/ulm/a" + CITY_IMAGE, "gtFine/train/ulm/a" + CITY_IDS, 26)
    assert layouts.find(cityscapes.DATASET, tmp_path, "train").labels == tmp_path / "gtFine" / "train"


def coco(root, names=("000000000009", "000000000025", "000000000030", "000000000034")):
    """COCO-Stuff in miniature, with what mmsegmentation's converters leave beside the labels."""
    for value, name in enumerate(names):
        write_pair(root, f"images/train2017/{name}.jpg", f"annotations/train2017/{name}.png", value)
        for ending in ("_labelTrainIds.png", "_instanceTrainIds.png"):
            write(root / "annotations" / "train2017" / (name + ending), np.full((4, 6), 170, np.uint8))
    return root


def test_converted_labels_beside_are_ignored(tmp_path):
    loaded = layouts.load(cocostuff.DATASET, coco(tmp_path), "train")
    assert [int(loaded[index][1][0, 0]) for index in range(len(loaded))] == [0, 1, 2, 3]


def lists(root, train, test):
    (root / "imageLists").mkdir(exist_ok=True)
    (root / "imageLists" / "train.txt").write_text(train)
    (root / "imageLists" / "test.txt").write_text(test)


@pytest.mark.parametrize("spelling", ["{}\n", "COCO_train2014_{}\n", "COCO_train2014_{}.jpg\r\n", "{}.jpg\n\n"])
def test_10k_is_what_its_lists_name(tmp_path, spelling):
    coco(tmp_path)
    lists(tmp_path, spelling.format("000000000034") + spelling.format("000000000009"), spelling.format("000000000025"))
    splits = {split: layouts.load(cocostuff.DATASET_10K, tmp_path, split) for split in ("train", "val")}
    assert {split: [int(data[i][1][0, 0]) for i in range(len(data))] for split, data in splits.items()} == {
        "train": [0, 3], "val": [1]}
    assert splits["train"].name == "cocostuff10k"
    assert len(layouts.load(cocostuff.DATASET, tmp_path, "train")) == 4


# ---------------------------------------------------------------- malformed

def streets_folder(root):
    for split in ("train", "val"):
        for city, key in (("ulm", "a"), ("bonn", "b")):
            place = f"{split}/{city}/{key}"
            write_pair(root, f"leftImg8bit/{place}{CITY_IMAGE}", f"gtFine/{place}{CITY_IDS}", 7)


def scenes_folder(root):
    for split in ("training", "validation"):
        for key in ("a", "b"):
            write_pair(root, f"images/{split}/{key}.jpg", f"annotations/{split}/{key}.png", 1)


def coco_folder(root):
    coco(root, ["000000000009", "000000000025"])
    lists(root, "000000000009", "000000000025")


MAKE = {"cityscapes": streets_folder, "ade20k": scenes_folder, "cocostuff": coco_folder, "cocostuff10k": coco_folder}
CITY_LABEL, ADE_LABEL = "gtFine/train/ulm/a" + CITY_IDS, "annotations/training/a.png"
COCO_LABEL = "annotations/train2017/000000000009.png"


def becomes(path, value, kind=np.uint8, shape=(4, 6)):
    return lambda root: write(root / path, np.full(shape, value, kind))


def gone(path):
    return lambda root: (root / path).unlink()


def moved(*paths):
    return lambda root: [(root / path).rename(root / to) for path, to in zip(paths[::2], paths[1::2], strict=True)]


def cut(path):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:50])


def listed(text):
    return lambda root: lists(root, text, "")


def train_ids(root):
    for path in (root / "gtFine").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    write(root / CITY_LABEL.replace("labelIds", "labelTrainIds"), np.full((4, 6), 19, np.uint8))


@pytest.mark.parametrize("name, damage, words", [
    ("cityscapes", moved("leftImg8bit/train", "leftImg8bit/other", "gtFine/train", "gtFine/other"),
     "parameter 'data_root': .* holds no split 'train' of cityscapes; expected leftImg8bit/train and gtFine/train, or "
     "images/train and annotations/train$"),
    ("cityscapes", moved("gtFine/train", "gtFine/other"),
     "leftImg8bit.png: image without its label, .*gtFine/train; .*that folder is missing"),
    ("cityscapes", moved("leftImg8bit", "elsewhere"),
     "labelIds.png: label without its image, .*leftImg8bit/train; .*that folder is missing"),
    ("cityscapes", gone(CITY_LABEL), "a_leftImg8bit.png: image without its label, .* in .*gtFine/train$"),
    ("cityscapes", gone("leftImg8bit/train/ulm/a" + CITY_IMAGE),
     "a_gtFine_labelIds.png: label without its image, .* in .*leftImg8bit/train$"),
    ("cityscapes", becomes("leftImg8bit/train/bonn/a" + CITY_IMAGE, 0, shape=(4, 6, 3)),
     "ulm/a_leftImg8bit.png: a file of the same name, .*bonn/a_leftImg8bit.png, is there already"),
    ("cityscapes", becomes(CITY_LABEL, 40), r"labelIds.png: found label value 40 \(24 pixels\), expected .* 19 "),
    ("cityscapes", becomes(CITY_LABEL, 34), r"found label value 34 \(24 pixels\)"),
    ("cityscapes", train_ids, r"labelTrainIds.png: found label value 19 \(24 pixels\), expected .* 19 classes"),
    ("cityscapes", becomes(CITY_LABEL, 7, np.uint16), "labelIds.png: found labels of type uint16, expected 8 bits"),
    ("cityscapes", cut("leftImg8bit/train/ulm/a" + CITY_IMAGE), "a_leftImg8bit.png: cannot be read as an image"),
    ("ade20k", gone(ADE_LABEL), "training/a.jpg: image without its label"),
    ("ade20k", becomes(ADE_LABEL, 151), r"a.png: found label value 151 \(24 pixels\), expected .* 150 classes or void"),
    ("ade20k", becomes(ADE_LABEL, 255), r"a.png: found label value 255 \(24 pixels\)"),
    ("ade20k", becomes(ADE_LABEL, 7, shape=(4, 6, 3)), "a.png: found 3 dimensions"),
    ("ade20k", becomes(ADE_LABEL, 7, shape=(8, 6)), "a.png: labels are 6x8, its image a.jpg is 6x4"),
    ("ade20k", cut(ADE_LABEL), "a.png: cannot be read as an image"),
    ("cocostuff", becomes(COCO_LABEL, 11), r"9.png: found label value 11 \(24 pixels\), expected .* 171 classes"),
    ("cocostuff", becomes(COCO_LABEL, 200), r"9.png: found label value 200 \(24 pixels\)"),
    ("cocostuff", becomes(COCO_LABEL, 182), r"9.png: found label value 182 \(24 pixels\)"),
    ("cocostuff", becomes("images/train2017/000000000009.png", 0, shape=(4, 6, 3)),
     "9.png: a file of the same name, .*9.jpg, is there already"),
    ("cocostuff10k", listed("COCO_train2014_000000000077\n"),
     r"train.txt: names '000000000077', for which there is neither image nor label \(1 of 1 names\)"),
    ("cocostuff10k", gone("images/train2017/000000000009.jpg"), "9.png: label without its image"),
    ("cocostuff10k", listed("000000000009\nCOCO_train2014_000000000009\n"),
     "train.txt: names '000000000009' 2 times, expected each name once"),
    ("cocostuff10k", gone("imageLists/train.txt"), "holds no split 'train' of cocostuff10k"),
])
def test_malformed(tmp_path, name, damage, words):
    MAKE[name](tmp_path)
    assert layouts.load(DATASETS[name], tmp_path, "train")[0]
    damage(tmp_path)
    with pytest.raises(DatasetError, match=words) as caught:
        loaded = layouts.load(DATASETS[name], tmp_path, "train")
        for index in range(len(loaded)):
            loaded[index]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, folders", [
    ("cityscapes", "leftImg8bit/val and gtFine/val"), ("ade20k", "images/validation and annotations/validation"),
    ("cocostuff", "images/val2017 and annotations/val2017"), ("cocostuff10k", "images/train2017"),
])
def test_data_root_is_not_there(tmp_path, name, folders):
    with pytest.raises(DatasetError, match=f"parameter 'data_root': folder .*none not found; .*{folders}") as caught:
        layouts.load(DATASETS[name], tmp_path / "none", "val")
    assert "\n" not in str(caught.value)


def test_archives_that_wait_are_named(tmp_path):
    (tmp_path / "gtFine_trainvaltest.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match="; notebook 01 unpacks gtFine_trainvaltest.zip$"):
        layouts.load(cityscapes.DATASET, tmp_path, "train")


def test_train_ids_taken_for_ids_are_noticed(tmp_path):
    for split in ("train", "val"):
        for number in (1, 2):
            place = f"{split}/{number}.png"
            for path in (tmp_path / "images" / place, tmp_path / "annotations" / place):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "images" / place)
            Image.fromarray(np.full((4, 6), 8 + number, np.uint8)).save(tmp_path / "annotations" / place)
    config = RunConfig(dataset="cityscapes", data_root=str(tmp_path))
    Image.fromarray(np.full((4, 6), 13, np.uint8)).save(tmp_path / "annotations" / "train" / "1.png")
    with pytest.raises(DatasetError, match="no label of 2 files is above 18, so they look like train ids") as caught:
        load_datasets(config)
    assert "\n" not in str(caught.value)


def test_of_two_layouts_the_fuller_one_counts(tmp_path):
    for folder, ending, count in (("leftImg8bit", "_leftImg8bit", 1), ("gtFine", "_gtFine_labelIds", 1),
                                  ("images", "", 3), ("annotations", "", 3)):
        place = tmp_path / folder / "train"
        place.mkdir(parents=True)
        for number in range(count):
            shape = (4, 6, 3) if folder in ("leftImg8bit", "images") else (4, 6)
            Image.fromarray(np.full(shape, 7, np.uint8)).save(place / f"{number}{ending}.png")
    assert len(layouts.load(cityscapes.DATASET, tmp_path, "train")) == 3


def test_official_val_as_test_and_a_share_of_train_to_choose_on(tmp_path):
    for split, count in (("train", 10), ("val", 3)):
        for number in range(count):
            image, label = (tmp_path / folder / split / "ulm" / f"{number}{ending}"
                            for folder, ending in (("leftImg8bit", CITY_IMAGE), ("gtFine", CITY_IDS)))
            write(image, np.full((4, 6, 3), number, np.uint8))
            write(label, np.full((4, 6), 26, np.uint8))
    config = RunConfig(dataset="cityscapes", data_root=str(tmp_path), val_is_test=True, val_fraction=0.3)

    def numbers(data):
        return [int(data[index][0].flat[0]) for index in range(len(data))]

    splits = load_datasets(config)
    assert {name: (data.split, len(data)) for name, data in splits.items()} == {
        "train": ("train", 7), "val": ("val", 3), "test": ("test", 3)}
    assert sorted(numbers(splits["train"]) + numbers(splits["val"])) == list(range(10))
    assert numbers(splits["test"]) == [0, 1, 2] and splits["train"].survey.statistics.size == 7
    assert numbers(load_datasets(config)["val"]) == numbers(splits["val"])
    others = load_datasets(config.replace(split_seed=1))
    assert numbers(others["val"]) != numbers(splits["val"]) and others["val"].digest != splits["val"].digest
