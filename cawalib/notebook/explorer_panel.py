"""The explorer's picture and its controls: a still picture anywhere, and in a live notebook one that moves.

A saved notebook holds the panel's place, but not the panel: opened again without its kernel, JupyterLab says "model not
found" there. So the cell has three outputs, a style, the panel and the still picture, and the style hides the panel's
place wherever the panel is not, and the still picture below it wherever it is. A notebook that is not trusted, GitHub
and nbconvert draw no widget in the first place.
"""

from __future__ import annotations

import atexit
import html
import io
import threading
import time

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from cawalib.datasets import IGNORE
from cawalib.notebook.explorer import COUNTS, PARTS, TITLES, Explorer, Pick
from cawalib.notebook.illustrations import OUTCOMES
from cawalib.progress import in_live_notebook
from cawalib.results.figures import INK, PAGE, class_colours, in_print_style, paint, short
from cawalib.training import MEAN, STD

PANEL = "cawalib-explorer"  # class of the panel in the page, and of the style
ROW = ".jp-OutputArea-child"  # an output of a cell, in JupyterLab, Notebook 7 and what nbconvert exports
STYLED, FULL = f"{ROW}:has(style.{PANEL})", f"{ROW}:has(div.{PANEL})"
HIDDEN = (STYLED, f"{STYLED} + {ROW}:not({FULL})", f"{STYLED} + {FULL} + {ROW}")
STYLE = f"<style class='{PANEL}'>{', '.join(HIDDEN)} {{display: none}}</style>"
MANY = 24  # classes that have a bar; of more, the rarest of the batch
FACTORS = (1 / 8, 8)  # of the axes of RW and weight; RW is clipped to them
DOTS = 100  # per inch, of the picture that moves
PAUSE = 0.5  # seconds after a move in which nothing else is done


def explore(explorer: Explorer, **given) -> Figure:
    """The still picture; in a live notebook the panel of controls appears, and hides it.

    Args:
        given: where controls stand at the start, as for `Explorer.pick`.

    Raises:
        ConfigError: no such control, or one that cannot stand there.
    """
    pick = explorer.pick(**given)
    if in_live_notebook():
        Panel(explorer, pick).show()
    return Picture(explorer, pick).figure


class Picture:
    """Map, mask, labels, four counts, CSPS and weights in one figure, laid out once; only its moving parts change."""

    def __init__(self, explorer: Explorer, pick: Pick):
        self.explorer = explorer
        names = explorer.dataset.classes if len(explorer.dataset.classes) <= MANY else explorer.choices["name"][:MANY]
        pixels = dict(zip(explorer.dataset.classes, explorer.statistics.pixels, strict=True))
        self.rows = sorted(names, key=lambda name: -pixels[name])
        self.figure = self._laid_out(pick)
        self._background = None

    @in_print_style
    def _laid_out(self, pick):
        """Above, map over image, mask against labels, and labels; below, counts, CSPS and the weights of classes."""
        ratio = self.explorer.labels.shape[1] / self.explorer.labels.shape[2]
        pictures, bars = (PAGE - 0.1) / 3 * ratio + 0.2, 0.15 * max(len(self.rows), 11) + 0.7
        figure = plt.figure(figsize=(PAGE, pictures + bars + 0.2), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(pictures, bars))
        self.title = figure.suptitle(" ", fontsize="medium")
        below.supxlabel(f"bars: all {len(self.explorer.images)} images of the batch; |: in training, after that epoch",
                        fontsize="medium")
        self._lay_out_pictures(above.subplots(1, 3))
        left, *columns = below.subplots(1, 5, width_ratios=(1.35, 1, 1, 1, 1))
        self._lay_out_counts(left)
        self._lay_out_weights(columns)
        self.update(pick, self.explorer.numbers(pick))
        return figure

    def _lay_out_pictures(self, panels):
        height, width = self.explorer.labels.shape[1:]
        self.images = []
        for axes, title in zip(panels, ("map over the image", "mask against the labels", "labels"), strict=True):
            axes.set_axis_off()
            axes.set_title(title)
            layers = ("nearest", "bilinear") if title.startswith("map") else ("nearest",)
            self.images += [axes.imshow(np.zeros((1, 1, 3)), extent=(0, width, height, 0), interpolation=interpolation)
                            for interpolation in layers]

    def _lay_out_counts(self, axes):
        """The four counts of the picked class above the parts of its CSPS."""
        colours = np.array(list(OUTCOMES.values()))[:4] / 255
        rows = np.arange(4) - 5
        axes.barh(rows, 0.06, color=colours, edgecolor=INK, linewidth=0.4, height=0.6)
        self.counts = [axes.text(0.1, row, "", va="center") for row in rows]
        self.parts = [PARTS[part] for part in self.explorer.config.score_parts.split(",")] + ["CSPS"]
        rows = np.arange(len(self.parts))
        self.part_bars = axes.barh(rows, 0.0 * rows, color=["#b8b8b8"] * (len(rows) - 1) + [INK], height=0.7)
        # where they stand must not change how the figure is laid out
        self.part_values = [axes.text(0, row, "", va="center", in_layout=False) for row in rows]
        axes.set(xlim=(0, 1), ylim=(rows[-1] + 0.6, -5.6))
        axes.set_yticks(rows, self.parts)
        axes.tick_params(axis="y", length=0)

    def _lay_out_weights(self, panels):
        """S, BW, RW and weight of every class: a bar for the batch, a tick for training."""
        rows = np.arange(len(self.rows))
        colours = class_colours(self.explorer.dataset.classes, self.explorer.dataset.palette)
        self.columns = {}
        for axes, column, start in zip(panels, ("S", "BW", "RW", "weight"), (0, 0, 1, 1), strict=True):
            axes.set(xlim=(0, 2) if column == "BW" else (0, 1), ylim=(rows[-1] + 0.6, -0.6))
            if start:  # factors: above 1 to the right, below to the left
                axes.set_xscale("log", base=2)
                axes.set_xlim(*FACTORS)
                axes.set_xticks([1 / 8, 1 / 2, 2, 8], ["1/8", "1/2", "2", "8"])
                axes.axvline(1, color=INK, linewidth=0.5)
            axes.set_yticks(rows, list(map(short, self.rows)) if column == "S" else [""] * len(rows))
            axes.tick_params(axis="y", length=0)
            bars = PolyCollection([], facecolors=[colours[name] for name in self.rows], edgecolors=INK)
            axes.add_collection(bars, autolim=False)
            # white below black, to be seen on any bar
            ticks = [axes.plot(0.0 * rows + 1, rows, "|", color=colour, markersize=6, markeredgewidth=width)[0]
                     for colour, width in (("white", 3), (INK, 1))]
            self.columns[column] = start, bars, ticks, axes.set_title(" ")

    # what moves

    def update(self, pick: Pick, table: pd.DataFrame) -> None:
        """Bring every part to where the controls stand; the table is from `Explorer.numbers`."""
        trained, row = self.explorer.training_state(pick.epoch).loc[self.rows], table.loc[pick.name]
        self.title.set_text(f"{short(pick.name)}, image {pick.image}, tau {pick.tau:g}, {pick.layer}, {pick.kind}, "
                            f"epoch {pick.epoch}")
        self._update_images(pick)
        for text, count in zip(self.counts, COUNTS, strict=True):
            text.set_text(f"{count} {row[count]:,.0f}")
        for part, bar, text in zip(self.parts, self.part_bars, self.part_values, strict=True):
            bar.set_width(row[part])
            text.set(x=row[part] + 0.03, text=f"{row[part]:.2f}")
        width = [1.5 if name == pick.name else 0.4 for name in self.rows]
        for column, (start, bars, ticks, title) in self.columns.items():
            ends = table[column].loc[self.rows]
            bars.set_verts([[(start, at - 0.4), (end, at - 0.4), (end, at + 0.4), (start, at + 0.4)]
                            for at, end in enumerate(ends)])
            bars.set_linewidths(width)
            for tick in ticks:
                tick.set_xdata(trained[column])
            title.set_text(f"{column} {row[column]:.2f}")

    def _update_images(self, pick):
        explorer, at = self.explorer, pick.image - 1
        index = explorer.dataset.classes.index(pick.name)
        place = explorer.classes.tolist().index(index)
        image = explorer.images[at].cpu().permute(1, 2, 0).numpy() * STD + MEAN
        one = explorer.maps(pick.epoch, pick.layer, pick.kind)[at, place].numpy()
        heat = mpl.colormaps["viridis"](one)  # as in notebook 03
        heat[..., 3] = 0.25 + 0.6 * one  # the lower the map, the more is seen of the image
        labels, mask = explorer.grid_labels[at].cpu().numpy(), explorer.masks(pick)[at, place].numpy()
        outcome = np.select([labels == IGNORE, mask & (labels == index), mask, labels == index], [4, 0, 1, 2], 3)
        # grey, its shadows lifted, so that all colours are the map's
        grey = 0.3 + 0.7 * image.mean(axis=2, keepdims=True).clip(0, 1).repeat(3, axis=2)
        pictures = (grey, heat, np.array(list(OUTCOMES.values()), np.uint8)[outcome],
                    paint(explorer.labels[at].cpu().numpy(), explorer.dataset.palette))
        for shown, picture in zip(self.images, pictures, strict=True):
            shown.set_data(picture)

    def png(self) -> bytes:
        """The picture as it is now, at screen size, without its title, which the controls are.

        What never moves is drawn once: axes take most of the time.
        """
        columns = [part for _, bars, ticks, title in self.columns.values() for part in (bars, *ticks, title)]
        moving = [*self.images, *self.counts, *self.part_bars, *self.part_values, *columns]
        canvas = self.figure.canvas
        if self._background is None:
            canvas = FigureCanvasAgg(self.figure)  # pyplot's is gone
            self.figure.set_dpi(DOTS)
            for part in (self.title, *moving):
                part.set_animated(True)  # left out by `draw`
            canvas.draw()
            self._background = canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self._background)
        for part in moving:
            part.draw(canvas.get_renderer())
        content = io.BytesIO()
        pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        pixels.save(content, "png", compress_level=1)
        return content.getvalue()


class Panel:
    """The controls, the picture that they move, and the picked class's numbers in words."""

    last: Panel | None = None  # the one that is open: each has a thread of its own

    def __init__(self, explorer: Explorer, pick: Pick):
        import ipywidgets

        if Panel.last is not None:
            Panel.last.close()
        Panel.last = self
        self.explorer, self.picture, self.stop = explorer, Picture(explorer, pick), threading.Event()
        self.background: threading.Thread | None = None
        kinds = {"tau": ipywidgets.SelectionSlider, "image": ipywidgets.SelectionSlider,
                 "epoch": ipywidgets.SelectionSlider, "name": ipywidgets.Dropdown, "layer": ipywidgets.Dropdown,
                 "kind": ipywidgets.Dropdown}
        wide = {"layout": {"width": "auto"}, "style": {"description_width": "6em"}}
        self.controls = {control: kind(options=explorer.choices[control], value=getattr(pick, control),
                                       description=TITLES.get(control, control), **wide)
                         for control, kind in kinds.items()}
        self.image, self.words = ipywidgets.Image(format="png"), ipywidgets.HTML()
        third = {"flex": "1 1 0", "min_width": "0"}  # of the panel's width
        columns = [ipywidgets.VBox([self.controls[control] for control in pair], layout=third)
                   for pair in (("tau", "name"), ("image", "layer"), ("epoch", "kind"))]
        self.root = ipywidgets.VBox([ipywidgets.HBox(columns), self.image, self.words])
        self.root.add_class(PANEL)
        for control in self.controls.values():
            control.observe(self._move, "value")
        self._move()

    def _move(self, change=None):
        pick = Pick(**{name: control.value for name, control in self.controls.items()})
        table = self.explorer.numbers(pick)
        self.picture.update(pick, table)
        self.image.value = self.picture.png()
        self.words.value = html.escape(self.explorer.sentence(pick, table))
        self.moved = time.monotonic()

    def show(self) -> None:
        """Display the panel, and make the maps that moves will ask for in the background."""
        from IPython.display import display

        display({"text/html": STYLE, "text/plain": ""}, raw=True)
        display(self.root._repr_mimebundle_() | {"text/plain": "The controls are here while the notebook runs."},
                raw=True)
        self.background = threading.Thread(target=self._fill, args=[self.explorer.all_maps()], daemon=True)
        self.background.start()
        atexit.register(self.close)  # PyTorch aborts a process that ends while it computes

    def _fill(self, maps):
        """Make one map after the other while nobody moves a control."""
        for _ in maps:
            while (rest := self.moved + PAUSE - time.monotonic()) > 0 and not self.stop.wait(rest):
                pass
            if self.stop.is_set():
                return

    def close(self) -> None:
        """Take the panel off the page, and wait until nothing runs in the background."""
        self.stop.set()
        if self.background is not None:
            self.background.join()
        self.root.close()
