"""What a study in workflow/grids costs: hours per run from a measured training step.

    python benchmarks/study_cost.py cityscapes

On a GPU the step is measured at the study's batch. On a CPU it is measured at a batch of two and taken to grow with the
batch; GPU hours are then only an estimate from the operations of a step, at a throughput that is assumed and named.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from cawalib.datasets import FILE_DATASETS
from cawalib.datasets.statistics import ClassStatistics
from cawalib.method import Feedback
from cawalib.runs import load_study
from cawalib.training import Criterion, build_model, build_weighting

ASSUMED = 40e12  # operations per second that a training on a data-centre GPU sustains in bf16, at a cautious guess


def training_step(config, classes, batch, device):
    """A function that does one training step on random images, and the operations it takes per image."""
    model = build_model(config.replace(encoder_weights="none"), classes).to(device, memory_format=torch.channels_last)
    counts = np.ones(classes, dtype=np.int64)
    all_alike = ClassStatistics(tuple(map(str, range(classes))), counts, counts, counts, classes)
    criterion = Criterion(config, build_weighting(config, all_alike), all_alike).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    images = torch.randn(batch, 3, config.image_height, config.image_width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    # blocks of one class each, some ten classes an image, as in photographs
    labels = torch.randint(classes, (batch, 3, 3), device=device).float()[:, None]
    labels = torch.nn.functional.interpolate(labels, images.shape[-2:], mode="nearest")[:, 0].long()

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits, features = model(images, return_features=True)
        criterion.update(Feedback(labels, logits.detach(), features.detach(), model.classifier, model, images))
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops() / batch


def measure(steps, rounds, device):
    """Median seconds of each step, all of them taken in turn so that what else goes on falls on all alike."""
    seconds = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            _wait(device)
            started = time.perf_counter()
            step()
            _wait(device)
            if turn:  # the first one fills the allocator
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a grid in workflow/grids of cityscapes, ade20k or cocostuff")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    study = load_study(Path("workflow/grids", f"{options.study}.yaml"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, total = [], 0.0
    for group in study.compared:
        entries = {entry.label: entry.config(0) for entry in study.group(group)
                   if entry.settings["method"] in ("none", "cawa")}
        config = next(iter(entries.values()))
        data = FILE_DATASETS[config.dataset]
        batch = config.batch_size if device.type == "cuda" else 2
        made = {label: training_step(one, len(data.classes), batch, device) for label, one in entries.items()}
        seconds = measure({label: step for label, (step, _) in made.items()}, options.rounds, device)
        steps = config.epochs * (data.expected["train"] // config.batch_size)
        for label, (_, operations) in made.items():
            estimate = operations * config.batch_size * steps / ASSUMED / 3600
            hours = seconds[label] * config.batch_size / batch * steps / 3600
            rows.append({"group": group, "method": label, "batch": config.batch_size, "steps": steps,
                         f"measured step, batch {batch} (s)": f"{seconds[label]:.2f}",
                         f"{device.type.upper()} hours a run": f"{hours:.0f}",
                         "TFLOP an image": f"{operations / 1e12:.3f}",
                         f"GPU hours a run at {ASSUMED / 1e12:.0f} TFLOP/s": f"{estimate:.1f}"})
        total += estimate * sum(len(entry.seeds) for entry in study.group(group))
        print(f"{group}: measured", flush=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\nStudy `{study.name}`, {len(study.configs())} runs; {name}; median of {options.rounds} steps; without "
          f"evaluation. All runs at {ASSUMED / 1e12:.0f} TFLOP/s: {total:.0f} GPU hours, all methods "
          "counted alike.\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
