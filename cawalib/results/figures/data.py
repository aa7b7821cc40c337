"""Figures of a dataset: its long tail, and which classes occur together. Drawn from counts alone, before any run."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from cawalib.datasets import ClassStatistics
from cawalib.results.figures.style import COLUMN, INK, PAGE, PALE, in_print_style, plain_log_ticks, short

GROUP_MARKERS = {"head": "o", "body": "s", "tail": "^"}
ROWS = 54  # so many names have room one below the other
COMPANIONS = 12  # so many columns for classes that are not rare themselves
SHARES = "Blues"  # one hue, lightness falls evenly; 0 is white
PRIOR = 10  # images that an average class is taken to be in, so that a class seen once names no companion


# ---------------------------------------------------------------- the long tail

@in_print_style
def class_frequencies(statistics: ClassStatistics, palette) -> Figure:
    """Share of training pixels (log scale) and of training images per class, most pixels on top.

    Marks differ by the class's group, head, body or tail, by that panel's frequency; numbers at the right count the
    images. More than 54 classes fill a page, in one block per group by pixels.
    """
    order = np.argsort(-statistics.pixels, kind="stable")
    shares = {"pixels": 100 * statistics.pixels / max(1, statistics.pixels.sum()),
              "images": 100 * statistics.images / max(1, statistics.size)}
    draw = _one_block if len(order) <= ROWS else _three_blocks
    return draw(statistics, shares, order, np.array(palette) / 255)


def _one_block(statistics, shares, order, colours):
    names = [short(statistics.classes[i]) for i in order]
    width = COLUMN if max(map(len, names)) <= 16 else PAGE
    figure, panels = plt.subplots(1, 2, figsize=(width, 0.135 * len(order) + 0.75), sharey=True, layout="constrained")
    for axes, by in zip(panels, shares, strict=True):
        axes.grid(axis="y", color=PALE, linewidth=0.3)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        groups = _group_per_class(statistics, by)
        for row, index in enumerate(order):
            if shares[by][index] == 0:  # has no place on a log scale
                axes.text(0.02, row, "none", transform=axes.get_yaxis_transform(), va="center_baseline")
                continue
            axes.plot(shares[by][index], row, GROUP_MARKERS[groups[index]], color=colours[index],
                      markeredgecolor=INK, markeredgewidth=0.5, clip_on=False)
    panels[0].set_yticks(range(len(order)), names)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    _log_percent(panels[0], shares["pixels"], 6)
    panels[1].set_xlim(0, 104)
    _image_counts(panels[1], statistics.images[order])
    panels[0].set_xlabel("training pixels (%)")
    panels[1].set_xlabel("training images (%)")
    figure.legend(handles=[_mark(marker, group) for group, marker in GROUP_MARKERS.items()],
                  loc="outside upper center", ncols=3, handletextpad=0)
    return figure


def _three_blocks(statistics, shares, order, colours):
    """Head, body and tail by pixels side by side; both shares on one axis, since both tell how rare a class is."""
    blocks = np.array_split(order, 3)  # as `ClassStatistics.groups` does
    rows = len(blocks[0])
    height = min(0.135 * rows + 0.95, 8.6)
    size = min(6.5, 0.75 * 72 * (height - 0.95) / rows)
    groups = np.array(_group_per_class(statistics, "images"))
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, height), sharex=True, layout="constrained")
    _log_percent(panels[0], np.concatenate(list(shares.values())), 4)
    for axes, block, group in zip(panels, blocks, GROUP_MARKERS, strict=True):
        places = np.arange(len(block))
        pixels, images = shares["pixels"][block], shares["images"][block]
        axes.grid(axis="x", color=PALE, linewidth=0.3)
        axes.set_axisbelow(True)
        seen = pixels > 0
        axes.hlines(places[seen], pixels[seen], images[seen], color=PALE, linewidth=0.8, zorder=1)
        axes.plot(pixels[seen], places[seen], "o", color=INK, markersize=2.2)
        for by_images, marker in GROUP_MARKERS.items():
            chosen = (groups[block] == by_images) & seen
            axes.plot(images[chosen], places[chosen], marker, color="white", markeredgecolor=INK,
                      markeredgewidth=0.5, markersize=3)
        for place in places[~seen]:
            axes.text(0.02, place, "none", transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=size)
        axes.set_title(f"{group} by pixels")
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_yticks(places, [short(statistics.classes[i]) for i in block], fontsize=size)
        _image_counts(axes, statistics.images[block], size)
        _swatches(axes, places, colours[block])
    figure.supxlabel(f"share of the training pixels, and of the {statistics.size} training images (%, log scale)",
                     fontsize="medium")
    handles = [_mark("o", "share of pixels", INK)]
    handles += [_mark(marker, f"share of images, {group} by images") for group, marker in GROUP_MARKERS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handletextpad=0)
    return figure


def _group_per_class(statistics, by):
    group_of = {name: group for group, names in statistics.groups[by].items() for name in names}
    return [group_of[name] for name in statistics.classes]


def _log_percent(axes, shares, ticks):
    seen = shares[shares > 0]
    axes.set_xscale("log")
    axes.set_xlim(seen.min() / 2 if len(seen) else 0.01, 140)
    plain_log_ticks(axes.xaxis, numticks=ticks)


def _image_counts(axes, counts, size=7):
    """A column of numbers at the right of the axes, flush right."""
    points = 4 + size * max(3.7, *(0.64 * len(str(count)) for count in counts))  # as wide as "images" or a number
    place = axes.get_yaxis_transform() + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)
    for row, count in enumerate(counts):
        axes.text(1, row, count, transform=place, va="center_baseline", ha="right", fontsize=size)
    axes.annotate("images", (1, 1), (points, 3), xycoords="axes fraction", textcoords="offset points", ha="right",
                  fontsize=size)


def _mark(marker, label, colour="white"):
    return plt.Line2D([], [], linestyle="", marker=marker, color=colour, markeredgecolor=INK, label=label)


def _swatches(axes, rows, colours):
    """The class colours between names and axes: the figure is the palette's key as well."""
    axes.tick_params(axis="y", length=0, pad=8)
    place = axes.get_yaxis_transform() + ScaledTranslation(-4.5 / 72, 0, axes.figure.dpi_scale_trans)
    axes.scatter(np.zeros(len(rows)), rows, marker="s", s=9, c=colours, edgecolor=INK, linewidth=0.3, clip_on=False,
                 transform=place)


# ---------------------------------------------------------------- which classes occur together

@in_print_style
def co_occurrence(statistics: ClassStatistics, together: np.ndarray, palette=None, most: int = 20) -> Figure:
    """With which classes the rare ones come: of the images that hold the row's class, the share that hold another.

    Rows: the `most` classes with the fewest pixels, rarest first; those that are in no image come last, as far as
    there is room, with dashes. Columns: the same classes, then all others, or, of more than 12, the 12 that come with
    a rare class most above their share of all images. That share is the last row, to compare with.

    Args:
        together: (C, C), training images that hold both classes, as `Survey.together`.
        palette: one RGB colour 0..255 per class, shown beside the names.
    """
    together = np.asarray(together)
    rows, columns = _chosen(statistics, together, most)
    values = _shares(statistics, together, rows, columns)
    absent = (statistics.images == 0).sum() - (statistics.images[rows] == 0).sum()
    names = [short(name) for name in statistics.classes]
    width, lines = (COLUMN, "\n") if len(columns) <= 11 else (PAGE, " ")
    height = 0.145 * len(values) + 0.065 * max(len(names[i]) for i in columns) + 0.95
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    shown = axes.imshow(values, cmap=SHARES, vmin=0, vmax=100, aspect="auto")
    _write_shares(axes, values, size=6 if len(columns) <= 24 else 5.5)
    for side in range(len(rows)):  # a class always comes with itself: nothing to read there
        axes.add_patch(plt.Rectangle((side - 0.5, side - 0.5), 1, 1, facecolor=PALE, linewidth=0))
    axes.axhline(len(rows) - 0.5, color=INK, linewidth=0.8)
    if len(columns) > len(rows):
        axes.axvline(len(rows) - 0.5, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(values)), [*(f"{names[i]} ({statistics.images[i]})" for i in rows),
                                         f"all images ({statistics.size})"])
    axes.set_xticks(range(len(columns)), [names[i] for i in columns], rotation=90)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    if palette is not None:
        _swatches(axes, np.arange(len(rows)), np.array(palette)[rows] / 255)
    axes.set_ylabel("class (training images)")
    bar = figure.colorbar(shown, ax=axes, location="bottom", aspect=60, pad=0.02)
    bar.set_label(f"share of the row's images that{lines}also hold the column's class (%); empty: none"
                  + (f"\nin no image, not shown: {absent} of {len(names)} classes" if absent else ""))
    bar.outline.set_linewidth(0.4)
    return figure


def _chosen(statistics, together, most):
    """Indices of the rows and of the columns."""
    rarest = np.argsort(statistics.pixels, kind="stable")
    rarest = rarest[np.argsort(statistics.images[rarest] == 0, kind="stable")]
    rows, others = rarest[:most], rarest[most:]
    others = others[statistics.images[others] > 0]
    if len(others) > COMPANIONS:
        usual = statistics.images[others] / statistics.size
        excess = together[np.ix_(rows, others)] - statistics.images[rows, None] * usual
        excess = (excess / (statistics.images[rows, None] + PRIOR)).max(axis=0)
        others = others[np.sort(np.argsort(-excess, kind="stable")[:COMPANIONS])]
    return rows, np.concatenate([rows, others])


def _shares(statistics, together, rows, columns):
    """Percent (rows + 1, columns), NaN where there is no image to count; last the share of all images."""
    images = np.append(statistics.images[rows], statistics.size)[:, None]
    both = np.vstack([together[np.ix_(rows, columns)], statistics.images[columns]])
    return np.divide(100 * both, images, out=np.full(both.shape, np.nan), where=images > 0)


def _write_shares(axes, values, size):
    for (row, column), value in np.ndenumerate(values):
        if value != 0 and (row != column or row == len(values) - 1):
            text = "–" if np.isnan(value) else "<1" if value < 0.5 else f"{value:.0f}"
            axes.text(column, row, text, ha="center", va="center_baseline", fontsize=size,
                      color="white" if value > 65 else INK)
