"""Every figure, drawn from finished runs or from class counts alone. Each function returns a figure; `save` stores it.

Means are over seeds and say over how many; intervals are 95 % Student t intervals, bands run from the smallest
to the largest seed. With one seed there is neither, and the figure says "1 seed".
"""

from cawalib.results.figures.curves import training_curves, weight_trajectories
from cawalib.results.figures.data import class_frequencies, co_occurrence
from cawalib.results.figures.decisions import both_halves, decision_curves, lead_against_skill
from cawalib.results.figures.differences import across_groups, difference_bars
from cawalib.results.figures.gains import gain_against_frequency, group_bars, imbalance_dial
from cawalib.results.figures.pictures import (
    draw_legend,
    legend_entries,
    legend_size,
    map_overlays,
    paint,
    qualitative,
    rarest_samples,
    show,
    shrunk,
)
from cawalib.results.figures.style import COLUMN, INK, PAGE, class_colours, in_print_style, save, short

__all__ = [
    "COLUMN", "INK", "PAGE", "across_groups", "both_halves", "class_colours", "class_frequencies", "co_occurrence",
    "decision_curves", "difference_bars", "draw_legend", "gain_against_frequency", "group_bars", "imbalance_dial",
    "in_print_style", "lead_against_skill", "legend_entries", "legend_size", "map_overlays", "paint", "qualitative",
    "rarest_samples", "save", "short", "show", "shrunk", "training_curves", "weight_trajectories",
]
