"""A bit turned round, or a file cut, in any file a run reads back: named, or without effect; never silent."""

import dataclasses
import json
import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cawalib.datasets import DatasetError, load_streets, streets
from cawalib.files import DiskFullError, atomic, check_writable, plain, sha256, write_arrays, write_json, write_table
from cawalib.runs import RunConfig, RunError, is_stale, load_run, take_up, write_metrics
from cawalib.runs.behaviour import BASE
from cawalib.settings import ConfigError, DataConfig
from cawalib.training import read_checkpoint, tiny_runs, train

PLACES = 40  # of each file, drawn by a fixed seed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    tiny_runs.write_scenes(root / "data")
    return train(RunConfig(**BASE | {"method": "cawa", "data_root": str(root / "data"),
                                     "outputs_root": str(root / "out"), "prepared_root": str(root / "prepared")}))


def damaged(content, random):
    """One bit turned round, or everything from some place on cut off."""
    place = int(random.integers(len(content)))
    if random.random() < 0.2:
        return content[:place]
    return content[:place] + bytes([content[place] ^ (1 << int(random.integers(8)))]) + content[place + 1:]


def read(folder):
    """All that is ever read of a run."""
    found = load_run(folder)
    return {"config": found.config, "metrics": found.metrics, "environment": found.environment,
            "history": found.history, "class_weights": found.class_weights, "samples": found.samples}


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
    return one.equals(other) if isinstance(one, pd.DataFrame) else one == other or one != one and other != other


@pytest.mark.parametrize("name", ["config.json", "environment.json", "history.csv", "class_weights.csv", "samples.npz",
                                  "metrics.json"])
def test_no_damaged_file_of_a_finished_run_is_read_in_silence(run, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    random, expected, named = np.random.default_rng(7), read(folder), 0
    content = (folder / name).read_bytes()
    for _ in range(PLACES):
        (folder / name).write_bytes(damaged(content, random))
        try:
            assert same(read(folder), expected)  # white space between the numbers of metrics.json
        except RunError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            named += 1
    assert named > PLACES / 2 if name == "metrics.json" else named == PLACES
    (folder / name).unlink()
    with pytest.raises(RunError, match=str(folder)):
        read(folder)


def test_no_damaged_checkpoint_is_taken_up_in_silence(run, tmp_path):
    random, content = np.random.default_rng(7), (run.folder / "checkpoint" / "last.pt").read_bytes()
    expected, named = read_checkpoint(run.folder / "checkpoint" / "last.pt"), 0
    for _ in range(4 * PLACES):
        (tmp_path / "last.pt").write_bytes(damaged(content, random))
        try:
            assert same(read_checkpoint(tmp_path / "last.pt"), expected)  # between the parts of the file
        except RunError as error:
            assert str(error).startswith(f"{tmp_path / 'last.pt'}: damaged checkpoint")
            named += 1
    assert named > 3 * PLACES


@pytest.mark.parametrize("found, wrong", [('"miou": 0.', '"miou": 1.'), ('"miou": 0.', '"miou": 1e308, "x": 0.'),
                                          ('"seed": 3', '"seed": NaN')])
def test_a_number_that_was_changed_is_named(run, tmp_path, found, wrong):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    text = (folder / "metrics.json").read_text()
    assert found in text
    (folder / "metrics.json").write_text(text.replace(found, wrong, 1))
    with pytest.raises(RunError, match="metrics.json is not what the run wrote: its checksum is another one"):
        load_run(folder)


WRONG = (b"", b'{"seed": ', b"[]", b'{"seed": "\xff"}')


@pytest.mark.parametrize("name", ["config.json", "environment.json"])
def test_a_run_that_is_taken_up_names_the_file_that_cannot_be_read(run, tmp_path, name):
    config = dataclasses.replace(run.config, outputs_root=str(tmp_path))
    shutil.copytree(run.folder, config.folder)
    for content in WRONG:
        (config.folder / name).write_bytes(content)
        with pytest.raises(RunError, match=f"run folder {config.folder}: {name} cannot be read .*; delete") as caught:
            take_up(config, run.environment)
        assert "\n" not in str(caught.value)
        if name == "environment.json":  # which the batch engine reads when it plans
            with pytest.raises(RunError, match=f"{name} cannot be read"):
                is_stale(config)


@pytest.mark.parametrize("name, content", [
    ("history.csv", b""), ("history.csv", b"epoch,\xff\n"), ("history.csv", b"a\n1,2,3\n1\n1,2,3,4\n"),
    ("class_weights.csv", b'a,b\n"1\n'), ("samples.npz", b"PK")])
def test_a_damaged_file_of_a_run_without_checksums_is_named(run, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    before = dataclasses.replace(run, folder=tmp_path, checksums={})
    with pytest.raises(RunError, match=f"run folder {tmp_path}: {name} cannot be read") as caught:
        getattr(before, name.split(".")[0])
    assert "\n" not in str(caught.value)


@pytest.fixture
def quickly_drawn(monkeypatch):
    """Scenes of noise, for what is done with their file."""
    def draw(split, count, height, width, *rest):
        return np.random.default_rng(1).integers(0, 11, (count, height, width, 3), np.uint8), \
            np.zeros((count, height, width), np.uint8)
    monkeypatch.setattr(streets, "draw_split", draw)


def test_no_damaged_scenes_are_read_in_silence(tmp_path, quickly_drawn):
    config = DataConfig(data_root=str(tmp_path), image_height=32, image_width=32)
    digest = load_streets(config, "val").digest
    [path] = tmp_path.glob("streets/val-*.npz")
    random, content, named = np.random.default_rng(7), path.read_bytes(), 0
    for place in range(2 * PLACES):
        # half of them among the names and sizes of the parts, of which a reader must make sense
        wrong = damaged(content, random) if place % 2 else damaged(content[:200], random) + content[200:]
        path.write_bytes(wrong)
        try:
            assert load_streets(config, "val").digest == digest
        except DatasetError as error:
            assert str(error).startswith(f"{path}: cannot be read") and "\n" not in str(error)
            named += 1
    assert named > PLACES
    np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.zeros((2, 32, 32), np.uint8))
    with pytest.raises(DatasetError, match=r"arrays of shapes \(\(2, 32, 32, 3\), .*expected"):
        load_streets(config, "val")


# ---------------------------------------------------------------- no room

@contextmanager
def room(size):
    """No file may grow beyond so many bytes; writing fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name, write", [
    ("metrics.json", lambda path: write_json(path, {"a": list(range(9000))})),
    ("history.csv", lambda path: write_table(path, pd.DataFrame({"a": range(9000)}))),
    ("samples.npz", lambda path: write_arrays(path, a=np.random.default_rng(0).random(9000)))])
def test_no_room_for_a_file(tmp_path, name, write):
    path = tmp_path / name
    path.write_text("before")
    with room(10_000), pytest.raises(DiskFullError, match=f"^{path}: cannot be written, the disk is full"):
        write(path)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_no_room_for_a_checkpoint(run, tmp_path):
    config = dataclasses.replace(run.config, outputs_root=str(tmp_path))
    with room(100_000), pytest.raises(DiskFullError, match=f"^{config.folder}/checkpoint/last.pt: .* disk is full"):
        train(config)
    assert list((config.folder / "checkpoint").iterdir()) == []
    assert train(config).metrics == run.metrics


def test_no_room_for_scenes(tmp_path, quickly_drawn):
    with room(10_000), pytest.raises(DatasetError, match="parameter 'data_root': .*streets cannot be written"):
        load_streets(DataConfig(data_root=str(tmp_path), image_height=32, image_width=32), "val")
    assert list((tmp_path / "streets").iterdir()) == []
# ---------------------------------------------------------------- what a run says of itself, by another way

def test_a_run_writes_down_what_it_was(run):
    masks = {split: [np.array(Image.open(path)) for path in Path(run.config.data_root, "masks").glob(f"{split}*.png")]
             for split in ("train", "val")}
    pixels = np.array([np.bincount(mask.ravel(), minlength=256)[:5] for mask in masks["train"]])
    found = run.statistics
    assert found.pixels.tolist() == pixels.sum(axis=0).tolist() and found.size == len(pixels) == 16
    assert found.images.tolist() == (pixels > 0).sum(axis=0).tolist()
    assert found.pixels_where_present.tolist() == [pixels[pixels[:, c] > 0].sum() for c in range(5)]
    assert list(run.history) == ["epoch", "learning_rate", "train_loss", "val_miou", "val_mean_accuracy",
                                 "val_pixel_accuracy", "seconds"]
    for _, table in run.class_weights.groupby("update"):
        score = table["score"]
        np.testing.assert_allclose(table["basic_weight"], 2 - score, rtol=1e-5)
        np.testing.assert_allclose(table["ratio_weight"], (score.mean() / score).clip(1 / 8, 8), rtol=1e-4)
        product = table["basic_weight"] * table["ratio_weight"]
        np.testing.assert_allclose(table["weight"], product / product.mean(), rtol=1e-4)
    small = [torch.nn.functional.interpolate(torch.tensor(mask)[None, None], (32, 64), mode="nearest").numpy()[0, 0]
             for mask in masks["val"]]
    assert {labels.tobytes() for labels in run.samples["labels"]} == {labels.tobytes() for labels in small}


@pytest.fixture
def taken(run, tmp_path):
    """A copy of the finished run below another folder, to be taken up again."""
    config = run.config.replace(outputs_root=str(tmp_path))
    shutil.copytree(run.folder, config.folder)
    return config


@pytest.mark.parametrize("name, words", [("data_digest", "made from other data of dataset 'folder' than now"),
                                         ("initial_weights", "started from another file than")])
def test_a_run_of_something_else_is_refused(run, taken, name, words):
    assert take_up(taken, run.environment).metrics == run.metrics
    with pytest.raises(RunError, match=words):
        take_up(taken, run.environment | {name: "0" * 64})


def test_a_run_of_another_seed_is_refused(run, taken):
    path = taken.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 9}))
    with pytest.raises(RunError, match="holds another configuration .'seed' is 9 there, 3 here"):
        take_up(taken, run.environment)


@pytest.mark.parametrize("name, now", [("precision", "bf16"), ("device_type", "cuda"), ("behaviour", {})])
def test_a_run_that_would_come_out_differently_is_moved_aside_each_time(run, taken, name, now):
    for number in (1, 2):
        kept = json.loads((taken.folder / "environment.json").read_text())
        marked = {"behaviour": now} if name == "behaviour" else {}
        (taken.folder / "environment.json").write_text(json.dumps(kept | marked | {"mark": number}))
        assert take_up(taken, run.environment | ({name: now} if number == 1 and not marked else {})) is None
        before = json.loads((taken.folder.with_name(f"seed3.old{number}") / "environment.json").read_text())
        assert before["mark"] == number
    assert (taken.folder.with_name("seed3.old1") / "metrics.json").is_file()
    assert {path.name for path in taken.folder.iterdir()} <= {"config.json", "environment.json", ".lock"}


# ---------------------------------------------------------------- files: whole, or as before

WRITERS = [(write_json, {"a": 1}, {"a": 2}), (write_table, pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})),
           (lambda path, arrays: write_arrays(path, **arrays), {"a": np.zeros(3)}, {"a": np.ones(3)})]


@pytest.mark.parametrize("write, old, new", WRITERS)
def test_until_a_file_is_whole_the_one_of_before_stands_there(tmp_path, monkeypatch, write, old, new):
    path = tmp_path / "file.npz"
    write(path, old)
    before = path.read_bytes()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(path, new)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_is_broken_off_leaves_nothing_and_two_processes_do_not_meet(tmp_path, monkeypatch):
    with pytest.raises(ValueError), atomic(tmp_path / "file") as partial:
        partial.write_text("half")
        raise ValueError
    assert not list(tmp_path.iterdir())
    with atomic(tmp_path / "file") as one:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with atomic(tmp_path / "file") as other:
            assert one != other
            other.touch()
        one.touch()


def test_a_run_is_not_done_before_its_metrics_are_whole(tmp_path, monkeypatch):
    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_metrics(tmp_path, {"miou": 0.5})
    assert not (tmp_path / "metrics.json").exists()


def test_what_is_written(tmp_path):
    write_table(tmp_path / "a.csv", pd.DataFrame({"a": [1], "b": [2.5]}))
    assert (tmp_path / "a.csv").read_text() == "a,b\n1,2.5\n"
    found = plain({1: (np.float32(0.5), float("nan")), "b": np.array([[1, 2]], np.uint8), "c": np.int64(3)})
    assert json.dumps(found) == '{"1": [0.5, null], "b": [[1, 2]], "c": 3}'
    (tmp_path / "abc").write_text("abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "deeper")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="parameter 'outputs_root': .*file is not a folder that can be written"):
            check_writable(place)
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path)  # whoever is root may everything
    with pytest.raises(ConfigError, match=f"parameter 'data_root': {tmp_path} is not a folder that can be written"):
        check_writable(tmp_path / "new" / "deeper", "data_root")
