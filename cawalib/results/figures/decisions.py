"""Curves of decisions: what a network's rare classes cost in overall accuracy, wherever the line is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cawalib.method import POINTS
from cawalib.results.comparable import check
from cawalib.results.decisions import ON_CURVES, curve
from cawalib.results.figures.style import DISTINCT, PAGE, in_print_style, label_styles, seed_count
from cawalib.results.measures import name_of
from cawalib.runs import Run

MARKS = {"rare": "o", "balanced": "D", "accurate": "s"}
AS_TRAINED = "X"  # of a method without weights, which has no other point
MARGIN = 4.0  # points of pixel accuracy that are shown beyond the named ones


@in_print_style
def decision_curves(runs: list[Run], split: str, metrics=ON_CURVES) -> Figure:
    """Metrics against pixel accuracy along each label's curve: mean over seeds, band from smallest to largest.

    Named points are marked. What lies more than a few points of pixel accuracy from all of them is cut off.

    Args:
        runs: of a few labels, with curves (see `results.decisions`).
        metrics: columns of `results.decisions.curve`, a panel each.
    """
    check(runs)
    styles = label_styles(runs)
    curves = {label: [curve(run, split) for run in runs if name_of(run) == label] for label in styles}
    own = {name_of(run): run.metrics["line"]["own"] for run in runs}
    figure, panels = plt.subplots(1, len(metrics), squeeze=False, layout="constrained",
                                  figsize=(PAGE, 2.4 + 0.15 * -(-(len(styles) + 4) // 4)))
    for axes, metric in zip(panels[0], metrics, strict=True):
        shown = []
        for label, style in styles.items():
            shown += _draw(axes, curves[label], metric, style, label, own[label], len(styles) <= DISTINCT)
        _zoom(axes, np.array(shown))
        axes.set_xlabel(f"pixel accuracy on {split} (%)")
        axes.set_ylabel(f"{metric} on {split} (%)")
    marks = (MARKS if any(own.values()) else {}) | ({} if all(own.values()) else {"as trained": AS_TRAINED})
    for name, mark in marks.items():
        panels[0, 0].plot([], [], mark, color="#555555", label=name)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    seeds = [len(part) for part in curves.values()]
    figure.supxlabel(f"mean of {seed_count(seeds)}, band: min to max" if max(seeds) > 1 else "1 seed",
                     fontsize=plt.rcParams["axes.labelsize"])
    return figure


def _draw(axes, tables, metric, style, label, own, banded):
    """One label's line, band and marks; returns the marked points (x, y) and the band at them."""
    whole = pd.concat(tables, keys=range(len(tables)))
    at = 100 * whole["pixel accuracy"].groupby(level=1).mean()
    values = 100 * whole[metric].groupby(level=1).agg(["mean", "min", "max"])
    axes.plot(at, values["mean"], color=style.colour, linestyle=style.line, label=label)
    if banded and len(tables) > 1:
        axes.fill(np.concatenate([at, at[::-1]]), np.concatenate([values["min"], values["max"][::-1]]),
                  color=style.colour, alpha=0.12, linewidth=0)
    points = POINTS if own else {"as trained": 0.0}
    for name, alpha in points.items():
        axes.plot(at[alpha], values.at[alpha, "mean"], MARKS.get(name, AS_TRAINED), color=style.colour,
                  markeredgecolor="white", markeredgewidth=0.4, markersize=4.5)
    return [(at[alpha], values.at[alpha, edge]) for alpha in points.values() for edge in ("min", "max")]


def _zoom(axes, marked):
    low, high = marked.min(axis=0), marked.max(axis=0)
    room = 0.15 * max(high[1] - low[1], 2)
    axes.set_xlim(low[0] - MARGIN, high[0] + 1)
    axes.set_ylim(max(0, low[1] - room), high[1] + room)
