"""The benchmarks run and print a table with every way of doing it; their figures are nobody's business here."""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cawalib.method import cawa
from cawalib.runs import RunConfig
from cawalib.training import loop
from cawalib.training.tiny_runs import write_scenes

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.long


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

    monkeypatch.setattr(step, "SETUPS", {"tiny": (5, 32, 64, 2, "small")})
    monkeypatch.setattr(sys, "argv", ["step.py", "--setups", "tiny", "--rounds", "1"])
    step.main()
    table = table_of(capsys.readouterr().out)
    assert [row["way"] for row in table] == list(step.WAYS)
    assert table[2]["update alone (% of a step)"] and all(float(row["peak memory (GiB)"]) > 0.1 for row in table)


def test_own_loop(benchmarks, monkeypatch, capsys):
    import own_loop

    name = "U-Net ResNet-18 (smp)"
    monkeypatch.setattr(sys, "argv", ["own_loop.py", "--networks", name, "--classes", "3", "--size", "32", "--batch",
                                      "2", "--rounds", "1"])
    own_loop.main()
    table = table_of(capsys.readouterr().out)
    assert [row["way"] for row in table] == list(own_loop.WAYS)
    assert table[0]["times cross entropy"] == "1.000" and all(float(row["step (ms)"]) > 0 for row in table)


def test_scaling(benchmarks, monkeypatch, capsys):
    import scaling

    monkeypatch.setattr(scaling, "BASE", {"classes": 5, "height": 32, "width": 64, "batch": 2})
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--rounds", "1", "--varied", "batch"])
    scaling.main()
    assert [row["batch"] for row in table_of(capsys.readouterr().out)] == ["2", "4", "8"]


def test_precision(benchmarks, monkeypatch, capsys):
    import precision

    monkeypatch.setattr(precision, "NETWORKS", {"small": ({"image_height": 32, "image_width": 64, "batch_size": 2}, 5)})
    monkeypatch.setattr(sys, "argv", ["precision.py", "--rounds", "1"])
    precision.main()
    [row] = table_of(capsys.readouterr().out)
    assert all(float(row[f"{name} (ms a step)"]) > 0 for name in ("float32", "bf16"))


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


# ---------------------------------------------------------------- gpu.py

@pytest.fixture
def gpu(benchmarks, monkeypatch, tmp_path):
    """The script, and a call of it with a folder for what it writes."""
    import gpu

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the script sets it for the whole process

    def call(*arguments):
        status = gpu.main(["--smallest", "--out", str(tmp_path / "out"), *arguments])
        return status, json.loads((tmp_path / "out" / "gpu.json").read_text())

    return SimpleNamespace(script=gpu, call=call, table=lambda: table_of((tmp_path / "out" / "gpu.md").read_text()))


@pytest.fixture
def scenes(tmp_path):
    write_scenes(tmp_path / "scenes")
    return ["--dataset", "folder", "--data-root", str(tmp_path / "scenes"), "--prepared-root", str(tmp_path)]


def test_gpu_at_its_smallest(gpu, scenes, capsys, tmp_path):
    status, written = gpu.call(*scenes)
    rows, printed = written["rows"], capsys.readouterr().out
    assert status == 0 and written["finished"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(gpu.script.PARTS)
    assert {row["verdict"] for row in rows} <= {"ok", "missed", "not here"}
    assert gpu.table() == table_of(printed) == rows
    assert all(row["measured"] for row in rows if row["verdict"] != "not here")
    assert str(tmp_path) not in json.dumps(written) and str(ROOT) not in json.dumps(written)
    assert {"device", "torch", "cuda", "driver", "python", "commit", "precision"} <= set(written)
    if not torch.cuda.is_available():
        verdicts = [row["verdict"] for row in rows if row["part"] in ("host waits", "out of memory", "resuming")]
        assert verdicts == ["ok", "ok", "not here", "not here", "ok", "ok"]


def test_gpu_part_that_fails_is_a_row(gpu, monkeypatch):
    def bad(bench):
        yield {"what": "first", "measured": f"in {bench.folder}", "aim": "", "verdict": "ok"}
        raise ValueError("two\nlines of data | and a bar")

    parts = {"bad": bad, "after": lambda bench: [{"what": "second", "measured": "1", "aim": "2", "verdict": "missed"}]}
    monkeypatch.setattr(gpu.script, "PARTS", parts)
    status, written = gpu.call()
    assert status == 1 and gpu.table() == written["rows"]
    assert [(row["what"], row["verdict"]) for row in written["rows"]] == [
        ("first", "ok"), ("the rest of it", "failed: ValueError: two lines of data / and a bar"), ("second", "missed")]
    assert written["rows"][0]["measured"] == "in outputs"
    assert gpu.call("--parts", "after")[0] == 0  # an aim that is missed is no failure


def test_gpu_keeps_to_its_budget(gpu, monkeypatch):
    parts = {"slow": lambda bench: time.sleep(60), "after": lambda bench: pytest.fail("there is no time for it")}
    monkeypatch.setattr(gpu.script, "PARTS", parts)
    started = time.monotonic()
    status, written = gpu.call("--budget", "1")
    assert status == 0 and time.monotonic() - started < 20
    assert [(row["part"], row["what"], row["verdict"]) for row in written["rows"]] == [
        ("slow", "the rest of it", "skipped (budget)"), ("after", "all of it", "skipped (budget)")]


def test_gpu_parity_tells_rounding_from_a_fault(gpu):
    agreement = gpu.script.agreement
    counts = torch.tensor([[5.0, 2, 1], [0, 0, 0]])
    expected = {"loss": torch.tensor([2.0, 1.0]), "maps": torch.rand(2, 2, 4, 4), "score": torch.tensor([0.3, 0.5]),
                "class weights": torch.tensor([1.2, 0.8]), "counts": counts}
    absent = counts + torch.tensor([[0.0, 0, 0], [0, 7, 0]])  # masks of a class that is not there
    assert agreement.agreement("", expected | {"counts": absent}, expected, "float32")["verdict"] == "ok"
    for name, change in (("loss", 1e-3), ("maps", 0.01), ("score", 0.01), ("class weights", 0.1), ("counts", 0.1)):
        changed = expected | {name: expected[name] + change}
        assert agreement.deviations(changed, expected)[name] == pytest.approx(
            change / {"loss": 1, "class weights": 0.8, "counts": 8 / 3}.get(name, 1), rel=1e-3)
        assert agreement.agreement("", changed, expected, "float32")["verdict"] == "missed"


class Card:
    """Stands in for a card: what the parts ask of one, on a CPU. Memory runs out while it is limited."""

    def __init__(self, monkeypatch):
        self.fraction, self.time, self.step = 1.0, itertools.count(), loop.training_step
        monkeypatch.setattr(loop, "training_step", self.training_step)
        for name, stand_in in {
            "synchronize": lambda: None, "memory_allocated": lambda: 0, "memory_reserved": lambda: 0,
            "get_device_properties": lambda device: SimpleNamespace(total_memory=2**36),
            "set_per_process_memory_fraction": lambda share: setattr(self, "fraction", share),
            "set_sync_debug_mode": lambda mode: None, "Event": lambda enable_timing: Event(self.time),
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def training_step(self, *arguments):
        if self.fraction < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.step(*arguments)


class Event:
    """One millisecond after the one before."""

    def __init__(self, time):
        self.time = time

    def record(self):
        self.at = next(self.time)

    def elapsed_time(self, end):
        return end.at - self.at


@pytest.fixture
def card(gpu, scenes, monkeypatch, tmp_path):
    """A bench with a stand-in for a card."""
    from gpu_parts import bench

    class OnCard(bench.Bench):
        def config(self, **changes):
            return super().config(**changes | {"device": "cpu"})

    Card(monkeypatch)
    data = dict(zip(("dataset", "data_root", "prepared_root"), scenes[1::2], strict=True))
    return OnCard("cuda", bench.SMALLEST, data, tmp_path / "runs", time.monotonic() + 600)


def test_gpu_update_between_events(gpu, card):
    cost, = gpu.script.speed.update_cost(card)
    # before the step, before and after the update, after the step: 1 ms of 3
    assert cost["measured"].startswith("50.00 (50.00 to 50.00) % of the rest of the step: 1.0 ms of 3.0 ms")
    assert cost["verdict"] == "missed"


def test_gpu_memory_runs_out(gpu, card):
    message, after = gpu.script.agreement.out_of_memory(card)
    assert "out of memory with batch_size 16 at 64x32; lower 'batch_size'" in message["measured"]
    assert message["verdict"] == after["verdict"] == "ok"


def test_gpu_names_the_line_that_waits(gpu, card, monkeypatch):
    waits, score_labels = gpu.script.waits, cawa.score_labels

    def waiting(labels, stride):
        if stride == 1:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return score_labels(labels, stride)

    monkeypatch.setattr(cawa, "score_labels", waiting)
    monkeypatch.setattr(waits, "WAYS", {"default": {}, "waiting": {"score_stride": 1}})
    *_, epoch, named, silent = waits.host_waits(card)
    assert epoch["measured"] == "waits in 4 steps: none" and epoch["verdict"] == "ok"
    assert silent["measured"] == "1 of 2: default"
    place, line, count = re.fullmatch(r"waits in 3 steps: (\S+):(\d+) (\d)", named["measured"]).groups()
    assert (place, count) == ("cawalib/method/cawa.py", "3")
    assert "score_labels(" in (ROOT / place).read_text().splitlines()[int(line) - 1]
