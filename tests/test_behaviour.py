"""Provenance by behaviour: the tiny runs give their committed numbers, cover every setting, and notice faults."""

import dataclasses
import importlib.metadata
import json
import math
import subprocess
from pathlib import Path

import pytest
import torch
from synthetic_runs import raise_version

from cawalib.runs import RunConfig, behaviour, outdated, provenance, read_archive, versions
from cawalib.runs.behaviour import CASES, EVERY_RUN, about, name_of
from cawalib.settings import METHODS
from cawalib.training import run as training_run
from cawalib.training import tiny_runs

ROOT = Path(__file__).resolve().parents[1]
# no case of their own: every tiny run sets them, or they say where and how long, or need what is not at hand
ELSEWHERE = {"dataset", "data_root", "prepared_root", "outputs_root", "image_height", "image_width", "epochs",
             "batch_size", "learning_rate", "validate_every", "seed", "device", "data_workers", "smoke", "compile",
             "imbalance", "rare_classes", "val_is_test", "val_fraction", "split_seed",  # which images: the data digest
             "encoder", "encoder_weights", "initial_weights"}  # with its network; weights are a checked file


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return tiny_runs.measure(tmp_path_factory.mktemp("tiny"))


def test_the_code_computes_what_it_did(found):
    assert tiny_runs.differences(found, behaviour.table()) == {}, \
        "on purpose? then: python -m cawalib.training.tiny_runs --accept"


def test_every_setting_has_a_case_and_arrives(found):
    covered = {about(case) for case in CASES}
    assert covered | ELSEWHERE == {field.name for field in dataclasses.fields(RunConfig)} and not covered & ELSEWHERE
    assert {case["method"] for case in CASES if "method" in case} == set(METHODS)
    table = {name: {"numbers": numbers} for name, numbers in found.items()}
    for case in CASES[1:]:
        without = {name: value for name, value in case.items() if name != about(case)}
        other = next((name_of(known) for known in CASES if known == without), EVERY_RUN)
        told = tiny_runs.differences({name_of(case): found[name_of(case)]}, {name_of(case): table[other]})
        assert told, f"{name_of(case)} comes out as {other}"


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
    ours, other = RunConfig(score_source="prediction"), RunConfig(weight_power=2.0, network="unet")
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


def test_what_automatic_precision_came_to_counts(monkeypatch):
    """On a GPU, "auto" is bf16: then the case of bf16 speaks for the run."""
    config = RunConfig(method="none")
    made = provenance.environment(config, "a GPU", "bf16", "d" * 64)
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


@pytest.mark.parametrize("study", ["demo", "evidence", "evidence-options", "evidence-settings"])
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


def test_what_a_run_records(tmp_path):
    made = provenance.environment(RunConfig(), "CPU, 1 thread", "no", "d" * 64)
    assert made["version"] == importlib.metadata.version("cawalib")
    assert made["behaviour"] == versions(RunConfig()) and made["data_digest"] == "d" * 64
    assert str(ROOT) not in json.dumps(made)


