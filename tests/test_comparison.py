"""Numbers against hand calculation and scipy; refusals by name."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import make_run, raise_version

from cawalib.results import METRICS, ComparisonError, compare, compare_classes, per_class, tidy
from cawalib.results.comparable import check
from cawalib.results.comparison import interval
from cawalib.results.measures import metric_named
from cawalib.runs import SHARED_FIELDS, Run, RunConfig, load_study, versions

BASE = [(0.9, 0.7, 0.5, 0.3, 0.1), (0.9, 0.7, 0.5, 0.4, 0.1), (0.9, 0.7, 0.5, 0.2, 0.2)]


def study(root, rises, **other):
    """Cross entropy with BASE, and CAWA with the rarest class raised by the given numbers, a seed each."""
    runs = [make_run(root, "cross entropy", seed, iou, method="none") for seed, iou in enumerate(BASE)]
    for seed, rise in enumerate(rises):
        runs.append(make_run(root, "CAWA", seed, [*BASE[seed][:4], BASE[seed][4] + rise], **other))
    return runs


def row(table, label, **key):
    (by, value), = key.items()
    return table[(table["label"] == label) & (table[by] == value)].squeeze()


def test_tidy_has_every_metric_of_every_split(tmp_path):
    table = tidy([make_run(tmp_path, iou=(0.9, 0.7, 0.5, 0.3, 0.1))])
    assert list(table.columns) == ["label", "group", "method", "dataset", "seed", "split", "metric", "value"]
    assert set(table["label"]) == {"CAWA"} and set(table["method"]) == {"cawa"}
    assert set(tidy([make_run(tmp_path, label="")])["label"]) == {"cawa"}  # a run outside of a study
    values = table[table["split"] == "test"].set_index("metric")["value"]
    assert tuple(values.index) == METRICS
    assert values["mIoU"] == pytest.approx(0.5)
    assert (values["mean accuracy"], values["pixel accuracy"]) == pytest.approx((0.6, 0.8))
    assert values["worst class IoU"] == pytest.approx(0.1)
    assert values["head mIoU (pixels)"] == pytest.approx(0.8)  # five classes: groups of two, two, one
    assert values["tail mIoU (pixels)"] == pytest.approx(0.1)
    assert values["tail mIoU (images)"] == pytest.approx(0.9)  # the first class is in the fewest images


def test_a_class_with_an_empty_union_is_left_out(tmp_path):
    run = make_run(tmp_path, iou=(0.9, 0.7, 0.5, 0.3, np.nan))
    values = tidy([run]).query("split == 'val'").set_index("metric")["value"]
    assert values["mIoU"] == pytest.approx(0.6)
    assert values["worst class IoU"] == pytest.approx(0.3)
    assert np.isnan(values["tail mIoU (pixels)"])
    assert per_class([run]).query("split == 'val'")["iou"].isna().tolist() == [False] * 4 + [True]


def test_per_class_rows(tmp_path):
    table = per_class([make_run(tmp_path, iou=(0.9, 0.7, 0.5, 0.3, 0.1))])
    assert list(table.columns) == ["label", "group", "seed", "split", "class", "iou", "precision", "recall",
                                   "train_pixels", "train_images"]
    assert len(table) == 2 * 5
    pole = table[(table["class"] == "vegetation") & (table["split"] == "val")].squeeze()
    assert (pole["iou"], pole["precision"], pole["recall"]) == pytest.approx((0.3, 0.4, 0.35))
    assert (pole["train_pixels"], pole["train_images"]) == (10_000, 75)


def test_interval_by_hand():
    # 1, 2, 3: mean 2, deviation 1, standard error 1/sqrt(3), t(0.975; 2) = 4.302653
    assert interval([1, 2, 3]) == pytest.approx((2, 4.302653 / np.sqrt(3)), rel=1e-6)
    assert interval([1, 2, 3, np.nan]) == pytest.approx(interval([1, 2, 3]))
    # t(0.95; 2) = 2.919986
    assert interval([1, 2, 3], level=0.9) == pytest.approx((2, 2.919986 / np.sqrt(3)), rel=1e-6)
    assert interval([5])[0] == 5 and np.isnan(interval([5])[1])
    assert np.isnan(interval([])).all()


def test_paired_difference_agrees_with_scipy(tmp_path):
    table = compare(study(tmp_path, (0.10, 0.20, 0.30)), "cross entropy", "test", ["miou"])
    found = row(table, "CAWA", metric="mIoU")
    ours, theirs = [np.mean(iou) + rise / 5 for iou, rise in zip(BASE, (0.1, 0.2, 0.3), strict=True)], \
        [np.mean(iou) for iou in BASE]
    low, high = stats.ttest_rel(ours, theirs).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["difference"] == pytest.approx(0.04)  # 0.02, 0.04, 0.06
    assert found["deviation"] == pytest.approx(np.std(ours, ddof=1))
    assert (found["seeds"], found["pairs"]) == (3, 3)
    assert found["verdict"] == "inside the noise"  # 0.04 -+ 4.302653 * 0.02 / sqrt(3) = 0.04 -+ 0.0497


@pytest.mark.parametrize("rises, verdict", [
    ((0.19, 0.20, 0.21), "better"), ((-0.09, -0.08, -0.09), "worse"), ((0.1, -0.1, 0.05), "inside the noise"),
])
def test_verdicts(tmp_path, rises, verdict):
    runs = study(tmp_path, rises)
    assert row(compare(runs, "cross entropy", "val"), "CAWA", metric="mIoU")["verdict"] == verdict
    rarest = compare_classes(runs, "cross entropy", "val")
    assert row(rarest, "CAWA", **{"class": "pavement"})["difference"] == pytest.approx(np.mean(rises))
    assert row(rarest, "CAWA", **{"class": "pavement"})["verdict"] == verdict
    assert row(rarest, "CAWA", **{"class": "road"})["verdict"] == "inside the noise"  # the difference is 0
    for measure, more in (("precision", 0.1), ("recall", 0.05)):
        found = row(compare_classes(runs, "cross entropy", "val", measure), "cross entropy", **{"class": "pavement"})
        assert found["mean"] == pytest.approx(np.mean([iou[4] for iou in BASE]) + more)


def test_the_baseline_itself_and_one_seed(tmp_path):
    runs = [make_run(tmp_path, "cross entropy", method="none"), make_run(tmp_path, "CAWA")]
    table = compare(runs, "cross entropy", "test", ["mIoU"])
    assert table["verdict"].tolist() == ["baseline", "too few seeds"]
    assert table["deviation"].isna().all() and table["low"].isna().all()


def test_a_metric_missing_in_all_but_one_pair_gives_no_interval(tmp_path):
    runs = [make_run(tmp_path, label, seed, (0.9, 0.7, 0.5, 0.3, 0.1 if seed == 0 else np.nan), method=method)
            for label, method in (("cross entropy", "none"), ("CAWA", "cawa")) for seed in (0, 1)]
    found = row(compare(runs, "cross entropy", "test"), "CAWA", metric="tail mIoU (pixels)")
    assert (found["seeds"], found["pairs"], found["verdict"]) == (1, 1, "too few seeds")


def test_seeds_beyond_the_baselines_count_for_the_mean_alone(tmp_path):
    runs = [make_run(tmp_path, "cross entropy", 0, method="none")]
    runs += [make_run(tmp_path, "CAWA", seed) for seed in (0, 1)]
    found = row(compare(runs, "cross entropy", "test"), "CAWA", metric="mIoU")
    assert (found["seeds"], found["pairs"]) == (2, 1)


def test_metric_names():
    assert metric_named("miou") == "mIoU"
    assert metric_named("mean_accuracy") == "mean accuracy"
    assert metric_named("tail mIoU (pixels)") == "tail mIoU (pixels)"
    with pytest.raises(ComparisonError, match="did you mean 'mIoU'"):
        metric_named("mIuo")


def made_on(run, **environment):
    """The run as if it had been trained there."""
    made = {"device_type": "cpu", "precision": "no"} | run.environment | environment
    return dataclasses.replace(run, environment=made)


@pytest.mark.parametrize("change, message", [
    (lambda root, runs: runs, "baseline 'crossentropy': nothing has this name; did you mean 'cross entropy'"),
    (lambda root, runs: [], "no runs"),
    (lambda root, runs: [runs[0].folder], "found PosixPath among the runs, expected what runs.load_run gives"),
    (lambda root, runs: runs + [make_run(root, "x", dataset="camvid")], "mixed dataset: streets in 'cross entropy'"),
    (lambda root, runs: runs + [make_run(root, "x", score_stride=4, recorded={"every run": 99})],
     "mixed behaviour: version [0-9]+ of 'every run' in .*, but 99 in 'x', seed 0"),
    (lambda root, runs: runs + [make_run(root, "x", score_stride=4, recorded={})],
     "mixed behaviour: recorded in .*, but not recorded .commit unknown. in 'x', seed 0"),
    # one run is older than the case, the other of its second version
    (lambda root, runs: [*runs, make_run(root, "x", 0, score_stride=4, recorded=versions(RunConfig())),
                         make_run(root, "x", 1, score_stride=4,
                                  recorded=versions(RunConfig()) | {"score_stride": 99})],
     "mixed behaviour: version 1 of 'score_stride' in 'x', seed 0, but 99 in 'x', seed 1"),
    (lambda root, runs: [*runs[:-1], made_on(runs[-1], device_type="cuda")],
     "mixed kind of device: cpu in 'cross entropy', seed 0, but cuda in 'CAWA', seed 2"),
    (lambda root, runs: [*runs[:-1], made_on(runs[-1], precision="bf16")],
     "mixed precision: no in 'cross entropy', seed 0, but bf16 in 'CAWA', seed 2"),
    (lambda root, runs: [*runs[:-1], made_on(runs[-1], data_digest="c" * 64)],
     "mixed data digest: bbbbbbbb in 'cross entropy', seed 0, but cccccccc in 'CAWA', seed 2"),
    (lambda root, runs: runs + [make_run(root, "CAWA", 2, epochs=9)], "'CAWA': seed 2 is there 2 times"),
    (lambda root, runs: runs + [make_run(root, "CAWA", 3, epochs=9)], "'CAWA': seeds 0 and 3 differ in 'epochs'"),
    (lambda root, runs: runs + [make_run(root, "x", score_stride=4)], "'x': lacks seed 1, 2, which baseline"),
    (lambda root, runs: runs + [make_run(root, "x", score_stride=4, splits=("val",))],
     "split 'test': missing in 'x', seed 0"),
])
def test_refusals_name_what_is_wrong(tmp_path, change, message):
    runs = change(tmp_path, [made_on(run) for run in study(tmp_path, (0.1, 0.2, 0.3))])
    runs = [made_on(run) if isinstance(run, Run) else run for run in runs]
    baseline = "crossentropy" if "crossentropy" in message else "cross entropy"
    with pytest.raises(ComparisonError, match=message) as refusal:
        compare(runs, baseline, "test")
    assert "\n" not in str(refusal.value)


def test_runs_that_fit_pass(tmp_path):
    check(study(tmp_path, (0.1, 0.2, 0.3)), "cross entropy", "val")


def test_a_case_that_a_run_does_not_know_was_at_its_first_version(tmp_path, monkeypatch):
    known = versions(RunConfig(score_stride=4))
    raise_version(monkeypatch, "score_stride")  # so that today's is no longer the first
    runs = [make_run(tmp_path, "CAWA", 0, score_stride=4, recorded=known | {"score_stride": 1}),
            make_run(tmp_path, "CAWA", 1, score_stride=4, recorded=versions(RunConfig()))]
    check(runs)


def test_shared_seeds_must_be_some(tmp_path):
    runs = study(tmp_path, (0.1,)) + [make_run(tmp_path, "x", 7, score_stride=4)]
    with pytest.raises(ComparisonError, match="'x': lacks seed 0, 1, 2, which baseline 'cross entropy' has"):
        compare(runs, "cross entropy", shared_seeds=True)


# ---------------------------------------------------------------- settings that methods share

@pytest.mark.parametrize("other, message", [
    ({"epochs": 40}, "mixed epochs: 10 in 'cross entropy', seed 0, but 40 in 'CAWA', seed 0; train them alike, or "
                     "allow it by differing=('epochs',)"),
    ({"learning_rate": 0.01}, "mixed learning_rate: 0.003 in .*, but 0.01 in 'CAWA'"),
    ({"image_width": 256}, "mixed image_width: 128 in .*, but 256 in 'CAWA'"),
    ({"network": "unet"}, "mixed network: 'small' in .*, but 'unet' in 'CAWA'"),
    ({"evaluation": "whole"}, "mixed evaluation: 'resize' in .*, but 'whole' in 'CAWA'"),
    ({"smoke": True}, "mixed smoke: False in .*, but True in 'CAWA'"),
    ({"optimizer": "sgd", "epochs": 40}, "mixed epochs: .*differing=('epochs', 'optimizer')"),
])
def test_a_setting_that_is_not_the_methods_is_refused_by_name(tmp_path, other, message):
    runs = study(tmp_path, (0.1, 0.2, 0.3), **other)
    with pytest.raises(ComparisonError, match=re.escape(message).replace(r"\.\*", ".*")) as refusal:
        compare(runs, "cross entropy")
    assert "\n" not in str(refusal.value)
    with pytest.raises(ComparisonError, match="mixed "):
        compare_classes(runs, "cross entropy", "val")


def test_a_listed_setting_may_differ_and_is_told(tmp_path):
    runs = study(tmp_path, (0.1, 0.2, 0.3), epochs=40)
    table = compare(runs, "cross entropy", differing="epochs")
    assert table.attrs["notes"] == ["epochs differs: 10 in 'cross entropy'; 40 in 'CAWA'"]
    pd.testing.assert_frame_equal(table, compare(study(tmp_path / "alike", (0.1, 0.2, 0.3)), "cross entropy"))
    assert compare_classes(runs, "cross entropy", "val", differing=("epochs",)).attrs == table.attrs
    assert compare(runs, "cross entropy", differing=("epochs", "batch_size")).attrs == table.attrs
    with pytest.raises(ComparisonError, match="mixed epochs"):
        compare(runs, "cross entropy", differing=("batch_size",))


@pytest.mark.parametrize("differing, message", [
    ("lr", "differing: found 'lr', which is no setting that methods must share; did you mean 'learning_rate'"),
    (("weight_power",), "differing: found 'weight_power', which is no setting"),
])
def test_what_cannot_be_listed(tmp_path, differing, message):
    with pytest.raises(ComparisonError, match=message):
        compare(study(tmp_path, (0.1, 0.2, 0.3)), "cross entropy", differing=differing)


def test_other_images_are_not_allowed(tmp_path):
    runs = study(tmp_path, (0.1, 0.2, 0.3), imbalance=10)
    runs = [dataclasses.replace(run, environment=run.environment | {"data_digest": str(run.config.imbalance)})
            for run in runs]
    with pytest.raises(ComparisonError, match="mixed imbalance: 1000.0 in .*, but 10.0 in .*; train them alike$"):
        compare(runs, "cross entropy")
    with pytest.raises(ComparisonError, match="mixed data digest"):
        compare(runs, "cross entropy", differing="imbalance")


def test_what_is_the_methods_own_or_changes_no_number_may_differ(tmp_path):
    own = {"warmup_epochs": 2, "held_out_share": 0.1, "validate_every": 1, "ranked": True, "other_decisions": True,
           "mixed_precision": "no", "device": "cpu", "data_workers": 2}
    table = compare(study(tmp_path, (0.1, 0.2, 0.3), **own), "cross entropy")
    assert table.attrs["notes"] == []


@pytest.mark.parametrize("grid", sorted(Path("workflow/grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_compares_runs_that_share_their_settings(grid):
    found = load_study(grid)
    for group in found.compared:
        entries = found.group(group) + (found.group("ablations") if group == "methods" else [])
        shared = {tuple(getattr(entry.config(0), name) for name in SHARED_FIELDS) for entry in entries}
        assert len(shared) == 1, group
