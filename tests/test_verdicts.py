"""The plan's questions asked of runs: how differences pair, the claim in one sentence, means over comparisons."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import make_run

from cawalib.results import both_halves, compare, curve, decided, height, points_table, questions_table, tidy
from cawalib.results.claims import counted, every_method
from cawalib.results.decisions import at_its_accuracy
from cawalib.results.verdicts import equal_accuracy_table, verdicts

TAIL, ACCURACY = "tail mIoU (pixels)", "pixel accuracy"


def three(root, seeds=(0, 1, 2, 3), gain=0.1, count=6, labels=("none", "inverse_sqrt", "cawa"), **settings):
    """CAWA above cross entropy on rare classes by `gain`, its pixel accuracy about the same."""
    names = {"none": "cross entropy", "inverse_sqrt": "inverse square root", "cawa": "CAWA"}
    runs = []
    for rank, method in enumerate(labels):
        for seed in seeds:
            noise = np.random.default_rng(10 * rank + seed).normal(0, 0.004, count)
            iou = np.linspace(0.9, 0.2, count) + noise + gain * rank / 2 * np.linspace(-0.02, 1, count)
            runs.append(make_run(root, names[method], seed, iou, count=count, method=method, **settings))
    return runs


def test_questions_pair_seeds_and_agree_with_compare(tmp_path):
    runs = three(tmp_path)
    table = verdicts(runs, "test")
    row = table[(table["first"] == "CAWA, balanced") & (table["second"] == "cross entropy")].set_index("metric")
    expected = compare(runs, "cross entropy", "test", point="balanced").set_index(["label", "metric"])
    for metric in ("mIoU", "tail mIoU (pixels)", "pixel accuracy"):
        other = expected.loc["CAWA", metric]
        for column in ("difference", "low", "high"):
            assert row.at[metric, column] == pytest.approx(other[column])
    assert set(table["hypothesis"]) == {"H1", "H2", "H7"}  # no run has the other labels
    assert (table["p_holm"] >= table["p"]).all()


def test_each_side_is_judged_by_its_own_decision(tmp_path):
    runs = three(tmp_path, seeds=(0, 1))
    for run in runs:  # the fitted line claims all pixels of the first two classes for the second
        some = run.metrics["splits"]["test"]["decision"]["others"]
        truth = np.sum(run.metrics["splits"]["test"]["confusion"], axis=1)
        some["fitted"] = {"hits": [0, *truth[1:]], "predicted": [0, truth[0] + truth[1], *truth[2:]]}
    by = {label: [run for run in runs if run.label == label] for label in dict.fromkeys(run.label for run in runs)}
    table = verdicts(runs, "test").set_index(["first", "second", "metric"])["difference"]
    second = truth[1] / (truth[0] + truth[1])  # IoU; the first class's is 0, all others' 1
    plain = np.mean([run.metrics["splits"]["test"]["miou"] for run in by["cross entropy"]])
    assert table["cross entropy, fitted", "cross entropy", "mIoU"] == pytest.approx((second + 4) / 6 - plain)
    tail = "tail mIoU (pixels)"
    equal = at_its_accuracy(runs, "CAWA", "cross entropy", "test", tail)
    plain = np.mean([run.metrics["splits"]["test"]["group_miou"]["pixels"]["tail"] for run in by["cross entropy"]])
    assert table["CAWA, equal accuracy", "cross entropy", tail] == pytest.approx(equal["value"].mean() - plain)
    heights = [height(curve(ours, "test"), curve(other, "test"), tail)
               for ours, other in zip(by["CAWA"], by["inverse square root"], strict=True)]
    assert table["CAWA, whole curve", "inverse square root, whole curve", tail] == pytest.approx(np.mean(heights))
    assert np.mean(heights) > 0


@pytest.mark.parametrize("tail, accuracy, answer", [
    ("better", "better", "yes"), ("better", "level", "yes"), ("better", "not decided", "not decided"),
    ("better", "worse", "no"), ("worse", "better", "no"), ("level", "level", "not decided")])
def test_the_claim_needs_both_of_its_halves(monkeypatch, tail, accuracy, answer):
    found = {"mIoU": ("better", 0.3), "tail mIoU (pixels)": (tail, 0.1), "pixel accuracy": (accuracy, 0.2)}
    rows = [{"first": f"CAWA, {point}", "second": "cross entropy", "metric": metric, "verdict": verdict,
             "difference": value, "low": value - 0.05, "high": value + 0.05}
            for point in ("rare", "balanced", "accurate") for metric, (verdict, value) in found.items()]
    monkeypatch.setattr("cawalib.results.claims.verdicts", lambda runs, split: pd.DataFrame(rows))
    assert both_halves([], "test").splitlines()[1] == (
        f"- rare: {answer} (tail +10.0 [+5.0, +15.0], {tail}; pixel accuracy +20.0 [+15.0, +25.0], {accuracy})")


def test_the_claim_in_one_sentence(tmp_path):
    told = both_halves(three(tmp_path, gain=0.3), "test")
    # 3 metrics at 3 named points, 2 in 4 questions of equal accuracy and curves, 3 of the fitted line beside 3 others
    assert told.startswith("Rare classes up and overall accuracy not down, CAWA against cross entropy on test? ")
    assert "correction for 26 comparisons.)\n- rare: yes (tail +" in told
    assert ", better)\n- accurate: not decided (tail +" in told  # up, but not beyond Holm's correction
    worse = both_halves(three(tmp_path / "worse", gain=-0.3), "test")
    assert "- rare: no (tail −" in worse and "yes" not in worse


def test_tables_show_what_there_is(tmp_path):
    runs = three(tmp_path)
    table = points_table(runs, "test")
    assert ("cross entropy", "as trained") in table.index and ("CAWA", "accurate") in table.index
    assert ("cross entropy", "balanced") not in table.index
    assert table.at[("CAWA", "rare"), "calibration error"] == "10.0 ± 0.0"
    assert table.at[("CAWA", "accurate"), "calibration error"] == "5.0 ± 0.0"
    accuracies = {(run.label, run.config.seed): curve(run, "test")["pixel accuracy"] for run in runs}
    reached = sum(accuracies["CAWA", seed].max() >= accuracies["cross entropy", seed][0.0] for seed in range(4))
    assert table.at[("CAWA", "equal accuracy"), "pixel accuracy"] == f"reached by {reached} of 4"
    for run in runs:
        run.metrics["splits"]["test"]["decision"]["calibration_error"]["0"] = 0.1 + 0.01 * run.config.seed
    ours = points_table([run for run in runs if run.label == "CAWA"], "test")
    assert ours.at[("CAWA", "rare"), "calibration error"] == f"11.5 ± {np.std([0, 1, 2, 3], ddof=1):.1f}"
    assert table.at[("CAWA", "balanced"), "calibration error"] == "" and table.at[("CAWA", "accurate"), "seeds"] == "4"
    text = questions_table(runs, "test")
    assert not [column for column in ours.columns if "minus" in column]  # nothing to compare with
    assert text.columns.tolist() == ["", "first", "minus", "metric", "seeds", "difference", "p", "p, Holm", "verdict"]
    assert questions_table([run for run in runs if run.label != "cross entropy"], "test").empty


@pytest.mark.parametrize("label, decision", [("CAWA", "accurate"), ("CAWA", "rare"), ("cross entropy", "fitted")])
def test_every_decision_is_compared_with_cross_entropy_as_trained(tmp_path, label, decision):
    runs = three(tmp_path)
    table = points_table(runs, "test")
    assert table.at[("cross entropy", "as trained"), "mIoU minus cross entropy"] == ""
    own, plain = ([run for run in runs if run.label == name] for name in (label, "cross entropy"))
    for metric in ("mIoU", "tail mIoU (pixels)", "pixel accuracy"):
        sides = [tidy(side).set_index(["split", "metric", "seed"])["value"].sort_index()["test", metric]
                 for side in ([decided(run, decision) for run in own], plain)]
        differences = sides[0] - sides[1]
        low, high = stats.ttest_1samp(differences, 0).confidence_interval()
        text = f"{100 * differences.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" + "*" * int(low > 0 or high < 0)
        assert table.at[(label, decision), f"{metric} minus cross entropy"] == text.replace("-", "−")
    assert table.loc[("CAWA", "equal accuracy"), "pixel accuracy minus cross entropy"] == ""


def test_the_claim_of_every_method_by_single_intervals(tmp_path, monkeypatch):
    """Differences of two seeds that agree, but Dice's in the tail: p 0.04, not multiplied by how many there are."""
    given = {("cross entropy", "rare"): (0.2, 0.8), ("cross entropy", "fitted"): (0.1, 0.9),
             ("CAWA", "rare"): (0.3, 0.7), ("CAWA", "balanced"): (0.25, 0.795), ("CAWA", "accurate"): (0.2, 0.803)}

    def judged(runs, decision, split):
        tail, accuracy = given.get((runs[0].label, decision), (np.nan, np.nan))  # nothing beside the curve but fitted
        return pd.DataFrame({TAIL: tail, ACCURACY: accuracy}, index=[run.config.seed for run in runs])

    monkeypatch.setattr("cawalib.results.claims.judged", judged)
    groups = {name: [make_run(tmp_path, label, seed, group=name, method=method)
                     for label, method in labels.items() for seed in (0, 1)]
              for name, labels in {"one": {"cross entropy": "none", "CAWA": "cawa", "Dice": "none"},
                                   "two": {"cross entropy": "none"}}.items()}
    given["Dice", "rare"] = [0.3, 0.31342], 0.8
    table = every_method(groups, "test")
    assert table["one"].to_dict() == {
        ("cross entropy", "fitted"): "no (−10.0, +10.0)", ("CAWA", "rare"): "no (+10.0, −10.0)",
        ("CAWA", "balanced"): "no (+5.0, −0.5)", ("CAWA", "accurate"): "not decided (+0.0, +0.3)",
        ("Dice", "as trained"): "yes (+10.7, +0.0)"}
    assert table["two"].tolist() == ["no (−10.0, +10.0)", "–", "–", "–", "–"]
    assert table["yes"].tolist() == ["0 of 2", "0 of 1", "0 of 1", "0 of 1", "1 of 1"]
    assert counted(table).empty
    table["yes"] = ["0 of 2", "0 of 2", "2 of 2", "1 of 2", "2 of 2"]
    assert counted(table).values.tolist() == [["CAWA", "0 of 2", "2 of 2", "1 of 2"], ["Dice", "2 of 2", "–", "–"]]


def test_own_classes_are_judged_without_their_background_as_well(tmp_path):
    table = verdicts(three(tmp_path, labels=("none", "cawa"), dataset="folder"), "test")
    own = table[table["metric"] == "foreground mIoU"]
    assert own["first"].unique().tolist() == ["CAWA, equal accuracy"]
    assert own["second"].tolist() == ["cross entropy", "cross entropy, equal accuracy"]
    assert "foreground mIoU" not in set(verdicts(three(tmp_path / "streets"), "test")["metric"])


def by_hand(first, p, p_holm):
    """A row of `verdicts`."""
    return {"hypothesis": "", "first": first, "second": "cross entropy", "metric": "mIoU", "seeds": 3,
            "difference": 0.1, "low": 0.05, "high": 0.15, "p": p, "p_holm": p_holm, "verdict": "not decided"}


def test_p_values_before_and_after_holms_correction(monkeypatch):
    rows = [by_hand("a", 0.0004, 0.0012), by_hand("b", 0.02, 0.304), by_hand("c", np.nan, np.nan)]
    monkeypatch.setattr("cawalib.results.verdicts.verdicts", lambda runs, split: pd.DataFrame(rows))
    text = questions_table([], "test")
    assert text[["p", "p, Holm"]].values.tolist() == [["<.001", "0.001"], ["0.020", "0.304"], ["–", "–"]]


def test_every_label_against_ours_at_equal_accuracy(tmp_path):
    groups = {name: three(tmp_path / name, seeds=seeds) for name, seeds in (("one", (0, 1, 2)), ("two", (3, 4)))}
    table = equal_accuracy_table(groups, "test")
    asked = verdicts(groups["one"], "test").set_index(["first", "second", "metric"])
    row = asked.loc["CAWA, equal accuracy", "inverse square root, equal accuracy", "mIoU"]
    other_way = f"−{100 * row['difference']:.1f} [−{100 * row['high']:.1f}, −{100 * row['low']:.1f}]"
    assert table.at[("mIoU", "inverse square root"), "one"].rstrip("*") == other_way
    assert table.index.get_level_values("method").unique().tolist() == ["cross entropy", "inverse square root"]
    tail = table.at[("tail mIoU (pixels)", "cross entropy"), "one"]
    assert tail.startswith("−") and tail.endswith("]*")
    assert (table["better in all"] == "").all()  # CAWA is the best here


@pytest.mark.parametrize("second, together, better", [  # Student's intervals by hand
    ([0.02, 0.03, 0.04], "+2.5 [+2.1, +2.8]*", "✓"), ([0.0, 0.001], "+2.0 [+1.5, +2.6]*", "✓"),
    ([-0.001, 0.0], "+2.0 [+1.4, +2.6]*", ""),  # not in the second
    ([0.5, 0.01], "+5.6 [−1.7, +13.0]", ""),  # in both, but by chance
    ([], "+2.3 [+2.0, +2.6]*", "")])  # not run there
def test_what_is_better_in_all_comparisons(tmp_path, monkeypatch, second, together, better):
    differences = {"one": [0.02, 0.02, 0.03] * 4, "two": second}
    monkeypatch.setattr("cawalib.results.verdicts.at_equal_accuracy",
                        lambda runs, first, second, split, metric: pd.Series(differences[runs[0].group], dtype=float))
    groups = {name: [make_run(tmp_path, "power 2", 0, group=name), make_run(tmp_path, group=name)]
              for name in differences}
    row = equal_accuracy_table(groups, "test").loc["mIoU", "power 2"]
    assert (row["together"], row["better in all"]) == (together, better)
    assert row["one"] == "+2.3 [+2.0, +2.6]*" and (row["two"] == "–") == (not second)
