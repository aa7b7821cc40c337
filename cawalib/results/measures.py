"""Runs as tidy tables: every metric and every class, one number a row."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from cawalib.runs import Run

GROUPS = ("head", "body", "tail")
FREQUENCIES = ("pixels", "images")
METRICS = (
    "mIoU", "mean accuracy", "pixel accuracy",
    *(f"{group} mIoU ({by})" for by in FREQUENCIES for group in GROUPS),
    "worst class IoU",
)


class ComparisonError(ValueError):
    """These runs cannot be compared. The message is one line and names the label, the seed or the setting."""


def name_of(run: Run) -> str:
    """The name a run is compared under: its label in the study, else its method."""
    return run.label or run.config.method


def tidy(runs: list[Run]) -> pd.DataFrame:
    """One row per run, split and metric.

    Returns:
        Columns label, group, method, dataset, seed, split, metric (one of METRICS), value in [0,1]; NaN where
        a group has no class with a union.
    """
    rows = []
    for run in runs:
        head = {"label": name_of(run), "group": run.group, "method": run.config.method,
                "dataset": run.metrics["dataset"], "seed": run.config.seed}
        for split, measured in run.metrics["splits"].items():
            rows += [head | {"split": split, "metric": metric, "value": value}
                     for metric, value in values_of(measured).items()]
    columns = ["label", "group", "method", "dataset", "seed", "split", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).astype({"value": float})


def values_of(measured: dict) -> dict[str, float]:
    """A split's numbers in [0, 1], as metrics.json has them, by the names of METRICS."""
    iou = np.array(measured["iou"], float)  # null becomes NaN
    worst = np.nanmin(iou) if np.isfinite(iou).any() else np.nan
    grouped = [measured["group_miou"][by].get(group) for by in FREQUENCIES for group in GROUPS]
    numbers = [measured["miou"], measured["mean_accuracy"], measured["pixel_accuracy"], *grouped, worst]
    return dict(zip(METRICS, numbers, strict=True))


def per_class(runs: list[Run]) -> pd.DataFrame:
    """One row per run, split and class.

    Returns:
        Columns label, group, seed, split, class, iou, precision, recall in [0,1] (NaN: nothing to divide by),
        train_pixels, train_images; classes in the dataset's order.
    """
    tables = []
    for run in runs:
        for split, measured in run.metrics["splits"].items():
            tables.append(pd.DataFrame({
                "label": name_of(run), "group": run.group, "seed": run.config.seed, "split": split,
                "class": run.metrics["classes"],
                "iou": np.array(measured["iou"], float),
                "precision": np.array(measured["precision"], float),
                "recall": np.array(measured["recall"], float),
                "train_pixels": run.metrics["train_pixels"], "train_images": run.metrics["train_images"],
            }))
    columns = ["label", "group", "seed", "split", "class", "iou", "precision", "recall", "train_pixels", "train_images"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def metric_named(name: str, metrics=METRICS) -> str:
    """The one of some metrics that is meant by a name, such as "mIoU" by "miou".

    Raises:
        ComparisonError: no such metric; the nearest one is suggested.
    """
    if name in metrics:
        return name
    known = {metric.lower().replace("_", " "): metric for metric in metrics}
    wanted = name.lower().replace("_", " ")
    if wanted not in known:
        raise ComparisonError(f"metric {name!r}: unknown; {suggestion(name, metrics)}"
                              f"expected one of {', '.join(metrics)}")
    return known[wanted]


def suggestion(name, known):
    """What may have been meant by a name that is not known, for an error message; "" where nothing is near."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"did you mean '{by_lower[close[0]]}'? " if close else ""
