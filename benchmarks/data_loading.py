"""Images per second that reach the network: plain Pillow, torchvision's dataset class, ours, and ours decoded before.

    python benchmarks/data_loading.py --data-root /data/cityscapes
    python benchmarks/data_loading.py --dataset cocostuff --data-root /data/cocostuff --short-side 512

All ways take the same pairs in turn, round after round in one run, so that what else the machine does falls on all of
them. Files are read once before: what is measured is decoding and copying, not the disk.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cawalib.datasets import FILE_DATASETS, list_datasets, prepared
from cawalib.runs import RunConfig
from cawalib.training import TrainingImages


def torchvision_reader(config, split):
    """index -> arrays, through torchvision's own class of the dataset; None where it has none or cannot read it."""
    from torchvision.datasets import Cityscapes

    if config.dataset != "cityscapes" or not Path(config.data_root, "leftImg8bit").is_dir():
        return None
    files = Cityscapes(config.data_root, split=split, mode="fine", target_type="semantic")
    return lambda index: tuple(np.array(part) for part in files[index])


def readers(config, split, root, short_side):
    """name -> (index -> something read), bytes on disk per pair."""
    dataset = list_datasets(config, partly=True)[split]
    config = config.replace(evaluation="whole", short_side=min(dataset[0][1].shape))  # scaled relative to its own size
    pairs = dataset.read.args[0]
    originals = sum(path.stat().st_size for pair in pairs for path in pair) / len(pairs)
    ways = {"Pillow alone": (lambda index: tuple(np.array(Image.open(path)) for path in pairs[index]), originals)}
    if reader := torchvision_reader(config, split):
        ways["torchvision's dataset class"] = (reader, originals)
    ways["ours, originals"] = (dataset.read, originals)
    for name, side in (("ours, decoded", 0), (f"ours, decoded, short side {short_side}", short_side)):
        if side or name == "ours, decoded":
            folder = prepared.write(dataset, root, side)
            size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / len(dataset)
            ways[name] = (prepared.find(dataset, root, side), size)
            scaled = config.replace(short_side=side or config.short_side)
            with_transform = TrainingImages(_Pairs(ways[name][0], len(dataset)), scaled, scaled)
            ways[f"{name}, and augmented"] = (with_transform.__getitem__, size)
    ways["ours, originals, and augmented"] = (TrainingImages(dataset, config, config).__getitem__, originals)
    return ways, len(dataset)


class _Pairs:
    def __init__(self, read, length):
        self.read, self.length = read, length

    def __getitem__(self, index):
        return self.read(index)

    def __len__(self):
        return self.length


def measure(ways, length, images, rounds, full):
    """A row per way: median, smallest and largest images per second over the rounds, ratio to the first way."""
    for read, _ in ways.values():
        read(0)
    speeds = {name: [] for name in ways}
    for turn in range(rounds):
        for name, (read, _) in ways.items():
            started = time.perf_counter()
            for count in range(images):
                read((turn * images + count) % length)
            speeds[name].append(images / (time.perf_counter() - started))
    first = next(iter(speeds.values()))
    return pd.DataFrame([{
        "way": name, "images per second": f"{statistics.median(found):.1f}",
        "smallest to largest": f"{min(found):.1f} to {max(found):.1f}",
        "times Pillow": f"{statistics.median(a / b for a, b in zip(found, first, strict=True)):.2f}",
        "MB per pair on disk": f"{ways[name][1] / 1e6:.2f}",
        f"GB for all {full}": f"{ways[name][1] * full / 1e9:.1f}",
    } for name, found in speeds.items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cityscapes")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--short-side", type=int, default=512, help="pixels, of the smaller decoded pairs")
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=8, help="per round and way")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker process that loads data
    config = RunConfig(dataset=options.dataset, data_root=options.data_root, image_height=options.crop[0],
                       image_width=options.crop[1], largest_class_share=0.75)
    with tempfile.TemporaryDirectory() as root:
        ways, length = readers(config, options.split, root, options.short_side)
        full = FILE_DATASETS[options.dataset].expected[options.split]
        table = measure(ways, length, options.images, options.rounds, full)
    print(f"{options.dataset}, {options.split}, {length} pairs; one process, one thread; {options.rounds} rounds of "
          f"{options.images} pairs; augmented: scale 0.5 to 2, crop {options.crop[0]}x{options.crop[1]}, flip, "
          "colour\n")
    print(table.to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
