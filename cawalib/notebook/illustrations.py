"""Pictures that explain: a sheet of samples, and one batch on its way through METHOD.md sections 1 to 4.

The figures of the paper are in `results.figures`; these are drawn from arrays, for the notebooks that teach.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pytorch_grad_cam.utils.image import show_cam_on_image

from cawalib.datasets import IGNORE, SegmentationDataset
from cawalib.results.figures import (
    COLUMN,
    INK,
    PAGE,
    class_colours,
    draw_legend,
    in_print_style,
    legend_entries,
    legend_size,
    paint,
    short,
    show,
    shrunk,
)

HIGHEST, WIDEST = 1.7, 2.0  # inches of a picture on a sheet; wider ones have the pixels of this width
GAP = 0.05  # inches between pictures
MANY = 40  # above so many classes, only the lowest and the highest weights are drawn


@in_print_style
def sample_sheet(dataset: SegmentationDataset, count: int = 8, columns: int = 4) -> Figure:
    """Images above their labels, evenly spread over the dataset; the legend names the classes that are in them.

    Images may be of any size and shape: those side by side get one height. Of more than 30 classes the legend names
    those with the most pixels.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    rows = [_sheet_row([dataset[index] for index in chosen[start:start + columns]])
            for start in range(0, len(chosen), columns)]
    entries = legend_entries([labels for row in rows for *_, labels in row], dataset.classes, _colours(dataset))
    width = max(COLUMN, *(sum(wide + GAP for wide, *_ in row) + GAP for row in rows))
    legend_columns, legend_height = legend_size(entries, width)
    bottom = legend_height + sum(2 * (row[0][1] + GAP) for row in rows)
    figure = plt.figure(figsize=(width, bottom + GAP))
    for row in rows:
        high, left = row[0][1], (width - sum(wide + GAP for wide, *_ in row) + GAP) / 2
        bottom -= 2 * (high + GAP)
        for wide, _, image, labels in row:
            _show_at(figure, left, bottom + high + 2 * GAP, wide, high, image)
            _show_at(figure, left, bottom + GAP, wide, high, paint(labels, dataset.palette))
            left += wide + GAP
    draw_legend(figure, entries, legend_columns)
    return figure


def _show_at(figure, left, bottom, wide, high, picture):
    """A picture in a place given in inches."""
    scale = np.tile(figure.get_size_inches(), 2)
    show(figure.add_axes(np.array([left, bottom, wide, high]) / scale), picture)


def _sheet_row(pairs):
    """(width, height, image, labels) of pictures side by side; sizes in inches, no more pixels than print shows."""
    shapes = [image.shape[1] / image.shape[0] for image, _ in pairs]
    height = min((PAGE - (len(pairs) + 1) * GAP) / sum(shapes), HIGHEST)
    return [(shape * height, height, *(shrunk(part, min(shape * height, WIDEST)) for part in pair))
            for shape, pair in zip(shapes, pairs, strict=True)]


def _colours(dataset):
    return class_colours(dataset.classes, dataset.palette)


@in_print_style
def image_and_labels(image: np.ndarray, labels: np.ndarray, dataset: SegmentationDataset) -> Figure:
    """One image beside its labels; the legend names the classes in it, up to 30.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W).
    """
    entries = legend_entries([labels], dataset.classes, _colours(dataset))
    columns, height = legend_size(entries, PAGE)
    height += PAGE / 2 * _ratio(labels.shape) + 0.15
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, height), layout="constrained")
    show(panels[0], shrunk(image, PAGE / 2), "image")
    show(panels[1], paint(shrunk(labels, PAGE / 2), dataset.palette), "labels")
    draw_legend(figure, entries, columns)
    return figure


@in_print_style
def map_gallery(image: np.ndarray, maps: np.ndarray, names: list[str], columns: int = 4, most: int = 11) -> Figure:
    """One image and its class activation maps laid over it with pytorch-grad-cam's overlay.

    Args:
        image: (H, W, 3) uint8.
        maps: (P, H, W) float in [0, 1].
        names: the P classes.
        most: of more maps than that, the first ones are shown, and the figure says so; put the rarest classes first.
            With the image, 11 fill three rows.
    """
    figure, panels = _gallery(image.shape, names, min(len(maps), most), columns, before=1)
    show(panels[0], shrunk(image, PAGE / columns), "image")
    for axes, one, name in zip(panels[1:], maps[:most], names, strict=False):
        # viridis is read in greyscale and by colour-blind readers, the usual jet is not
        overlay = show_cam_on_image(image / 255, one, use_rgb=True, colormap=_opencv_viridis(), image_weight=0.4)
        show(axes, shrunk(overlay, PAGE / columns), short(name))
    return figure


@in_print_style
def map_differences(ours: np.ndarray, theirs: np.ndarray, names: list[str]) -> Figure:
    """Two ways to the same maps above each other, and their absolute difference on the same scale of 0 to 1.

    Args:
        ours, theirs: (P, H, W) float in [0, 1].
        names: the P classes.
    """
    rows = {"ours": ours, "pytorch-grad-cam": theirs, "difference": np.abs(ours - theirs)}
    width = PAGE / max(len(names), 3)
    figure, panels = plt.subplots(3, len(names), figsize=(width * len(names), 3 * width * _ratio(ours.shape[1:]) + 0.5),
                                  squeeze=False, layout="constrained")
    for axes, (title, maps) in zip(panels, rows.items(), strict=True):
        for column, one in enumerate(maps):
            image = axes[column].imshow(shrunk(one, width), cmap="viridis", vmin=0, vmax=1)
            axes[column].set(xticks=[], yticks=[])
        axes[0].set_ylabel(title)
    for column, name in enumerate(names):
        panels[0, column].set_title(short(name))
        panels[2, column].set_xlabel(f"largest {rows['difference'][column].max():.0e}")
    figure.colorbar(image, ax=panels, label="map, 0 to 1", shrink=0.6, aspect=30)
    return figure


def _ratio(shape):
    """Height of a panel by its width: a tall portrait gets narrower, not higher."""
    return min(shape[0] / shape[1], 1.4)


def _gallery(shape, names, shown, columns, before=0, legend=0.0):
    """A figure of `before` panels and one per class, with a note if not all classes have one."""
    rows = -(-(before + shown) // columns)
    note = 0.2 if shown < len(names) else 0
    height = PAGE / columns * _ratio(shape) + 0.17
    figure, panels = plt.subplots(rows, columns, figsize=(PAGE, rows * height + note + legend), squeeze=False,
                                  layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    if note:
        figure.suptitle(f"{shown} of {len(names)} classes", fontsize="medium")
    return figure, list(panels.flat)


def _opencv_viridis():
    import cv2

    return cv2.COLORMAP_VIRIDIS


# what a pixel of a pseudo mask is, in colours that differ in lightness as well (Okabe and Ito)
OUTCOMES = {"true positive": (0, 158, 115), "false positive": (240, 228, 66), "false negative": (213, 94, 0),
            "true negative": (235, 235, 235), "ignored": (255, 255, 255)}


@in_print_style
def mask_outcomes(masks: np.ndarray, labels: np.ndarray, classes: list[int], names: list[str],
                  columns: int = 4, most: int = 11) -> Figure:
    """Pseudo masks of one image against its labels: every pixel is one of the four counts.

    Args:
        masks: (P, h, w) bool.
        labels: (h, w), 255 = ignore.
        classes, names: the P classes and what they are called.
        most: of more masks than that, the first ones are shown, and the figure says so; put the rarest classes first.
    """
    figure, panels = _gallery(labels.shape, names, min(len(masks), most), columns, legend=0.25)
    colours = np.array(list(OUTCOMES.values()), np.uint8)
    for axes, mask, index, name in zip(panels, masks[:most], classes, names, strict=False):
        truth = labels == index
        outcome = np.select([labels == IGNORE, mask & truth, mask, truth], [4, 0, 1, 2], 3)
        show(axes, colours[shrunk(outcome, PAGE / columns)], short(name))
    draw_legend(figure, [Patch(facecolor=np.array(colour) / 255, edgecolor=INK, label=outcome)
                         for outcome, colour in OUTCOMES.items()], columns=5)
    return figure


@in_print_style
def weight_bars(table: pd.DataFrame, colours: dict[str, np.ndarray]) -> Figure:
    """Score, Basic Weight, Ratio Weight and weight of every class, side by side.

    Of more than 40 classes the 20 with the highest and the 20 with the lowest numbers in the last column, the weight.

    Args:
        table: one row per class, indexed by its name; its columns become the panels.
        colours: class name -> RGB in [0, 1].
    """
    rows, gap = np.arange(len(table)), 0
    if len(table) > MANY:
        gap, count, last = 2, len(table), table.columns[-1]
        table = table.sort_values(last, ascending=False, kind="stable")
        table = pd.concat([table[:MANY // 2], table[-(MANY // 2):]])
        rows = np.arange(MANY) + gap * (np.arange(MANY) >= MANY // 2)
    figure, panels = plt.subplots(1, len(table.columns), figsize=(PAGE, 0.16 * (rows[-1] + 1) + 0.5), sharey=True,
                                  layout="constrained")
    for axes, column in zip(panels, table.columns, strict=True):
        axes.barh(rows, table[column], color=[colours[name] for name in table.index], edgecolor=INK, linewidth=0.4)
        axes.set_xlabel(column)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(rows, list(map(short, table.index)))
    panels[0].set_ylim(rows[-1] + 0.6, -0.6)
    if gap:
        note = f"above: the {MANY // 2} highest, below: the {MANY // 2} lowest in {last}, of {count} classes"
        panels[-1].annotate(note, (0.5, (MANY - 1 + gap) / 2), xycoords=("figure fraction", "data"), ha="center",
                            va="center", bbox={"color": "white", "pad": 2}).set_in_layout(False)
    return figure
