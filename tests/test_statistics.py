"""Verdicts of a table and means over data sets, against other implementations and published numbers."""

import numpy as np
import pytest
from scipy import stats

from cawalib.results.statistics import pooled, pooled_from, seeds_needed, with_verdicts


def test_holm_by_hand():
    """p of .01, .02, .03, .04: times 4, 3, 2, 1, never falling: .04, .06, .06, .06."""
    def values(p, count=6):
        t = stats.t.ppf(1 - p / 2, count - 1)
        spread = np.array([-1, 1, -1, 1, -1, 1]) * np.sqrt(5 / 6)  # deviation 1 (ddof 1), mean 0
        return 0.05 * (spread + t / np.sqrt(count))

    table = with_verdicts([{"name": p, "differences": values(p)} for p in (.03, .01, .04, .02)])
    np.testing.assert_allclose(table["p"], [.03, .01, .04, .02], rtol=1e-6)
    np.testing.assert_allclose(table["p_holm"], [.06, .04, .06, .06], rtol=1e-6)
    assert table["verdict"].tolist() == ["not decided", "better", "not decided", "not decided"]
    assert table["name"].tolist() == [.03, .01, .04, .02] and table["seeds"].tolist() == [6] * 4
    alone = with_verdicts([{"differences": values(p)} for p in (.03, .01, .06)], corrected=False)
    np.testing.assert_array_equal(alone["p_holm"], alone["p"])
    assert alone["verdict"].tolist() == ["better", "better", "not decided"]


def test_verdicts():
    rows = {"worse": [-.03, -.031, -.029, -.03], "level": [.001, -.002, .0, .001], "not decided": [.03, -.02, .01, .0],
            "too few seeds": [.02, np.nan]}
    table = with_verdicts([{"differences": values} for values in rows.values()])
    assert table["verdict"].tolist() == list(rows)
    expected = stats.ttest_1samp(rows["not decided"], 0)
    assert table["p"][2] == pytest.approx(expected.pvalue)
    assert (table["low"][2], table["high"][2]) == pytest.approx(tuple(expected.confidence_interval()))
    # two one-sided tests at .05: the 90 % interval lies within the margin
    inside = stats.ttest_1samp(rows["level"], 0).confidence_interval(0.9)
    assert -0.01 < inside.low and inside.high < 0.01
    signs = np.array([-1, 1, -1, 1])  # 90 % interval of .01: +- .0136; of .006: +- .0082, and 95 %: +- .0110
    assert with_verdicts([{"differences": 0.01 * signs}])["verdict"][0] == "not decided"
    assert with_verdicts([{"differences": 0.01 * signs}], margin=0.02)["verdict"][0] == "level"
    assert with_verdicts([{"differences": 0.006 * signs}])["verdict"][0] == "level"
    alike = with_verdicts([{"differences": [0.0] * 3}, {"differences": [0.02] * 3}])
    assert alike["verdict"].tolist() == ["level", "better"]
    # a seed without a number is none
    lacking = with_verdicts([{"differences": [*rows["not decided"], np.nan]}])
    assert (lacking["seeds"][0], lacking["p"][0]) == (4, pytest.approx(expected.pvalue))


def test_pooling_the_bcg_trials():
    """Thirteen trials of the BCG vaccine (Colditz 1994), log relative risks; metafor's documentation gives by REML
    tau2 .3132 and -.7145, and by Knapp and Hartung [-1.1086, -.3205]; prediction with t of 11 degrees of freedom."""
    positive = np.array([[4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619],
                         [33, 5036, 47, 5761], [180, 1361, 372, 1079], [8, 2537, 10, 619], [505, 87886, 499, 87892],
                         [29, 7470, 45, 7232], [17, 1699, 65, 1600], [186, 50448, 141, 27197], [5, 2493, 3, 2338],
                         [27, 16886, 29, 17825]], float)
    a, b, c, d = positive.T
    risks = np.log(a / (a + b)) - np.log(c / (c + d))
    errors = np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    found = pooled(risks, errors)
    assert found.mean == pytest.approx(-0.7145, abs=2e-4)
    assert (found.low, found.high) == pytest.approx((-1.1086, -0.3205), abs=5e-4)
    error = (found.high - found.mean) / stats.t.ppf(.975, 12)
    half = stats.t.ppf(.975, 11) * np.sqrt(0.3132 + error**2)
    assert found.predicted_high - found.mean == pytest.approx(half, abs=2e-3) and found.count == 13


def test_pooling_what_agrees_and_too_little():
    alike = pooled([0.02, 0.02, 0.02], [0.01, 0.02, 0.01])
    assert (alike.mean, alike.low, alike.high) == pytest.approx((0.02, 0.02, 0.02))
    assert np.isnan(pooled([0.0, 0.1], [0.01, 0.01]).predicted_low)
    with pytest.raises(ValueError, match="found 1 comparison, expected at least 2"):
        pooled([0.1], [0.1])


def test_pooling_from_intervals_takes_the_standard_errors_that_made_them():
    samples = ([.01, .03, .02], [.05, .03, .06, .04], [.00, .02])
    rows = [{"difference": np.mean(sample), "pairs": len(sample),
             "high": stats.ttest_1samp(sample, 0).confidence_interval().high} for sample in samples]
    expected = pooled([np.mean(sample) for sample in samples], [stats.sem(sample) for sample in samples])
    assert vars(pooled_from(rows)) == pytest.approx(vars(expected))
    # where all seeds agree: a hundredth of a point, and Student's t of two seeds is 12.7062
    alike = [{"difference": value, "high": value, "pairs": 2} for value in (0.0, 0.02)]
    assert vars(pooled_from(alike)) == pytest.approx(vars(pooled([0, 0.02], [1e-4 / 12.7062] * 2)), nan_ok=True)


def test_seeds_that_one_point_needs():
    """Deviations of 1.4 and 2 points: Cohen's d of .714 and .5; tables give 18 and 34 pairs at 80 %."""
    assert (seeds_needed(0.014), seeds_needed(0.02)) == (18, 34)
