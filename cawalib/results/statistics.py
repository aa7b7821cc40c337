"""Verdicts that hold for a whole table, and what several data sets say together.

Differences are paired, one number per seed, in any unit. Student's t throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

LEVEL = 0.05
MARGIN = 0.01  # within a point of a metric in [0, 1], two methods are level


def with_verdicts(rows: list[dict], margin: float = MARGIN, corrected: bool = True) -> pd.DataFrame:
    """Comparisons of one table with their verdicts.

    Args:
        rows: each with "differences", one number per seed, NaN where a seed has none; whatever else they hold is kept.
        margin: within which two methods count as level.
        corrected: for all rows together, by Holm; else each row stands for itself.

    Returns:
        The rows with columns seeds, difference, low, high (its 95 % interval), p, p_holm (p, if not corrected)
        and verdict: "better" or "worse" where p_holm is below 0.05, "level" where two one-sided tests show,
        each at 0.05, that the difference is within the margin, else "not decided"; "too few seeds" with fewer than two.
    """
    from statsmodels.stats.multitest import multipletests  # imported here: it takes a second, and notebooks need none
    from statsmodels.stats.weightstats import DescrStatsW

    found = []
    for row in rows:
        values = np.asarray(row["differences"], float)
        values = values[np.isfinite(values)]
        kept = {key: value for key, value in row.items() if key != "differences"}
        mean = values.mean() if len(values) else np.nan
        kept |= {"seeds": len(values), "difference": mean, "low": np.nan, "high": np.nan, "p": np.nan, "level": False}
        if len(values) > 1 and np.ptp(values) == 0:  # no spread to test by
            kept |= {"low": mean, "high": mean, "p": float(mean == 0), "level": abs(mean) < margin}
        elif len(values) > 1:
            described = DescrStatsW(values)
            low, high = described.tconfint_mean(LEVEL)
            kept |= {"low": low, "high": high, "p": described.ttest_mean(0)[1],
                     "level": described.ttost_mean(-margin, margin)[0] < LEVEL}
        found.append(kept)
    columns = ["seeds", "difference", "low", "high", "p", "level"]
    table = pd.DataFrame(found, columns=None if found else columns)
    known, table["p_holm"] = table["p"].notna(), table["p"]
    if corrected and known.any():
        table.loc[known, "p_holm"] = multipletests(table.loc[known, "p"], method="holm")[1]
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    return table.drop(columns="level")


def _verdict(row):
    if np.isnan(row.p):
        return "too few seeds"
    if row.p_holm < LEVEL:
        return "better" if row.difference > 0 else "worse"
    return "level" if row.level else "not decided"


@dataclass(frozen=True)
class Pooled:
    """The mean over comparisons with its 95 % interval, and that in which another such comparison is to be expected."""

    mean: float
    low: float
    high: float
    predicted_low: float
    predicted_high: float
    count: int


def pooled(means, errors) -> Pooled:
    """Random-effects mean of k comparisons: between-comparison variance by REML (Viechtbauer 2005), interval by Hartung
    and Knapp (2001), prediction interval of Higgins, Thompson and Spiegelhalter (2009) with k - 2 degrees of freedom.

    Args:
        means, errors: the mean difference of each comparison and its standard error, (k,), k at least 2.

    Returns:
        The prediction interval is NaN with fewer than three.

    Raises:
        ValueError: fewer than two comparisons.
    """
    means, variances = np.asarray(means, float), np.asarray(errors, float) ** 2
    count = len(means)
    if count < 2:
        raise ValueError(f"means: found {count} comparison, expected at least 2 to pool")

    def against(between):
        weight = 1 / (variances + between)
        rest = means - (weight * means).sum() / weight.sum()
        return np.log(variances + between).sum() + np.log(weight.sum()) + (weight * rest**2).sum()

    # as far as the spread of the means alone could reach, in steps first: the likelihood may have two summits
    grid = np.concatenate([[0], np.geomspace(1e-6, 10, 200)]) * max(means.var(ddof=1), variances.max())
    best = int(np.argmin([against(between) for between in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    between = optimize.minimize_scalar(against, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    between = min((0.0, between), key=against)
    weight = 1 / (variances + between)
    mean = (weight * means).sum() / weight.sum()
    error = np.sqrt((weight * (means - mean) ** 2).sum() / ((count - 1) * weight.sum()))
    half = stats.t.ppf(1 - LEVEL / 2, count - 1) * error
    wide = stats.t.ppf(1 - LEVEL / 2, count - 2) * np.sqrt(between + error**2) if count > 2 else np.nan
    return Pooled(mean, mean - half, mean + half, mean - wide, mean + wide, count)


def pooled_from(rows) -> Pooled:
    """`pooled`, from comparisons with their intervals.

    Args:
        rows: each with difference, high (the upper end of its 95 % Student interval) and pairs (the seeds in it). Half
            of that interval is at least a hundredth of a point here: all seeds may agree, such as on a tail of 0.
    """
    errors = [max(row["high"] - row["difference"], 1e-4) / stats.t.ppf(1 - LEVEL / 2, row["pairs"] - 1) for row in rows]
    return pooled([row["difference"] for row in rows], errors)


def seeds_needed(deviation: float, difference: float = MARGIN, power: float = 0.8) -> int:
    """Paired seeds that a t test at 0.05 needs to find a difference, where differences deviate that much."""
    from statsmodels.stats.power import TTestPower

    return int(np.ceil(TTestPower().solve_power(difference / deviation, power=power, alpha=LEVEL)))
