"""Answers in words say what the numbers say: all of them worked by hand from made-up runs."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import make_run
from test_report import edit

from cawalib.results import ComparisonError, ReportConfig, answers, curve, figures, runs_beside
from cawalib.results.side_by_side import SideBySide
from cawalib.results.statistics import pooled_from
from cawalib.runs import load_run, write_metrics

# road, building, sky, vegetation, pavement; thirds by pixels: head road and building, body sky and vegetation, tail
# pavement
BASE, BETTER = [0.9, 0.8, 0.7, 0.5, 0.02], [0.9, 0.7, 0.7, 0.6, 0.32]


@pytest.fixture
def runs(tmp_path):
    """Cross entropy and CAWA with three seeds; what seeds add is the same for both but for a little in sky."""
    made = []
    for seed, (shared, own) in enumerate(((0.0, 0.01), (0.005, -0.01), (0.01, 0.0))):
        made.append(make_run(tmp_path, "cross entropy", seed, np.array(BASE) + shared, method="none"))
        made.append(make_run(tmp_path, "CAWA", seed, np.array(BETTER) + shared + [0, 0, own, 0, 0]))
    return made


def test_one_label_against_another(runs):
    said = answers.against(runs, "CAWA", "cross entropy", "test")
    # mean IoU: (0 - 10 + 0 + 10 + 30) / 5 = 6.0; its deviation over seeds 0.2, half width 4.303 * 0.2 / sqrt(3) = 0.5
    assert said.startswith("CAWA minus cross entropy on test, in points: mean IoU +6.0 [+5.5, +6.5], better; "
                           "tail +30.0 [+30.0, +30.0], better;")
    assert said.endswith("(3 seeds.)")


def test_head_body_and_tail(runs):
    said = answers.grouped(runs, "CAWA", "cross entropy", "test")
    assert "head mIoU (pixels) −5.0 [−5.0, −5.0], worse" in said and "tail +30.0" in said


def test_found_classes(runs):
    said = answers.found_classes(runs, "CAWA", "cross entropy", "test")
    assert said == ("CAWA finds 1 of 1 rare classes that cross entropy misses (found: a mean IoU of at least 5 %); "
                    "tail +30.0 [+30.0, +30.0], better.")
    assert answers.found_classes(runs, "cross entropy", "CAWA", "test").startswith(
        "CAWA misses none of the 1 rare classes")


@pytest.mark.parametrize("base, ours, found", [(0.02, 0.04, 0), (0.02, 0.06, 1), (np.nan, 0.06, 1)])
def test_a_class_counts_as_found_from_five_percent_on(tmp_path, base, ours, found):
    runs = [make_run(tmp_path, label, seed, [*BASE[:4], value], method=method) for seed in (0, 1)
            for label, value, method in (("cross entropy", base, "none"), ("CAWA", ours, "cawa"))]
    assert answers.found_classes(runs, "CAWA", "cross entropy", "test").startswith(f"CAWA finds {found} of 1 rare")


def test_counted_classes_and_labels(runs):
    assert answers.counted_classes(runs, "CAWA", "cross entropy", "test") == (
        "Of 5 classes, CAWA is better in 2 (vegetation, pavement), worse in 1 (building), and inside the noise of "
        "cross entropy in 2.")
    assert answers.counted_labels(runs, "cross entropy", "test", ("mIoU", "head mIoU (pixels)")) == (
        "Mean IoU beside cross entropy: better: CAWA.\nHead mIoU (pixels) beside cross entropy: worse: CAWA.")


def test_imbalance_and_gain(runs):
    # pixels of the classes: 1e7 * 10 ** (-index), see synthetic_runs.classes
    assert answers.imbalance(runs[0].statistics) == (
        "Road has 10000 times the pixels of pavement, which 37 of 320 images show.")
    # without a pixel of pavement, vegetation is the rarest
    fewer = replace(runs[0].statistics, pixels=runs[0].statistics.pixels * [1, 1, 1, 1, 0])
    assert answers.imbalance(fewer) == "Road has 1000 times the pixels of vegetation, which 75 of 320 images show."
    # pixels fall, gains by rank: 0, -10, about 0 (+.0), +10, +30
    gains = [0, -0.1, np.mean([0.01, -0.01, 0]), 0.1, 0.3]
    found = stats.spearmanr([5, 4, 3, 2, 1], gains)
    assert found.pvalue > 0.05
    assert answers.gain_and_frequency(runs, "CAWA", "cross entropy", "test") == (
        f"Rank correlation between a class's training pixels and its gain over cross entropy: {found.statistic:+.2f} "
        f"over 5 classes (p = {found.pvalue:.2g}): no order that chance would not give as well.").replace("-", "−")


@pytest.mark.parametrize("gains, told", [
    ([-0.1, 0.0, 0.1, 0.15, 0.16], "−1.00 over 5 classes (p = 1.4e−24): the rarer a class, the more it gains."),
    ([0.1, 0.05, 0.04, 0.02, -0.01], "+1.00 over 5 classes (p = 1.4e−24): the rarer a class, the less it gains.")])
def test_gain_that_goes_with_frequency(tmp_path, gains, told):
    runs = [make_run(tmp_path, "cross entropy", method="none", iou=[0.5] * 5),
            make_run(tmp_path, iou=0.5 + np.array(gains))]
    assert answers.gain_and_frequency(runs, "CAWA", "cross entropy", "test").endswith(told)


def test_weights_and_convergence(runs, tmp_path):
    ours = [run for run in runs if run.label == "CAWA"]
    said = answers.weights(ours)
    ends = np.mean([run.class_weights.query("update == 11").set_index("class")["weight"] for run in ours], axis=0)
    assert said.startswith(f"At the end a pixel of pavement weighs {ends.max() / ends.min():.0f} times one of road.")
    assert answers.weight_spread(ours) == ("Largest weight over smallest at the end: "
                                           f"CAWA {ends.max() / ends.min():.0f} (pavement over road).")
    short = [make_run(tmp_path / "short", updates=2)]
    assert answers.weights(short).endswith("There were too few updates to say whether they settle.")
    constant = [run for run in runs if run.label == "cross entropy"]
    assert answers.weights(constant).endswith("one of road. The weights are the same from start to end.")
    for run in ours:
        history = run.history.assign(val_miou=[0.1, 0.2, 0.3, 0.4, 0.4, 0.40, 0.41, 0.43])
        history.to_csv(run.folder / "history.csv", index=False)
        write_metrics(run.folder, run.metrics)
    again = [load_run(run.folder, run.label) for run in ours]
    assert answers.convergence(again).startswith(
        "From three quarters of training to its end, validation mIoU moves by +3.0 to +3.0 points")
    for run in again:
        run.history.assign(val_miou=[np.nan] * 7 + [0.4]).to_csv(run.folder / "history.csv", index=False)
        write_metrics(run.folder, run.metrics)
    assert "no word on whether" in answers.convergence([load_run(run.folder, run.label) for run in ours])


def test_late_deviation_of_weights_by_hand(tmp_path):
    """The last third of updates 0 to 6 are 5 and 6. Deviation |a - b| / sqrt(2) over mean (a + b) / 2, class by class:
    .354, 0, .157, .067 and .849, whose median is .157."""
    late = {"road": (3, 5), "building": (1, 1), "sky": (4, 5), "vegetation": (2, 2.2), "pavement": (0.25, 1)}
    run = make_run(tmp_path)
    run.__dict__["class_weights"] = pd.DataFrame([
        {"update": update, "class": name, "weight": late[name][update - 5] if update > 4 else 10 * update + place}
        for update in range(7) for place, name in enumerate(late)])
    assert answers.weights([run]).endswith("by 16 % of itself (median over classes; pavement most, 85 %).")


def test_the_label_that_still_moves_most_may_fall(tmp_path):
    runs = [make_run(tmp_path, label, method=method) for label, method in (("falls", "none"), ("rises", "cawa"))]
    for run, end in zip(runs, (0.3, 0.41), strict=True):
        run.__dict__["history"] = run.history.assign(val_miou=[0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, end])
    assert answers.convergence(runs).endswith("moves by −10.0 to +1.0 points (means over seeds; most: falls).")


def test_seeds_are_told_from_fewest_to_most():
    assert answers._seeds([{"pairs": pairs} for pairs in (4, 2, 3)]) == "(2 to 4 seeds.)"


def test_a_label_is_counted_only_where_it_is(tmp_path):
    made = []
    for group in "abc":
        for label in ("cross entropy", "CAWA")[:1 if group == "c" else 2]:
            for seed in (0, 1, 2):
                rise = 0.1 * (label == "CAWA" and group == "a")
                run = make_run(tmp_path / group, label, seed, np.full(5, 0.5 + rise + 0.01 * seed),
                               method="cawa" if label == "CAWA" else "none")
                made.append(replace(run, group=group))
    beside = SideBySide(tuple(made), ("cross entropy",), "test")
    assert answers.across(beside, "CAWA", ("mIoU",)) == (
        "CAWA beside cross entropy: mean IoU better in 1 of 2, worse in 0; the rest is inside the noise.")
    assert beside.count("better", "cross entropy", "CAWA", "mIoU") == (0, 2)
    assert beside.count("worse", "cross entropy", "CAWA", "mIoU") == (1, 2)
    pooled = beside.pooled("CAWA", "cross entropy", "mIoU")
    expected = pooled_from([{"difference": d, "high": d, "pairs": 3} for d in (0.1, 0.0)])
    assert (pooled["difference"], pooled["low"], pooled["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high))
    assert beside.pooled("CAWA", "CAWA, shuffled", "mIoU") is None
    alone = SideBySide(tuple(run for run in made if run.group != "b"), ("cross entropy",), "test")
    assert alone.pooled("CAWA", "cross entropy", "mIoU") is None
    assert beside.questions().loc[("CAWA or cross entropy", "mIoU")].tolist() == ["better +10.0", "undecided +0.0", "–"]
    worse = SideBySide(tuple(replace(run, label={"CAWA": "cross entropy", "cross entropy": "CAWA"}[run.label])
                             for run in made if run.group != "c"), ("cross entropy",), "test")
    assert worse.questions().loc[("CAWA or cross entropy", "mIoU"), "a"] == "**worse** −10.0"
    assert worse.headline()["mIoU"].to_dict() == {"a": "−10.0 [−10.0, −10.0]*", "b": "+0.0 [+0.0, +0.0]"}
    protocol = beside.protocol().loc["a"].to_dict()
    assert protocol == {"data": "streets 1000", "network": "small", "image": "128x96", "epochs (steps)": "10 (80)",
                        "methods": "2", "seeds": "3", "cross entropy, mIoU": "51.0 ± 1.0"}


def test_pixels_of_tail_classes_in_the_pictures(runs):
    run = runs[0]
    kept = run.samples | {"predictions": np.where(run.samples["labels"] == 4, 4, 0).astype(np.uint8)}
    run.__dict__["samples"] = kept
    tail = int((kept["labels"] == 4).sum())
    assert answers.tail_pixels({"ours": run}) == f"Of the {tail} pixels of tail classes in these images, right are: " \
                                                 "ours 100 %."


def test_masks_of_the_maps(runs):
    run = runs[0]
    labels = np.array([[[0, 0, 4, 255]]], np.uint8)  # of five classes 0 and 4, the rarest, are present
    maps = np.zeros((1, 5, 1, 4), np.uint8)
    maps[0, 0, 0], maps[0, 4, 0] = [255, 200, 0, 255], [255, 127, 128, 0]  # class 0 claims 2 of 2, class 4 1 of 2
    run.__dict__["samples"] = {"labels": labels, "maps": maps, "present": np.array([[1, 0, 0, 0, 1]], bool)}
    assert answers.mask_precision(run) == "Of the pixels that a map claims for its class, so many are of it: " \
                                          "rare classes 50 %, all others 100 % (mean over classes)."
    ours = runs[1]
    lower = replace(ours, config=replace(ours.config, pseudo_mask_threshold=0.3))  # class 4 claims pixel 1 as well
    lower.__dict__["samples"] = run.samples
    assert "rare classes 33 %, all others 100 %" in answers.mask_precision(lower)


def test_runs_beside_share_all_but_the_method(tmp_path):
    own = make_run(tmp_path, seed=1, epochs=7)
    make_run(tmp_path, seed=1, epochs=7, method="inverse_sqrt")
    make_run(tmp_path, seed=1, epochs=7, method="none")
    make_run(tmp_path, seed=2, epochs=7, method="recall")  # another seed
    make_run(tmp_path, seed=1, epochs=8, method="enet")  # another training
    make_run(tmp_path, seed=1, epochs=7, score_source="prediction")  # another variant, not another method
    stale = make_run(tmp_path, seed=1, epochs=7, method="focal")
    edit(stale.folder / "environment.json", behaviour={"every run": 0})
    broken = make_run(tmp_path, seed=1, epochs=7, method="dice")
    (broken.folder / "config.json").write_text("{")
    assert [run.label for run in runs_beside(own)] == ["inverse_sqrt", "none"]
    for gamma, age in ((2.0, 10), (3.0, 0), (4.0, 20)):  # of several runs of one method the newest
        again = make_run(tmp_path / "again", seed=1, method="focal", focal_gamma=gamma)
        os.utime(again.folder / "metrics.json", (2e9 - age, 2e9 - age))
    found, = runs_beside(make_run(tmp_path / "again", seed=1))
    assert found.config.focal_gamma == 3


def test_what_the_reading_notebooks_choose(tmp_path, monkeypatch, capsys):
    (tmp_path / "workflow" / "grids").mkdir(parents=True)
    labels = "".join(f"    {label}: {{method: none}}\n" for label in "abcdefghij")
    (tmp_path / "workflow" / "grids" / "ten.yaml").write_text(
        f"common: {{device: cpu}}\nseeds: [0]\ngroups:\n  methods:\n{labels}")
    monkeypatch.chdir(tmp_path)
    report = ReportConfig(study="ten", baseline="a", rival="b")
    made = [make_run(tmp_path, label, seed, method="focal", focal_gamma=gamma)
            for gamma, label in enumerate("abcdefghij") for seed in (1, 0)]
    first = report.first_of_each(made)
    assert {label: run.config.seed for label, run in first.items()} == dict.fromkeys("abcdefghij", 0)
    assert [run.label for run in report.with_curves(made, "j")] == [label for label in "abcdefgj" for _ in (0, 1)]
    assert [run.label for run in report.with_curves(made, "b")] == [label for label in "abcdefgh" for _ in (0, 1)]
    del made[0].metrics["splits"]["val"]["decision"]
    assert report.with_curves(made, "j") == [] and "judged as trained alone" in capsys.readouterr().out
    assert report.baselines(made) == ("a", "b")
    assert report.baselines([run for run in made if run.label != "b"]) == ("a",)


def test_the_imbalance_dial(tmp_path):
    runs = [make_run(tmp_path, label, seed, np.full(5, level + 0.01 * seed - dial / 10_000), method=method,
                     imbalance=dial) for label, method, level in (("cross entropy", "none", 0.3), ("CAWA", "cawa", 0.5))
            for dial in (10.0, 100.0, 1000.0) for seed in (0, 1)]
    figure = figures.imbalance_dial(runs, "test")
    lines = [bars.lines[0].get_ydata() for bars in figure.axes[0].containers]
    np.testing.assert_allclose(lines[0], [30.4, 29.5, 20.5], atol=1e-6)
    np.testing.assert_allclose(lines[1], [50.4, 49.5, 40.5], atol=1e-6)
    ends = figure.axes[0].containers[0].lines[2][0].get_segments()[0][:, 1]  # two seeds .01 apart: t(.975; 1) = 12.7062
    np.testing.assert_allclose(ends, [30.4 - 12.7062 / 2, 30.4 + 12.7062 / 2], rtol=1e-5)
    other = make_run(tmp_path / "val", "CAWA", method="cawa", imbalance=10.0)
    other.metrics["splits"]["val"]["miou"] = 0.9
    alone = figures.imbalance_dial([other], "test").axes[0].containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(alone, [50], atol=1e-6)
    assert len(figures.imbalance_dial(runs, "test", labels=["CAWA"]).axes[0].containers) == 1
    with pytest.raises(ComparisonError, match="runs on dataset 'streets' expected"):
        figures.imbalance_dial([], "test")
    assert answers.dial(runs, "CAWA", "cross entropy", "test", "mIoU").startswith(
        "Mean IoU of CAWA minus cross entropy on test: at 10 +20.0 [")


def test_decisions_of_one_network(tmp_path):
    run = make_run(tmp_path, "CAWA", method="cawa")
    told = answers.decisions(run, "val")
    table = curve(run, "val")
    first, last = 100 * table.loc[0.5, "mIoU"], 100 * (table.loc[1.0, "pixel accuracy"])
    assert f"\n- balanced: mean IoU {first:.1f}, tail" in told and told.endswith(f"pixel accuracy {last:.1f}")
    plain = answers.decisions(make_run(tmp_path, "cross entropy", method="none"), "val")
    assert plain.startswith("On val, in percent:\n- as trained: mean IoU 50.0, tail") and plain.count("\n") == 1
