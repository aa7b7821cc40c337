"""A training step on the CPU in float32 and in bf16: `mixed_precision = "bf16"` asks for it.

    OMP_NUM_THREADS=1 python benchmarks/precision.py

The two take turns. Whether bf16 gains anything depends on the processor: the head line names what it has for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from common import measure, median_ms, our_step, prepare, random_images, ratio

from cawalib.runs import RunConfig

# name -> settings, classes: the networks of the evidence study, and the one most often compared with
NETWORKS = {
    "small, 8 images of 96x128": ({"network": "small"}, 11),
    "DeepLabV3+ MobileNetV2, 4 images of 128x256": (
        {"network": "deeplabv3plus", "encoder": "mobilenet_v2", "image_height": 128, "image_width": 256,
         "batch_size": 4}, 19),
    "DeepLabV3+ ResNet-18, 4 images of 128x256": (
        {"network": "deeplabv3plus", "encoder": "resnet18", "image_height": 128, "image_width": 256,
         "batch_size": 4}, 19),
}


def processor() -> str:
    """What the processor has for bf16, as Linux names it."""
    flags = Path("/proc/cpuinfo")
    known = flags.read_text().split() if flags.is_file() else []
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in known]
    return f"{torch.backends.cpu.get_cpu_capability()}, for bf16: {', '.join(found) or 'nothing'}"


def make(settings: dict, classes: int, precision: str):
    config = RunConfig(**settings, method="cawa", augment=False, epochs=10_000, mixed_precision=precision, device="cpu")
    images = random_images(classes, config.batch_size, config.image_height, config.image_width)
    return our_step(*prepare(config, images))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rows = []
    for name, (settings, classes) in NETWORKS.items():
        seconds = measure({precision: make(settings, classes, precision) for precision in ("no", "bf16")},
                          options.rounds)
        rows.append({"network": name, "float32 (ms a step)": median_ms(seconds["no"]),
                     "bf16 (ms a step)": median_ms(seconds["bf16"]),
                     "times as fast in bf16": ratio(seconds["no"], seconds["bf16"])})
    print(f"\nCPU, {torch.get_num_threads()} thread(s), {processor()}; median, smallest to largest of "
          f"{options.rounds} rounds\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
