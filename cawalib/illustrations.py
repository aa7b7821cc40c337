"""Pictures that explain: a sheet of samples, and one batch on its way through METHOD.md sections 1 to 4.

The figures of the paper are in `figures`; these are drawn from arrays, for the notebooks that teach.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pytorch_grad_cam.utils.image import show_cam_on_image

from cawalib.datasets import IGNORE, SegmentationDataset
from cawalib.pictures import class_patches, paint, show
from cawalib.style import PAGE, class_colours, in_print_style


@in_print_style
def sample_sheet(dataset: SegmentationDataset, count: int = 8, columns: int = 4) -> Figure:
    """Images above their labels, evenly spread over the dataset, with the palette as legend."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    rows = -(-len(chosen) // columns)
    height, width = dataset[0][1].shape
    size = (PAGE, PAGE / columns * height / width * 2 * rows + 0.5)
    figure, panels = plt.subplots(2 * rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    for place, index in enumerate(chosen):
        image, labels = dataset[index]
        row, column = divmod(place, columns)
        show(panels[2 * row, column], image)
        show(panels[2 * row + 1, column], paint(labels, dataset.palette))
    patches = class_patches(class_colours(dataset.classes, dataset.palette), dataset.classes, void=True)
    figure.legend(handles=patches, loc="outside lower center", ncols=6)
    return figure


@in_print_style
def image_and_labels(image: np.ndarray, labels: np.ndarray, dataset: SegmentationDataset) -> Figure:
    """One image (H, W, 3) uint8 beside its labels (H, W), with a legend of the classes in it."""
    height, width = labels.shape
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, PAGE / 2 * height / width + 0.4), layout="constrained")
    show(panels[0], image, "image")
    show(panels[1], paint(labels, dataset.palette), "labels")
    names = [name for index, name in enumerate(dataset.classes) if (labels == index).any()]
    patches = class_patches(class_colours(dataset.classes, dataset.palette), names, void=(labels == IGNORE).any())
    figure.legend(handles=patches, loc="outside lower center", ncols=6)
    return figure


@in_print_style
def map_gallery(image: np.ndarray, maps: np.ndarray, names: list[str], columns: int = 4) -> Figure:
    """One image and its class activation maps laid over it with pytorch-grad-cam's overlay.

    Args:
        image: (H, W, 3) uint8.
        maps: (P, H, W) float in [0, 1].
        names: the P classes.
    """
    rows = -(-(len(maps) + 1) // columns)
    height, width = image.shape[:2]
    figure, panels = plt.subplots(rows, columns, figsize=(PAGE, PAGE / columns * (height / width + 0.12) * rows),
                                  squeeze=False, layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    show(panels.flat[0], image, "image")
    for axes, one, name in zip(panels.flat[1:], maps, names, strict=False):
        # viridis is read in greyscale and by colour-blind readers, the usual jet is not
        overlay = show_cam_on_image(image / 255, one, use_rgb=True, colormap=_opencv_viridis(), image_weight=0.4)
        show(axes, overlay, name)
    return figure


def _opencv_viridis():
    import cv2

    return cv2.COLORMAP_VIRIDIS


# what a pixel of a pseudo mask is, in colours that differ in lightness as well (Okabe and Ito)
OUTCOMES = {"true positive": (0, 158, 115), "false positive": (240, 228, 66), "false negative": (213, 94, 0),
            "true negative": (235, 235, 235), "ignored": (255, 255, 255)}


@in_print_style
def mask_outcomes(masks: np.ndarray, labels: np.ndarray, classes: list[int], names: list[str],
                  columns: int = 4) -> Figure:
    """Pseudo masks of one image against its labels: every pixel is one of the four counts.

    Args:
        masks: (P, h, w) bool.
        labels: (h, w), 255 = ignore.
        classes, names: the P classes and what they are called.
    """
    rows = -(-len(masks) // columns)
    height, width = labels.shape
    figure, panels = plt.subplots(rows, columns, figsize=(PAGE, PAGE / columns * (height / width + 0.12) * rows + 0.3),
                                  squeeze=False, layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    colours = np.array(list(OUTCOMES.values()), np.uint8)
    for axes, mask, index, name in zip(panels.flat, masks, classes, names, strict=False):
        truth = labels == index
        outcome = np.select([labels == IGNORE, mask & truth, mask, truth], [4, 0, 1, 2], 3)
        show(axes, colours[outcome], name)
    handles = [plt.Line2D([], [], linestyle="", marker="s", markersize=6, color=np.array(colour) / 255,
                          markeredgecolor="#222222", markeredgewidth=0.4, label=outcome)
               for outcome, colour in OUTCOMES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


@in_print_style
def weight_bars(table: pd.DataFrame, colours: dict[str, np.ndarray]) -> Figure:
    """Score, Basic Weight, Ratio Weight and weight of every class, side by side.

    Args:
        table: one row per class, indexed by its name; its columns become the panels.
        colours: class name -> RGB in [0, 1].
    """
    figure, panels = plt.subplots(1, len(table.columns), figsize=(PAGE, 0.16 * len(table) + 0.5), sharey=True,
                                  layout="constrained")
    for axes, column in zip(panels, table.columns, strict=True):
        axes.barh(range(len(table)), table[column], color=[colours[name] for name in table.index],
                  edgecolor="#222222", linewidth=0.4)
        axes.set_xlabel(column)
    panels[0].set_yticks(range(len(table)), table.index)
    panels[0].invert_yaxis()
    return figure
