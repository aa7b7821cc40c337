"""What the benchmarks of the training step share: a device, random images, and taking turns."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from torch.nn import functional

from cawalib.datasets import SegmentationDataset
from cawalib.runs import RunConfig
from cawalib.training import Training, build_accelerator, set_up, training_step


def machine() -> str:
    """The device that is used: the GPU where there is one."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, bf16"
    return f"CPU, {torch.get_num_threads()} threads, float32"


def random_images(classes: int, count: int, height: int, width: int, present: int = 0) -> SegmentationDataset:
    """Noise with labels in blocks of one class each, some ten classes an image, as in photographs.

    Args:
        present: how many classes there are in the first four images together; 0: whatever comes.
    """
    generator = np.random.default_rng(0)
    blocks = generator.integers(classes, size=(count, 4, 4))
    if present:
        blocks = generator.permutation(np.resize(np.arange(present), (count, 7, 7)).reshape(-1)).reshape(count, 7, 7)
    labels = functional.interpolate(torch.from_numpy(blocks)[:, None].float(), (height, width), mode="nearest")[:, 0]
    labels = labels.byte().numpy()
    images = generator.integers(256, size=(count, height, width, 3), dtype=np.uint8)
    names = tuple(f"class {index}" for index in range(classes))
    palette = tuple((index, index, index) for index in range(classes))
    return SegmentationDataset("random", "train", names, palette, count, lambda index: (images[index], labels[index]),
                               digest="random")


def prepare(config: RunConfig, dataset: SegmentationDataset) -> tuple[Training, torch.Tensor, torch.Tensor]:
    """A training as `cawalib.training.train` sets it up, and its first batch on the host."""
    training = set_up(config, {"train": dataset}, build_accelerator(config))
    training.model.train()
    pairs = [training.loader.dataset[index] for index in range(config.batch_size)]
    images, labels = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    if training.accelerator.device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    return training, images, labels


def our_step(training: Training, images: torch.Tensor, labels: torch.Tensor):
    """A function that does one whole step of the product's own loop, from the batch on the host."""
    device = training.accelerator.device

    def step():
        training.loss_sum += training_step(training, images.to(device, non_blocking=True),
                                           labels.to(device, non_blocking=True))
        training.batch = (training.batch + 1) % training.batches

    return step


def measure(ways: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in every round, taken in turn, so that what else goes on falls on all alike."""
    seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            _wait()
            started = time.perf_counter()
            way()
            _wait()
            if turn:  # the first one fills allocators
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(over: list[float], under: list[float], digits: int = 2) -> str:
    """Median of the ratios, round by round, with the smallest and the largest."""
    ratios = [one / other for one, other in zip(over, under, strict=True)]
    return f"{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f} to {max(ratios):.{digits}f})"


def median_ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f}"


def percent(over: list[float], under: list[float]) -> str:
    """As `ratio`, in percent."""
    return ratio([100 * one for one in over], under)
