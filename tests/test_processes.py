"""One run over several processes: what they compute together, what comes back, and what is refused."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cawalib.method import CAWAWeighting
from cawalib.runs import RunConfig, RunError
from cawalib.settings import ConfigError, MethodConfig
from cawalib.training import (
    Criterion,
    TrainingInterrupted,
    build_accelerator,
    evaluate,
    launch,
    load_checked,
    loop,
    models,
    set_up,
    train,
    training_step,
)

SMALL = {"train_images": 24, "image_height": 32, "image_width": 64, "epochs": 2, "batch_size": 4, "validate_every": 1,
         "device": "cpu", "learning_rate": 0.001, "feedback_images": 3}
# what is trained step by step: on batches, and with feedback from images held out
KINDS = ({}, {"held_out_share": 0.3}, {"method": "rare_class_sampling", "feedback_images": 8})


def without_batch_norm(inputs, outputs, stride=1, groups=1):
    """Instead of `models._block`: nothing that hangs on how a batch is shared out."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False),
                         nn.GroupNorm(1, outputs), nn.ReLU(inplace=True))


def steps(settings):
    """Three steps and an evaluation: losses, class weights of each step, parameters, confusion matrix."""
    config = RunConfig(**SMALL | settings)
    training = set_up(config, load_checked(config), build_accelerator(config))
    losses, weights = [], []
    for images, labels in training.loader:
        loss = training_step(training, images, labels)
        losses.append(training.accelerator.reduce(loss, "mean"))
        weights.append(training.criterion.weighting.weight.clone())
        training.batch += 1
        if training.batch == 3:
            break
    found = evaluate(training.network, training.datasets["val"], training.statistics, config, training.accelerator)
    parameters = torch.cat([part.detach().flatten() for part in training.network.parameters()])
    return {"losses": torch.stack(losses), "weights": torch.stack(weights), "parameters": parameters,
            "confusion": torch.tensor(np.array(found["confusion"])), "images": len(images)}


def one_of_two(settings, folder):
    """What each of two processes does: the steps, then a run; in its fourth step one of them is told to stop."""
    models._block = without_batch_norm
    rank = os.environ["RANK"]
    torch.save([steps(settings | kind) for kind in KINDS], f"{folder}/found{rank}.pt")
    done = loop.training_step

    def told(training, images, labels):
        if training.step == 3 and rank == "1":
            stop.set()
        return done(training, images, labels)

    stop, loop.training_step = threading.Event(), told
    run_epoch = loop.run_epoch
    train.__globals__["run_epoch"] = lambda training, event: run_epoch(training, stop)
    with pytest.raises(TrainingInterrupted, match="stopped in epoch 1, checkpoint saved"):
        train(RunConfig(**SMALL | settings, processes=2))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Settings, and the folder in which two processes have done `one_of_two`."""
    folder = tmp_path_factory.mktemp("together")
    settings = {"data_root": str(folder / "data"), "outputs_root": str(folder / "outputs")}
    load_checked(RunConfig(**SMALL | settings))
    code = f"import test_processes; test_processes.one_of_two({settings!r}, {str(folder)!r})"
    (folder / "two.py").write_text(code)
    here = os.path.dirname(__file__)  # with the code beside these tests, which need not be the installed one
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([os.path.dirname(here), here])}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           folder / "two.py"], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    assert done.stdout.count("Going on") == 0
    return settings, folder


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_two_processes_compute_what_one_does(together, kind, monkeypatch):
    settings, folder = together
    monkeypatch.setattr(models, "_block", without_batch_norm)
    alone = steps(settings | kind)
    one, other = (torch.load(folder / f"found{rank}.pt", weights_only=True)[KINDS.index(kind)] for rank in (0, 1))
    assert one["images"] == other["images"] == 2 and alone["images"] == 4
    for name in ("losses", "weights", "parameters", "confusion"):
        assert torch.equal(one[name], other[name]), name  # bit by bit
    torch.testing.assert_close(one["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one["parameters"], alone["parameters"], rtol=0, atol=2e-4)
    assert one["confusion"].sum() == alone["confusion"].sum()
    assert (one["confusion"] - alone["confusion"]).abs().sum() < 0.02 * alone["confusion"].sum()
    assert (one["weights"][-1] != 1).any() == (kind.get("method") is None)


@pytest.mark.long
def test_stopped_in_two_processes_ended_in_one(together, monkeypatch, capsys):
    """One of them alone was told to stop, both did after the next step, and what came out is a run in one process."""
    settings, folder = together
    monkeypatch.setattr(models, "_block", without_batch_norm)
    config = RunConfig(**SMALL | settings)
    ended = train(config)
    assert "Going on after epoch 0, batch 5" in capsys.readouterr().out
    alone = train(config.replace(outputs_root=str(folder / "alone")))
    assert ended.environment["processes"] == 1 and ended.folder.name == alone.folder.name
    assert ended.history["train_loss"].tolist() == pytest.approx(alone.history["train_loss"].tolist(), rel=1e-3)
    weights = [run.class_weights["weight"].to_numpy() for run in (ended, alone)]
    assert weights[0] == pytest.approx(weights[1], rel=0.1) and len(weights[0]) == 12 * 11


@pytest.mark.long
def test_the_setting_starts_processes_and_reads_their_run_back(tmp_path, together, capfd):
    settings, _ = together
    config = RunConfig(**SMALL | settings | {"outputs_root": str(tmp_path), "smoke": True, "processes": 2})
    run = train(config)
    assert run.environment["processes"] == run.config.processes == 2
    assert run.folder == config.replace(processes=1).folder  # it is the same run, computed elsewhere
    shown = capfd.readouterr()
    assert shown.out.count("epoch   1: loss") == 1 and shown.err == ""
    # two batches of four images each, shared out or not
    assert 0.9 < np.sum(run.metrics["splits"]["val"]["confusion"]) / (2 * 4 * 32 * 64) <= 1


def test_shares_of_what_is_looked_at():
    def share(index, processes, images):
        weighting = CAWAWeighting(3, feedback_images=images)
        criterion = Criterion(MethodConfig(), weighting, SimpleNamespace(pixels=[1, 1, 1]))
        criterion.share_feedback(index, processes)
        return weighting.max_images

    assert [share(index, 1, 8) for index in range(1)] == [8]
    assert [share(index, 3, 8) for index in range(3)] == [3, 3, 2]
    assert [share(index, 4, 2) for index in range(4)] == [1, 1, 1, 1]


# ---------------------------------------------------------------- refused, and named in one line

def test_what_does_not_go_together(monkeypatch):
    with pytest.raises(ConfigError, match="'batch_size': found 8, expected a multiple of the 3 processes that"):
        RunConfig(processes=3)
    with pytest.raises(ConfigError, match="'batch_size': found 4, expected at least 8 with network 'pspnet'"):
        RunConfig(network="pspnet", batch_size=4, processes=4)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launch.joined(RunConfig(processes=2)).processes == 4  # as many as somebody else has started
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(ConfigError, match="'batch_size': found 8, expected a multiple of the 5 processes"):
        launch.joined(RunConfig())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ConfigError, match="'processes': found 2, but PyTorch sees 1 CUDA devices here"):
        train(RunConfig(processes=2))


KILLED = "  traceback : Signal 15 (SIGTERM) received by PID 70\n  traceback : Signal 9 (SIGKILL) received by PID 71"
LEFT = f"cawalib.training: error: RunError: run folder x: {launch.LEFT_ALONE}; start the same run again"


@pytest.mark.parametrize("said, status, told, kind, words", [
    (f"noise\n{LEFT}\ncawalib.training: error: ConfigError: parameter 'x'\n", 1, False, ConfigError, "^parameter"),
    ("cawalib.training: error: DiskFullError: x: the disk is full\n", 1, False, RunError, "^x: the disk is full"),
    ("cawalib.training: error: TrainingInterrupted: stopped in epoch 1\n", 1, True, TrainingInterrupted, "in epoch 1"),
    ("", -15, True, TrainingInterrupted, "stopped; start the same run again"),
    (f"{LEFT}\n{KILLED}\n", 1, False, RunError, r"one of its 2 processes was ended \(SIGKILL; for lack of memory\?\)"),
    (f"{LEFT}\n", -9, False, RunError, "one of its 2 processes was ended .SIGKILL; "),
    ("Traceback\nKeyError: 'x'\n", 1, False, RuntimeError, "failed with:\nTraceback\nKeyError: 'x'"),
])
def test_what_is_said_of_processes_that_ended_badly(said, status, told, kind, words):
    error = launch._error(RunConfig(processes=2), said, told, status)
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


def test_processes_that_are_not_about_to_do_the_same(tmp_path, monkeypatch):
    made = {"behaviour": {"every run": 1}, "data_digest": "a", "initial_weights": ""}
    config, told = RunConfig(outputs_root=str(tmp_path)), []
    monkeypatch.setattr(launch, "broadcast_object_list", lambda found: told.append(found[0]) or told[:1])
    other = SimpleNamespace(process_index=1)
    launch.same_everywhere(config, other, made)
    launch.same_everywhere(config, other, dict(made))
    config.folder.mkdir(parents=True)
    for setting, change, seen in (({"epochs": 7}, {}, "settings"), ({"seed": 2}, {}, "settings"),
                                  ({}, {"behaviour": {"every run": 2}}, "code"),
                                  ({}, {"data_digest": "b", "initial_weights": "c"}, "data and initial weights")):
        with pytest.raises(RunError, match=f"process 1 has or sees another {seen} than the main process"):
            launch.same_everywhere(config.replace(**setting), other, made | change)
    (config.folder / "checkpoint").mkdir()
    (config.folder / "config.json").write_text("{}")
    (config.folder / "checkpoint" / "last.pt").write_text("")
    with pytest.raises(RunError, match="another run folder and checkpoint than the main process"):
        launch.same_everywhere(config, other, made)


def test_a_process_that_waits_for_one_that_is_no_more():
    two = RunConfig(processes=2)
    with pytest.raises(RunError, match=launch.LEFT_ALONE), launch.left_alone(two):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234")
    for config, error in ((two, RuntimeError("shape mismatch")), (RunConfig(), RuntimeError("Connection closed"))):
        with pytest.raises(RuntimeError, match=str(error)), launch.left_alone(config):
            raise error
