"""What may be compared: runs, or rows of a table, that belong together and share all that is not the method's own."""

from __future__ import annotations

import dataclasses

import pandas as pd

from cawalib.results.measures import ComparisonError, name_of, suggestion
from cawalib.results.table_input import names
from cawalib.runs import PLACE_FIELDS, SHARED_FIELDS, Run, versions
from cawalib.settings import likely_meant


def check(runs: list[Run], baseline: str | None = None, split: str | None = None, shared_seeds: bool = False,
          differing=()) -> list[str]:
    """See that runs may stand in one comparison.

    Returns:
        A sentence for each setting in `differing` that does differ.

    Raises:
        ComparisonError: no runs, an unknown baseline, a split that a run lacks, several datasets, data or behaviours, a
            shared setting that differs and is not in `differing`, a seed twice, one label with several configurations,
            or a label without all the baseline's seeds (with `shared_seeds`: without any of them).
    """
    if not runs:
        raise ComparisonError("no runs to compare")
    for run in runs:
        if not isinstance(run, Run):
            raise ComparisonError(f"found {type(run).__name__} among the runs, expected what runs.load_run gives, or a "
                                  "table instead of runs")
    rows = [(name_of(run), run.config.seed) for run in runs]
    seeds = _seeds(rows)
    if baseline is not None:
        _check_baseline(baseline, seeds)
    _check_once(seeds)
    for label in seeds:
        _check_label([run for run in runs if name_of(run) == label])
    _same(runs, "dataset", lambda run: run.metrics["dataset"])
    settings = {name: [getattr(run.config, name) for run in runs] for name in SHARED_FIELDS}
    # other images are refused whatever is allowed
    images = {_digest(run) for run in runs}
    _check_settings(rows, settings, names(differing), "train them alike", may_allow=len(images) == 1)
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
    return _differences(rows, settings, names(differing))


def check_table(table: pd.DataFrame, settings: dict[str, list], baseline: str, shared_seeds: bool = False,
                differing=()) -> list[str]:
    """See that the rows of a table may stand in one comparison, as far as a table can tell.

    Args:
        table, settings: see `table_input.read_results`.

    Returns:
        A sentence for each setting in `differing` that does differ.

    Raises:
        ComparisonError: an unknown baseline, a setting that differs and is not in `differing`, a seed twice, one method
            or one seed alone, a method without all the baseline's seeds (with `shared_seeds`: without any of them).
    """
    rows = list(zip(table["label"], table["seed"], strict=True))
    seeds = _seeds(rows)
    _check_baseline(baseline, seeds)
    _check_settings(rows, settings, names(differing), "keep rows that are alike")
    _check_once(seeds)
    if len(seeds) == 1:
        raise ComparisonError(f"'{baseline}' is the only method; expected the baseline and at least one other")
    _check_seeds(seeds, baseline, shared_seeds)
    if len(seeds[baseline]) == 1:
        raise ComparisonError(f"'{baseline}': found one seed, {seeds[baseline][0]}; expected two, for an interval")
    return _differences(rows, settings, names(differing))


# ---------------------------------------------------------------- labels and seeds

def _seeds(rows):
    """label -> its seeds, in order of appearance."""
    seeds = {}
    for label, seed in rows:
        seeds.setdefault(label, []).append(seed)
    return seeds


def _check_baseline(baseline, labels):
    if baseline not in labels:
        raise ComparisonError(f"baseline {baseline!r}: nothing has this name; {suggestion(baseline, labels)}"
                              f"there are {', '.join(labels)}")


def _check_once(seeds):
    for label, own in seeds.items():
        for seed in own:
            if own.count(seed) > 1:
                raise ComparisonError(f"'{label}': seed {seed} is there {own.count(seed)} times, expected once")


def _check_seeds(seeds, baseline, shared):
    for label, own in seeds.items():
        missing = [seed for seed in seeds[baseline] if seed not in own]
        if missing and not (shared and len(missing) < len(seeds[baseline])):
            raise ComparisonError(f"'{label}': lacks seed {', '.join(map(str, missing))}, which baseline '{baseline}' "
                                  "has; with shared_seeds those that both have are paired")


# ---------------------------------------------------------------- settings

def _check_settings(rows, settings, differing, advice, may_allow=True):
    """Refuse rows that differ in a setting which is not the method's own."""
    for name in differing:
        if name not in SHARED_FIELDS:
            meant = [repr(other) for other in likely_meant(name, SHARED_FIELDS)]
            raise ComparisonError(f"differing: found {name!r}, which is no setting that methods must share"
                                  + (f"; did you mean {' or '.join(meant)}?" if meant else "; leave it out"))
    found = [name for name, values in settings.items() if name not in differing and len(set(values)) > 1]
    if may_allow:
        advice += f", or allow it by differing={(*differing, *found)}"
    for name in found:
        _mixed(name, rows, [repr(value) for value in settings[name]], f"; {advice}")


def _differences(rows, settings, differing):
    """A sentence for each of some settings that differs."""
    notes = []
    for name in differing:
        labels = {}
        for (label, _), value in zip(rows, settings.get(name, ()), strict=False):
            labels.setdefault(value, {})[f"'{label}'"] = None
        if len(labels) > 1:
            found = "; ".join(f"{value!r} in {', '.join(own)}" for value, own in labels.items())
            notes.append(f"{name} differs: {found}")
    return notes


def _mixed(what, rows, values, advice=""):
    """Refuse rows that differ in something, naming two of them."""
    for (label, seed), value in zip(rows, values, strict=True):
        if value != values[0]:
            raise ComparisonError(f"mixed {what}: {values[0]} in '{rows[0][0]}', seed {rows[0][1]}, but {value} in "
                                  f"'{label}', seed {seed}{advice}")


# ---------------------------------------------------------------- runs

def _same(runs, what, value):
    _mixed(what, [(name_of(run), run.config.seed) for run in runs], [value(run) for run in runs])


def _digest(run):
    return run.environment.get("data_digest", "")[:8]


def _same_behaviour(runs):
    """Refuse runs between which the code changed what it computes."""
    _same(runs, "behaviour", lambda run: "recorded" if run.environment.get("behaviour") else
          f"not recorded (commit {run.environment.get('commit', '')[:12] or 'unknown'})")
    seen, speaking = {}, {}
    for run in runs:
        # once for all seeds of a label, which are alike
        alike = name_of(run), run.environment.get("precision")
        if alike not in speaking:
            speaking[alike] = dict.fromkeys(versions(run.config, alike[1]), 1)
        # a case that a run does not name was added after it, and its first version is what was done before
        recorded = run.environment.get("behaviour", {})
        cases = speaking[alike] if recorded else {}
        for case, version in (cases | recorded).items():
            other, before = seen.setdefault(case, (run, version))
            if version != before:
                raise ComparisonError(f"mixed behaviour: version {before} of '{case}' in '{name_of(other)}', "
                                      f"seed {other.config.seed}, but {version} in '{name_of(run)}', "
                                      f"seed {run.config.seed}; train the older ones again")


def _check_label(runs):
    """Runs of one label have one configuration."""
    label, first = name_of(runs[0]), runs[0].config
    ask = [field.name for field in dataclasses.fields(first) if field.name not in PLACE_FIELDS]
    for config in (run.config for run in runs):
        field = next((name for name in ask if getattr(config, name) != getattr(first, name)), None)
        if field:
            raise ComparisonError(f"'{label}': seeds {first.seed} and {config.seed} differ in '{field}' "
                                  f"({getattr(first, field)!r} and {getattr(config, field)!r})")
