"""What the default update costs against the number of classes, the size of the images and the batch.

    python benchmarks/scaling.py

DeepLabV3+ MobileNetV2, all classes present. Each line's update and its training step (cross entropy) take turns.
"""

from __future__ import annotations

import argparse

import pandas as pd
import torch
from common import machine, measure, median_ms, our_step, percent, prepare, random_images

from cawalib.method import CAWAWeighting, Feedback
from cawalib.runs import RunConfig

BASE = {"classes": 19, "height": 256, "width": 512, "batch": 4}
VARIED = {
    "classes": [{"classes": count} for count in (5, 11, 19, 50, 150)],
    "size": [{"height": side, "width": 2 * side} for side in (128, 256, 512)],
    "batch": [{"batch": count} for count in (2, 4, 8)],
}


def row_of(varied, classes, height, width, batch, rounds):
    config = RunConfig(network="deeplabv3plus", encoder="mobilenet_v2", method="none", optimizer="sgd",
                       learning_rate=0.001, augment=False, image_height=height, image_width=width, batch_size=batch)
    training, images, labels = prepare(config, random_images(classes, batch, height, width, classes))
    device, network = training.accelerator.device, training.network
    images, labels = images.to(device), labels.to(device)
    with torch.no_grad():
        features = network.features(images.contiguous(memory_format=torch.channels_last))
    weighting, feedback = CAWAWeighting(classes).to(device), Feedback(labels, None, features, network.classifier)
    ways = {"step": our_step(training, images, labels), "update": lambda: weighting.update(feedback)}
    seconds = measure(ways, rounds)
    return {"varied": varied, "classes": classes, "image": f"{width}x{height}", "batch": batch,
            "update (ms)": median_ms(seconds["update"]), "step (ms)": median_ms(seconds["step"]),
            "share (%)": percent(seconds["update"], seconds["step"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--varied", nargs="+", default=list(VARIED), choices=VARIED)
    options = parser.parse_args()
    rows = [row_of(varied, **BASE | change, rounds=options.rounds)
            for varied in options.varied for change in VARIED[varied]]
    print(f"{machine()}; DeepLabV3+ MobileNetV2; median, smallest to largest of {options.rounds} rounds\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
