"""What the parts share: how much they do, where they run, marks in time, and a row of the table."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import random_images
from step import SETUPS

from cawalib.datasets import SegmentationDataset, list_datasets
from cawalib.datasets.statistics import survey
from cawalib.runs import RunConfig
from cawalib.settings import DataConfig

OK, MISSED, NOT_HERE, SKIPPED, FAILED = "ok", "missed", "not here", "skipped (budget)", "failed"


@dataclass(frozen=True)
class Size:
    """How much the parts do."""

    setups: dict  # of the parts that measure a step, as in `step.SETUPS`
    rounds: int  # of a measurement, at most
    in_a_row: int  # steps between two looks at the clock
    networks: tuple[str, ...]  # of the parity
    steps: int  # of the parity
    run: dict  # settings of every run
    resumed: tuple[dict, ...]  # settings of the runs that are interrupted
    crowd: dict  # settings of the runs of which several go at once
    at_once: tuple[int, ...]
    workers: tuple[int, ...]  # processes that load images
    large_images: int  # of the size of Cityscapes, for the loading of images; 0: none


FULL = Size(
    setups=SETUPS, rounds=9, in_a_row=5, networks=("small", "segformer", "deeplabv3plus"), steps=3,
    run={"image_height": 96, "image_width": 128, "batch_size": 8, "train_images": 160},
    # without layers whose gradient has no fixed order on a GPU (max and adaptive pooling); the second has dropout
    resumed=({"epochs": 3, "train_images": 48}, {"epochs": 3, "train_images": 48, "network": "deeplabv3plus",
                                                 "encoder": "mobilenet_v2"}),
    crowd={"epochs": 20, "validate_every": 20}, at_once=(1, 2, 4, 8), workers=(0, 4, 8), large_images=192)
SMALLEST = Size(
    setups={"tiny": (5, 32, 64, 2, "small")}, rounds=2, in_a_row=2, networks=("small",), steps=2,
    run={"image_height": 32, "image_width": 64, "batch_size": 4, "train_images": 16},
    resumed=({"epochs": 2},), crowd={"epochs": 1}, at_once=(1, 2), workers=(0, 1), large_images=0)


@dataclass
class Bench:
    """Where the parts run.

    Args:
        device: "cuda" or "cpu".
        data: settings that name the data.
        folder: for the folders of runs, emptied afterwards.
        deadline: of the whole, on the clock of `time.monotonic`.
    """

    device: str
    size: Size
    data: dict
    folder: Path
    deadline: float
    _images: dict = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def config(self, **changes) -> RunConfig:
        place = {"device": self.device, "outputs_root": str(self.folder)}
        return RunConfig(**self.data | self.size.run | place | changes)

    def images(self, config: RunConfig) -> SegmentationDataset:
        """The training images alone, since reading the other splits of a large dataset takes minutes."""
        data = config.part(DataConfig)
        if data not in self._images:
            self._images[data] = list_datasets(data)["train"]
            self._images[data].keep()
            self._images[data].survey = survey(self._images[data])
        return self._images[data]

    def aimed(self, what: str, measured: str, aim: str, reached: bool) -> dict:
        """A row whose aim is one for a GPU: on a CPU the figures only show that the part works."""
        return row(what, measured, aim, reached) if self.on_gpu else row(what, measured, aim, NOT_HERE)

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def mark(self):
        """A mark in time: an event on a GPU, which the host does not wait for."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, marks: list[tuple]) -> list[float]:
        """Seconds between each pair of marks."""
        self.wait()
        if not self.on_gpu:
            return [end - start for start, end in marks]
        return [start.elapsed_time(end) / 1000 for start, end in marks]


def row(what: str, measured: str, aim: str = "", verdict: str | bool = True) -> dict:
    """A row of the table, without its part; the verdict: a word, or whether the aim is reached (True without one)."""
    if isinstance(verdict, bool):
        verdict = OK if verdict else MISSED
    return {"what": what, "measured": measured, "aim": aim, "verdict": verdict}


def milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ms"


def leading(text: str) -> float:
    """The number at the start of what `common.ratio` and `common.percent` write: the verdict is on what one reads."""
    return float(text.split()[0])


def release() -> None:
    """Give back what is no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def repeated_images(count: int, height: int, width: int) -> SegmentationDataset:
    """So many pairs of noise with Cityscapes' number of classes, eight different ones over and over."""
    few = random_images(19, 8, height, width)
    return SegmentationDataset(few.name, few.split, few.classes, few.palette, count, _Cycle(few), "random, repeated",
                               survey=survey(few))


class _Cycle:
    def __init__(self, pairs):
        self.pairs = pairs

    def __call__(self, index):
        return self.pairs[index % len(self.pairs)]
