"""A whole training step: torchvision's reference loop, ours with cross entropy, ours with CAWA.

    python benchmarks/step.py

Same network, same batch, same optimizer and precision; the three take turns. The batch starts on the host, as a data
loader yields it (`data_loading.py` is about loaders). On a CPU the batch is 2, on a GPU that of the paper-scale grids.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import pandas as pd
import torch
from common import machine, measure, median_ms, our_step, percent, prepare, random_images, ratio
from torch.nn import functional

from cawalib.runs import RunConfig

# name -> classes, height, width, batch on a GPU, network
SETUPS = {
    "Cityscapes, DeepLabV3+ R18": (19, 512, 1024, 8, "deeplabv3plus"),
    "Cityscapes, SegFormer-B0": (19, 512, 1024, 8, "segformer"),
    "ADE20K, DeepLabV3+ R18": (150, 512, 512, 16, "deeplabv3plus"),
    "ADE20K, SegFormer-B0": (150, 512, 512, 16, "segformer"),
}
WAYS = ("torchvision's loop", "ours, cross entropy", "ours, CAWA")


class SmoothedValue:
    """As in torchvision's reference: a series whose recent median and global average are printed."""

    def __init__(self):
        self.values, self.total, self.count = [], 0.0, 0

    def update(self, value):
        self.values = [*self.values[-19:], value]
        self.total, self.count = self.total + value, self.count + 1

    def __str__(self):
        return f"{torch.tensor(self.values).median().item():.4f} ({self.total / self.count:.4f})"


def reference_step(training, images, labels):
    """One step as in references/segmentation/train.py of torchvision: forward, cross entropy, backward, SGD, logger."""
    device, model = training.accelerator.device, training.network.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10_000, power=0.9)
    logger = {"loss": SmoothedValue(), "lr": SmoothedValue(), "time": SmoothedValue()}

    def step():
        started = time.time()
        image, target = images.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = functional.cross_entropy(model(image), target, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        logger["loss"].update(loss.item())
        logger["lr"].update(optimizer.param_groups[0]["lr"])
        logger["time"].update(time.time() - started)
        if logger["loss"].count % 10 == 0:
            "  ".join(f"{name}: {value}" for name, value in logger.items())

    return step


def make(shape, way, batch, compile_it=False):
    """The step of one way, and its training; `shape` is a value of SETUPS."""
    classes, height, width, gpu_batch, network = shape
    batch = batch or (gpu_batch if torch.cuda.is_available() else 2)
    config = RunConfig(network=network, method="cawa" if way == WAYS[2] else "none", optimizer="sgd",
                       learning_rate=0.001, augment=False, image_height=height, image_width=width, batch_size=batch,
                       epochs=10_000, compile=compile_it and way != WAYS[0])
    torch.manual_seed(0)
    training, images, labels = prepare(config, random_images(classes, batch, height, width))
    if way == WAYS[0]:
        return reference_step(training, images, labels), training
    return our_step(training, images, labels), training


def peak(shape, way, batch):
    """Peak memory of two steps in bytes: of the GPU, or of a whole process on the CPU."""
    step, _ = make(shape, way, batch)
    for _ in range(2):
        step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows_of(setup, rounds, batch, compile_it):
    made = {way: make(SETUPS[setup], way, batch, compile_it) for way in WAYS}
    spent = []
    weighting = made[WAYS[2]][1].criterion.weighting
    update = weighting.update

    def timed(feedback):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        update(feedback)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)

    seconds = measure({way: step for way, (step, _) in made.items()}, rounds)
    weighting.update = timed  # apart: on a GPU, waiting for it would slow the step
    for _ in range(rounds):
        made[WAYS[2]][0]()
    images = made[WAYS[1]][1].config.batch_size
    del made
    fresh = multiprocessing.get_context("forkserver")  # a process for each, of one that has imported everything
    fresh.set_forkserver_preload(["cawalib.training", "pandas"])
    with fresh.Pool(1, maxtasksperchild=1) as pool:
        peaks = [pool.apply(peak, (SETUPS[setup], way, batch)) for way in WAYS]
    for way, bytes_used in zip(WAYS, peaks, strict=True):
        cawa = way == WAYS[2]
        yield {"network and shape": setup, "batch": images, "way": way, "step (ms)": median_ms(seconds[way]),
               "times torchvision's throughput": ratio(seconds[WAYS[0]], seconds[way]),
               "added to cross entropy (%)": percent([one - other for one, other in zip(
                   seconds[way], seconds[WAYS[1]], strict=True)], seconds[WAYS[1]]) if cawa else "",
               "update alone (% of a step)": percent(spent, seconds[WAYS[1]]) if cawa else "",
               "peak memory (GiB)": f"{bytes_used / 2**30:.2f}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=SETUPS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=0, help="images; default: 2 on a CPU, 8 or 16 on a GPU")
    parser.add_argument("--compile", action="store_true", help="our network by torch.compile")
    options = parser.parse_args()
    rows = []
    for setup in options.setups:
        rows += rows_of(setup, options.rounds, options.batch, options.compile)
        print(f"{setup}: measured", flush=True)
    print(f"\n{machine()}; median, smallest to largest of {options.rounds} rounds\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
