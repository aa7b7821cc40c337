"""Figures of a dataset: its long tail, and which classes occur together. Drawn from counts alone, before any run."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cawalib.datasets.statistics import ClassStatistics
from cawalib.style import COLUMN, INK, PAGE, PALE, in_print_style

GROUP_MARKERS = {"head": "o", "body": "s", "tail": "^"}
ROWS = 54  # so many names have room one below the other
COMPANIONS = 12  # columns for classes that are not rare themselves
PRIOR = 10  # images that an average class is taken to be in, so that a class seen once names no companion


# ---------------------------------------------------------------- the long tail

@in_print_style
def class_frequencies(statistics: ClassStatistics, palette) -> Figure:
    """Share of training pixels (log scale) and of training images per class, most pixels on top.

    Marks differ by the class's group, head, body or tail, by that panel's frequency. Up to 54 classes they have the
    class colour; more classes fill a page, in one block per group by pixels, with the number of images of each.
    """
    order = np.argsort(-statistics.pixels, kind="stable")
    shares = {"pixels": 100 * statistics.pixels / max(1, statistics.pixels.sum()),
              "images": 100 * statistics.images / max(1, statistics.size)}
    draw = _one_block if len(order) <= ROWS else _three_blocks
    return draw(statistics, shares, order, np.array(palette) / 255)


def _one_block(statistics, shares, order, colours):
    figure, panels = plt.subplots(1, 2, figsize=(COLUMN, 0.135 * len(order) + 0.75), sharey=True,
                                  layout="constrained")
    for axes, by in zip(panels, shares, strict=True):
        axes.grid(axis="y", color=PALE, linewidth=0.3)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        groups = _group_per_class(statistics, by)
        for row, index in enumerate(order):
            if shares[by][index] == 0:  # has no place on a log scale
                axes.text(0.02, row, "none", transform=axes.get_yaxis_transform(), va="center")
                continue
            axes.plot(shares[by][index], row, GROUP_MARKERS[groups[index]], color=colours[index],
                      markeredgecolor=INK, markeredgewidth=0.5, clip_on=False)
    panels[0].set_yticks(range(len(order)), [statistics.classes[i] for i in order])
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    _log_percent(panels[0], shares["pixels"])
    panels[1].set_xlim(0, 104)
    panels[0].set_xlabel("share of training pixels (%)")
    panels[1].set_xlabel("training images with it (%)")
    figure.legend(handles=[_mark(marker, group) for group, marker in GROUP_MARKERS.items()],
                  loc="outside upper center", ncols=3, handletextpad=0)
    return figure


def _three_blocks(statistics, shares, order, colours):
    """Head, body and tail by pixels side by side; both shares on one axis, since both are read as "how rare"."""
    blocks = np.array_split(order, 3)  # as ClassStatistics.groups does
    rows = len(blocks[0])
    height = min(0.135 * rows + 0.95, 8.6)
    size = min(6.5, 0.8 * 72 * (height - 0.95) / rows)
    groups = np.array(_group_per_class(statistics, "images"))
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, height), sharex=True, layout="constrained")
    _log_percent(panels[0], np.concatenate(list(shares.values())))
    for axes, block, group in zip(panels, blocks, GROUP_MARKERS, strict=True):
        places = np.arange(len(block))
        pixels, images = shares["pixels"][block], shares["images"][block]
        axes.set_axisbelow(True)
        axes.grid(axis="x", color=PALE, linewidth=0.3)
        axes.hlines(places, np.maximum(pixels, axes.get_xlim()[0]), images, color=PALE, linewidth=0.8, zorder=1)
        axes.plot(pixels[pixels > 0], places[pixels > 0], "o", color=INK, markersize=2.2)
        for by_images, marker in GROUP_MARKERS.items():
            chosen = (groups[block] == by_images) & (images > 0)
            axes.plot(images[chosen], places[chosen], marker, color="white", markeredgecolor=INK,
                      markeredgewidth=0.5, markersize=3)
        for place in places[images == 0]:
            axes.text(0.02, place, "none", transform=axes.get_yaxis_transform(), va="center", fontsize=size)
        for place, count in zip(places, statistics.images[block], strict=True):
            axes.text(1.24, place, count, transform=axes.get_yaxis_transform(), va="center", ha="right",
                      fontsize=size)
        axes.text(1.24, -1.6, "images", transform=axes.get_yaxis_transform(), ha="right", fontsize=size)
        axes.set_title(f"{group} by pixels")
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_yticks(places, [_short(statistics.classes[i]) for i in block], fontsize=size)
        _swatches(axes, places, colours[block])
    figure.supxlabel("share of the training pixels, and of the training images (%, log scale)", fontsize="medium")
    handles = [_mark("o", "share of pixels", INK)]
    handles += [_mark(marker, f"share of {statistics.size} images: {group} by images" if group == "head" else
                      f"{group} by images") for group, marker in GROUP_MARKERS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handletextpad=0)
    return figure


def _group_per_class(statistics, by):
    group_of = {name: group for group, names in statistics.groups[by].items() for name in names}
    return [group_of[name] for name in statistics.classes]


def _log_percent(axes, shares):
    seen = shares[shares > 0]
    axes.set_xscale("log")
    axes.set_xlim(seen.min() / 2 if len(seen) else 0.01, 100)
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _mark(marker, label, colour="white"):
    return plt.Line2D([], [], linestyle="", marker=marker, color=colour, markeredgecolor=INK, label=label)


def _short(name, most=22):
    return name if len(name) <= most else f"{name[:most - 1].rstrip()}…"


def _swatches(axes, rows, colours):
    """The class colours between names and axis: the figure then is the palette's key as well."""
    axes.tick_params(axis="y", length=0, pad=7)
    axes.scatter(np.full(len(rows), -3.5 / 72), rows, marker="s", s=8, c=colours, edgecolor=INK, linewidth=0.3,
                 clip_on=False, transform=axes.get_yaxis_transform())
