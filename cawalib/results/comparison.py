"""Methods side by side: means and deviations over seeds, paired differences with 95 % intervals.

What is compared are finished runs, or a table of results that were made anywhere (`table_input`).

Every comparison is paired by seed: a seed fixes the initial network, the order of the images and their
augmentation, so what two methods share drops out of the difference. The intervals are Student t intervals of one
comparison each, not corrected for the number of comparisons in a table.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from cawalib.results.comparable import check, check_table
from cawalib.results.decisions import decided
from cawalib.results.measures import ComparisonError, metric_named, per_class, tidy
from cawalib.results.table_input import is_table, names, read_results
from cawalib.runs import Run

LEVEL = 0.95


# ---------------------------------------------------------------- statistics

def interval(values, level: float = LEVEL) -> tuple[float, float]:
    """Mean and half width of its Student t interval; NaN values are left out.

    Returns:
        (mean, half_width); the half width is NaN with fewer than two values, the mean with none.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan, np.nan
    if len(values) == 1:
        return float(values[0]), np.nan
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), _quantile(level, len(values) - 1) * float(error)


@cache
def _quantile(level, freedom):
    return float(stats.t.ppf((1 + level) / 2, freedom))


def compare(results, baseline: str, split: str = "test", metrics=None, shared_seeds: bool = False,
            point: str = "rare", differing=(), lower_is_better=()) -> pd.DataFrame:
    """Every method against the baseline, paired by seed.

        compare(runs, "cross entropy")
        compare("results.csv", "cross entropy", lower_is_better="ece")

        method,seed,mIoU,ece            results.csv: a row for each method and seed
        cross entropy,0,0.412,0.081
        cross entropy,1,0.405,0.079
        ours,0,0.431,0.066
        ours,1,0.428,0.070

    Settings that are a method's own (`settings.MethodConfig`) may differ; those of data, network, training and
    evaluation (`runs.config.SHARED_FIELDS`) may not, unless `differing` lists them. Of a table this is seen only where
    it has columns of these names, such as epochs: that the rest belongs together is for whoever brings it to know.

    Args:
        results: runs (`runs.load_run`, `runs.load_runs`), or a table: a DataFrame, or the name of a CSV file, with the
            columns that `table_input.read_results` says. Both give the same numbers, in the unit they come in.
        baseline: the label or method that all others are held against.
        split: the one that runs were judged on; of a table, rows with this in the column `split`, if it has one.
        metrics: names (upper case and underscores do not matter); None: all of METRICS, or of the table.
        shared_seeds: a label may have fewer seeds than the baseline, and is paired on those it has; without it every
            label must have all of the baseline's, so that no seed is left out unseen.
        point: the decision to judge every run by, see `decisions.decided`; "rare" is as trained. Of runs alone.
        differing: shared settings that may differ all the same, such as ("epochs",), but for those that give runs other
            images.
        lower_is_better: metrics of which less is better, such as a calibration error; of all others more is.

    Returns:
        One row per label and metric: label, metric, seeds, mean, deviation (ddof 1), pairs (seeds in the
        difference), difference (from the baseline), low, high (its 95 % interval), verdict: "better" or "worse" when
        the interval leaves out 0, "inside the noise" when it does not, "too few seeds" with fewer than two pairs, and
        "baseline" in the baseline's own rows. `attrs["notes"]`: a sentence for each setting that differs.

    Raises:
        ComparisonError: what does not belong together (see `comparable`), a table that cannot be read as results (see
            `table_input`), an unknown metric or setting.
    """
    if is_table(results):
        if point != "rare":
            raise ComparisonError(f"point: found {point!r}, which has no effect with a table; leave it out")
        wide, settings = read_results(results, split, metrics)
        notes = check_table(wide, settings, baseline, shared_seeds, differing)
        table = wide.melt(["label", "seed"], var_name="metric")
    else:
        notes = check(results, baseline, split, shared_seeds, differing)
        table = tidy([decided(run, point) for run in results])
        table = table[table["split"] == split]
    known = list(dict.fromkeys(table["metric"]))
    chosen = known if metrics is None else [metric_named(metric, known) for metric in names(metrics)]
    lower = [metric_named(metric, chosen) for metric in names(lower_is_better)]
    compared = _compared(table, baseline, "metric", chosen, lower)
    compared.attrs["notes"] = notes
    return compared


def compare_classes(runs: list[Run], baseline: str, split: str, measure: str = "iou", differing=()) -> pd.DataFrame:
    """As `compare`, with one row per label and class instead of metric; `measure` is iou, precision or recall."""
    notes = check(runs, baseline, split, differing=differing)
    table = per_class(runs).rename(columns={measure: "value"})
    compared = _compared(table[table["split"] == split], baseline, "class", runs[0].metrics["classes"])
    compared.attrs["notes"] = notes
    return compared


def _compared(table, baseline, by, keys, lower_is_better=()):
    """The rows of `compare`; `by` is the column whose values `keys` are compared one by one."""
    rows = []
    wide = table.pivot(index="seed", columns=[by, "label"], values="value")
    values = dict(zip(wide.columns, wide.to_numpy(float).T, strict=True))  # arrays: a study asks for thousands of them
    for label in table["label"].unique():
        for key in keys:
            own = values[key, label][np.isfinite(values[key, label])]
            paired = values[key, label] - values[key, baseline]
            paired = paired[np.isfinite(paired)]
            difference, half = interval(paired)
            gain = -difference if key in lower_is_better else difference
            rows.append({
                "label": label, by: key, "seeds": len(own), "mean": own.mean() if len(own) else np.nan,
                "deviation": own.std(ddof=1) if len(own) > 1 else np.nan, "pairs": len(paired),
                "difference": difference, "low": difference - half, "high": difference + half,
                "verdict": "baseline" if label == baseline else _verdict(gain, half),
            })
    return pd.DataFrame(rows)


def _verdict(gain, half):
    if np.isnan(half):
        return "too few seeds"
    if abs(gain) <= half:
        return "inside the noise"
    return "better" if gain > 0 else "worse"
