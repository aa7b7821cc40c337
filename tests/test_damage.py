"""A bit turned round, or a file cut, in any file a run reads back: named, or without effect; never silent."""

import dataclasses
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

from cawalib.datasets import DatasetError, load_streets, streets
from cawalib.files import DiskFullError, write_arrays, write_json, write_table
from cawalib.runs import RunConfig, RunError, is_stale, load_run, take_up
from cawalib.runs.behaviour import BASE
from cawalib.settings import DataConfig
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
