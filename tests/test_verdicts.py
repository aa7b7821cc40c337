"""The plan's questions asked of runs: how differences pair, the claim in one sentence, means over comparisons."""

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import make_run

from cawalib.results import both_halves, compare, points_table, questions_table
from cawalib.results.verdicts import pooled_table, verdicts


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
    assert table.at[("CAWA", "balanced"), "calibration error"] == "" and table.at[("CAWA", "accurate"), "seeds"] == "4"
    text = questions_table(runs, "test")
    assert text.columns.tolist() == ["", "first", "minus", "metric", "seeds", "difference", "p", "p, Holm", "verdict"]
    assert questions_table([run for run in runs if run.label != "cross entropy"], "test").empty


def test_own_classes_are_judged_without_their_background_as_well(tmp_path):
    table = verdicts(three(tmp_path, labels=("none", "cawa"), dataset="folder"), "test")
    own = table[table["metric"] == "foreground mIoU"]
    assert own["first"].unique().tolist() == ["CAWA, equal accuracy"]
    assert own["second"].tolist() == ["cross entropy", "cross entropy, equal accuracy"]
    assert "foreground mIoU" not in set(verdicts(three(tmp_path / "streets"), "test")["metric"])


def test_means_over_comparisons(tmp_path):
    groups = {str(gain): three(tmp_path / str(gain), gain=gain) for gain in (0.1, 0.2, 0.4)}
    table = pooled_table(groups, "test").set_index(["first", "minus", "metric"])
    row = table.loc["CAWA, rare", "cross entropy", "mIoU"]
    found = [verdicts(runs, "test").set_index(["first", "second", "metric"]).loc["CAWA, rare", "cross entropy", "mIoU"]
             for runs in groups.values()]
    # so unlike each other that each counts alike: their plain mean, and Student's interval of the three
    interval = stats.ttest_1samp([one["difference"] for one in found], 0).confidence_interval()
    assert row["mean"] == (f"{100 * np.mean([one['difference'] for one in found]):+.1f} [{100 * interval.low:+.1f}, "
                           f"{100 * interval.high:+.1f}]").replace("-", "−")
    assert row["comparisons"] == "3"
