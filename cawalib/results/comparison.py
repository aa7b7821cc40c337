"""Runs side by side: one tidy table, means and deviations over seeds, paired differences with 95 % intervals.

Every comparison is paired by seed: a seed fixes the initial network, the order of the images and their
augmentation, so what two methods share drops out of the difference. The intervals are Student t intervals of one
comparison each, not corrected for the number of comparisons in a table. Larger is better for every metric here.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from cawalib.results.decisions import decided
from cawalib.results.measures import METRICS, ComparisonError, metric_named, name_of, per_class, suggestion, tidy
from cawalib.runs import PLACE_FIELDS, Run, versions

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
    return float(values.mean()), float(stats.t.ppf((1 + level) / 2, len(values) - 1) * error)


def compare(runs: list[Run], baseline: str, split: str = "test", metrics=None,
            shared_seeds: bool = False, point: str = "rare") -> pd.DataFrame:
    """Every label against the baseline label, paired by seed.

    Args:
        metrics: names from METRICS (upper case and underscores do not matter); None: all of them.
        shared_seeds: a label may have fewer seeds than the baseline, and is paired on those it has; without it every
            label must have all of the baseline's, so that no seed is left out unseen.
        point: the decision to judge every run by, see `decisions.decided`; "rare" is as trained.

    Returns:
        One row per label and metric: label, metric, seeds, mean, deviation (ddof 1), pairs (seeds in the
        difference), difference, low, high (its 95 % interval), verdict: "better" or "worse" when the interval
        leaves out 0, "inside the noise" when it does not, "too few seeds" with fewer than two pairs, and
        "baseline" in the baseline's own rows.

    Raises:
        ComparisonError: the runs do not fit together (see `check`), or an unknown metric.
    """
    check(runs, baseline, split, shared_seeds)
    table = tidy([decided(run, point) for run in runs])
    chosen = METRICS if metrics is None else [metric_named(metric) for metric in metrics]
    return _compared(table[table["split"] == split], baseline, "metric", chosen)


def compare_classes(runs: list[Run], baseline: str, split: str, measure: str = "iou") -> pd.DataFrame:
    """As `compare`, with one row per label and class instead of metric; `measure` is iou, precision or recall."""
    check(runs, baseline, split)
    table = per_class(runs).rename(columns={measure: "value"})
    return _compared(table[table["split"] == split], baseline, "class", runs[0].metrics["classes"])


def _compared(table, baseline, by, keys):
    """The rows of `compare`; `by` is the column whose values `keys` are compared one by one."""
    rows = []
    seeds = {key: part.pivot(index="seed", columns="label", values="value") for key, part in table.groupby(by)}
    for label in table["label"].unique():
        for key in keys:
            own = seeds[key][label].dropna()
            paired = (seeds[key][label] - seeds[key][baseline]).dropna()
            difference, half = interval(paired)
            rows.append({
                "label": label, by: key, "seeds": len(own), "mean": own.mean(),
                "deviation": own.std(ddof=1) if len(own) > 1 else np.nan, "pairs": len(paired),
                "difference": difference, "low": difference - half, "high": difference + half,
                "verdict": "baseline" if label == baseline else _verdict(difference, half),
            })
    return pd.DataFrame(rows)


def _verdict(difference, half):
    if np.isnan(half):
        return "too few seeds"
    if abs(difference) <= half:
        return "inside the noise"
    return "better" if difference > 0 else "worse"


# ---------------------------------------------------------------- what may be compared

def check(runs: list[Run], baseline: str | None = None, split: str | None = None, shared_seeds: bool = False) -> None:
    """See that runs may stand in one comparison.

    Raises:
        ComparisonError: no runs, an unknown baseline, a split that a run lacks, several datasets, data or behaviours,
            a seed twice, one label with several configurations, or a label without all the baseline's seeds (with
            `shared_seeds`: without any of them).
    """
    if not runs:
        raise ComparisonError("no runs to compare")
    labels = list(dict.fromkeys(name_of(run) for run in runs))
    if baseline is not None and baseline not in labels:
        raise ComparisonError(f"baseline {baseline!r}: no run has this label; {suggestion(baseline, labels)}"
                              f"there are {', '.join(labels)}")
    _same(runs, "dataset", lambda run: run.metrics["dataset"])
    _same(runs, "data digest", lambda run: run.environment.get("data_digest", "")[:8])
    _same_behaviour(runs)
    _same(runs, "kind of device", lambda run: run.environment.get("device_type", ""))
    _same(runs, "precision", lambda run: run.environment.get("precision", ""))
    for label in labels:
        _check_label([run for run in runs if name_of(run) == label])
    for run in runs:
        if split is not None and split not in run.metrics["splits"]:
            raise ComparisonError(f"split {split!r}: missing in '{name_of(run)}', seed {run.config.seed}; "
                                  f"there are {', '.join(run.metrics['splits'])}")
    if baseline is not None:
        _check_seeds(runs, labels, baseline, shared_seeds)


def _same(runs, what, value):
    """Refuse runs that differ in something, naming two of them."""
    for run in runs[1:]:
        if value(run) != value(runs[0]):
            raise ComparisonError(f"mixed {what}: {value(runs[0])} in '{name_of(runs[0])}', seed "
                                  f"{runs[0].config.seed}, but {value(run)} in '{name_of(run)}', "
                                  f"seed {run.config.seed}")


def _same_behaviour(runs):
    """Refuse runs between which the code changed what it computes."""
    _same(runs, "behaviour", lambda run: "recorded" if run.environment.get("behaviour") else
          f"not recorded (commit {run.environment.get('commit', '')[:12] or 'unknown'})")
    seen = {}
    for run in runs:
        # a case that a run does not name was added after it, and its first version is what was done before
        recorded = run.environment.get("behaviour", {})
        cases = dict.fromkeys(versions(run.config, run.environment.get("precision")), 1) if recorded else {}
        for case, version in (cases | recorded).items():
            other, before = seen.setdefault(case, (run, version))
            if version != before:
                raise ComparisonError(f"mixed behaviour: version {before} of '{case}' in '{name_of(other)}', "
                                      f"seed {other.config.seed}, but {version} in '{name_of(run)}', "
                                      f"seed {run.config.seed}; train the older ones again")


def _check_label(runs):
    """Runs of one label: each seed once, and one configuration."""
    label, first = name_of(runs[0]), runs[0].config
    seeds = [run.config.seed for run in runs]
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ComparisonError(f"'{label}': seed {seed} is there {seeds.count(seed)} times")
    for config in (run.config for run in runs):
        if config.hash != first.hash:  # the hash leaves out the seed and the place
            field = next(f.name for f in dataclasses.fields(config)
                         if f.name not in PLACE_FIELDS and getattr(config, f.name) != getattr(first, f.name))
            raise ComparisonError(f"'{label}': seeds {first.seed} and {config.seed} differ in '{field}' "
                                  f"({getattr(first, field)!r} and {getattr(config, field)!r})")


def _check_seeds(runs, labels, baseline, shared):
    seeds = {label: {run.config.seed for run in runs if name_of(run) == label} for label in labels}
    for label in labels:
        missing = sorted(seeds[baseline] - seeds[label])
        if missing and not (shared and seeds[label] & seeds[baseline]):
            raise ComparisonError(f"'{label}': lacks seed {', '.join(map(str, missing))}, "
                                  f"which baseline '{baseline}' has")
