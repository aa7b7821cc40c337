"""A study's runs in one file: nothing is lost, and a figure drawn from it is the figure drawn from the run folders."""

import base64
import dataclasses
import gzip
import io
import os
import sqlite3

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import make_run, make_study

from cawalib.results import figures
from cawalib.runs import RunError, load_run, read_archive, unpack, write_archive


def test_what_comes_back_is_what_went_in(tmp_path):
    runs = [make_run(tmp_path, "plain", method="none"), make_run(tmp_path, seed=1, iou=[0.9, 0.5, np.nan, 0, 0.1]),
            make_run(tmp_path, "plain", seed=2, method="none")]
    write_archive(tmp_path / "runs.jsonl.gz", [*runs, runs[0]], {runs[1].config.name})
    found = read_archive(tmp_path / "runs.jsonl.gz")
    assert list(found) == sorted(run.config.name for run in runs)  # one that stands there twice is there once
    for run in runs:
        back = found[run.config.name]
        assert back.metrics == run.metrics and back.environment == run.environment
        assert back.config == run.config.replace(outputs_root="outputs")
        pd.testing.assert_frame_equal(back.history, run.history, check_exact=True, check_dtype=False)
        pd.testing.assert_frame_equal(back.class_weights, run.class_weights, check_exact=True, check_dtype=False)
    assert not found[runs[0].config.name].has_samples
    for name, array in found[runs[1].config.name].samples.items():
        assert np.array_equal(array, runs[1].samples[name])

    unpack(found[runs[1].config.name], tmp_path / "again")
    again = load_run(tmp_path / "again")
    assert again.metrics == runs[1].metrics
    for name in ("history.csv", "class_weights.csv"):
        assert (again.folder / name).read_text() == (runs[1].folder / name).read_text()
    before = (tmp_path / "runs.jsonl.gz").read_bytes()
    assert before[4:8] == bytes(4)  # gzip's time of writing: the same runs, the same bytes
    write_archive(tmp_path / "runs.jsonl.gz", list(found.values()), {runs[1].config.name})
    assert (tmp_path / "runs.jsonl.gz").read_bytes() == before


def test_an_archive_half_written_leaves_the_one_of_before(tmp_path, monkeypatch):
    path, run = tmp_path / "runs.jsonl.gz", make_run(tmp_path)
    write_archive(path, [run])
    before = path.read_bytes()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_archive(path, [run], {run.config.name})
    assert path.read_bytes() == before


def test_pictures_hold_no_pickle(tmp_path):
    write_archive(tmp_path / "runs.jsonl.gz", [make_run(tmp_path)])
    [run] = read_archive(tmp_path / "runs.jsonl.gz").values()
    stranger = io.BytesIO()
    np.savez(stranger, images=np.array([{"a": 1}], dtype=object))
    run.line["samples"] = base64.b64encode(stranger.getvalue()).decode()
    with pytest.raises(ValueError, match="allow_pickle=False"):
        run.samples["images"]


def test_anybody_reads_it_with_pandas(tmp_path):
    run = make_run(tmp_path, seed=2)
    write_archive(tmp_path / "runs.jsonl.gz", [run])
    table = pd.read_json(tmp_path / "runs.jsonl.gz", lines=True)
    assert list(table) == ["run", "config", "environment", "metrics", "history", "class_weights", "samples"]
    assert table.loc[0, "metrics"]["splits"]["val"]["miou"] == pytest.approx(run.metrics["splits"]["val"]["miou"])
    flat = pd.json_normalize(table["config"])[["method", "seed"]]
    assert flat.to_sql("runs", sqlite3.connect(":memory:")) == 1


@pytest.mark.parametrize("draw", [figures.weight_trajectories, figures.training_curves])
def test_a_figure_from_the_archive_is_the_figure_from_the_folders(tmp_path, draw):
    runs = [run for run in make_study(tmp_path, seeds=(0, 1)) if run.label == "CAWA"]
    write_archive(tmp_path / "runs.jsonl.gz", runs)
    archived = read_archive(tmp_path / "runs.jsonl.gz")
    figures.save(draw(runs), tmp_path / "a", "one")
    named = [dataclasses.replace(archived[run.config.name], label="CAWA") for run in runs]
    figures.save(draw(named), tmp_path / "b", "one")
    for kind in ("pdf", "png"):
        assert (tmp_path / "a" / f"one.{kind}").read_bytes() == (tmp_path / "b" / f"one.{kind}").read_bytes()


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: b"no gzip", lambda raw: gzip.compress(b"{}\n"),
                                    lambda raw: gzip.compress(b"[1\n"), lambda raw: raw[:60] + bytes(20) + raw[80:]])
def test_a_damaged_archive_is_refused_by_name(tmp_path, damage):
    write_archive(tmp_path / "runs.jsonl.gz", [make_run(tmp_path)])
    path = tmp_path / "runs.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="archive .*runs.jsonl.gz: cannot be read .*; fetch it again") as caught:
        read_archive(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="nowhere: not found; publish the study first"):
        read_archive(tmp_path / "nowhere")
