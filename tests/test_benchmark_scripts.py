"""The benchmarks run and print a table with every way of doing it; their figures are nobody's business here."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cawalib.runs import RunConfig

ROOT = Path(__file__).resolve().parents[1]


def test_data_loading(tmp_path):
    for folder, shape, values in (("leftImg8bit", (64, 96, 3), 255), ("gtFine", (64, 96), 33)):
        path = tmp_path / folder / "train" / "ulm"
        path.mkdir(parents=True)
        ending = "leftImg8bit" if folder == "leftImg8bit" else "gtFine_labelIds"
        for number in (1, 2):
            array = np.random.default_rng(number).integers(0, values, shape, np.uint8)
            Image.fromarray(array).save(path / f"ulm_00000{number}_000019_{ending}.png")
    done = subprocess.run([sys.executable, "benchmarks/data_loading.py", "--data-root", str(tmp_path), "--crop", "32",
                           "32", "--short-side", "48", "--images", "1", "--rounds", "1"], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    ways = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert ways == ["Pillow alone", "torchvision's dataset class", "ours, originals", "ours, decoded",
                    "ours, decoded, and augmented", "ours, decoded, short side 48",
                    "ours, decoded, short side 48, and augmented", "ours, originals, and augmented"]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def table_of(printed):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_cam(benchmarks, monkeypatch, capsys):
    import cam

    monkeypatch.setattr(sys, "argv", ["cam.py", "--classes", "3", "--rounds", "1", "--size", "32", "64"])
    cam.main()
    table = table_of(capsys.readouterr().out)
    assert [row["layer"] for row in table] == list(cam.LAYERS)
    for row in table:
        assert float(row["largest difference"]) < 0.05 and float(row["times faster"].split()[0]) > 0


def test_step(benchmarks, monkeypatch, capsys):
    import step

    monkeypatch.setattr(step, "SETUPS", {"tiny": (5, 32, 64, 2, "deeplabv3plus")})
    monkeypatch.setattr(sys, "argv", ["step.py", "--setups", "tiny", "--rounds", "1"])
    step.main()
    table = table_of(capsys.readouterr().out)
    assert [row["way"] for row in table] == list(step.WAYS)
    assert table[2]["update alone (% of a step)"] and all(float(row["peak memory (GiB)"]) > 0.1 for row in table)


def test_scaling(benchmarks, monkeypatch, capsys):
    import scaling

    monkeypatch.setattr(scaling, "BASE", {"classes": 5, "height": 32, "width": 64, "batch": 2})
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--rounds", "1", "--varied", "batch"])
    scaling.main()
    assert [row["batch"] for row in table_of(capsys.readouterr().out)] == ["2", "4", "8"]


def test_methods(benchmarks, monkeypatch, capsys, tmp_path):
    import methods

    ways = {name: methods.WAYS[name] | {"image_height": 32, "image_width": 64, "batch_size": 2}
            for name in ("none", "rare_class_sampling", "cawa", "cawa, held-out images")}
    monkeypatch.setattr(methods, "WAYS", ways)
    monkeypatch.setattr(sys, "argv", ["methods.py", "--rounds", "1", "--write", str(tmp_path / "cost.md")])
    methods.main()
    table = table_of(capsys.readouterr().out)
    assert table_of((tmp_path / "cost.md").read_text()) == table
    assert [row["method"] for row in table] == list(ways)
    assert table[0]["times cross entropy (median, range)"] == "1.00 (1.00 to 1.00)"


def test_study_cost():
    spec = importlib.util.spec_from_file_location("study_cost", ROOT / "benchmarks" / "study_cost.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = {width: module.training_step(RunConfig(image_height=32, image_width=width), 5, 2, torch.device("cpu"))
            for width in (64, 128)}
    assert made[128][1] == pytest.approx(2 * made[64][1], rel=0.01)  # operations grow with the area
    seconds = module.measure({width: step for width, (step, _) in made.items()}, 1, torch.device("cpu"))
    assert set(seconds) == {64, 128} and min(seconds.values()) > 0
