"""A step of somebody's own loop: `CAWALoss` in the place of PyTorch's cross entropy, and nothing else changed.

    OMP_NUM_THREADS=1 python benchmarks/own_loop.py

Same network, batch and optimizer; the ways take turns in one process, four steps each, so that `update_every=4` has
its one update in every turn. Labels are in blocks, a dozen classes an image.

Whole steps of seconds vary by more than a loss costs. So the loss is timed by itself as well, inside the same steps:
its call, update included, and its gradient to the logits. All else in a step is the same work, whichever the loss.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import pandas as pd
import segmentation_models_pytorch as smp
import torch
from common import machine, measure, median_ms, random_images
from torch import nn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from cawalib.method import CAWALoss

NETWORKS = {
    "DeepLabV3 MobileNetV3 (torchvision)": lambda classes: deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=classes),
    "U-Net ResNet-18 (smp)": lambda classes: smp.Unet("resnet18", encoder_weights=None, classes=classes),
}
PLAIN = "cross entropy"
WAYS = {
    PLAIN: lambda classes, network: nn.CrossEntropyLoss(ignore_index=255),
    "CAWALoss(classes, network)": CAWALoss,
    "CAWALoss(classes, network, update_every=4)": lambda classes, network: CAWALoss(classes, network, update_every=4),
    "CAWALoss(classes), scores from predictions": lambda classes, network: CAWALoss(classes),
}
STEPS = 4


def turn(network, way, classes, images, labels):
    """A function that does four steps of a loop; its `loss_seconds` are those of each step's loss alone."""
    device = images.device
    network = copy.deepcopy(network).to(device).train()
    criterion = WAYS[way](classes, network).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

    def steps():
        for _ in range(STEPS):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                output = network(images)
                logits = output["out"] if isinstance(output, dict) else output
                started = clock()
                loss = criterion(logits, labels)
            gradient, = torch.autograd.grad(loss, logits, retain_graph=True)
            steps.loss_seconds.append(clock() - started)
            optimizer.zero_grad()
            logits.backward(gradient)
            optimizer.step()

    def clock():
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()  # what others do on the machine does not count

    steps.loss_seconds = []
    return steps


def rows_of(name, classes, size, batch, rounds):
    """A row for each way: the median step, over that of cross entropy, and what its loss alone makes of that."""
    torch.manual_seed(0)
    network = NETWORKS[name](classes)
    pairs = random_images(classes, batch, size, size)
    images = torch.stack([torch.from_numpy(pairs[index][0]) for index in range(batch)]).permute(0, 3, 1, 2) / 255
    labels = torch.stack([torch.from_numpy(pairs[index][1]) for index in range(batch)]).long()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = images.contiguous().to(device), labels.to(device)
    made = {way: turn(network, way, classes, images, labels) for way in WAYS}
    seconds = measure(made, rounds)
    plain = statistics.median(seconds[PLAIN])
    # a mean, since of `update_every=4` every fourth step alone has an update; without the first turn, which warms up
    alone = {way: statistics.mean(steps.loss_seconds[STEPS:]) for way, steps in made.items()}
    for way in WAYS:
        yield {"network": name, "way": way, "step (ms)": median_ms([one / STEPS for one in seconds[way]]),
               "times cross entropy": f"{statistics.median(seconds[way]) / plain:.3f}",
               "loss alone (ms)": f"{1000 * alone[way]:.1f}",
               "times cross entropy, by the loss alone": f"{1 + (alone[way] - alone[PLAIN]) / (plain / STEPS):.3f}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--size", type=int, default=256, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = []
    for name in options.networks:
        rows += rows_of(name, options.classes, options.size, options.batch, options.rounds)
    print(f"{machine()}; {options.classes} classes, {options.batch} images of {options.size}x{options.size}; ratio of "
          f"medians of {options.rounds} rounds of {STEPS} steps\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
