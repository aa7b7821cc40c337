"""Methods side by side: means and deviations over seeds, paired differences with 95 % intervals.

What is compared are finished runs, or a table of results that were made anywhere (`table_input`).

Every comparison is paired by seed: a seed fixes the initial network, the order of the images and their
augmentation, so what two methods share drops out of the difference. The intervals are Student t intervals of one
comparison each, not corrected for the number of comparisons in a table.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from cawalib.results.decisions import decided
from cawalib.results.measures import ComparisonError, metric_named, name_of, per_class, suggestion, tidy
from cawalib.results.table_input import is_table, names, read_results
from cawalib.runs import PLACE_FIELDS, SHARED_FIELDS, Run, versions
from cawalib.settings import likely_meant

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

    Settings that are a method's own (`settings.MethodConfig`) may differ between runs; those of data, network, training
    and evaluation (`runs.config.SHARED_FIELDS`) may not, unless `differing` lists them. A table does not say how its
    numbers were made: that they belong together is for whoever brings it to know.

    Args:
        results: runs (`runs.load_run`, `runs.load_runs`), or a table: a DataFrame, or the name of a CSV file, with the
            columns that `table_input.read_results` says. Both give the same numbers, in the unit they come in.
        baseline: the label or method that all others are held against.
        split: the one that runs were judged on; of a table, rows with this in the column `split`, if it has one.
        metrics: names (upper case and underscores do not matter); None: all of METRICS, or of the table.
        shared_seeds: a label may have fewer seeds than the baseline, and is paired on those it has; without it every
            label must have all of the baseline's, so that no seed is left out unseen.
        point: the decision to judge every run by, see `decisions.decided`; "rare" is as trained. Of runs alone.
        differing: shared settings that may differ all the same, such as ("epochs",), but for those that make other
            images. Of runs alone.
        lower_is_better: metrics of which less is better, such as a calibration error; of all others more is.

    Returns:
        One row per label and metric: label, metric, seeds, mean, deviation (ddof 1), pairs (seeds in the
        difference), difference (from the baseline), low, high (its 95 % interval), verdict: "better" or "worse" when
        the interval leaves out 0, "inside the noise" when it does not, "too few seeds" with fewer than two pairs, and
        "baseline" in the baseline's own rows. `attrs["notes"]`: a sentence for each setting that differs.

    Raises:
        ComparisonError: runs that do not fit together (see `check`), a table that is not one of results (see
            `table_input`), an unknown metric or setting.
    """
    if is_table(results):
        table = _from_table(results, baseline, split, metrics, shared_seeds, point, differing)
    else:
        check(results, baseline, split, shared_seeds, differing)
        table = tidy([decided(run, point) for run in results])
        table = table[table["split"] == split]
    known = list(dict.fromkeys(table["metric"]))
    chosen = known if metrics is None else [metric_named(metric, known) for metric in names(metrics)]
    lower = [metric_named(metric, chosen) for metric in names(lower_is_better)]
    compared = _compared(table, baseline, "metric", chosen, lower)
    compared.attrs["notes"] = [] if is_table(results) else _differences(results, names(differing))
    return compared


def compare_classes(runs: list[Run], baseline: str, split: str, measure: str = "iou", differing=()) -> pd.DataFrame:
    """As `compare`, with one row per label and class instead of metric; `measure` is iou, precision or recall."""
    check(runs, baseline, split, differing=differing)
    table = per_class(runs).rename(columns={measure: "value"})
    compared = _compared(table[table["split"] == split], baseline, "class", runs[0].metrics["classes"])
    compared.attrs["notes"] = _differences(runs, names(differing))
    return compared


def _from_table(results, baseline, split, metrics, shared_seeds, point, differing):
    """A table of results as `tidy` has those of runs, checked as far as a table can be."""
    for name, given, unused in (("point", point, "rare"), ("differing", names(differing), [])):
        if given != unused:
            raise ComparisonError(f"{name}: found {given!r}, which has no effect with a table; leave it out")
    wide = read_results(results, split, metrics)
    seeds = wide.groupby("label", sort=False)["seed"].agg(list).to_dict()
    _check_baseline(baseline, seeds)
    for label, own in seeds.items():
        _check_once(label, own)
    if len(seeds) == 1:
        raise ComparisonError(f"'{baseline}' is the only method; expected the baseline and at least one other")
    _check_seeds(seeds, baseline, shared_seeds)
    if len(seeds[baseline]) == 1:
        raise ComparisonError(f"'{baseline}': found one seed, {seeds[baseline][0]}; expected two, for an interval")
    return wide.melt(["label", "seed"], var_name="metric")


def _compared(table, baseline, by, keys, lower_is_better=()):
    """The rows of `compare`; `by` is the column whose values `keys` are compared one by one."""
    rows = []
    seeds = {key: part.pivot(index="seed", columns="label", values="value") for key, part in table.groupby(by)}
    for label in table["label"].unique():
        for key in keys:
            own = seeds[key][label].dropna()
            paired = (seeds[key][label] - seeds[key][baseline]).dropna()
            difference, half = interval(paired)
            gain = -difference if key in lower_is_better else difference
            rows.append({
                "label": label, by: key, "seeds": len(own), "mean": own.mean(),
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


# ---------------------------------------------------------------- what may be compared

def check(runs: list[Run], baseline: str | None = None, split: str | None = None, shared_seeds: bool = False,
          differing=()) -> None:
    """See that runs may stand in one comparison.

    Raises:
        ComparisonError: no runs, an unknown baseline, a split that a run lacks, several datasets, data or behaviours, a
            shared setting that differs and is not in `differing`, a seed twice, one label with several configurations,
            or a label without all the baseline's seeds (with `shared_seeds`: without any of them).
    """
    if not runs:
        raise ComparisonError("no runs to compare")
    seeds = {}
    for run in runs:
        if not isinstance(run, Run):
            raise ComparisonError(f"found {type(run).__name__} among the runs, expected what runs.load_run gives, or a "
                                  "table instead of runs")
        seeds.setdefault(name_of(run), []).append(run.config.seed)
    if baseline is not None:
        _check_baseline(baseline, seeds)
    for label, own in seeds.items():
        _check_once(label, own)
        _check_label([run for run in runs if name_of(run) == label])
    _same(runs, "dataset", lambda run: run.metrics["dataset"])
    _same_settings(runs, names(differing))
    _same(runs, "data digest", _digest)
    _same_behaviour(runs)
    _same(runs, "kind of device", lambda run: run.environment.get("device_type", ""))
    _same(runs, "precision", lambda run: run.environment.get("precision", ""))
    for run in runs:
        if split is not None and split not in run.metrics["splits"]:
            raise ComparisonError(f"split {split!r}: missing in '{name_of(run)}', seed {run.config.seed}; "
                                  f"there are {', '.join(run.metrics['splits'])}")
    if baseline is not None:
        _check_seeds(seeds, baseline, shared_seeds)


def _check_baseline(baseline, labels):
    if baseline not in labels:
        raise ComparisonError(f"baseline {baseline!r}: nothing has this name; {suggestion(baseline, labels)}"
                              f"there are {', '.join(labels)}")


def _same(runs, what, value, advice=""):
    """Refuse runs that differ in something, naming two of them."""
    for run in runs[1:]:
        if value(run) != value(runs[0]):
            raise ComparisonError(f"mixed {what}: {value(runs[0])} in '{name_of(runs[0])}', seed "
                                  f"{runs[0].config.seed}, but {value(run)} in '{name_of(run)}', "
                                  f"seed {run.config.seed}{advice}")


def _digest(run):
    return run.environment.get("data_digest", "")[:8]


def _same_settings(runs, differing):
    """Refuse runs that differ in a setting which is not the method's own."""
    for name in differing:
        if name not in SHARED_FIELDS:
            meant = [repr(other) for other in likely_meant(name, SHARED_FIELDS)]
            raise ComparisonError(f"differing: found {name!r}, which is no setting that methods must share"
                                  + (f"; did you mean {' or '.join(meant)}?" if meant else "; leave it out"))
    found = [name for name in SHARED_FIELDS
             if name not in differing and len({getattr(run.config, name) for run in runs}) > 1]
    advice = "; train them alike"
    if len({_digest(run) for run in runs}) == 1:  # other images are refused whatever is allowed
        advice += f", or allow it by differing={tuple([*differing, *found])}"
    if found:
        _same(runs, found[0], lambda run: repr(getattr(run.config, found[0])), advice)


def _differences(runs, differing):
    """A sentence for each of some settings that runs differ in."""
    notes = []
    for name in differing:
        labels = {}
        for run in runs:
            labels.setdefault(getattr(run.config, name), {})[f"'{name_of(run)}'"] = None
        if len(labels) > 1:
            found = "; ".join(f"{value!r} in {', '.join(own)}" for value, own in labels.items())
            notes.append(f"{name} differs: {found}")
    return notes


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


def _check_once(label, seeds):
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ComparisonError(f"'{label}': seed {seed} is there {seeds.count(seed)} times")


def _check_label(runs):
    """Runs of one label have one configuration."""
    label, first = name_of(runs[0]), runs[0].config
    for config in (run.config for run in runs):
        if config.hash != first.hash:  # the hash leaves out the seed and the place
            field = next(f.name for f in dataclasses.fields(config)
                         if f.name not in PLACE_FIELDS and getattr(config, f.name) != getattr(first, f.name))
            raise ComparisonError(f"'{label}': seeds {first.seed} and {config.seed} differ in '{field}' "
                                  f"({getattr(first, field)!r} and {getattr(config, field)!r})")


def _check_seeds(seeds, baseline, shared):
    for label, own in seeds.items():
        missing = [seed for seed in seeds[baseline] if seed not in own]
        if missing and not (shared and len(missing) < len(seeds[baseline])):
            raise ComparisonError(f"'{label}': lacks seed {', '.join(map(str, missing))}, which baseline '{baseline}' "
                                  "has; with shared_seeds those that both have are paired")
