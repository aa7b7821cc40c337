"""Runs judged by other decisions than the one they were trained to make, and their curves (METHOD.md, section 6).

What is read here is written by `training.decisions`, in metrics.json under a split's "decision".
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from cawalib.method import POINTS
from cawalib.results.measures import ComparisonError, name_of, values_of
from cawalib.runs import Run
from cawalib.training import counted, summary

OTHERS = ("logit adjustment", "fitted", "half fitted", "RankSEG")  # decisions beside the curve
FOREGROUND = "foreground mIoU"
ON_CURVES = ("mIoU", "tail mIoU (pixels)")  # against pixel accuracy


def decided(run: Run, point: str) -> Run:
    """A run with the metrics of another decision.

    Args:
        point: "rare", as trained; "balanced" or "accurate", its weights taken out by half or whole (a run without
            weights is as trained at all three); or one of `OTHERS`.

    Raises:
        ComparisonError: no such decision, or the run was not judged by it.
    """
    if point not in (*POINTS, *OTHERS):
        raise ComparisonError(f"point {point!r}: unknown, expected one of {', '.join((*POINTS, *OTHERS))}")
    if point == "rare":
        return run
    splits = {split: _measured(run, split, point) for split in run.metrics["splits"]}
    return dataclasses.replace(run, metrics=run.metrics | {"splits": splits})


def _measured(run, split, point):
    measured = run.metrics["splits"][split]
    found = _decision(run, split)
    if point in POINTS:
        if not run.metrics["line"]["own"]:
            return measured
        return summary(np.array(found["points"][point]), run.statistics) | {"decision": found}
    if point not in found["others"]:
        setting = "ranked" if point == "RankSEG" else "other_decisions"
        raise ComparisonError(f"point {point!r}: '{name_of(run)}', seed {run.config.seed}, was not judged by it; train "
                              f"it with {setting}")
    counts = found["others"][point]
    return counted(counts["hits"], counts["predicted"], _truth(measured), run.statistics) | {"decision": found}


def _decision(run, split):
    found = run.metrics["splits"][split].get("decision")
    if found is None:
        raise ComparisonError(f"'{name_of(run)}', seed {run.config.seed}: judged as trained alone, by code of before; "
                              "train it again")
    return found


def _truth(measured):
    return np.sum(measured["confusion"], axis=1)


def curve(run: Run, split: str) -> pd.DataFrame:
    """A run's curve of decisions argmax_c (z_c - alpha log w_c).

    Returns:
        One row per alpha, rising; index alpha; a column per metric of `measures.METRICS`, in [0, 1], and "foreground
        mIoU", over all classes but the one with most training pixels, which may be a background.
    """
    found, measured = _decision(run, split), run.metrics["splits"][split]
    truth, rows = _truth(measured), {}
    for alpha, hits, predicted in zip(found["alphas"], found["hits"], found["predicted"], strict=True):
        judged = counted(hits, predicted, truth, run.statistics)
        most = int(np.argmax(run.metrics["train_pixels"]))
        rows[alpha] = values_of(judged) | {FOREGROUND: float(np.nanmean(np.delete(judged["iou"], most)))}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("alpha")


def at_accuracy(table: pd.DataFrame, accuracy: float, metric: str) -> tuple[float, bool]:
    """A metric where a curve has a given pixel accuracy, interpolated between neighbouring alphas.

    Where the curve crosses it more than once, at the smallest alpha: the decision that favours rare classes most. A
    curve that begins above it counts with its smallest alpha, one that never gets there with its most accurate point.

    Args:
        table: see `curve`.

    Returns:
        The value in [0, 1], and whether the curve gets there.
    """
    at, value = table["pixel accuracy"].to_numpy(), table[metric].to_numpy()
    if at[0] >= accuracy:
        return float(value[0]), True
    for left in range(len(at) - 1):
        if at[left] < accuracy <= at[left + 1]:
            share = (accuracy - at[left]) / (at[left + 1] - at[left])
            return float(value[left] + share * (value[left + 1] - value[left])), True
    return float(value[at.argmax()]), False


def at_its_accuracy(runs: list[Run], label: str, baseline: str, split: str, metric: str) -> pd.DataFrame:
    """A label's metric where its curve has the pixel accuracy of the baseline as trained, seed by seed.

    Args:
        runs: of one comparison, label and baseline among them.

    Returns:
        Index seed, those that both have; columns value and baseline (the baseline's metric as trained), in [0, 1], and
        reached, whether the curve gets to that accuracy.
    """
    seeds = {name: {run.config.seed: run for run in runs if name_of(run) == name} for name in (label, baseline)}
    rows = {}
    for seed in sorted(seeds[label].keys() & seeds[baseline].keys()):
        plain = curve(seeds[baseline][seed], split).loc[0.0]
        value, reached = at_accuracy(curve(seeds[label][seed], split), plain["pixel accuracy"], metric)
        rows[seed] = {"value": value, "baseline": plain[metric], "reached": reached}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "baseline", "reached"]).rename_axis("seed")


def height(table: pd.DataFrame, other: pd.DataFrame, metric: str, steps: int = 101) -> float:
    """Area between two curves: the mean height of one above the other over the pixel accuracies that both have.

    At each accuracy `at_accuracy` says what a curve has. NaN where they share none.
    """
    low = max(part["pixel accuracy"].min() for part in (table, other))
    high = min(part["pixel accuracy"].max() for part in (table, other))
    if low > high:
        return np.nan
    heights = [at_accuracy(table, at, metric)[0] - at_accuracy(other, at, metric)[0]
               for at in np.linspace(low, high, steps)]
    return float(np.mean(heights))


def calibration_error(run: Run, split: str, alpha: int) -> float:
    """Expected calibration error in [0, 1] at alpha 0 or 1; NaN at 1 for a run without weights of its own."""
    return _decision(run, split)["calibration_error"].get(str(alpha), np.nan)
