"""Answers in words say what the numbers say: all of them worked by hand from made-up runs."""

import numpy as np
import pytest
from synthetic_runs import make_run
from test_report import edit

from cawalib.results import ComparisonError, answers, curve, figures, runs_beside
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


def test_counted_classes_and_labels(runs):
    assert answers.counted_classes(runs, "CAWA", "cross entropy", "test") == (
        "Of 5 classes, CAWA is better in 2 (vegetation, pavement), worse in 1 (building), and inside the noise of "
        "cross entropy in 2.")
    assert answers.counted_labels(runs, "cross entropy", "test", ("mIoU", "head mIoU (pixels)")) == (
        "Mean IoU beside cross entropy: better: CAWA.\nHead mIoU (pixels) beside cross entropy: worse: CAWA.")


def test_imbalance_and_gain(runs):
    # pixels of the classes: 1e7 * 10 ** (-index), see synthetic_runs.classes
    assert answers.imbalance(runs[0].statistics).startswith("Road has 10000 times the pixels of pavement, which ")
    assert "over 5 classes" in answers.gain_and_frequency(runs, "CAWA", "cross entropy", "test")


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


def test_the_imbalance_dial(tmp_path):
    runs = [make_run(tmp_path, label, seed, np.full(5, level + 0.01 * seed - dial / 10_000), method=method,
                     imbalance=dial) for label, method, level in (("cross entropy", "none", 0.3), ("CAWA", "cawa", 0.5))
            for dial in (10.0, 100.0, 1000.0) for seed in (0, 1)]
    figure = figures.imbalance_dial(runs, "test")
    lines = [bars.lines[0].get_ydata() for bars in figure.axes[0].containers]
    np.testing.assert_allclose(lines[0], [30.4, 29.5, 20.5], atol=1e-6)
    np.testing.assert_allclose(lines[1], [50.4, 49.5, 40.5], atol=1e-6)
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
