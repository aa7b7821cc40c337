"""A step of somebody's own loop: `CAWALoss` in the place of PyTorch's cross entropy, and nothing else changed.

    OMP_NUM_THREADS=1 python benchmarks/own_loop.py

Same network, batch and optimizer; the ways take turns in one process, four steps each, so that `update_every=4` has
its one update in every turn. Labels are in blocks, a dozen classes an image.
"""

from __future__ import annotations

import argparse
import copy
import statistics

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
    """A function that does four steps of a loop."""
    device = images.device
    network = copy.deepcopy(network).to(device).train()
    criterion = WAYS[way](classes, network).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

    def steps():
        for _ in range(STEPS):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                output = network(images)
                logits = output["out"] if isinstance(output, dict) else output
                loss = criterion(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def rows_of(name, classes, size, batch, rounds):
    """A row for each way: the median step, and its median over that of cross entropy."""
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
    for way in WAYS:
        yield {"network": name, "way": way, "step (ms)": median_ms([one / STEPS for one in seconds[way]]),
               "times cross entropy": f"{statistics.median(seconds[way]) / plain:.3f}"}


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
