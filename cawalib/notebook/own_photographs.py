"""For notebook 07: a network that is there or is trained now, photographs, and pictures of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cawalib.datasets import load_streets, read_photograph
from cawalib.files import atomic
from cawalib.method import POINTS
from cawalib.predict import TrainedNetwork, load_network, photographs_in
from cawalib.progress import say
from cawalib.results.figures import (
    PAGE,
    class_colours,
    draw_legend,
    in_print_style,
    legend_entries,
    legend_size,
    paint,
    show,
    shrunk,
)
from cawalib.runs import RunConfig, RunError
from cawalib.settings import DataConfig, check_choice
from cawalib.training import train

SCENES = 3


@dataclass(frozen=True)
class PhotographsConfig:
    """The notebook's parameters; raises ConfigError where the point or the device is none of its choices."""

    network: str = "outputs/runs"
    photographs: str = ""
    out: str = "outputs/photographs"
    point: str = "balanced"
    maps: bool = True
    epochs: int = 6
    device: str = "auto"

    def __post_init__(self):
        check_choice("point", self.point, tuple(POINTS))
        check_choice("device", self.device, ("auto", "cpu", "cuda"))


def network_of(config: PhotographsConfig) -> TrainedNetwork:
    """The network that is asked for; where no run is there yet, one that is trained now, on `streets` with CAWA."""
    try:
        return load_network(config.network, config.device)
    except RunError:
        if config.network != PhotographsConfig.network:
            raise
    say(f"no finished run in {config.network} yet: a small one is trained")
    run = train(RunConfig(dataset="streets", imbalance=100.0, method="cawa", epochs=config.epochs, batch_size=4,
                          learning_rate=0.006, scale_min=1.0, scale_max=1.5, device=config.device))
    return load_network(run, config.device)


def photographs_of(config: PhotographsConfig) -> dict[str, Path]:
    """Name -> file of the photographs that are asked for, or of a few test scenes of `streets`."""
    if config.photographs:
        return photographs_in(config.photographs, Path(config.out))
    folder = Path(config.out, "scenes")
    folder.mkdir(parents=True, exist_ok=True)
    scenes = load_streets(DataConfig(imbalance=100.0, image_height=192, image_width=256), "test")
    for index in range(SCENES):
        with atomic(folder / f"scene {index + 1}.png") as partial:
            Image.fromarray(scenes[index][0]).save(partial)
    return photographs_in(folder)


def by_point(network: TrainedNetwork, photographs: dict[str, Path]) -> list[dict[str, np.ndarray]]:
    """For each photograph: point -> classes (h, w) uint8, at the size at which the network saw it."""
    logits = (network.logits(read_photograph(path)[0])[None] for path in photographs.values())
    return [{point: network.decision(point)(own)[0].byte().cpu().numpy() for point in POINTS} for own in logits]


@in_print_style
def lines_drawn(network: TrainedNetwork, photographs: dict[str, Path], decided: list[dict[str, np.ndarray]],
                most: int = 3) -> Figure:
    """Photographs as rows; what the network makes of each at the three points as columns.

    Args:
        decided: see `by_point`.
        most: photographs that are shown.
    """
    pictures = [shrunk(read_photograph(path)[0], PAGE / 4) for path in list(photographs.values())[:most]]
    decided = decided[:most]
    colours = class_colours(network.classes, network.palette)
    entries = legend_entries([labels for points in decided for labels in points.values()], network.classes, colours)
    columns, extra = legend_size(entries, PAGE)
    heights = [PAGE / 4 * picture.shape[0] / picture.shape[1] for picture in pictures]
    figure, panels = plt.subplots(len(pictures), 4, squeeze=False, layout="compressed",
                                  figsize=(PAGE, sum(heights) + extra + 0.2), height_ratios=heights)
    for index, (row, picture, points) in enumerate(zip(panels, pictures, decided, strict=True)):
        show(row[0], picture, "" if index else "photograph")
        for axes, (point, labels) in zip(row[1:], points.items(), strict=True):
            # at the photograph's proportions, which the network's own size may not have
            stretched = np.array(Image.fromarray(labels).resize(picture.shape[1::-1], Image.Resampling.NEAREST))
            show(axes, paint(stretched, network.palette), "" if index else point)
    draw_legend(figure, entries, columns)
    return figure


def shares(areas: pd.DataFrame) -> pd.DataFrame:
    """Share of each photograph (columns) that each class covers (rows), in per cent; classes found nowhere left out."""
    table = 100 * areas.pivot(index="class", columns="photograph", values="share")
    table = table.loc[table.max(axis=1) > 0]
    return table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index].round(1)


def what_the_point_moves(network: TrainedNetwork, decided: list[dict[str, np.ndarray]]) -> str:
    """A sentence: which class gains and which loses most area between "accurate" and "rare"; `decided`: `by_point`."""
    accurate, rare = (100 * np.mean([np.bincount(labels[point].ravel(), minlength=len(network.classes))
                                     / labels[point].size for labels in decided], axis=0)
                      for point in ("accurate", "rare"))
    gain = rare - accurate
    if not gain.any():
        return "The point makes no difference here: the network has no weights of its own, or is sure of every pixel."
    up, down = int(gain.argmax()), int(gain.argmin())
    return (f"From accurate to rare, '{network.classes[up]}' goes from {accurate[up]:.1f} % to {rare[up]:.1f} % of the "
            f"pixels and '{network.classes[down]}' from {accurate[down]:.1f} % to {rare[down]:.1f} %.")
