"""The tiny runs behind a run's provenance (`runs.behaviour`): made, held against their committed numbers, accepted.

    python -m cawalib.training.tiny_runs             what comes out differently than the committed numbers say
    python -m cawalib.training.tiny_runs --accept    it is on purpose: new numbers, and a new version of what changed
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cawalib.files import write_json
from cawalib.runs import ARCHIVE, Run, RunConfig, behaviour, outdated, read_archive
from cawalib.training.run import train

CASES = behaviour.CASES
REFERENCE = Path(__file__).resolve().parents[2] / "outputs" / "reference"
CLASSES = ("sky", "road", "bush", "car", "sign")
COLOURS = np.array([(120, 150, 220), (90, 90, 90), (60, 140, 60), (200, 60, 40), (230, 220, 60)])
# Largest difference taken for rounding, relative and absolute, by quantity. Two to three times what was seen between
# processors of two makers, with and without AVX-512, and between oneDNN and PyTorch's own convolutions; faults make far
# larger ones.
TOLERANCE = {"train_loss": (0.01, 0), "learning_rate": (1e-6, 0), "metrics": (0, 0.03), "weight": (0.05, 0.004),
             "score": (0, 0.01), "decision": (0, 0.06), "line": (0.05, 0.004), "updates": (0, 0),
             "parameters": (0.003, 0), "pictures": (0.02, 0)}
# large networks, whose normalisation over few pixels blows rounding errors up
NETWORK_TOLERANCE = TOLERANCE | {"train_loss": (0.04, 0), "metrics": (0, 0.05), "decision": (0, 0.2),
                                 "pictures": (0.08, 0)}
# a share of wrongly predicted pixels of the last batch alone: a few pixels that flip are percents of it
RECALL_TOLERANCE = TOLERANCE | {"weight": (0.1, 0.002), "line": (0.1, 0.002)}
# weights that come from another run, go back to 1 at once, or are wider apart: one pixel at a threshold tells more
BLOWN_UP = ("score_source frozen", "score_source permuted", "cooldown_epochs", "weight_terms ratio")
BLOWN_UP_TOLERANCE = TOLERANCE | {"train_loss": (0.03, 0), "metrics": (0, 0.09), "decision": (0, 0.18)}


# ---------------------------------------------------------------- making them

def write_scenes(root) -> None:
    """A handful of scenes as a `folder` dataset, made of whole numbers alone, so that they are the same everywhere."""
    root, random = Path(root), np.random.default_rng(20)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows = [f"{index},{name}\n" for index, name in enumerate(CLASSES)]
    (root / "classes.csv").write_text("id,name\n" + "".join(rows) + "255,void\n")
    for split, count in (("train", 16), ("val", 4), ("test", 4)):
        names = [f"{split}{number:02d}" for number in range(count)]
        for number, name in enumerate(names):
            image, labels = _scene(random, number)
            Image.fromarray(image).save(root / "images" / f"{name}.png")
            Image.fromarray(labels).save(root / "masks" / f"{name}.png")
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")


def _scene(random, number):
    """Sky over a road with bushes, mostly a car, a sign in every other scene, and two rows of void."""
    labels = np.zeros((48, 72), np.uint8)
    labels[int(random.integers(20, 30)):] = 1

    def box(value, height, width, top):
        row, column = int(random.integers(top, 48 - height)), int(random.integers(0, 72 - width))
        labels[row:row + height, column:column + width] = value

    for _ in range(2):
        box(2, 12, 10, 8)
    if random.integers(0, 4):
        box(3, 10, 16, 24)
    if number % 2 == 0:
        box(4, 5, 4, 4)
    labels[-2:] = 255
    shown = np.where(labels == 255, 1, labels)
    return np.clip(COLOURS[shown] + random.integers(-40, 41, (48, 72, 3)), 0, 255).astype(np.uint8), labels


def measure(folder) -> dict[str, dict]:
    """Train every tiny run below a folder. Case -> quantity -> list of numbers, NaN where there is none."""
    write_scenes(Path(folder) / "data")
    return {behaviour.name_of(case): numbers(make(case, folder)) for case in CASES}


def make(case: dict, folder) -> Run:
    """Train one tiny run below a folder with the scenes in `data`."""
    folder = Path(folder)
    place = {"data_root": str(folder / "data"), "prepared_root": str(folder), "outputs_root": str(folder / "outputs")}
    with contextlib.redirect_stdout(io.StringIO()):
        return train(RunConfig(**behaviour.BASE | place | case))


def numbers(run: Run) -> dict[str, list[float]]:
    """What tells one behaviour from another: losses, metrics, weights, parameters and pictures of a run."""
    history, weights, splits = run.history, run.class_weights, run.metrics["splits"]
    test = splits.get("test", splits["val"])
    state = torch.load(run.folder / "checkpoint" / "last.pt", weights_only=True)["model"]
    flat = torch.cat([value.double().flatten() for value in state.values()])
    first, last = (weights[weights["update"] == end] for end in (weights["update"].min(), weights["update"].max()))
    validated = history[["val_miou", "val_mean_accuracy", "val_pixel_accuracy"]].dropna().to_numpy().ravel()
    groups = [test["group_miou"][by][group] for by in ("pixels", "images") for group in ("head", "body", "tail")]
    found = {
        "train_loss": history["train_loss"], "learning_rate": history["learning_rate"],
        "metrics": [*validated, test["miou"], test["mean_accuracy"], test["pixel_accuracy"], *groups, *test["iou"]],
        "weight": [*first["weight"], *last["weight"]], "score": last["score"],
        "decision": _decided(test, len(splits)), "line": run.metrics["line"]["weight"],
        "updates": [weights["update"].nunique(), weights["update"].max()],
        "parameters": [flat.abs().sum(), (flat**2).sum()],
        "pictures": [run.samples[name].mean() for name in ("images", "maps", "predictions")],
    }
    # six digits are more than any tolerance asks for
    return {name: [math.nan if value is None else float(f"{float(value):.6g}") for value in values]
            for name, values in found.items()}


def _decided(measured, splits):
    """Pixel accuracy of every decision of a split, and the calibration errors; of how many splits."""
    found = measured["decision"]
    pixels = np.sum(measured["confusion"])
    hits = [*found["hits"], *(other["hits"] for other in found["others"].values())]
    return [*(np.sum(own) / pixels for own in hits), *found["calibration_error"].values(), splits]


# ---------------------------------------------------------------- comparing them

def differences(found: dict[str, dict], committed: dict[str, dict]) -> dict[str, str]:
    """Case -> in what it differs from the committed numbers by more than rounding; cases that agree are left out."""
    settings = {behaviour.name_of(case): case for case in CASES}
    told = {}
    for name, quantities in found.items():
        tolerance = _tolerance(settings[name])
        before = committed.get(name, {}).get("numbers", {})
        for quantity, values in quantities.items():
            relative, absolute = tolerance[quantity]
            expected = [math.nan if value is None else value for value in before.get(quantity, [])]
            if len(values) != len(expected) or not np.allclose(values, expected, relative, absolute, equal_nan=True):
                told.setdefault(name, f"{quantity} {_short(values)}, committed {_short(expected) or 'nothing'}")
    return told


def _tolerance(case):
    if behaviour.about(case) == "network":
        return NETWORK_TOLERANCE
    if behaviour.name_of(case) in BLOWN_UP:
        return BLOWN_UP_TOLERANCE
    return RECALL_TOLERANCE if case.get("method") == "recall" else TOLERANCE


def _short(values):
    return ", ".join(f"{value:.4g}" for value in values[:6])


def accept(found: dict[str, dict], changed) -> None:
    """Write new numbers and a raised version for what changed.

    A case that is new begins with version 1, which says that runs made before it are as good: so add the case first,
    and change what it is about after. One that is no longer made keeps its entry, so that its version never goes back.
    """
    kept = behaviour.table()
    version = {name: kept[name]["version"] + 1 if name in kept else 1 for name in changed}
    write_json(behaviour.TABLE, kept | {name: {"version": version[name], "numbers": found[name]} for name in changed})
    behaviour.table.cache_clear()


def published_and_stale(root=REFERENCE) -> list[str]:
    """A line per study and case: how many of its published runs would come out differently today because of it."""
    lines = []
    for path in sorted(Path(root).glob(f"*/{ARCHIVE}")):
        runs = read_archive(path).values()
        cases = Counter(case for run in runs for case in outdated(run.config, run.environment))
        lines += [f"{path.parent.name}: {count} of {len(runs)} runs ({case})" for case, count in cases.items()]
    return lines


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser("cawalib.training.tiny_runs", description="What the code computes, on tiny runs.")
    parser.add_argument("--accept", action="store_true", help="the changes are on purpose: raise versions")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(folder)
    changed = differences(found, behaviour.table())
    for name, what in changed.items():
        print(f"{name}: {what}")
    if options.accept and changed:
        accept(found, changed)
        print(f"{len(changed)} of {len(found)} cases have new numbers. Published runs that are stale now:")
        print("\n".join(published_and_stale()) or "none")
        return 0
    print(f"{len(found) - len(changed)} of {len(found)} cases as committed.")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
