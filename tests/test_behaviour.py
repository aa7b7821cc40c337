"""Provenance by behaviour: the tiny runs give their committed numbers, cover every setting, and notice faults."""

import dataclasses
import importlib.metadata
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_models_pytorch.encoders import get_encoder
from synthetic_runs import raise_version

from cawalib.datasets import load
from cawalib.runs import RunConfig, behaviour, outdated, provenance, read_archive, versions
from cawalib.runs.behaviour import CASES, EVERY_RUN, about, name_of
from cawalib.settings import METHODS
from cawalib.training import models, tiny_runs
from cawalib.training import run as training_run

ROOT = Path(__file__).resolve().parents[1]
STREETS, NO_LISTS = {"dataset": "streets"}, {"data_root": "no lists"}
ENCODER = {"batch_size": 16, "network": "pspnet", "encoder": "mobilenet_v2"}
# settings without a case: every tiny run sets them, or they say where and how long, or which images (the data digest),
# or need what is not at hand. The last one is what is changed; places are below the folder of the tiny runs.
OTHERS = tuple({"epochs": 1} | settings for settings in (
    {"epochs": 2}, {"batch_size": 8}, {"learning_rate": 0.001}, {"seed": 4}, {"smoke": True}, {"image_height": 64},
    {"image_width": 96}, STREETS, STREETS | {"imbalance": 10.0}, STREETS | {"rare_classes": "easy"},
    {"dataset": "cityscapes", "data_root": "cities", "val_is_test": True}, NO_LISTS | {"val_fraction": 0.4},
    NO_LISTS | {"split_seed": 1}, ENCODER, ENCODER | {"encoder_weights": "imagenet"},
    {"initial_weights": "start.safetensors"}, {"epochs": 2, "validate_every": 1}, {"data_root": "elsewhere"},
    {"prepared_root": "elsewhere"}, {"outputs_root": "elsewhere"}, {"device": "auto"}, {"data_workers": 1},
    {"processes": 2}, {"compile": True}))
PLACES = ("data_root", "prepared_root", "outputs_root", "initial_weights")
# What changes with a setting: what the finished network is judged by or on, and not the network; or no number at all.
# With every other one, something that is learned changes.
JUDGED = {"validate_every", "evaluation", "evaluate_test", "other_decisions", "ranked"}
NOTHING = {"data_root", "prepared_root", "outputs_root", "device", "data_workers", "compile"}
LEARNED = {"train_loss", "learning_rate", "weight", "score", "updates", "parameters"}  # of `tiny_runs.numbers`


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Settings -> numbers of their tiny run and all its metrics; each is trained once, when it is asked for."""
    root, kept = tmp_path_factory.mktemp("tiny"), {}
    write_data(root)

    def found(settings):
        settings = CASES[0] | settings
        key = json.dumps(settings, sort_keys=True)
        if key not in kept:
            if settings.get("score_source") in ("frozen", "permuted"):
                found({"method": "cawa"})  # whose last weights are kept
            # others have a folder of their own, so that none is read back
            places = {} if settings in CASES else {"outputs_root": str(root / f"outputs {len(kept)}")}
            places |= {name: str(root / settings[name]) for name in PLACES if name in settings}
            if "initial_weights" in settings:
                tiny_runs.make(CASES[0] | {"epochs": 1}, root).export(root / settings["initial_weights"])
            run = tiny_runs.make(settings | places, root)
            kept[key] = tiny_runs.numbers(run), json.dumps(run.metrics["splits"])
        return kept[key]

    return found


def write_data(root):
    """The scenes of the tiny runs; the same elsewhere, without lists, and as Cityscapes has them."""
    tiny_runs.write_scenes(root / "data")
    shutil.copytree(root / "data", root / "elsewhere")
    shutil.copytree(root / "data", root / "no lists", ignore=shutil.ignore_patterns("*.txt"))
    train_ids = [10, 0, 8, 13, 7, *range(5, 256)]  # of sky, road, vegetation, car and traffic sign
    for split in ("train", "val"):
        for own in ("images", "annotations"):
            (root / "cities" / own / split).mkdir(parents=True)
        for path in (root / "data" / "images").glob(f"{split}*.png"):
            shutil.copy(path, root / "cities" / "images" / split / path.name)
            masks = Image.open(root / "data" / "masks" / path.name).point(train_ids)
            masks.save(root / "cities" / "annotations" / split / f"{path.stem}_gtFine_labelTrainIds.png")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_code_computes_what_it_did(tiny, case):
    assert tiny_runs.differences({name_of(case): tiny(case)[0]}, behaviour.table()) == {}, \
        "on purpose? then: python -m cawalib.training.tiny_runs --accept"


def test_every_setting_has_a_case_or_a_value():
    covered, others = {about(case) for case in CASES}, {about(settings) for settings in OTHERS}
    assert covered | others == {field.name for field in dataclasses.fields(RunConfig)} and not covered & others
    assert {case["method"] for case in CASES if "method" in case} == set(METHODS)


def test_a_run_is_named_by_every_setting_but_its_place():
    for settings in [*CASES, *OTHERS]:
        without = {name: value for name, value in settings.items() if name != about(settings)}
        if "network" in without or not {"encoder", "short_side"} & without.keys():  # which cannot be alone
            one, other = (RunConfig(**behaviour.BASE | some) for some in (settings, without))
            place = about(settings) in NOTHING - {"compile"} | {"seed", "processes"}
            assert (one.hash == other.hash) == (place or one == other), about(settings)


# several processes start anew, and have a file of their own: test_processes.py
@pytest.mark.parametrize("settings", [settings for settings in [*CASES[1:], *OTHERS] if about(settings) != "processes"],
                         ids=name_of)
def test_a_setting_changes_what_it_should_and_nothing_else(tiny, settings, monkeypatch):
    monkeypatch.setattr(load, "STREETS_COUNTS", {"train": 8, "val": 2, "test": 2})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "compile", lambda network: network)  # see test_compiled_network
    monkeypatch.setattr(models, "_packaged_weights", lambda: {
        name: part.float().abs().add(0.01).to(part.dtype) for name, part in get_encoder("mobilenet_v2", weights=None)
        .state_dict().items()})
    without = {name: value for name, value in settings.items() if name != about(settings)}
    alone = settings in OTHERS or not without or without in CASES  # a few cases are not a step from another one
    (found, metrics), (before, metrics_before) = tiny(settings), tiny(without if alone else CASES[0])
    changed = {name for name, values in found.items()
               if not np.array_equal(values, before[name], equal_nan=True)}
    if about(settings) in NOTHING:
        assert not changed and metrics == metrics_before
    elif about(settings) in JUDGED and alone:
        assert changed and not changed & LEARNED
    else:
        assert changed & LEARNED
    if settings in CASES:  # and by more than rounding
        table = {name_of(settings): {"numbers": before}}
        assert tiny_runs.differences({name_of(settings): found}, table)


# ---------------------------------------------------------------- faults that must be noticed

def no_step(monkeypatch):
    step = torch.optim.lr_scheduler.PolynomialLR.step
    monkeypatch.setattr(torch.optim.lr_scheduler.PolynomialLR, "step",  # the first call is the constructor's
                        lambda self: None if hasattr(self, "_last_lr") else step(self))


def no_seed(monkeypatch):
    monkeypatch.setattr(training_run, "set_seed", lambda seed: torch.manual_seed(0))


def judged_in_training_mode(monkeypatch):
    from contextlib import nullcontext

    from cawalib.training import evaluation
    monkeypatch.setattr(evaluation, "evaluation_mode", nullcontext)


def no_augmentation(monkeypatch):
    from cawalib.training import transforms
    plain = transforms.augment
    monkeypatch.setattr(transforms, "augment", lambda image, labels, data, training:
                        plain(image, labels, data, dataclasses.replace(training, augment=False)))


def no_weights(monkeypatch):
    from cawalib.training import criterion
    monkeypatch.setattr(criterion, "cross_entropy", lambda logits, labels, weight:
                        torch.nn.functional.cross_entropy(logits, labels, ignore_index=255))


def no_pooling(monkeypatch):
    monkeypatch.setattr(torch.nn.AdaptiveAvgPool2d, "forward", lambda self, images: images[..., :1, :1])


@pytest.mark.long
@pytest.mark.parametrize("fault, case", [
    (no_step, EVERY_RUN), (no_seed, EVERY_RUN), (judged_in_training_mode, EVERY_RUN), (no_augmentation, EVERY_RUN),
    (no_weights, "method cawa"), (no_weights, "method inverse_sqrt"), (no_seed, "network deeplabv3plus"),
    (judged_in_training_mode, "network unet"), (no_pooling, "network pspnet")])
def test_faults_are_noticed(fault, case, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_runs, "CASES", [one for one in CASES if name_of(one) == case])
    assert tiny_runs.differences(tiny_runs.measure(tmp_path / "right"), behaviour.table()) == {}
    fault(monkeypatch)
    assert list(tiny_runs.differences(tiny_runs.measure(tmp_path / "wrong"), behaviour.table())) == [case]


# ---------------------------------------------------------------- which runs are stale

def test_only_runs_that_a_case_speaks_for_go_stale(monkeypatch):
    plain, focal = RunConfig(method="none"), RunConfig(method="focal")
    ours, other = RunConfig(score_source="prediction"), RunConfig(weight_power=3.0, network="unet")
    recorded = {config: versions(config) for config in (plain, focal, ours, other)}
    assert recorded[plain].keys() == {EVERY_RUN}
    assert recorded[ours].keys() == {EVERY_RUN, "method cawa", "score_source prediction"}
    assert recorded[other].keys() == {EVERY_RUN, "method cawa", "weight_power", "network unet"}

    def stale(case):
        raised = behaviour.table() | {case: {"version": behaviour.table()[case]["version"] + 1}}
        with monkeypatch.context() as patch:
            patch.setattr(behaviour, "table", lambda: raised)
            return [config for config in recorded if outdated(config, {"behaviour": recorded[config]})]

    assert stale("method focal") == [focal] and stale("weight_power") == [other] and stale(EVERY_RUN) == [*recorded]
    assert stale("method cawa") == [ours, other] and stale("network pspnet") == []
    assert outdated(plain, {}) == outdated(plain, {"behaviour": {}}) == [EVERY_RUN]  # of before they were recorded
    # a case that came later begins with what the code did before
    first = behaviour.table() | {"method cawa": {"version": 1}, "score_source prediction": {"version": 1}}
    monkeypatch.setattr(behaviour, "table", lambda: first)
    assert outdated(ours, {"behaviour": {EVERY_RUN: first[EVERY_RUN]["version"]}}) == []
    first["method cawa"] = {"version": 2}  # and is changed after
    assert outdated(ours, {"behaviour": {EVERY_RUN: first[EVERY_RUN]["version"]}}) == ["method cawa"]


def test_what_automatic_precision_came_to_counts(monkeypatch):
    """On a GPU, "auto" is bf16: then the case of bf16 speaks for the run."""
    config = RunConfig(method="none")
    made = provenance.environment(config, "a GPU", "bf16", "d" * 64)
    assert (made["device_type"], made["precision"]) == ("cuda", "bf16")
    assert made["behaviour"].keys() == {EVERY_RUN, "mixed_precision bf16"}
    raise_version(monkeypatch, "mixed_precision bf16")
    assert outdated(config, made) == ["mixed_precision bf16"]
    assert outdated(config, provenance.environment(config, "CPU, 1 thread", "no", "d" * 64)) == []


def test_numbers_changed_on_purpose_raise_versions_of_what_changed_alone(tmp_path, monkeypatch):
    path = tmp_path / "behaviour.json"
    path.write_text(json.dumps({"method gone": {"version": 2, "numbers": {}},
                                "method focal": {"version": 3, "numbers": {"train_loss": [1.0]}},
                                "method ohem": {"version": 1, "numbers": {"train_loss": [2.0]}}}))
    monkeypatch.setattr(behaviour, "TABLE", path)
    behaviour.table.cache_clear()
    found = {"method focal": {"train_loss": [1.1]}, "method ohem": {"train_loss": [2.0 + 1e-4]},
             "method dice": {"train_loss": [math.nan]}}
    changed = tiny_runs.differences(found, behaviour.table())
    assert changed == {"method focal": "train_loss 1.1, committed 1",
                       "method dice": "train_loss nan, committed nothing"}
    tiny_runs.accept(found, changed)
    assert json.loads(path.read_text()) == {
        "method gone": {"version": 2, "numbers": {}},
        "method focal": {"version": 4, "numbers": {"train_loss": [1.1]}},
        "method ohem": {"version": 1, "numbers": {"train_loss": [2.0]}},
        "method dice": {"version": 1, "numbers": {"train_loss": [None]}}}
    monkeypatch.undo()
    behaviour.table.cache_clear()


@pytest.mark.parametrize("study", sorted(
    path.parent.name for path in (ROOT / "outputs" / "reference").glob("*/runs.jsonl.gz")))
def test_published_runs_keep_their_names_and_their_standing(study):
    runs = read_archive(ROOT / "outputs" / "reference" / study / "runs.jsonl.gz")
    for name, run in runs.items():
        assert run.config.name == name  # the hash of unchanged settings stays as it was
        assert name.split("/")[2] == run.metrics["config_hash"]
        # stale is only what was changed on purpose since
        assert all(behaviour.table()[case]["version"] > 1 for case in outdated(run.config, run.environment))


def test_which_published_runs_a_raised_version_makes_stale_is_said(tmp_path, monkeypatch):
    (tmp_path / "demo").symlink_to(ROOT / "outputs" / "reference" / "demo")
    assert tiny_runs.published_and_stale(tmp_path) == []
    raise_version(monkeypatch, "method focal")
    assert tiny_runs.published_and_stale(tmp_path) == ["demo: 3 of 30 runs (method focal)"]  # three seeds


# ---------------------------------------------------------------- whose commit

def test_a_copy_inside_somebodys_repository_does_not_record_their_commit(tmp_path):
    def git(*words):
        return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], cwd=tmp_path, check=True,
                              capture_output=True, text=True).stdout.strip()

    (tmp_path / "venv/site-packages/cawalib").mkdir(parents=True)
    (tmp_path / "theirs.py").write_text("")
    git("init"), git("add", "-A"), git("commit", "-m", "theirs")
    assert provenance.commit(tmp_path / "venv/site-packages") == ""
    # put at the top of their repository, with and without a project file of theirs
    assert provenance.commit(tmp_path) == ""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    assert provenance.commit(tmp_path) == ""


def test_the_commit_of_this_repository_says_what_is_uncommitted(tmp_path, monkeypatch):
    def git(*words):
        return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], cwd=tmp_path, check=True,
                              capture_output=True, text=True).stdout.strip()

    (tmp_path / "pyproject.toml").write_text('[project]\nname = "cawalib"\n')
    git("init"), git("add", "-A"), git("commit", "-m", "ours")
    commit = git("rev-parse", "HEAD")
    assert provenance.commit(tmp_path) == commit
    (tmp_path / "cawalib").mkdir()
    (tmp_path / "cawalib" / "new.py").write_text("")
    assert provenance.commit(tmp_path) == commit + "+uncommitted"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as within a hook of another repository
    assert provenance.commit(tmp_path) == commit + "+uncommitted"
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without git
    assert provenance.commit(tmp_path) == ""


def test_what_a_run_records(tmp_path):
    made = provenance.environment(RunConfig(), "CPU, 1 thread", "no", "d" * 64)
    assert made["version"] == importlib.metadata.version("cawalib") and made["device_type"] == "cpu"
    assert made["behaviour"] == versions(RunConfig()) and made["data_digest"] == "d" * 64
    assert str(ROOT) not in json.dumps(made)


