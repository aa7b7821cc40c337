"""Runs judged by other decisions: named points, curves, values at a given accuracy, the area between two curves."""

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_runs import make_run, make_study

from cawalib.results import ComparisonError, answers, at_accuracy, calibration_error, compare, curve, decided, height
from cawalib.results.decisions import at_its_accuracy
from cawalib.results.figures import decision_curves


def test_a_named_point_is_what_its_confusion_matrix_says(tmp_path):
    ours, plain = make_run(tmp_path, "CAWA", method="cawa"), make_run(tmp_path, "cross entropy", method="none")
    matrix = np.array(ours.metrics["splits"]["test"]["decision"]["points"]["accurate"])
    found = decided(ours, "accurate").metrics["splits"]["test"]
    iou = np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix))
    np.testing.assert_allclose(found["iou"], iou)
    np.testing.assert_allclose(found["recall"], np.diag(matrix) / matrix.sum(axis=1))  # rows: the truth
    np.testing.assert_allclose(found["precision"], np.diag(matrix) / matrix.sum(axis=0))
    assert found["miou"] == pytest.approx(iou.mean())
    assert found["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    assert decided(ours, "rare") is ours
    # a method without weights has one point
    assert decided(plain, "accurate").metrics["splits"]["test"] == plain.metrics["splits"]["test"]
    table = compare([ours, plain], "cross entropy", "test", ["mIoU"], point="accurate").set_index("label")
    assert table.at["CAWA", "mean"] == pytest.approx(iou.mean())
    assert table.at["cross entropy", "mean"] == plain.metrics["splits"]["test"]["miou"]


def test_a_decision_beside_the_curve(tmp_path):
    run = make_run(tmp_path, "CAWA", method="cawa")
    matrix = np.array(run.metrics["splits"]["test"]["confusion"])
    fitted = decided(run, "fitted").metrics["splits"]["test"]
    assert fitted["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    for point, message in (("rarest", "point 'rarest': unknown, expected one of rare, balanced, accurate, logit"),
                           ("RankSEG", "point 'RankSEG': 'CAWA', seed 0, was not judged by it; train it with ranked")):
        run.metrics["splits"]["test"]["decision"]["others"].pop("RankSEG", None)
        with pytest.raises(ComparisonError, match=message):
            decided(run, point)
    del run.metrics["splits"]["test"]["decision"]
    with pytest.raises(ComparisonError, match="'CAWA', seed 0: judged as trained alone, by code of before"):
        curve(run, "test")


def test_a_curve_goes_through_the_named_points(tmp_path):
    run = make_run(tmp_path, "CAWA", method="cawa", count=6)
    table = curve(run, "val")
    for point, alpha in (("balanced", 0.5), ("accurate", 1.0)):
        measured = decided(run, point).metrics["splits"]["val"]
        assert table.at[alpha, "mIoU"] == pytest.approx(measured["miou"])
        assert table.at[alpha, "mean accuracy"] == pytest.approx(measured["mean_accuracy"])
        assert table.at[alpha, "tail mIoU (pixels)"] == pytest.approx(measured["group_miou"]["pixels"]["tail"])
        # road, first in this data, has most pixels
        assert table.at[alpha, "foreground mIoU"] == pytest.approx(np.mean(measured["iou"][1:]))


CURVE = pd.DataFrame({"pixel accuracy": [.70, .80, .86, .84], "mIoU": [.50, .60, .54, .40]}, [0.0, .25, .5, 1.0])


@pytest.mark.parametrize("accuracy, expected", [
    (.80, (.60, True)), (.75, (.55, True)), (.83, (.57, True)),
    (.85, (.55, True)),  # crossed on the way up and on the way down: the smaller alpha counts
    (.60, (.50, True)),  # it begins above
    (.90, (.54, False)),  # it never gets there
])
def test_a_metric_at_a_given_accuracy(accuracy, expected):
    value, reached = at_accuracy(CURVE, accuracy, "mIoU")
    assert (round(value, 9), reached) == expected


def test_of_several_crossings_the_smallest_alpha_counts():
    twice = CURVE.assign(**{"pixel accuracy": [.70, .80, .76, .86]})  # .78 is met at .58, on the way down, and at .512
    assert at_accuracy(twice, .78, "mIoU") == (pytest.approx(.58), True)


def test_area_between_two_curves_by_hand():
    lower = pd.DataFrame({"pixel accuracy": [.72, .80, .92], "mIoU": [.42, .50, .40]}, [0.0, .5, 1.0])
    # shared from .72 to .86. Above lower by .10 up to .80; from there both fall by 1 and by 10 / 12 a point
    expected = (.08 * .10 + .06 * (.10 + (.10 - .06 / 6)) / 2) / .14
    assert height(CURVE, lower, "mIoU", steps=10_001) == pytest.approx(expected, abs=1e-4)
    assert height(lower, CURVE, "mIoU") == -height(CURVE, lower, "mIoU")
    apart = CURVE.assign(**{"pixel accuracy": CURVE["pixel accuracy"] + 1})
    assert np.isnan(height(apart, CURVE, "mIoU"))


def test_figure_of_curves(tmp_path):
    runs = make_study(tmp_path, labels=("cross entropy", "inverse square root", "CAWA"))
    figure = decision_curves(runs, "test")
    for axes, metric in zip(figure.axes, ("mIoU", "tail mIoU (pixels)"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        own = [curve(run, "test") for run in runs if run.label == "CAWA"]
        expected = 100 * np.mean([table[metric] for table in own], axis=0)
        np.testing.assert_allclose(lines["CAWA"].get_ydata(), expected)
        marked = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
        accuracy = 100 * np.mean([table["pixel accuracy"] for table in own], axis=0)
        assert set(np.round(accuracy[[1, 3, 5]], 6)) <= set(np.round(marked, 6))  # alpha 0, 1/2 and 1
        assert len(marked) == 3 + 3 + 1
        assert "test" in axes.get_xlabel() and "(%)" in axes.get_ylabel()


def test_one_failed_run_does_not_flatten_the_curves(tmp_path):
    iou = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    runs = [make_run(tmp_path, "CAWA", seed, iou if seed else iou / 4, method="cawa") for seed in range(8)]
    failed, *others = (curve(run, "test")["mIoU"].iloc[1:6] for run in runs)  # alpha 0 to 1
    axes = decision_curves(runs, "test").axes[0]
    assert 100 * failed.max() < axes.get_ylim()[0] < 100 * min(table.min() for table in others)
    starts = np.mean([curve(run, "test")["pixel accuracy"].iloc[0] for run in runs])
    assert axes.get_xlim()[0] == pytest.approx(100 * starts - 0.2)  # nothing empty is shown


def test_at_the_baselines_accuracy_seed_by_seed(tmp_path):
    runs = make_study(tmp_path, labels=("cross entropy", "CAWA"), seeds=(0, 2))
    runs = [run for run in runs if (run.label, run.config.seed) != ("CAWA", 2)]
    table = at_its_accuracy(runs, "CAWA", "cross entropy", "test", "mIoU")
    plain, ours = (curve(run, "test") for run in runs if run.config.seed == 0)
    expected = at_accuracy(ours, plain.at[0.0, "pixel accuracy"], "mIoU")
    assert table.index.tolist() == [0] and table.at[0, "baseline"] == plain.at[0.0, "mIoU"]
    assert (table.at[0, "value"], table.at[0, "reached"]) == expected
    tail = "tail mIoU (pixels)"
    assert at_its_accuracy(runs, "CAWA", "cross entropy", "test", tail)["baseline"].tolist() == [plain.at[0.0, tail]]
    told = answers.at_equal_accuracy(runs, "cross entropy", "test")
    assert f"- CAWA: mean IoU {100 * (expected[0] - plain.at[0.0, 'mIoU']):+.1f}, tail".replace(" -", " −") in told


def test_difference_at_equal_accuracy_in_words(tmp_path, monkeypatch):
    """Seeds 2, 3 and 7 points above, t(.975; 2) = 4.302653; one of them is never as accurate."""
    rows = pd.DataFrame({"value": [.42, .43, .47], "baseline": .4, "reached": [True, False, True]})
    monkeypatch.setattr(answers, "at_its_accuracy", lambda *asked: rows)
    runs = [make_run(tmp_path, label, method=method) for label, method in (("cross entropy", "none"), ("CAWA", "cawa"))]
    half = 4.302653 * np.std([2, 3, 7], ddof=1) / np.sqrt(3)
    number = f"+4.0 [{4 - half:+.1f}, {4 + half:+.1f}]".replace("-", "−")
    assert answers.at_equal_accuracy(runs, "cross entropy", "test").splitlines()[1] == (
        f"- CAWA: mean IoU {number}, tail {number} (never as accurate in 1 of 3 seeds)")


def test_calibration_error_at_the_ends_of_the_curve(tmp_path):
    ours, plain = make_run(tmp_path, "CAWA", method="cawa"), make_run(tmp_path, "cross entropy", method="none")
    assert [calibration_error(ours, "test", alpha) for alpha in (0, 1)] == [0.1, 0.05]
    assert calibration_error(plain, "test", 0) == 0.1 and np.isnan(calibration_error(plain, "test", 1))


def test_a_run_offers_its_decision(tmp_path):
    logits = torch.randn(1, 5, 4, 4)
    ours, plain = make_run(tmp_path, "CAWA", method="cawa"), make_run(tmp_path, "cross entropy", method="none")
    weight = torch.tensor(ours.metrics["line"]["weight"])
    expected = (logits - 0.5 * weight.log()[:, None, None]).argmax(dim=1)
    assert torch.equal(ours.decision()(logits), expected)
    assert torch.equal(plain.decision("accurate")(logits), logits.argmax(dim=1))
