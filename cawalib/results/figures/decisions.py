"""Curves of decisions: what a network's rare classes cost in overall accuracy, wherever the line is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cawalib.method import POINTS
from cawalib.results.claims import claim_by_point
from cawalib.results.comparable import check
from cawalib.results.decisions import ON_CURVES, curve
from cawalib.results.figures.style import (
    COLUMN,
    DISTINCT,
    INK,
    METHOD_STYLES,
    OTHER_STYLES,
    PAGE,
    half_widths,
    in_print_style,
    label_styles,
    seed_count,
)
from cawalib.results.measures import name_of
from cawalib.runs import Run

MARKS = {"rare": "o", "balanced": "D", "accurate": "s"}
AS_TRAINED = "X"  # of a method without weights, which has no other point
MARGIN = 4.0  # points of pixel accuracy that are shown beyond the named ones
# all that there are: comparisons of data sets stand where no method does
COMPARISON_COLOURS = tuple(dict.fromkeys(style.colour for style in (*OTHER_STYLES, *METHOD_STYLES.values())))


@in_print_style
def decision_curves(runs: list[Run], split: str, metrics=ON_CURVES) -> Figure:
    """Metrics against pixel accuracy along each label's curve: mean over seeds, band from smallest to largest.

    Named points are marked. What lies more than a few points of pixel accuracy from all of them is cut off, and of a
    band what lies far from the middle half of its seeds: one failed run would flatten all curves.

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
        _zoom(axes, np.array(shown), min(line.get_xdata().min() for line in axes.lines))
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
    """One label's line, band and marks; returns the marked points (x, y), with the middle half of seeds."""
    whole = pd.concat(tables, keys=range(len(tables)))
    at = 100 * whole["pixel accuracy"].groupby(level=1).mean()
    seeds = whole[metric].groupby(level=1)
    values = 100 * seeds.agg(["mean", "min", "max"]).assign(low=seeds.quantile(0.25), high=seeds.quantile(0.75))
    axes.plot(at, values["mean"], color=style.colour, linestyle=style.line, label=label)
    if banded and len(tables) > 1:
        axes.fill(np.concatenate([at, at[::-1]]), np.concatenate([values["min"], values["max"][::-1]]),
                  color=style.colour, alpha=0.12, linewidth=0)
    points = POINTS if own else {"as trained": 0.0}
    for name, alpha in points.items():
        axes.plot(at[alpha], values.at[alpha, "mean"], MARKS.get(name, AS_TRAINED), color=style.colour,
                  markeredgecolor="white", markeredgewidth=0.4, markersize=4.5)
    return [(at[alpha], values.at[alpha, edge]) for alpha in points.values() for edge in ("mean", "low", "high")]


def _zoom(axes, marked, leftmost):
    low, high = marked.min(axis=0), marked.max(axis=0)
    room = 0.15 * max(high[1] - low[1], 2)
    axes.set_xlim(max(low[0] - MARGIN, leftmost - 0.2), high[0] + 1)
    axes.set_ylim(max(0, low[1] - room), high[1] + room)


@in_print_style
def both_halves(asked: dict[str, pd.DataFrame], split: str) -> Figure:
    """What CAWA does to rare classes against what it does to overall accuracy, at three points of its curve.

    CAWA minus cross entropy, mean and 95 % interval; a line for each comparison, through its points. Filled: the claim
    holds there (`results.claims.claim_by_point`).

    Args:
        asked: comparison -> `results.verdicts.verdicts`.
    """
    figure, axes = plt.subplots(figsize=(COLUMN, 2.5 + 0.15 * -(-len(asked) // 2)), layout="constrained")
    axes.axhline(0, color=INK, linewidth=0.6, zorder=0)
    axes.axvline(0, color=INK, linewidth=0.6, zorder=0)
    for rank, (name, table) in enumerate(asked.items()):
        colour = COMPARISON_COLOURS[rank % len(COMPARISON_COLOURS)]
        line = OTHER_STYLES[7 * rank % len(OTHER_STYLES)].line  # not that of the comparison before
        found = claim_by_point(table)
        tails, accuracies = (100 * pd.DataFrame([halves[part] for halves in found.values()])[
            ["difference", "low", "high"]].astype(float) for part in (1, 2))
        axes.plot(accuracies["difference"], tails["difference"], color=colour, linestyle=line, label=name)
        for place, (point, (answer, *_)) in enumerate(found.items()):
            tail, accuracy = tails.iloc[place], accuracies.iloc[place]
            axes.errorbar(accuracy["difference"], tail["difference"], fmt=MARKS[point], color=colour,
                          xerr=half_widths(accuracy["low"], accuracy["high"]), elinewidth=0.7, markersize=4.5,
                          yerr=half_widths(tail["low"], tail["high"]),
                          markerfacecolor=colour if answer == "yes" else "white")
    for point, mark in MARKS.items():
        axes.plot([], [], mark, color="#555555", markerfacecolor="white", label=point)
    axes.set_xlabel(f"difference in pixel accuracy on {split} (percentage points)\n"
                    "mean and 95 % interval; filled: tail up, accuracy not down")
    axes.set_ylabel(f"difference in tail mIoU on {split}\n(percentage points)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@in_print_style
def lead_against_skill(leads: pd.DataFrame, epochs: dict[str, int], split: str) -> Figure:
    """CAWA's lead over counts, and its cost in pixel accuracy, against how good the network is.

    Args:
        leads: `results.regimes.leads_of`, of data of one kind.
        epochs: comparison -> its epochs, of those that differ in nothing else; a line runs through them, rising.
    """
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.7), layout="constrained")
    along = [name for name in epochs if name in leads.index]
    lines = {"trained for so many epochs": along} | {name: [name] for name in leads.index.difference(along, sort=False)}
    for axes, asked in zip(panels, ("lead in mIoU", "cost"), strict=True):
        axes.axhline(0, color=INK, linewidth=0.6, zorder=0)
        for rank, (label, names) in enumerate((label, names) for label, names in lines.items() if names):
            style, own = OTHER_STYLES[7 * rank % len(OTHER_STYLES)], 100 * leads.loc[names]
            found = own[asked]
            axes.errorbar(own["skill", "mean"], found["difference"], fmt="o", color=style.colour, linestyle=style.line,
                          yerr=half_widths(found["low"], found["high"]), elinewidth=0.7, markersize=4.5, label=label)
        for name in along:
            axes.annotate(str(epochs[name]), 100 * np.array([leads.at[name, ("skill", "mean")],
                          leads.at[name, (asked, "difference")]]), (4, 4), textcoords="offset points")
        axes.set_xlabel(f"cross entropy, mIoU on {split} (%)\nCAWA's differences: mean and 95 % interval")
    panels[0].set_ylabel("CAWA minus inverse square root, mIoU\nat equal accuracy (percentage points)")
    panels[1].set_ylabel("CAWA minus cross entropy, pixel\naccuracy as trained (percentage points)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
