"""Differences with their intervals, as dots and lines: of the labels of one group, and of one label in all groups."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from cawalib.results.comparison import compare
from cawalib.results.figures.style import COLUMN, INK, PAGE, PRINT, half_widths, in_print_style, seed_count
from cawalib.results.measures import metric_named, tidy
from cawalib.runs import Run

# a baseline each: read apart without colour too
MARKS = (("#7F7F7F", "s"), ("#0072B2", "^"), ("#009E73", "D"))


@in_print_style
def difference_bars(runs: list[Run], baseline: str, split: str, metrics=("mIoU",),
                    shared_seeds: bool = False) -> Figure:
    """Paired difference of every other label from the baseline: dot and 95 % interval, small dots for the seeds.

    Filled dots: the interval leaves out 0; hollow: inside the noise, or too few seeds. A panel per metric.
    `shared_seeds`: see `comparison.compare`.
    """
    metrics = [metric_named(metric) for metric in metrics]
    table = compare(runs, baseline, split, metrics, shared_seeds)
    table = table[table["label"] != baseline]
    labels = list(table["label"].unique())
    figure, panels = plt.subplots(1, len(metrics), sharey=True, squeeze=False, layout="constrained",
                                  figsize=(COLUMN if len(metrics) == 1 else PAGE, 0.19 * len(labels) + 0.7))
    for axes, metric in zip(panels[0], metrics, strict=True):
        values = tidy(runs).query("split == @split and metric == @metric").pivot(
            index="seed", columns="label", values="value")
        _differences(axes, table[table["metric"] == metric].reset_index(drop=True), values, baseline)
        if len(metrics) > 1:
            axes.set_title(metric)
    panels[0, 0].set_yticks(range(len(labels)), labels)
    panels[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    pairs = seed_count(table["pairs"]) if len(table) else "no runs"
    what = f"dot and line: mean and 95 % interval, {pairs}" if pairs != "1 seed" else "1 seed, no interval"
    of = metrics[0] if len(metrics) == 1 else "metric"
    figure.supxlabel(f"difference in {split} {of} from {baseline} (percentage points)\n{what}",
                     fontsize=PRINT["axes.labelsize"])
    return figure


def _differences(axes, table, values, baseline):
    axes.axvline(0, color=INK, linewidth=0.6, zorder=0)
    for row in table.itertuples():
        seeds = 100 * (values[row.label] - values[baseline]).dropna()
        axes.plot(seeds, [row.Index + 0.25] * len(seeds), ".", markersize=2.5, color="#7F7F7F", zorder=1)
        clear = row.verdict in ("better", "worse")
        axes.errorbar(100 * row.difference, row.Index, xerr=100 * half_widths(row.low, row.high), fmt="o", color=INK,
                      markerfacecolor=INK if clear else "white", markeredgewidth=0.7, elinewidth=0.8)
    axes.tick_params(axis="y", length=0)


@in_print_style
def across_groups(runs: list[Run], label: str, baselines: tuple[str, ...], split: str, metrics=("mIoU",)) -> Figure:
    """Paired difference of one label from each baseline, in every group: dot and 95 % interval, a panel per metric.

    Filled: the interval leaves out 0; hollow: inside the noise, or too few seeds.

    Args:
        runs: of several groups (data, networks), each with the label and every baseline.
    """
    groups = list(dict.fromkeys(run.group for run in runs))
    figure, panels = plt.subplots(1, len(metrics), sharey=True, squeeze=False, layout="constrained",
                                  figsize=(PAGE, 0.14 * len(groups) * len(baselines) + 0.9))
    counts = []
    for axes, metric in zip(panels[0], metrics, strict=True):
        axes.axvline(0, color=INK, linewidth=0.6, zorder=0)
        for place, (baseline, (colour, mark)) in enumerate(zip(baselines, MARKS, strict=False)):
            shift = 0.5 * (place - (len(baselines) - 1) / 2) / len(baselines)
            for row, group in enumerate(groups):
                own = [run for run in runs if run.group == group]
                found = compare(own, baseline, split, [metric]).set_index("label").loc[label]
                clear = found["verdict"] in ("better", "worse")
                axes.errorbar(100 * found["difference"], row + shift, fmt=mark, color=colour, elinewidth=0.9,
                              xerr=100 * half_widths(found["low"], found["high"]), markeredgewidth=0.8,
                              markerfacecolor=colour if clear else "white")
                counts.append(int(found["pairs"]))
            axes.plot([], [], mark, color=colour, label=f"from {baseline}")
        axes.set_title(metric_named(metric))
        axes.tick_params(axis="y", length=0)
    panels[0, 0].set_yticks(range(len(groups)), groups)
    panels[0, 0].set_ylim(len(groups) - 0.5, -0.5)
    figure.supxlabel(f"difference of {label} in {split} metric (percentage points); mean and 95 % interval, "
                     f"{seed_count(counts)}; filled: leaves out 0", fontsize=PRINT["axes.labelsize"])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(baselines))
    return figure
