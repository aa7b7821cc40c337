"""Who gains: per class against its frequency, head, body and tail per method, and both against the imbalance."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cawalib.results.comparable import check
from cawalib.results.comparison import compare_classes, interval
from cawalib.results.figures.style import (
    COLUMN,
    DISTINCT,
    INK,
    MANY,
    METHOD_STYLES,
    PAGE,
    PRINT,
    half_widths,
    in_print_style,
    label_points,
    label_styles,
    plain_log_ticks,
    run_colours,
    seed_count,
)
from cawalib.results.measures import GROUPS, ComparisonError, metric_named, name_of, tidy
from cawalib.runs import Run


@in_print_style
def gain_against_frequency(runs: list[Run], label: str, baseline: str, split: str) -> Figure:
    """Per class: paired gain in IoU of a label over the baseline, with its 95 % interval, against training pixels.

    Filled dots: the interval leaves out 0. Above 20 classes the 5 rarest and the 5 largest changes are named.
    Classes without a training pixel or without a union in the split are left out.

    Raises:
        ComparisonError: no run has `label`, or whatever `comparable.check` refuses.
    """
    if label not in [name_of(run) for run in runs]:
        raise ComparisonError(f"label {label!r}: no run has it")
    chosen = [run for run in runs if name_of(run) in (label, baseline)]
    table = compare_classes(chosen, baseline, split)
    table = table[table["label"] == label].reset_index(drop=True)
    pixels = np.array(chosen[0].metrics["train_pixels"], float)
    table = table.assign(share=100 * pixels / pixels.sum())
    table = table[(table["share"] > 0) & table["difference"].notna()]
    table[["difference", "low", "high"]] *= 100
    figure, axes = plt.subplots(figsize=(COLUMN if len(table) <= 12 else PAGE, 2.6), layout="constrained")
    axes.axhline(0, color=INK, linewidth=0.6, zorder=0)
    colours = run_colours(chosen[0])
    for row in table.itertuples():
        colour = colours[row._2]  # the column "class" is a keyword, so pandas names it by position
        axes.errorbar(row.share, row.difference, yerr=half_widths(row.low, row.high), fmt="o", color=INK, ecolor=INK,
                      elinewidth=0.6, markeredgecolor=INK, markeredgewidth=0.5,
                      markerfacecolor=colour if row.verdict in ("better", "worse") else "white")
    axes.set_xscale("log")
    axes.margins(x=0.16, y=0.16)  # room for the names
    wide = table["share"].max() > 30 * table["share"].min()
    plain_log_ticks(axes.xaxis, subs=(1,) if wide else (1, 2, 5))
    pairs = int(table["pairs"].max()) if len(table) else 0
    what = f"dot and line: mean and 95 % interval, {pairs} seeds" if pairs > 1 else "1 seed, no interval"
    axes.set_xlabel(f"share of training pixels (%)\n{what}")
    axes.set_ylabel(f"gain in {split} IoU over\n{baseline} (percentage points)")
    label_points(axes, table["share"].to_numpy(), table["difference"].to_numpy(), _named_points(table),
                 table["low"].to_numpy(), table["high"].to_numpy())
    return figure


def _named_points(table):
    """Class names, emptied where there are too many to name."""
    if len(table) <= MANY:
        return list(table["class"])
    kept = set(table.nsmallest(5, "share").index) | set(table["difference"].abs().nlargest(5).index)
    return [name if index in kept else "" for index, name in table["class"].items()]


@in_print_style
def group_bars(runs: list[Run], split: str, by: str = "pixels") -> Figure:
    """Head, body and tail mIoU per label: bar for the mean, line for its 95 % interval, a dot per seed.

    The intervals are of each mean alone; paired differences are sharper (see the tables). Above eight labels colours
    would repeat, so that only CAWA has its own.

    Args:
        by: "pixels" or "images", the frequency that the groups are made by.
    """
    check(runs, split=split)
    styles, table = label_styles(runs), tidy(runs)
    table = table[table["split"] == split].assign(value=100 * table["value"])
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, 0.2 * len(styles) + 0.75), sharey=True, sharex=True,
                                  layout="constrained")
    for axes, group in zip(panels, GROUPS, strict=True):
        part = table[table["metric"] == metric_named(f"{group} mIoU ({by})")]
        for row, (label, style) in enumerate(styles.items()):
            values = part.loc[part["label"] == label, "value"].dropna()
            mean, half = interval(values)
            own = len(styles) <= DISTINCT or style == METHOD_STYLES["cawa"]
            colour = style.colour if own else METHOD_STYLES["none"].colour
            axes.barh(row, mean, height=0.72, color=colour, alpha=0.75, linewidth=0)
            axes.errorbar(mean, row, xerr=np.nan_to_num(half), fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.5)
            axes.plot(values, np.full(len(values), row), "o", markersize=2.2, markerfacecolor="white",
                      markeredgecolor=INK, markeredgewidth=0.4)
        count = len(runs[0].metrics["groups"][by][group])
        axes.set_title(f"{group} ({count} class{'es' * (count != 1)})")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(styles)), list(styles))
    panels[0].set_ylim(len(styles) - 0.5, -0.5)
    panels[0].set_xlim(left=0)
    seeds = [sum(name_of(run) == label for run in runs) for label in styles]
    how = ", line: 95 % interval, dots: seeds" if max(seeds) > 1 else ", no interval"
    panels[1].set_xlabel(f"{split} mIoU of the group by {by} (%); bar: mean of {seed_count(seeds)}{how}")
    return figure


@in_print_style
def imbalance_dial(runs: list[Run], split: str, metrics=("mIoU", "tail mIoU (pixels)"), labels=None) -> Figure:
    """A metric against the imbalance of `streets`, a line per label: mean and 95 % interval over seeds.

    Args:
        runs: on `streets` at several imbalances, at each of them the same labels.
        labels: those to draw; None: all.

    Raises:
        ComparisonError: none of these runs, or a run on other data.
    """
    runs = [run for run in runs if labels is None or run.label in labels]
    if not runs or {run.metrics["dataset"] for run in runs} != {"streets"}:
        raise ComparisonError("runs on dataset 'streets' expected, of which one can set the imbalance")
    figure, panels = plt.subplots(1, len(metrics), figsize=(PAGE, 2.2), layout="constrained", squeeze=False)
    dials = sorted({run.config.imbalance for run in runs})
    styles = label_styles(runs)
    table = pd.concat([tidy([run]).assign(dial=run.config.imbalance) for run in runs])
    cells = table[table["split"] == split].groupby(["metric", "label", "dial"])["value"]
    for axes, metric in zip(panels[0], [metric_named(metric) for metric in metrics], strict=True):
        for place, (label, style) in enumerate(styles.items()):
            means, halves = 100 * np.array([interval(cells.get_group((metric, label, dial))) for dial in dials]).T
            shift = 1.03 ** (place - (len(styles) - 1) / 2)  # so that intervals do not cover each other
            axes.errorbar(np.array(dials) * shift, means, yerr=np.nan_to_num(halves), color=style.colour, label=label,
                          linestyle=style.line, marker=style.marker, elinewidth=0.7, capsize=1.5)
        axes.set_xscale("log")
        axes.set_xticks(dials, [f"{dial:g}" for dial in dials])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{split} {metric} (%)")
    seeds = seed_count(cells.count())
    figure.supxlabel("imbalance: pixels of the most frequent class over the rarest one (log scale)\n"
                     f"mean of {seeds}, line: 95 % interval", fontsize=PRINT["axes.labelsize"])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(styles))
    return figure
