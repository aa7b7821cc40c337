"""How the paper's figures look: sizes and fonts of print, fixed colours, labels that keep clear of each other.

Colours of methods are Okabe and Ito's, which colour-blind readers can tell apart; a marker and a line style go
with each, so that greyscale print works as well. Colours of classes are the dataset's palette everywhere.
"""

from __future__ import annotations

import functools
import inspect
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image
from scipy.optimize import isotonic_regression

from cawalib.files import atomic
from cawalib.results.measures import name_of
from cawalib.runs import Run, RunConfig
from cawalib.settings import CAWA_FIELDS

COLUMN, PAGE = 3.35, 6.9  # inches: one column, both columns
# asked for letters that matplotlib's own font lacks, such as Chinese ones, where they are installed
OTHER_LETTERS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei",
                 "Hiragino Sans GB", "Heiti TC", "Malgun Gothic", "Arial Unicode MS", "Noto Emoji", "Segoe UI Symbol")
PRINT = {
    "text.parse_math": False,  # a class may be called $x$
    "font.family": ["sans-serif", *(name for name in OTHER_LETTERS if name in fontManager.get_font_names())],
    "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "legend.handlelength": 2.2, "legend.columnspacing": 1.2,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.titlepad": 3,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
    "lines.linewidth": 1, "lines.markersize": 3.5, "hatch.linewidth": 0.4, "patch.linewidth": 0.5,
    "pdf.fonttype": 42, "savefig.dpi": 200, "figure.dpi": 150, "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03, "axes.formatter.use_mathtext": False,
}
INK, PALE = "#222222", "#b8b8b8"
DISTINCT = 8  # above so many labels, colours repeat and bands cover each other
MANY = 20  # above so many classes, only the tail is named


@dataclass(frozen=True)
class Style:
    colour: str
    marker: str
    line: str | tuple


METHOD_STYLES = {
    "cawa": Style("#D55E00", "o", "-"),
    "none": Style("#7F7F7F", "s", "--"),
    "inverse_frequency": Style("#56B4E9", "v", ":"),
    "inverse_sqrt": Style("#0072B2", "^", "-."),
    "median_frequency": Style("#009E73", "D", (0, (3, 1, 1, 1, 1, 1))),
    "focal": Style("#CC79A7", "P", (0, (5, 1))),
    "recall": Style("#E69F00", "X", (0, (1, 1))),
}
# For everything else, such as variants of CAWA: the same colours with other marks, in order of appearance.
OTHER_STYLES = tuple(
    Style(colour, marker, line)
    for marker, line in (("<", (0, (4, 1, 1, 1))), (">", (0, (2, 1))), ("*", (0, (6, 2, 2, 2))))
    for colour in ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"))


def in_print_style(draw):
    """Decorator: draw in the print style, from matplotlib's defaults, and let pyplot forget the figure.

    A notebook then shows it once, as the value of its cell, and open figures do not pile up. The first sentence of the
    function's docstring is the picture's alternative text, for those who cannot see it.
    """
    bundle = {}, {"image/png": {"alt": alternative_text(draw)}}  # no data, which IPython makes, but metadata

    @functools.wraps(draw)
    def drawn(*arguments, **named):
        with plt.style.context(["default", PRINT]):
            figure = draw(*arguments, **named)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once: what is stored is what labels were placed for
        plt.close(figure)
        _Canvas(figure)
        figure._repr_mimebundle_ = lambda **_: bundle
        return figure
    return drawn


def alternative_text(draw) -> str:
    """The first sentence of a drawing function's docstring, without marks of code."""
    summary = inspect.getdoc(draw).split("\n\n")[0]
    return " ".join(summary.split(". ")[0].replace("`", "").split()).removesuffix(".") + "."


def save(figure: Figure, folder, name: str) -> None:
    """Write NAME.pdf and NAME.png (200 dots per inch) into a folder, atomically; the same figure, the same bytes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with plt.style.context(["default", PRINT]):
        with atomic(Path(folder, f"{name}.pdf")) as partial:
            figure.savefig(partial, metadata={"CreationDate": None})
        with atomic(Path(folder, f"{name}.png")) as partial:
            figure.savefig(partial)


class _Canvas(FigureCanvasAgg):
    """What stores a figure as PNG, in a file or a notebook; once made, it is the figure's."""

    def print_png(self, filename_or_obj, *, metadata=None, pil_kwargs=None, **_):
        """Without images, of lines and text, 256 colours do, which are a quarter of the bytes.

        What else matplotlib passes is for other formats.
        """
        if any(axes.images for axes in self.figure.axes):
            return super().print_png(filename_or_obj, metadata=metadata, pil_kwargs=pil_kwargs)
        whole = io.BytesIO()
        super().print_png(whole, metadata=metadata, pil_kwargs=pil_kwargs)
        drawn = Image.open(whole).convert("RGB").quantize(method=Image.Quantize.FASTOCTREE, dither=0)
        return drawn.save(filename_or_obj, "png", optimize=True, dpi=(self.figure.dpi,) * 2)


def label_styles(runs: list[Run]) -> dict[str, Style]:
    """A style for each label, in order of appearance.

    A method's own style goes to its first label; for CAWA to the label "CAWA" or to default settings, so
    that no ablation takes the colour of the method. The others have colours of no method that is there, as long as
    there are some.
    """
    labels: dict[str, Run] = {}  # label -> its first run
    for run in runs:
        labels.setdefault(name_of(run), run)
    own: dict[str, str] = {}  # label -> method
    for label, run in labels.items():
        method = run.config.method
        if method in METHOD_STYLES and method not in own.values() and (method != "cawa" or _is_plain_cawa(run)):
            own[label] = method
    taken = {METHOD_STYLES[method].colour for method in own.values()}
    others = itertools.cycle(sorted(OTHER_STYLES, key=lambda style: style.colour in taken))
    return {label: METHOD_STYLES[own[label]] if label in own else next(others) for label in labels}


def told_apart(labels, ours) -> list[str]:
    """Of labels the first, as many as one can tell apart by colour, and `ours` before them wherever it stands."""
    return sorted(labels, key=lambda label: label != ours)[:DISTINCT]


def _is_plain_cawa(run):
    default = all(getattr(run.config, field) == getattr(RunConfig, field) for field in CAWA_FIELDS)
    return name_of(run).lower() == "cawa" or default


def run_colours(run: Run, readable: bool = False) -> dict[str, np.ndarray]:
    """`class_colours` of a run's dataset."""
    return class_colours(run.metrics["classes"], run.metrics["palette"], readable)


def class_colours(classes, palette, readable: bool = False) -> dict[str, np.ndarray]:
    """Class name to RGB in [0,1], from the dataset's palette; `readable` darkens what is too light on paper."""
    colours = {}
    for name, colour in zip(classes, np.array(palette) / 255, strict=True):
        luminance = colour @ [0.299, 0.587, 0.114]
        colours[name] = colour * min(1, 0.55 / max(luminance, 1e-6)) if readable else colour
    return colours


# ---------------------------------------------------------------- labels clear of each other

def short(name: str, most: int = 24) -> str:
    """A name cut to what has room beside or above a panel."""
    return name if len(name) <= most else f"{name[:most - 1].rstrip()}…"


def spread(positions, gap: float, low: float, high: float) -> np.ndarray:
    """Positions moved as little as possible (least squares), in the same order, at least `gap` apart.

    They stay within [low, high] where there is room for all of them; else the gap shrinks to what fits.
    """
    positions = np.asarray(positions, float)
    if len(positions) == 0:
        return positions
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    # keeping a gap is keeping an order once the steps are taken away: that is isotonic regression
    moved = np.clip(isotonic_regression(positions[order] - steps).x, low, high - steps[-1]) + steps
    result = np.empty_like(positions)
    result[order] = moved
    return result


def label_line_ends(axes, x, values, names, colours) -> None:
    """Write each line's name to the right of the axes at the height of its end, moved apart, with a thin leader."""
    axes.figure.draw_without_rendering()  # fixes the axes' height, in which the gap is measured
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = np.array([to_axes.transform((x, value))[1] for value in values])
    for name, end, place, colour in zip(names, ends, spread(ends, 8 / height, 0, 1), colours, strict=True):
        axes.plot([1.005, 1.04], [end, place], color=colour, linewidth=0.5, transform=axes.transAxes, clip_on=False)
        axes.text(1.05, place, short(name), color=colour, va="center", transform=axes.transAxes)


AROUND = [(dx * d, dy * d) for d in (5, 9, 14, 20, 28, 38)
          for dx, dy in ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))]  # points from the dot, nearest first


def label_points(axes, x, y, names, low, high) -> None:
    """Name points where names cover neither each other nor a point or its interval [low, high].

    Tried in turn: right and left of the dot, above and below its interval, then farther off with a thin leader;
    where all places are taken, the one that covers least. An empty name is left out.
    """
    axes.figure.draw_without_rendering()  # fixes where points fall on the page
    scale = axes.figure.dpi / 72
    centres = axes.transData.transform(np.column_stack([x, y]))
    bottoms, tops = (axes.transData.transform(np.column_stack([x, np.where(np.isfinite(v), v, y)]))[:, 1]
                     for v in (low, high))
    dot = 2.5 * scale
    taken = [(cx - dot, min(bottom, cy - dot), cx + dot, max(top, cy + dot))
             for (cx, cy), bottom, top in zip(centres, bottoms, tops, strict=True)]
    frame = axes.get_window_extent().extents
    for i in np.argsort(x, kind="stable"):
        if not names[i]:
            continue
        text = axes.annotate(short(names[i]), (x[i], y[i]), (0, 0), textcoords="offset points", va="center",
                             annotation_clip=False,
                             arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": PALE, "shrinkA": 0})
        text.set(in_layout=False, path_effects=[withStroke(linewidth=1.5, foreground="white")])
        size = Text.get_window_extent(text).size  # of the words, without the leader
        top, bottom = (tops[i] - centres[i][1]) / scale, (bottoms[i] - centres[i][1]) / scale
        offsets = AROUND[:2] + [(0, end) for d in (6, 15, 24) for end in (top + d, bottom - d)] + AROUND[2:]
        boxes = [_box(centres[i], np.array(offset) * scale, size) for offset in offsets]
        cost = [_outside(box, frame) + sum(_overlap(box, other) for other in taken) for box in boxes]
        best = int(np.argmin(cost))  # the first among equals
        text.set_ha({1: "left", -1: "right", 0: "center"}[int(np.sign(offsets[best][0]))])
        text.xyann = offsets[best]
        text.arrow_patch.set_visible(best >= 4 and offsets[best] not in AROUND[2:6])
        taken.append(boxes[best])


def _box(centre, offset, size):
    """Left, bottom, right, top of a text of some size set off from a point."""
    x, y = centre + offset
    left = x - size[0] * {1: 0, -1: 1, 0: 0.5}[int(np.sign(offset[0]))]
    return left, y - size[1] / 2, left + size[0], y + size[1] / 2


def _overlap(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box, frame):
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)


# ---------------------------------------------------------------- seeds and intervals

def plain_log_ticks(axis, **locator) -> None:
    """Ticks of a logarithmic axis as plain numbers, such as 0.1 and 20, and none between them with a name.

    Args:
        axis: the x or y axis of axes whose scale is logarithmic.
        locator: what `matplotlib.ticker.LogLocator` takes.
    """
    axis.set_major_locator(LogLocator(**locator))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def seed_count(counts) -> str:
    """"3 seeds", or "2 to 3 seeds" where labels differ."""
    low, high = min(counts), max(counts)
    return f"{low} seed{'s' * (low != 1)}" if low == high else f"{low} to {high} seeds"


def half_widths(low, high):
    """Half widths for matplotlib's error bars; none where there is no interval."""
    return np.nan_to_num((np.asarray(high, float) - np.asarray(low, float)) / 2)
