"""What changes over a training: class weights and scores, losses and validation."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cawalib.results.comparable import check
from cawalib.results.figures.style import (
    INK,
    MANY,
    METHOD_STYLES,
    PAGE,
    PALE,
    in_print_style,
    label_line_ends,
    label_styles,
    plain_log_ticks,
    run_colours,
    seed_count,
    told_apart,
)
from cawalib.results.measures import ComparisonError, name_of
from cawalib.runs import Run


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
    panels[1].set_ylabel("running score $S$", parse_math=True)
    return figure


def _trajectories(axes, table, column, named, colours):
    """One panel: a line and a band per class over the updates that every seed has; names at the right."""
    seeds = table["seed"].nunique()
    counts = table.groupby("update")["seed"].nunique()
    table = table[table["update"].isin(counts[counts == seeds].index)]
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


def _legend_columns(labels):
    """Four, or fewer where the longest labels of the columns would not fit side by side into PAGE."""
    for columns in range(min(4, len(labels)), 0, -1):
        if sum(max(map(len, part)) for part in np.array_split(np.array(labels, dtype=object), columns)) <= 108:
            break
    return columns


@in_print_style
def training_curves(runs: list[Run]) -> Figure:
    """Training loss and validation mIoU over the epochs, per label: mean over seeds, band from smallest to largest.

    Above eight labels the first of them, CAWA among these, have colour and name; the others are grey. Runs that were
    validated once, at their end, have no curve of it, and so no second panel.
    Losses of different methods are different quantities: only each curve's course says something.
    """
    check(runs)
    of_all = label_styles(runs)
    ours = next((label for label, style in of_all.items() if style == METHOD_STYLES["cawa"]), None)
    named = told_apart(of_all, ours)
    styles = label_styles([run for run in runs if name_of(run) in named])  # no colour twice among these
    shown = [("train_loss", 1, "training loss (each method's own)")]
    if any(run.history["val_miou"].count() > 1 for run in runs):
        shown.append(("val_miou", 100, "validation mIoU (%)"))
    figure, panels = plt.subplots(1, len(shown), sharex=True, squeeze=False, layout="constrained")
    panels = panels[0]
    for label in of_all:
        histories = pd.concat([run.history for run in runs if name_of(run) == label])
        for axes, (column, scale, _) in zip(panels, shown, strict=True):
            curve = scale * histories.groupby("epoch")[column].agg(["mean", "min", "max"]).dropna()
            if label not in named:
                axes.plot(curve.index, curve["mean"], color=PALE, linewidth=0.5, zorder=1)
                continue
            style = styles[label]
            axes.plot(curve.index, curve["mean"], color=style.colour, linestyle=style.line, label=label,
                      marker=style.marker, markevery=max(1, len(curve) // 6), zorder=3 if style.marker == "o" else 2)
            axes.fill_between(curve.index, curve["min"], curve["max"], color=style.colour, alpha=0.15, linewidth=0)
    if len(named) < len(of_all):
        panels[0].plot([], [], color=PALE, linewidth=0.5, label=f"{len(of_all) - len(named)} others")
    seeds = [sum(name_of(run) == label for run in runs) for label in of_all]
    for axes, (_, _, name) in zip(panels, shown, strict=True):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"epoch (mean of {seed_count(seeds)}, band: min to max)" if max(seeds) > 1
                        else "epoch (1 seed)")
        axes.set_ylabel(name)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = _legend_columns(labels)
    figure.set_size_inches(PAGE, 2 + 0.15 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)
    return figure
