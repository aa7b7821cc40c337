"""From files to what training needs: one survey of each split, decoded pairs, and what notebook 01 says is there."""

import dataclasses
import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cawalib.datasets import (
    DatasetError,
    base,
    camvid,
    digests,
    layouts,
    list_datasets,
    load_datasets,
    preparation,
    prepared,
    processes,
)
from cawalib.datasets.digests import pairs_digest
from cawalib.datasets.statistics import split_table, survey, survey_path
from cawalib.files import content_sum, sha256
from cawalib.runs import RunConfig
from cawalib.settings import ConfigError

LABELS = [np.array([[0, 0, 3], [3, 11, 255]]), np.array([[0, 1, 1], [1, 1, 1]]), np.array([[11, 11, 11], [2, 2, 2]])]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """CamVid in miniature: three pairs of 3x2 pixels to train with, one each for val and test."""
    root = tmp_path / "CamVid"
    for split in camvid.DATASET.expected:
        for number, labels in enumerate(LABELS if split == "train" else LABELS[:1]):
            save(root / split / f"{number}.png", np.full((2, 3, 3), 40 * number))
            save(root / f"{split}annot" / f"{number}.png", labels)
    return root


@pytest.fixture
def large(monkeypatch):
    """No dataset is small enough to be kept in memory."""
    monkeypatch.setattr(base, "KEEP_IN_MEMORY_BYTES", 0)


def config(root, **settings):
    return RunConfig(dataset="camvid", data_root=str(root), prepared_root=str(root.parent / "prepared"), **settings)


def train_split(root):
    return list_datasets(config(root))["train"]


# ---------------------------------------------------------------- the survey

def test_survey_by_hand(root):
    found = survey(train_split(root))
    counts = dict(zip(found.statistics.classes, found.statistics.pixels.tolist(), strict=True))
    assert {name: count for name, count in counts.items() if count} == {"sky": 3, "building": 5, "pole": 3, "road": 2}
    assert found.statistics.images[:4].tolist() == [2, 1, 1, 1] and found.statistics.size == 3
    assert found.statistics.pixels_where_present[:4].tolist() == [4 + 6, 6, 3, 4]
    expected = np.array([[2, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]])  # images that hold both
    np.testing.assert_array_equal(found.together[:4, :4], expected)
    assert found.together.sum() == expected.sum()
    assert found.sizes == {"3x2": 3} and found.all_pixels == 18
    assert found.void_share == pytest.approx(5 / 18)
    table = found.statistics.table()
    assert table.index[:4].tolist() == ["building", "sky", "pole", "road"]  # most pixels first, of 13
    assert table["share of pixels (%)"][:4].tolist() == [38.4615, 23.0769, 23.0769, 15.3846]
    assert table["share of images (%)"][:4].tolist() == [33.3, 66.7, 33.3, 33.3]
    order = ["sky", "building", "pole", "road", *found.statistics.classes[4:]]  # by images; by pixels building is first
    assert found.statistics.groups["images"]["head"] == order[:4]
    assert found.statistics.groups["pixels"]["head"] == ["building", "sky", "pole", "road"]


def test_survey_is_the_same_from_processes_and_is_found_again(root, large, tmp_path):
    dataset = train_split(root)
    alone, shared = survey(dataset), survey(dataset, tmp_path, workers=2)
    first_alone = dataclasses.replace(dataset, read=lambda index: dataset[{0: 0}[index]])  # could not read others
    again = survey(first_alone, tmp_path)
    for other in (shared, again):
        np.testing.assert_array_equal(other.together, alone.together)
        np.testing.assert_array_equal(other.statistics.pixels, alone.statistics.pixels)
        np.testing.assert_array_equal(other.statistics.pixels_where_present, alone.statistics.pixels_where_present)
        assert (other.sizes, other.all_pixels) == (alone.sizes, alone.all_pixels)
        assert other.statistics.table().equals(alone.statistics.table())


def test_changed_files_or_another_mapping_are_counted_anew(root, large, tmp_path):
    dataset = train_split(root)
    before, folder = survey(dataset, tmp_path), prepared.write(dataset, tmp_path)
    path = root / "trainannot" / "0.png"
    times = path.stat()
    save(path, np.array([[1, 1, 3], [3, 11, 255]]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps times
    assert path.stat().st_size == times.st_size and train_split(root).digest != dataset.digest
    assert survey(train_split(root), tmp_path).statistics.pixels[1] == before.statistics.pixels[1] + 2
    assert prepared.find(train_split(root), tmp_path) is None
    assert prepared.write(train_split(root), tmp_path) != folder
    assert prepared.find(train_split(root), tmp_path)(0)[1][0, 0] == 1


def test_a_bit_of_a_jpeg_that_no_decoder_misses_changes_the_digest(tmp_path):
    paths = tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png"
    for path in paths:
        path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(paths[0], quality=95)
    Image.fromarray(noise[..., 0] % 11).save(paths[1])
    before, content = pairs_digest([paths], b""), bytearray(paths[0].read_bytes())
    content[len(content) // 2] ^= 1
    paths[0].write_bytes(content)
    Image.open(paths[0]).load()  # nothing is told
    after = pairs_digest([paths], b"")
    assert after != before and pairs_digest([paths], b"another mapping") != after
    shutil.copytree(tmp_path, tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(tmp_path) for path in paths]
    assert pairs_digest([moved], b"") == after  # wherever the data lie
    assert pairs_digest([(moved[1], moved[0])], b"") != after
    moved[0].parent.rename(tmp_path / "moved" / "others")
    assert pairs_digest([(tmp_path / "moved" / "others" / "a.jpg", moved[1])], b"") != after  # but not in other folders


def test_large_data_are_read_once_and_again_when_a_file_was_written(root, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "REMEMBERED_FROM", 0)
    read = []
    monkeypatch.setattr(digests, "sha256", lambda path: read.append(path) or sha256(path))
    pairs = [(root / "train" / f"{number}.png", root / "trainannot" / f"{number}.png") for number in range(3)]
    first = pairs_digest(pairs, b"", tmp_path)
    assert len(read) == 6 and pairs_digest(pairs, b"", tmp_path) == first == pairs_digest(pairs, b"")
    assert len(read) == 12  # twice without a folder to remember in
    times = pairs[1][1].stat()
    pairs[1][1].write_bytes(pairs[1][1].read_bytes())
    os.utime(pairs[1][1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert pairs_digest(pairs, b"", tmp_path) == first and read[12:] == [pairs[1][1]]
    [table] = (tmp_path / "digests").iterdir()
    table.write_text("{")
    assert pairs_digest(pairs, b"", tmp_path) == first and len(read) == 19
    table.write_text(re.sub('(,\n *")([0-9a-f])', lambda found: f"{found[1]}{(int(found[2], 16) + 1) % 16:x}",
                            table.read_text(), count=1))  # another digest, or another checksum: believed in neither
    assert pairs_digest(pairs, b"", tmp_path) == first and len(read) == 25


def test_another_mapping_is_counted_anew(root):
    other = np.where(camvid.TO_CLASS == 3, 4, camvid.TO_CLASS)
    mapped = layouts.load(dataclasses.replace(camvid.DATASET, to_class=other), root, "train")
    assert mapped.digest != train_split(root).digest


def test_a_damaged_survey_is_told(root, large, tmp_path):
    dataset = train_split(root)
    counted = survey(dataset, tmp_path)
    path = survey_path(dataset, tmp_path)
    text = path.read_text()
    assert survey(dataset, tmp_path).statistics.pixels.tolist() == counted.statistics.pixels.tolist()
    other = [json.loads(text) | change for change in ({"digest": "x"}, {"classes": ["sky"]})]
    for kept in other:  # whole, but of other data
        kept["checksum"] = content_sum({name: value for name, value in kept.items() if name != "checksum"})
    for damaged in ("{", text.replace(f'{max(counted.statistics.pixels)}', "7"), text.replace('"checksum"', '"other"'),
                    *map(json.dumps, other)):
        path.write_text(damaged)
        with pytest.raises(DatasetError, match=f"{path.name}: cannot be read .*delete it"):
            survey(dataset, tmp_path)


def test_unknown_labels_are_counted_over_all_files(root, large):
    save(root / "trainannot" / "0.png", np.array([[17, 17, 3], [3, 11, 255]]))
    save(root / "trainannot" / "2.png", np.array([[17, 40, 3], [3, 11, 255]]))
    with pytest.raises(DatasetError, match=r"values 17 \(3 pixels in 2 files\), 40 \(1 pixels in 1 files\), first in .*"
                                           r"trainannot/0.png; expected one of the 11 classes or void") as caught:
        survey(train_split(root), workers=2)
    assert "\n" not in str(caught.value)


def test_every_bad_pair_is_counted(root):
    for number in (0, 1):
        (root / "trainannot" / f"{number}.png").write_text("no image")
    with pytest.raises(DatasetError, match="trainannot/0.png: cannot be read as an image.*; 1 more files"):
        load_datasets(config(root))


def test_split_table_knows_sizes_and_void(root):
    save(root / "val" / "1.png", np.zeros((4, 5, 3)))
    save(root / "valannot" / "1.png", np.zeros((4, 5)))
    table = split_table(load_datasets(config(root)))
    assert table.loc["train"].to_dict() == {"pairs": 3, "size": "3x2", "void (%)": 27.78}
    assert set(table.loc["val", "size"].split(", ")) == {"3x2", "5x4"}


def test_nothing_is_written_for_small_data(root):
    load_datasets(config(root))
    assert not (root.parent / "prepared").exists()


class PoolOfThisProcess:
    """As ProcessPoolExecutor is called."""

    def __init__(self, workers, context, start, arguments):
        start(*arguments)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def map(self, function, numbers, chunksize):
        return map(function, numbers)


def test_work_comes_back_in_its_order_and_an_ended_process_is_told(monkeypatch):
    monkeypatch.setattr(processes, "ProcessPoolExecutor", PoolOfThisProcess)
    assert list(processes.in_processes(lambda number: number % 2, range(3, 0, -1), 2)) == [1, 0, 1]

    def ended(pool, function, numbers, chunksize):
        raise processes.BrokenProcessPool

    monkeypatch.setattr(PoolOfThisProcess, "map", ended)
    with pytest.raises(DatasetError, match="parameter 'data_workers': one of 2 processes was ended"):
        list(processes.in_processes(abs, range(3), 2))


# ---------------------------------------------------------------- size and decoded pairs

def photographs(root):
    rng = np.random.default_rng(0)
    for number, size in enumerate([(40, 60), (30, 20), (64, 50)]):
        save(root / "train" / f"{number}.png", rng.integers(0, 256, (*size, 3)))
        save(root / "trainannot" / f"{number}.png", rng.integers(0, 12, size))
        save(root / "val" / f"{number}.png", rng.integers(0, 256, (*size, 3)))
        save(root / "valannot" / f"{number}.png", rng.integers(0, 12, size))
    return root


def test_short_side(root):
    splits = load_datasets(config(photographs(root), short_side=32, evaluation="whole"))
    sizes = {split: [[part.shape[:2] for part in splits[split][index]] for index in range(3)] for split in splits
             if split != "test"}
    assert sizes["train"] == [[(32, 48), (32, 48)], [(30, 20), (30, 20)], [(41, 32), (41, 32)]]
    assert sizes["val"] == [[(32, 48), (40, 60)], [(30, 20), (30, 20)], [(41, 32), (64, 50)]]  # judged at full size
    assert splits["train"].survey.all_pixels == 40 * 60 + 30 * 20 + 64 * 50  # counted as they are on disk
    image, labels = splits["train"][0]
    whole = Image.open(root / "train" / "0.png")
    np.testing.assert_array_equal(image, np.array(whole.resize((48, 32), Image.Resampling.BILINEAR)))
    assert set(np.unique(labels)) <= {*range(11), 255}


@pytest.mark.parametrize("short_side", [0, 32])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_decoded_pairs_are_those_of_the_originals(root, large, monkeypatch, short_side, workers):
    monkeypatch.setattr(prepared, "SHARD_BYTES", 20_000)  # two pairs in the first file, one in the second
    run = config(photographs(root), short_side=short_side, evaluation="whole" if short_side else "resize")
    before = load_datasets(run)
    for dataset in list_datasets(run).values():
        prepared.write(dataset, run.prepared_root, short_side, workers)
    after = load_datasets(run)
    for split in before:
        assert isinstance(after[split].read, prepared.PreparedPairs) and after[split].digest == before[split].digest
        reader = pickle.loads(pickle.dumps(after[split].read))  # as in a worker process
        for index in range(len(before[split])):
            for ours, theirs, originals in zip(after[split][index], reader(index), before[split][index], strict=True):
                np.testing.assert_array_equal(ours, originals)
                np.testing.assert_array_equal(theirs, originals)


def test_decoded_at_full_size_serves_smaller_runs_too(root, large, capsys):
    run = config(photographs(root), short_side=32, evaluation="whole")
    before = load_datasets(run)
    for dataset in list_datasets(run).values():
        prepared.write(dataset, run.prepared_root)
    after = load_datasets(run)
    assert "train: reading decoded pairs from" in capsys.readouterr().out
    for split in before:
        for index in range(len(before[split])):
            for ours, originals in zip(after[split][index], before[split][index], strict=True):
                np.testing.assert_array_equal(ours, originals)


def test_a_full_disk_is_told(root, monkeypatch, tmp_path):
    def fails(arrays, path, metadata):
        raise prepared.SafetensorError("Error while serializing:\nno space")

    monkeypatch.setattr(prepared, "save_file", fails)
    with pytest.raises(DatasetError, match="parameter 'prepared_root': .* cannot be written .*no space") as caught:
        prepared.write(train_split(root), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told_before_counting(root, large, tmp_path):
    (tmp_path / "file").write_text("")
    unread = dataclasses.replace(train_split(root), read=lambda index: LABELS[{0: 0}[index]][None])
    with pytest.raises(DatasetError, match="parameter 'prepared_root': .*file/here/camvid cannot be written"):
        survey(unread, tmp_path / "file" / "here")


def test_decoding_goes_on_where_it_stopped(root, large, monkeypatch, tmp_path):
    monkeypatch.setattr(prepared, "SHARD_BYTES", 1)
    dataset, written = train_split(root), []
    original = prepared.save_file

    def stop_at_the_second(arrays, path, metadata):
        if len(written) == 1:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        original(arrays, path, metadata)

    monkeypatch.setattr(prepared, "save_file", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        prepared.write(dataset, tmp_path)
    assert prepared.find(dataset, tmp_path) is None  # not whole, so not used
    monkeypatch.setattr(prepared, "save_file", lambda arrays, path, metadata: (
        written.append(path), original(arrays, path, metadata)))
    folder = prepared.write(dataset, tmp_path)
    assert len(written) == 3 and len(list(folder.glob("*.safetensors"))) == 3 and not list(folder.glob(".*"))
    assert prepared.write(dataset, tmp_path) == folder and len(written) == 3


def test_no_room_for_decoded_pairs(root, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=71)  # of 3 * (18 + 6) bytes
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DatasetError, match="parameter 'prepared_root': .* needs about .* 0.0 GB are free"):
        prepared.write(train_split(root), tmp_path)


def of_others(folder, **changes):
    path = folder / "prepared.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("damage, words", [
    (lambda folder: (folder / "prepared.json").write_text("{"), "prepared.json: is not what notebook 01 wrote"),
    (lambda folder: (folder / "prepared.json").write_text(json.dumps({"digest": "x"})), "is not what notebook 01"),
    (lambda folder: of_others(folder, digest="x"), "prepared.json: is not what notebook 01 wrote"),
    (lambda folder: of_others(folder, pairs=2), "prepared.json: is not what notebook 01 wrote"),
    (lambda folder: (folder / "00000.safetensors").write_bytes(b"x" * 20), "00000.safetensors: cannot be read"),
    (lambda folder: (folder / "00000.safetensors").unlink(), "00000.safetensors: cannot be read"),
])
def test_damaged_decoded_pairs(root, tmp_path, damage, words):
    dataset = train_split(root)
    damage(prepared.write(dataset, tmp_path))
    with pytest.raises(DatasetError, match=words) as caught:
        prepared.find(dataset, tmp_path)(0)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what notebook 01 says

def preparation_config(root, **settings):
    return preparation.PreparationConfig(dataset="camvid", data_root=str(root), outputs_root=str(root.parent),
                                         prepared_root=str(root.parent / "prepared"), **settings)


def test_an_outputs_folder_that_cannot_be_written_is_refused_first(root):
    (root.parent / "file").touch()
    with pytest.raises(ConfigError, match="parameter 'outputs_root': .*file is not a folder that can be written"):
        preparation.PreparationConfig(outputs_root=str(root.parent / "file"))


def test_more_than_the_full_release_is_told(root, monkeypatch):
    known = dataclasses.replace(camvid.DATASET, expected={"train": 2, "val": 1, "test": 1})
    monkeypatch.setitem(preparation.FILE_DATASETS, "camvid", known)
    states = preparation.inventory(preparation_config(root))["state"]
    assert states[:3].tolist() == ["1 pairs more than the full release has", "complete", "complete"]


def test_inventory_tells_what_is_missing(root):
    (root / "train" / "2.png").unlink()
    shutil.rmtree(root / "test")
    table = preparation.inventory(preparation_config(root))
    assert table.loc["train", ["images", "labels", "pairs", "full release"]].tolist() == [2, 3, 2, 367]
    assert table.loc["train", "state"] == "a part: 365 pairs missing; 1 files without partner, first 2.png"
    assert table.loc["test", "state"] == "missing: test"
    shutil.rmtree(root / "testannot")
    table = preparation.inventory(preparation_config(root))
    assert table.loc["test", "state"] == "missing; expected test and testannot"


def test_a_split_alone_can_be_looked_at(root, capsys):
    for folder in ("train", "trainannot", "test", "testannot"):
        shutil.rmtree(root / folder)
    splits = preparation.read(preparation_config(root))
    assert list(splits) == ["val"]
    assert preparation.counted(splits).split == "val" and "no training split" in capsys.readouterr().out
    with pytest.raises(DatasetError, match="no split 'train' of camvid; expected train and trainannot.*set smoke"):
        load_datasets(config(root))
    splits = load_datasets(config(root), smoke=True)
    assert {split: data.split for split, data in splits.items()} == {"train": "train", "val": "val"}


def test_totals(root, monkeypatch):
    facts = (("train pixels", 18), ("rarest class by pixels", "road"), ("rarest class by images", "pole"))
    known = dataclasses.replace(camvid.DATASET, totals=facts, expected={"train": 3, "val": 1, "test": 1})
    monkeypatch.setitem(preparation.FILE_DATASETS, "camvid", known)
    splits = preparation.read(preparation_config(root))
    table = preparation.totals(splits["train"])
    assert table["agrees"].to_dict() == {"pairs": "yes", "train pixels": "yes", "rarest class by pixels": "yes",
                                         "rarest class by images": "no"}  # of three classes in one image, the first
    assert table.loc["rarest class by images", "found"] == "building"
    monkeypatch.setitem(preparation.FILE_DATASETS, "camvid", dataclasses.replace(known, expected={"train": 367}))
    assert set(preparation.totals(splits["train"])["agrees"]) == {"only a part is there"}


def test_prepare_writes_what_runs_find(root, large):
    asked = preparation_config(root, decode=True, data_workers=0)
    small = preparation.prepare(preparation_config(root, decode=True, data_workers=0, short_side=64))
    assert small["folder"].str.endswith("-short64").all()
    assert not isinstance(load_datasets(config(root))["train"].read, prepared.PreparedPairs)  # not at this size
    table = preparation.prepare(asked)
    assert table["pairs"].to_dict() == {"train": 3, "val": 1, "test": 1} and (table["GB"] >= 0).all()
    assert isinstance(load_datasets(config(root))["train"].read, prepared.PreparedPairs)


def test_one_folder_without_the_other(root):
    shutil.rmtree(root / "valannot")
    table = preparation.inventory(preparation_config(root))
    assert table.loc["val", ["images", "labels", "pairs", "state"]].tolist() == [1, 0, 0, "missing: valannot"]
    with pytest.raises(DatasetError, match="val/0.png: image without its label, .*valannot; that folder is missing"):
        load_datasets(config(root))


def test_links_to_folders_are_followed(root, tmp_path):
    for name in ("train", "trainannot"):
        (root / name).rename(tmp_path / f"far {name}")
        (root / name).mkdir()
        (root / name / "link").symlink_to(tmp_path / f"far {name}")
    assert len(train_split(root)) == 3


def test_a_damaged_pair_is_named_and_never_trained_on(root, large, tmp_path):
    dataset = train_split(root)
    folder = prepared.write(dataset, tmp_path)
    [shard] = folder.glob("*.safetensors")
    content, pairs, random = shard.read_bytes(), [dataset[index] for index in range(3)], np.random.default_rng(5)
    for _ in range(60):
        place = int(random.integers(len(content)))
        turned = bytes([content[place] ^ (1 << int(random.integers(8)))])
        shard.write_bytes(content[:place] + turned + content[place + 1:])
        reader = prepared.find(dataset, tmp_path)
        for index, pair in enumerate(pairs):
            try:
                found = reader(index)
            except DatasetError as error:
                assert str(error).startswith(f"{shard}: cannot be read")
            else:
                assert all(map(np.array_equal, found, pair))
