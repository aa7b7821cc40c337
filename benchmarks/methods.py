"""What each remedy costs: a batch and a step of every method, and of some settings of CAWA, in turn.

    OMP_NUM_THREADS=1 python benchmarks/methods.py --write benchmarks/methods.md

The shape of the evidence study: small network, 11 classes, batches of 8 at 96x128, one thread. The batch comes from the
run's own loader, so that what sampling costs is in it.
"""

from __future__ import annotations

import argparse

import pandas as pd
import torch
from common import machine, measure, median_ms, random_images, ratio

from cawalib.files import atomic
from cawalib.runs import RunConfig
from cawalib.settings import METHODS
from cawalib.training import build_accelerator, set_up, training_step

WAYS = {method: {"method": method} for method in METHODS} | {
    "cawa, score from predictions": {"score_source": "prediction"},
    "cawa, score grid at full size": {"score_stride": 1},
    "cawa, maps of the encoder every 4th step": {"target_layer": "body.down.2", "update_every": 4},
    "cawa, held-out images": {"held_out_share": 0.1},
}
STEPS = 4  # in a row, so that an update every 4th step is in each round


def make(changes, dataset):
    """A function that does some batches and steps of a run."""
    config = RunConfig(**changes, epochs=10_000, device="cpu")
    training = set_up(config, {"train": dataset}, build_accelerator(config))
    training.model.train()
    batches = endless(training)

    def steps():
        for _ in range(STEPS):
            training_step(training, *next(batches))
            training.batch += 1

    return steps


def endless(training):
    while True:
        yield from training.loader


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", default="", help="a file: also write the table there, in Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # a hundred images with the size of CamVid's
    dataset = random_images(11, 100, 360, 480)
    seconds = measure({name: make(changes, dataset) for name, changes in WAYS.items()}, options.rounds)
    rows = [{"method": name, "batch and step (ms)": median_ms([one / STEPS for one in taken]),
             "times cross entropy (median, range)": ratio(taken, seconds["none"])} for name, taken in seconds.items()]
    table = pd.DataFrame(rows)
    print(f"{machine()}, small network, 96x128, batch 8, {options.rounds} rounds\n")
    text = table.to_markdown(index=False, disable_numparse=True)
    print(text)
    if options.write:
        with atomic(options.write) as partial:
            partial.write_text(f"# What each remedy costs\n\n{text}\n")


if __name__ == "__main__":
    main()
