"""Numbers against hand calculation and scipy; refusals by name."""

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import make_run

from cawalib.results import METRICS, ComparisonError, compare, compare_classes, per_class, tidy
from cawalib.results.comparison import check, interval
from cawalib.results.measures import metric_named
from cawalib.runs import RunConfig, versions

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
    values = table[table["split"] == "test"].set_index("metric")["value"]
    assert tuple(values.index) == METRICS
    assert values["mIoU"] == pytest.approx(0.5)
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


def test_interval_by_hand():
    # 1, 2, 3: mean 2, deviation 1, standard error 1/sqrt(3), t(0.975; 2) = 4.302653
    assert interval([1, 2, 3]) == pytest.approx((2, 4.302653 / np.sqrt(3)), rel=1e-6)
    assert interval([1, 2, 3, np.nan]) == pytest.approx(interval([1, 2, 3]))
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


@pytest.mark.parametrize("change, message", [
    (lambda root, runs: runs, "baseline 'crossentropy': no run has this label; did you mean 'cross entropy'"),
    (lambda root, runs: [], "no runs"),
    (lambda root, runs: runs + [make_run(root, "x", dataset="camvid")], "mixed dataset: streets in 'cross entropy'"),
    (lambda root, runs: runs + [make_run(root, "x", epochs=9, recorded={"every run": 99})],
     "mixed behaviour: version [0-9]+ of 'every run' in .*, but 99 in 'x', seed 0"),
    (lambda root, runs: runs + [make_run(root, "x", epochs=9, recorded={})],
     "mixed behaviour: recorded in .*, but not recorded .commit unknown. in 'x', seed 0"),
    # one run is older than the case, the other of its second version
    (lambda root, runs: [*runs, make_run(root, "x", 0, score_stride=4, recorded=versions(RunConfig())),
                         make_run(root, "x", 1, score_stride=4,
                                  recorded=versions(RunConfig()) | {"score_stride": 99})],
     "mixed behaviour: version 1 of 'score_stride' in 'x', seed 0, but 99 in 'x', seed 1"),
    (lambda root, runs: runs + [make_run(root, "CAWA", 2, epochs=9)], "'CAWA': seed 2 is there 2 times"),
    (lambda root, runs: runs + [make_run(root, "CAWA", 3, epochs=9)], "'CAWA': seeds 0 and 3 differ in 'epochs'"),
    (lambda root, runs: runs + [make_run(root, "x", epochs=9)], "'x': lacks seed 1, 2, which baseline"),
    (lambda root, runs: runs + [make_run(root, "x", epochs=9, splits=("val",))],
     "split 'test': missing in 'x', seed 0"),
])
def test_refusals_name_what_is_wrong(tmp_path, change, message):
    runs = change(tmp_path, study(tmp_path, (0.1, 0.2, 0.3)))
    baseline = "crossentropy" if "crossentropy" in message else "cross entropy"
    with pytest.raises(ComparisonError, match=message) as refusal:
        compare(runs, baseline, "test")
    assert "\n" not in str(refusal.value)


def test_runs_that_fit_pass(tmp_path):
    check(study(tmp_path, (0.1, 0.2, 0.3)), "cross entropy", "val")
