"""Every figure of the paper, drawn from finished runs alone. Each function returns a figure; `save` stores it.

Means are over seeds and say over how many; intervals are 95 % Student t intervals, bands run from the smallest
to the largest seed. With one seed there is neither, and the figure says "1 seed".
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cawalib.comparison import (
    GROUPS,
    ComparisonError,
    check,
    compare_classes,
    interval,
    metric_named,
    name_of,
    tidy,
)
from cawalib.data_figures import class_frequencies, co_occurrence
from cawalib.difference_figures import across_groups, difference_bars
from cawalib.files import atomic
from cawalib.pictures import map_overlays, qualitative, rarest_samples
from cawalib.runs import Run
from cawalib.style import (
    COLUMN,
    INK,
    METHOD_STYLES,
    PAGE,
    PALE,
    PRINT,
    half_widths,
    in_print_style,
    label_line_ends,
    label_points,
    label_styles,
    plain_log_ticks,
    run_colours,
    seed_count,
)

__all__ = ["across_groups", "class_frequencies", "co_occurrence", "difference_bars", "gain_against_frequency",
           "group_bars", "map_overlays", "qualitative", "rarest_samples", "save", "training_curves",
           "weight_trajectories"]
DISTINCT = 8  # above so many labels, colours repeat and bands cover each other
MANY = 20  # above so many classes, only the tail is named


def save(figure: Figure, folder, name: str) -> None:
    """Write NAME.pdf and NAME.png (200 dots per inch) into a folder, atomically; the same figure, the same bytes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with plt.style.context(["default", PRINT]):
        with atomic(Path(folder, f"{name}.pdf")) as partial:
            figure.savefig(partial, metadata={"CreationDate": None})
        with atomic(Path(folder, f"{name}.png")) as partial:
            figure.savefig(partial)


# ---------------------------------------------------------------- training

@in_print_style
def weight_trajectories(runs: list[Run]) -> Figure:
    """Weight and running score of each class over the updates: mean over seeds, band from smallest to largest.

    Above 20 classes only the 12 rarest (by training pixels) have colour and name; the rest is grey. A static
    method has one update and no score.

    Args:
        runs: the seeds of one label.

    Raises:
        ComparisonError: runs of several labels, or that may not be compared.
    """
    check(runs)
    if len({name_of(run) for run in runs}) > 1:
        raise ComparisonError(f"one label expected, found {', '.join(dict.fromkeys(name_of(run) for run in runs))}")
    table = pd.concat([run.class_weights.assign(seed=run.config.seed) for run in runs])
    rarest = np.argsort(runs[0].metrics["train_pixels"], kind="stable")
    named = [runs[0].metrics["classes"][i] for i in (rarest if len(rarest) <= MANY else rarest[:12])]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, max(1.9, 0.125 * len(named) + 0.8)), layout="constrained")
    seeds = seed_count([len(runs)])
    _trajectories(panels[0], table, "weight", named, run_colours(runs[0], readable=True))
    _trajectories(panels[1], table, "score", named, run_colours(runs[0], readable=True))
    for axes in panels:
        axes.set_xlabel(f"update ({seeds})" if len(runs) == 1 else f"update (mean of {seeds}, band: min to max)")
        if len(named) < len(rarest):
            axes.set_title(f"the {len(named)} rarest of {len(rarest)} classes; grey: the others")
    panels[0].set_ylabel("class weight (log scale)")
    panels[1].set_ylabel("running score $S$")
    return figure


def _trajectories(axes, table, column, named, colours):
    """One panel: a line and a band per class over the updates that every seed has; names at the right."""
    seeds = table["seed"].nunique()
    counts = table.groupby("update")["seed"].nunique()
    table = table[table["update"].isin(_thinned(counts[counts == seeds].index))]
    over_seeds = table.groupby(["class", "update"])[column].agg(["mean", "min", "max"]).dropna()
    if over_seeds.empty:
        axes.text(0.5, 0.5, "no score: the weights are static", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    classes = list(over_seeds.index.unique("class"))
    for name in sorted(classes, key=lambda name: name in named):  # the grey rest first, underneath
        lines, known = over_seeds.loc[name], name in named
        look = {"color": colours[name], "linewidth": 1} if known else {"color": PALE, "linewidth": 0.2, "zorder": 1}
        if len(lines) == 1:  # static: the same for the whole training
            axes.axhline(lines["mean"].iloc[0], **look)
            continue
        axes.plot(lines.index, lines["mean"], **look)
        if known and seeds > 1:
            axes.fill_between(lines.index, lines["min"], lines["max"], color=colours[name], alpha=0.2, linewidth=0)
    _scale_trajectories(axes, column, table["update"].max())
    labelled = [name for name in named if name in classes]
    ends = [over_seeds.loc[name, "mean"].iloc[-1] for name in labelled]
    label_line_ends(axes, table["update"].max(), ends, labelled, [colours[name] for name in labelled])


def _scale_trajectories(axes, column, last):
    axes.set_xlim(0, max(1, last))
    if last == 0:
        axes.set_xticks([0])
    if column == "score":
        axes.set_ylim(0, 1)
        return
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5), max(high, 2))
    plain_log_ticks(axes.yaxis, base=2)
    axes.axhline(1, color=INK, linewidth=0.4, zorder=1.5)  # above the grey rest


def _thinned(updates, most=400):
    """At most so many of the updates, evenly, with the first and the last: more cannot be seen in print."""
    return updates[np.unique(np.linspace(0, len(updates) - 1, min(most, len(updates))).round().astype(int))]


@in_print_style
def training_curves(runs: list[Run]) -> Figure:
    """Training loss and validation mIoU over the epochs, per label: mean over seeds, band from smallest to largest.

    More than eight labels have no bands: they would cover each other. Runs that were validated once, at their end, have
    no curve of it, and so no second panel.
    Losses of different methods are different quantities: only each curve's course says something.
    """
    check(runs)
    styles = label_styles(runs)
    banded, legend_rows = len(styles) <= DISTINCT, -(-len(styles) // 4)
    shown = [("train_loss", 1, "training loss (each method's own)")]
    if any(run.history["val_miou"].count() > 1 for run in runs):
        shown.append(("val_miou", 100, "validation mIoU (%)"))
    figure, panels = plt.subplots(1, len(shown), figsize=(PAGE, 2 + 0.15 * legend_rows), sharex=True, squeeze=False,
                                  layout="constrained")
    panels = panels[0]
    for label, style in styles.items():
        histories = pd.concat([run.history for run in runs if name_of(run) == label])
        for axes, (column, scale, _) in zip(panels, shown, strict=True):
            curve = scale * histories.groupby("epoch")[column].agg(["mean", "min", "max"]).dropna()
            axes.plot(curve.index, curve["mean"], color=style.colour, linestyle=style.line, label=label,
                      marker=style.marker, markevery=max(1, len(curve) // 6), zorder=3 if style.marker == "o" else 2)
            if banded:
                axes.fill_between(curve.index, curve["min"], curve["max"], color=style.colour, alpha=0.15, linewidth=0)
    seeds = [sum(name_of(run) == label for run in runs) for label in styles]
    for axes, (_, _, name) in zip(panels, shown, strict=True):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"epoch (mean of {seed_count(seeds)}{', band: min to max' * banded})" if max(seeds) > 1
                        else "epoch (1 seed)")
        axes.set_ylabel(name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(4, len(styles)))
    return figure


# ---------------------------------------------------------------- results

@in_print_style
def gain_against_frequency(runs: list[Run], label: str, baseline: str, split: str) -> Figure:
    """Per class: paired gain in IoU of a label over the baseline, with its 95 % interval, against training pixels.

    Filled dots: the interval leaves out 0. Above 20 classes the 5 rarest and the 5 largest changes are named.
    Classes without a training pixel or without a union in the split are left out.

    Raises:
        ComparisonError: no run has `label`, or whatever `comparison.check` refuses.
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
