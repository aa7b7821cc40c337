"""A bit turned round, or a file cut, in any file a run reads back: named, or without effect; never silent."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from cawalib.runs import RunConfig, RunError, load_run
from cawalib.runs.behaviour import BASE
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
