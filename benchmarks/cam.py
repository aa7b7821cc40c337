"""Class activation maps: this engine against pytorch-grad-cam, class by class, with the error beside the time.

    python benchmarks/cam.py

DeepLabV3+ MobileNetV2, 4 images of 256x128. In every round, all ways and one training step (cross entropy) are timed.
For the deeper layers, one of the ways goes back all the way to A for each class, as ours did before.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from common import machine, measure, median_ms, our_step, percent, prepare, random_images, ratio
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

from cawalib.method import class_activation_maps, find_layer, layer_activation_maps, layer_output
from cawalib.method.cam import finished, head_gradients, weighted_sums
from cawalib.runs import RunConfig

LAYERS = {"decoder output": "decoder", "ASPP": "body.decoder.aspp", "encoder output": "body.encoder.features.18"}


def whole_backward_pass(network, layer, images, classes, size):
    """Maps of a deeper layer (B, P, *size) by the gradient of every pixel of A, class by class."""
    target, features = layer_output(network, layer, images)

    def gradients():
        for gradient in head_gradients(features.detach(), network.classifier, classes):
            start = torch.empty_like(features).copy_(gradient)
            yield torch.autograd.grad(features, target, start, retain_graph=True)[0]

    return finished(weighted_sums(gradients(), target.detach(), "grad_cam"), size)


def rows_of(network, images, size, layer, classes, rounds, step):
    """One line of the table for a layer and a number of classes."""
    network.eval()
    images = images.to(next(network.parameters()).device)
    chosen = torch.arange(classes, device=images.device)
    module = network.body if LAYERS[layer] == "decoder" else find_layer(network, LAYERS[layer])
    everywhere = np.ones(size, np.float32)

    def theirs():
        with GradCAM(network, [module]) as cam:
            return np.stack([cam(images, [SemanticSegmentationTarget(index, everywhere)] * len(images))
                             for index in range(classes)], axis=1)

    def ours(images=images):
        if LAYERS[layer] != "decoder":
            return layer_activation_maps(network, LAYERS[layer], images, chosen, size)
        return class_activation_maps(held["features"], network.classifier, chosen, size)

    with torch.no_grad():  # a training step has this at hand; other layers are computed by the engine itself
        held = {"features": network.features(images)}
    error = np.abs(ours().cpu().numpy() - theirs()).max()
    network.train()

    def evaluating(way):
        def run():
            network.eval()
            way()
            network.train()
        return run

    ways = {"pytorch-grad-cam": evaluating(theirs), "ours": evaluating(ours), "step": step}
    if LAYERS[layer] != "decoder":
        quarter = images[:max(1, len(images) // 4)]
        ways["quarter"] = evaluating(lambda: ours(quarter))
        ways["whole"] = evaluating(lambda: whole_backward_pass(network, LAYERS[layer], images, chosen, size))
    return row_of(layer, classes, measure(ways, rounds), error, rounds)


def row_of(layer, classes, seconds, error, rounds):
    deeper = "whole" in seconds
    return {"layer": layer, "classes": classes, "training step (ms)": median_ms(seconds["step"]),
            "pytorch-grad-cam (ms)": median_ms(seconds["pytorch-grad-cam"]),
            "whole backward pass (ms)": median_ms(seconds["whole"]) if deeper else "",
            "ours (ms)": median_ms(seconds["ours"]),
            "times faster": ratio(seconds["pytorch-grad-cam"], seconds["ours"], 1),
            "times faster than the whole pass": ratio(seconds["whole"], seconds["ours"], 1) if deeper else "",
            "share of a step (%)": percent(seconds["ours"], seconds["step"]),
            "every 4th step, a quarter of the batch (%)":
            percent([one / 4 for one in seconds["quarter"]], seconds["step"]) if deeper else "",
            "largest difference": f"{error:.0e}", "rounds": str(rounds)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 11, 19, 50, 150])
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=LAYERS)
    parser.add_argument("--rounds", type=int, default=5, help="for up to 19 classes; for more, 1")
    parser.add_argument("--size", type=int, nargs=2, default=[128, 256], metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args()
    rows = []
    for classes in options.classes:
        height, width = options.size
        config = RunConfig(network="deeplabv3plus", encoder="mobilenet_v2", method="none", optimizer="sgd",
                           augment=False, image_height=height, image_width=width, batch_size=4, mixed_precision="no")
        training, images, labels = prepare(config, random_images(max(classes, 19), 4, height, width, classes))
        step = our_step(training, images, labels)
        for layer in options.layers:
            rounds = options.rounds if classes <= 19 else 1
            rows.append(rows_of(training.network, images, (height, width), layer, classes, rounds, step))
            print(f"{layer}, {classes} classes: measured", flush=True)
    print(f"\n{machine()}; DeepLabV3+ MobileNetV2, 4 images of {width}x{height}, float32; median, smallest to "
          "largest\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
