"""The end of a run: the final evaluation and every file of its folder."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pandas as pd
import torch

from cawalib.files import write_arrays, write_json, write_table
from cawalib.runs import Run, load_run, write_metrics
from cawalib.training.evaluation import sample_predictions
from cawalib.training.loop import Training, judged, on_split


def finish(training: Training, environment: dict) -> Run:
    """Final evaluation and every file of the run folder; metrics.json last."""
    config, statistics, folder = training.config, training.statistics, training.config.folder
    started = time.perf_counter()
    known = {"val": training.validation} if training.validation else {}
    left_out = {"train"} if config.evaluate_test else {"train", "test"}
    splits = {split: known.get(split) or judged(training, split)
              for split in training.datasets if split not in left_out}
    if not training.accelerator.is_main_process:
        training.accelerator.wait_for_everyone()
        return load_run(folder)
    write_table(folder / "history.csv", pd.DataFrame(training.history))
    write_table(folder / "class_weights.csv", _weights_table(training))
    write_arrays(folder / "samples.npz", **on_split(sample_predictions, training, "val"))
    environment = environment | {"duration_seconds": round(training.seconds + time.perf_counter() - started, 1),
                                 "peak_memory_bytes": _peak_memory()}
    write_json(folder / "environment.json", environment)
    write_metrics(folder, {
        "dataset": config.dataset, "method": config.method, "seed": config.seed, "config_hash": config.hash,
        "smoke": config.smoke, "epochs": config.epochs, "steps": config.epochs * training.batches,
        "classes": statistics.classes, "palette": training.datasets["train"].palette,
        "train_pixels": statistics.pixels, "train_images": statistics.images,
        "train_pixels_where_present": statistics.pixels_where_present, "train_size": statistics.size,
        "groups": statistics.groups, "splits": splits, "line": training.line.written(),
    })
    training.accelerator.wait_for_everyone()
    return load_run(folder)


def _weights_table(training):
    values = np.concatenate(training.weights)
    updates = [update * training.config.update_every for update in training.recorded]
    table = pd.DataFrame({"update": np.repeat(updates, len(training.statistics.classes)),
                          "class": np.tile(training.statistics.classes, len(values))})
    for index, name in enumerate(("score", "basic_weight", "ratio_weight", "weight")):
        table[name] = values[:, index].reshape(-1)
    return table


def _peak_memory():
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
