"""Run folders with made-up numbers, in the layout that training writes, for the tests of comparing and drawing."""

import dataclasses
import json

import numpy as np
import pandas as pd

from cawalib.files import write_arrays, write_json, write_table
from cawalib.runs import RunConfig, behaviour, load_run, versions, write_metrics

NAMES = ("road", "building", "sky", "vegetation", "pavement", "car", "fence", "pole", "pedestrian", "bicycle",
         "traffic sign")
PALETTE = ((128, 64, 128), (70, 70, 70), (70, 130, 180), (107, 142, 35), (244, 35, 232), (0, 0, 142),
           (190, 153, 153), (153, 153, 153), (220, 20, 60), (119, 11, 32), (220, 220, 0))


def raise_version(monkeypatch, case):
    """As if the code computed something else in a case since."""
    changed = behaviour.table() | {case: {"version": behaviour.table()[case]["version"] + 1}}
    monkeypatch.setattr(behaviour, "table", lambda: changed)


def classes(count):
    """Names, palette, pixels and images per class: a long tail."""
    if count <= len(NAMES):
        names, palette = list(NAMES[:count]), [list(c) for c in PALETTE[:count]]
    else:
        names = [f"{NAMES[i % len(NAMES)]} {i // len(NAMES)}" for i in range(count)]
        palette = np.random.default_rng(1).integers(0, 256, (count, 3)).tolist()
    pixels = (1e7 * 10 ** (-4 * np.arange(count) / max(1, count - 1))).astype(int)
    images = (300 * 10 ** (-1.2 * np.arange(count) / max(1, count - 1))).astype(int)
    return names, palette, pixels.tolist(), np.roll(images, count // 5).tolist()


def groups(names, counts):
    """The classes in thirds by falling count."""
    order = [names[i] for i in np.argsort(-np.array(counts), kind="stable")]
    return {group: list(part) for group, part in zip(("head", "body", "tail"), np.array_split(order, 3), strict=True)}


def measured(iou, names, groups):
    """One split's numbers from the IoU per class."""
    iou = np.asarray(iou, float)

    def mean(chosen):
        values = [value for name, value in zip(names, iou, strict=True) if name in chosen and np.isfinite(value)]
        return float(np.mean(values)) if values else None

    return {
        "miou": mean(names), "mean_accuracy": mean(names) + 0.1, "pixel_accuracy": mean(names) + 0.3,
        "group_miou": {by: {group: mean(chosen) for group, chosen in parts.items()} for by, parts in groups.items()},
        "iou": iou, "precision": np.minimum(iou + 0.1, 1), "recall": np.minimum(iou + 0.05, 1),
        "confusion": np.zeros((len(names), len(names)), int),
    }


def make_run(root, label="CAWA", seed=0, iou=None, splits=("val", "test"), count=5, group="methods", recorded=None,
             size=(48, 64), updates=12, **settings):
    """Write one run folder and read it back; `iou` (count,) are its numbers on every split, NaN where empty."""
    config = RunConfig(seed=seed, outputs_root=str(root), **settings)
    names, palette, pixels, images = classes(count)
    grouped = {"pixels": groups(names, pixels), "images": groups(names, images)}
    iou = np.linspace(0.9, 0.1, count) if iou is None else iou
    config.folder.mkdir(parents=True, exist_ok=True)
    write_json(config.folder / "config.json", dataclasses.asdict(config))
    recorded = versions(config) if recorded is None else recorded
    write_json(config.folder / "environment.json", {"behaviour": recorded, "data_digest": "b" * 64})
    write_table(config.folder / "history.csv", history(seed, float(np.nanmean(iou))))
    write_table(config.folder / "class_weights.csv", class_weights(names, seed, updates, config.method == "cawa"))
    write_arrays(config.folder / "samples.npz", **samples(count, seed, size))
    write_metrics(config.folder, {
        "dataset": config.dataset, "method": config.method, "seed": seed, "config_hash": config.hash, "smoke": False,
        "epochs": 8, "steps": 80, "classes": names, "palette": palette, "train_pixels": pixels,
        "train_images": images, "train_pixels_where_present": images, "train_size": 320, "groups": grouped,
        "splits": {split: measured(iou, names, grouped) | decided(iou, pixels, config.weighting != "uniform")
                   for split in splits},
        "line": {"weight": np.linspace(0.5, 1.5, count), "own": config.weighting != "uniform", "fitted": None},
    })
    return load_run(config.folder, label, group)


def decided(iou, pixels, own):
    """A split's curve and its confusion matrix as trained, in which a class misses as many pixels as it gets wrongly:
    with alpha rare classes lose and the most frequent one gains."""
    iou, truth = np.nan_to_num(np.asarray(iou, float)), np.asarray(pixels) // 1000 + 10
    alphas = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5) if own else (-1.0, -0.75, -0.5, -0.25, 0.0, 0.5, 1.0)

    def confusion(alpha):
        share = 2 * iou / (1 + iou) * (1 - 0.1 * alpha * np.linspace(-0.2, 1, len(iou)))
        hits = np.round(np.clip(share, 0, 1) * truth).astype(int)
        matrix = np.diag(hits)
        matrix[np.arange(len(iou)), np.arange(len(iou)) - 1] += truth - hits  # missed ones go to the class before
        return matrix

    matrices = {alpha: confusion(alpha) for alpha in alphas}
    some = {"hits": np.diag(matrices[0.0]), "predicted": matrices[0.0].sum(axis=0)}
    return {"confusion": matrices[0.0], "decision": {
        "alphas": alphas, "hits": [np.diag(matrix) for matrix in matrices.values()],
        "predicted": [matrix.sum(axis=0) for matrix in matrices.values()],
        "points": {"balanced": matrices[0.5], "accurate": matrices[1.0]} if own else {},
        "others": dict.fromkeys(("logit adjustment", "fitted", "half fitted", "RankSEG"), some),
        "calibration_error": {"0": 0.1} | ({"1": 0.05} if own else {}),
    }}


def history(seed, end, epochs=8):
    random = np.random.default_rng(seed)
    epoch = np.arange(1, epochs + 1)
    miou = end * (1 - np.exp(-epoch / 3)) + random.normal(0, 0.01, epochs)
    return pd.DataFrame({
        "epoch": epoch, "learning_rate": 0.003 * (1 - (epoch - 1) / epochs) ** 0.9,
        "train_loss": 2 * np.exp(-epoch / 4) + random.uniform(0.2, 0.3, epochs),
        "val_miou": np.where(epoch % 2 == 0, miou, np.nan), "val_mean_accuracy": miou, "val_pixel_accuracy": miou,
        "seconds": 1.0,
    })


def class_weights(names, seed, updates, adaptive):
    random = np.random.default_rng(seed)
    rows = []
    for update in range(updates if adaptive else 1):
        end = np.linspace(0.9, 0.15, len(names))
        score = 0.1 + (end - 0.1) * (1 - np.exp(-3 * update / updates)) + random.normal(0, 0.01, len(names))
        basic, ratio = 2 - score, score.mean() / score
        weight = basic * ratio / (basic * ratio).mean()
        if update < 2:
            score[-1] = np.nan  # the rarest class is not seen yet
        for values in zip(names, score, basic, ratio, weight, strict=True):
            rows.append((update, *values))
    table = pd.DataFrame(rows, columns=["update", "class", "score", "basic_weight", "ratio_weight", "weight"])
    return table if adaptive else table.assign(score=np.nan, weight=1.0)


def samples(count, seed, size, pictures=4):
    """Scenes of bands and boxes; truth and images do not depend on the seed, predictions do."""
    height, width = size
    random, own = np.random.default_rng(7), np.random.default_rng(seed)
    labels = np.zeros((pictures, height, width), np.uint8)
    for picture in labels:
        for band in range(min(4, count)):
            picture[band * height // 5:] = (2, 1, 3, 0)[band] if count > 3 else band
        for index in range(4, count) if count <= 11 else random.integers(4, count, 8):
            if random.random() < 0.8:
                top, left = random.integers(0, height * 3 // 4), random.integers(0, width * 3 // 4)
                picture[top:top + height // 6 + 1, left:left + width // 8 + 1] = index
        picture[-3:] = 255
    palette = np.vstack([np.array(classes(count)[1]), np.zeros((256 - count, 3))])
    images = np.clip(palette[labels] * 0.6 + 60 + random.normal(0, 12, (*labels.shape, 3)), 0, 255)
    predictions = np.where(labels == 255, 0, np.roll(labels, int(own.integers(1, 4)), axis=2))
    rows, columns = np.mgrid[:height, :width]
    maps = np.zeros((pictures, count, height, width), np.uint8)
    present = np.zeros((pictures, count), bool)
    for b, c in ((b, c) for b in range(pictures) for c in range(count)):
        where = np.argwhere(labels[b] == c)
        if len(where):
            present[b, c] = True
            y, x = where.mean(0)
            maps[b, c] = 255 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * (height / 6) ** 2))
    return {"images": images.astype(np.uint8), "labels": labels, "predictions": predictions.astype(np.uint8),
            "maps": maps, "present": present}


METHODS = {"cross entropy": "none", "inverse frequency": "inverse_frequency", "inverse square root": "inverse_sqrt",
           "median frequency": "median_frequency", "focal": "focal", "recall": "recall", "CAWA": "cawa"}
ABLATIONS = {"score from predictions": {"score_source": "prediction"}, "frozen weights": {"score_source": "frozen"},
             "shuffled over classes": {"score_source": "shuffled"}, "basic weight only": {"weight_terms": "basic"},
             "ratio weight only": {"weight_terms": "ratio"}, "tau 0.3": {"pseudo_mask_threshold": 0.3},
             "tau 0.7": {"pseudo_mask_threshold": 0.7}}


def make_study(root, count=11, seeds=(0, 1, 2), labels=(*METHODS, *ABLATIONS), **settings):
    """A study of methods and ablations, later ones a little better on rare classes."""
    entries = [(label, "methods", {"method": method}) for label, method in METHODS.items() if label in labels]
    entries += [(label, "ablations", changes) for label, changes in ABLATIONS.items() if label in labels]
    base = np.linspace(0.92, 0.05, count)
    runs = []
    for rank, (label, group, changes) in enumerate(entries):
        gain = 0.02 * min(rank, 6) * np.linspace(-0.2, 1, count) - (0.02 if group == "ablations" else 0)
        for seed in seeds:
            noise = (0.015 * np.random.default_rng(seed).normal(size=count)
                     + 0.008 * np.random.default_rng(100 * rank + seed).normal(size=count))
            runs.append(make_run(root, label, seed, np.clip(base + gain + noise, 0, 1), count=count, group=group,
                                 **changes, **settings))
    return runs


def edit(path, **changes) -> None:
    """Change what a JSON file of a run says, as another run would have written it: with checksums that fit."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    metrics = json.loads((path.parent / "metrics.json").read_text())
    metrics.pop("checksums", None)
    write_metrics(path.parent, metrics)
