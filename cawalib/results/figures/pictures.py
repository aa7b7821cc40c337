"""Figures made of pictures: class activation maps over an image, and the methods' predictions side by side."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image

from cawalib.results.figures.style import INK, PAGE, in_print_style, run_colours, short
from cawalib.results.measures import ComparisonError
from cawalib.runs import Run

VOID = 255  # label of pixels that count for nothing
DOTS = 200  # per inch: as many as print shows


def paint(labels: np.ndarray, palette) -> np.ndarray:
    """Labels (H,W) as a picture (H,W,3) in a palette of C RGB colours; void is white with black stripes."""
    table = np.full((256, 3), 255, np.uint8)
    table[:len(palette)] = palette
    picture = table[labels]
    rows, columns = np.indices(labels.shape)
    period = max(4, labels.shape[0] // 16)
    picture[(labels == VOID) & ((rows + columns) % period < period / 4)] = 0
    return picture


def class_patches(colours: dict[str, np.ndarray], names, void: bool) -> list[Patch]:
    """Legend entries of some classes, and of void."""
    patches = [Patch(facecolor=colours[name], edgecolor=INK, label=short(name)) for name in names]
    return patches + [Patch(facecolor="white", edgecolor=INK, hatch="//////", label="void")] * bool(void)


def legend_entries(labels: list[np.ndarray], classes, colours: dict[str, np.ndarray], most: int = 30) -> list[Patch]:
    """Legend entries of the `most` classes with the most pixels in some labels, largest first, and of void.

    If there are more classes, a last entry says how many.
    """
    counts = sum(np.bincount(np.asarray(part).ravel(), minlength=256) for part in labels)
    names = [classes[i] for i in np.argsort(-counts[:len(classes)], kind="stable") if counts[i]]
    entries = class_patches(colours, names[:most], counts[VOID] > 0)
    if len(names) > most:
        entries.append(Patch(facecolor="none", edgecolor="none", label=f"and {len(names) - most} more"))
    return entries


def legend_size(entries: list[Patch], width: float) -> tuple[int, float]:
    """Columns that fit a width in inches, at most 8, and the legend's height in inches."""
    longest = max((len(entry.get_label()) for entry in entries), default=1)
    columns = min(max(1, int(width / (0.06 * longest + 0.26))), 8, max(1, len(entries)))
    return columns, 0.14 * -(-len(entries) // columns) + 0.1


def draw_legend(figure: Figure, entries: list[Patch], columns: int) -> None:
    """Legend entries below everything else."""
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, handlelength=1, handleheight=0.9,
                  handletextpad=0.4, columnspacing=1)


def shrunk(picture: np.ndarray, inches: float) -> np.ndarray:
    """A picture (H, W, 3) or labels (H, W), uint8, brought down to what print shows on a width in inches."""
    height, width = picture.shape[:2]
    most = round(DOTS * inches)
    if width <= most:
        return picture
    how = Image.Resampling.NEAREST if picture.ndim == 2 else Image.Resampling.BILINEAR  # Pillow's is antialiased
    size = (most, max(1, round(height * most / width)))
    return np.array(Image.fromarray(picture.astype(np.uint8)).resize(size, how))


def show(axes, picture: np.ndarray, title: str = "") -> None:
    """A picture without axes, its pixels as they are."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)


@in_print_style
def map_overlays(run: Run, image: int = 0, classes=None, most: int = 12) -> Figure:
    """One sample: image, truth, prediction, then the class activation map of each present class, rarest first.

    The maps lie over the grey image in `inferno`, whose lightness grows evenly with the value: the jet colours of
    pytorch-grad-cam's `show_cam_on_image` do not, and show edges where the map has none. White: outline of the
    class in the truth. Dotted: where the map crosses the threshold of the pseudo mask.

    Args:
        image: which of the run's samples.
        classes: names of the classes to show; None: the `most` rarest ones (by training pixels) in the truth.

    Raises:
        ComparisonError: no such sample, or a class that is not in it.
    """
    samples, names = run.samples, run.metrics["classes"]
    if not 0 <= image < len(samples["images"]):
        raise ComparisonError(f"image {image}: the run has samples 0 to {len(samples['images']) - 1}")
    present = [i for i in np.argsort(run.metrics["train_pixels"], kind="stable") if samples["present"][image, i]]
    for name in classes or ():
        if name not in [names[i] for i in present]:
            raise ComparisonError(f"class {name!r}: not in sample {image}; "
                                  f"there are {', '.join(names[i] for i in present)}")
    chosen = present[:most] if classes is None else [names.index(name) for name in classes]
    columns = min(5, 3 + len(chosen))
    rows = -(-(3 + len(chosen)) // columns)
    ratio = samples["labels"].shape[1] / samples["labels"].shape[2]
    figure, panels = plt.subplots(rows, columns, squeeze=False, layout="compressed",
                                  figsize=(PAGE, rows * (PAGE / columns * ratio + 0.17) + 0.4))
    for axes in panels.flat:
        axes.set_axis_off()
    panels = panels.flat
    show(panels[0], samples["images"][image], "image")
    show(panels[1], paint(samples["labels"][image], run.metrics["palette"]), "truth")
    show(panels[2], paint(samples["predictions"][image], run.metrics["palette"]), "prediction")
    for axes, index in zip(panels[3:], chosen, strict=False):
        shown = _overlay(axes, samples, image, index, run.config.pseudo_mask_threshold)
        axes.set_title(short(names[index]))
    if chosen:
        bar = figure.colorbar(shown, ax=list(panels), location="bottom", aspect=60, shrink=0.5, pad=0.02)
        bar.set_label("class activation, each map scaled to 0 to 1; dotted: threshold of the pseudo mask "
                      f"({run.config.pseudo_mask_threshold:g}); white: the class in the truth")
        bar.outline.set_linewidth(0.4)
    return figure


def _overlay(axes, samples, image, index, threshold):
    """Draw one class's map over the grey image; returns what a colour bar needs."""
    grey = samples["images"][image].mean(2)
    activation = samples["maps"][image, index] / 255
    # the picture's shadows are lifted, to be seen under the dark end of the colours
    axes.imshow(grey, cmap="gray", vmin=-100, vmax=255, interpolation="nearest")
    shown = axes.imshow(activation, cmap="inferno", vmin=0, vmax=1, alpha=0.6, interpolation="nearest")
    outlines = [(activation, threshold, ":"), (samples["labels"][image] == index, 0.5, "-")]
    for surface, level, line in outlines:
        if surface.min() < level <= surface.max():
            drawn = axes.contour(surface, levels=[level], colors="white", linewidths=0.7, linestyles=line)
            if line == "-":
                drawn.set_path_effects([withStroke(linewidth=1.5, foreground="black")])  # seen on bright maps too
    return shown


def rarest_samples(run: Run, rows: int) -> list[int]:
    """The samples with the most pixels of tail classes (by training pixels), the first ones among equals.

    Chosen from the labels alone, never from predictions, so that no method is favoured.
    """
    tail = [run.metrics["classes"].index(name) for name in run.metrics["groups"]["pixels"]["tail"]]
    counts = np.isin(run.samples["labels"], tail).sum(axis=(1, 2))
    return [int(i) for i in np.argsort(-counts, kind="stable")[:rows]]


@in_print_style
def qualitative(runs_by_label: dict[str, Run], rows: int = 3) -> Figure:
    """Samples as rows; columns image, truth and each label's prediction. `rarest_samples` says which samples.

    Raises:
        ComparisonError: no runs, or runs whose samples are not the same images.
    """
    if not runs_by_label:
        raise ComparisonError("no runs to show")
    first_label, first = next(iter(runs_by_label.items()))
    for label, run in runs_by_label.items():
        if not np.array_equal(run.samples["labels"], first.samples["labels"]):
            raise ComparisonError(f"'{label}': its samples are other images than those of '{first_label}'")
    chosen = rarest_samples(first, rows)
    width = PAGE / (2 + len(runs_by_label))
    ratio = first.samples["labels"].shape[1] / first.samples["labels"].shape[2]
    titles = [textwrap.fill(title, max(8, int(width / 0.062))) for title in ("image", "truth", *runs_by_label)]
    shown = [first.samples["labels"][chosen], *(run.samples["predictions"][chosen] for run in runs_by_label.values())]
    entries = legend_entries(shown, first.metrics["classes"], run_colours(first))
    columns, extra = legend_size(entries, PAGE)
    extra += 0.12 * max(title.count("\n") + 1 for title in titles)
    figure, panels = plt.subplots(len(chosen), len(titles), squeeze=False, layout="compressed",
                                  figsize=(PAGE, len(chosen) * (width * ratio) + extra))
    for index, (row, sample) in enumerate(zip(panels, chosen, strict=True)):
        pictures = [first.samples["images"][sample], paint(first.samples["labels"][sample], first.metrics["palette"])]
        pictures += [paint(run.samples["predictions"][sample], run.metrics["palette"])
                     for run in runs_by_label.values()]
        for axes, picture, title in zip(row, pictures, titles, strict=True):
            show(axes, picture, title if index == 0 else "")
    draw_legend(figure, entries, columns)
    return figure
