"""Every setting of a run, checked before anything is done, and the studies that are grids of runs.

This room imports nothing heavy: Snakemake reads it to list its jobs.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

DATASETS = ("streets", "camvid", "cityscapes", "ade20k", "cocostuff", "cocostuff10k", "folder")
NETWORKS = ("small", "lraspp_mobilenet_v3_large", "unet", "deeplabv3plus", "segformer", "pspnet")
# A method is a class weighting and a loss.
METHODS = {
    "none": ("uniform", "cross_entropy"),
    "inverse_frequency": ("inverse_frequency", "cross_entropy"),
    "inverse_sqrt": ("inverse_sqrt", "cross_entropy"),
    "median_frequency": ("median_frequency", "cross_entropy"),
    "focal": ("uniform", "focal"),
    "recall": ("recall", "cross_entropy"),
    "cawa": ("cawa", "cross_entropy"),
}
SCORE_PARTS = ("iou", "dice", "precision", "recall")

CHOICES = {
    "dataset": DATASETS,
    "network": NETWORKS,
    "method": tuple(METHODS),
    "encoder_weights": ("none", "imagenet"),
    "optimizer": ("adamw", "sgd"),
    "evaluation": ("resize", "whole", "slide"),
    "device": ("auto", "cpu", "cuda"),
    "mixed_precision": ("auto", "no", "bf16", "fp16"),
    "score_source": ("cam", "prediction", "frozen", "shuffled"),
    "weight_terms": ("basic*ratio", "basic", "ratio", "neither"),
    "absent_images": ("count", "skip"),
    "cam_kind": ("grad_cam", "hires_cam", "layer_cam"),
}
# name -> (smallest, largest) value allowed
RANGES = {
    "imbalance": (10, 10_000),
    "train_images": (0, 10**9),
    "image_height": (32, 8192),
    "image_width": (32, 8192),
    "short_side": (0, 16384),
    "val_fraction": (0.001, 0.9),
    "split_seed": (0, 2**31 - 1),
    "largest_class_share": (0.1, 1),
    "epochs": (1, 100_000),
    "batch_size": (1, 4096),
    "learning_rate": (1e-8, 10),
    "weight_decay": (0, 1),
    "scale_min": (0.1, 10),
    "scale_max": (0.1, 10),
    "focal_gamma": (0, 10),
    "validate_every": (1, 100_000),
    "data_workers": (0, 256),
    "seed": (0, 2**31 - 1),
    "pseudo_mask_threshold": (0.01, 0.99),
    "score_momentum": (0, 0.9999),
    "score_stride": (1, 32),
    "update_every": (1, 100_000),
    "feedback_images": (1, 4096),
}
# Settings of CAWA alone: with another method they would do nothing, so they are refused there.
CAWA_FIELDS = (
    "score_source", "weight_terms", "pseudo_mask_threshold", "score_parts", "score_momentum", "score_stride",
    "absent_images", "update_every", "feedback_images", "target_layer", "cam_kind",
)
# Where and on what a run is computed, not what is computed: these stay out of the config hash.
PLACE_FIELDS = ("seed", "data_root", "prepared_root", "outputs_root", "device", "data_workers")


class ConfigError(ValueError):
    """A setting is wrong. The message is one line: the parameter, what was found, what was expected."""


@dataclass(frozen=True)
class RunConfig:
    """Every setting of one run; the field names are the notebooks' parameters.

    Raises:
        ConfigError: a value of the wrong type, not among the choices, out of range, or without effect.
    """

    # data
    dataset: str = "streets"
    data_root: str = "data"  # folder with the dataset; `streets` keeps its drawn scenes there
    prepared_root: str = "data/prepared"  # what notebook 01 writes: class counts and, if asked, decoded pairs
    imbalance: float = 1000.0  # streets: pixels of the most frequent class over the rarest one
    val_fraction: float = 0.2  # folder without lists: share of the pairs that is kept for validation
    split_seed: int = 0  # folder without lists: which pairs
    train_images: int = 0  # use only the first so many training images; 0: all
    image_height: int = 96  # pixels, what the network sees in training
    image_width: int = 128
    short_side: int = 0  # pixels, of images before scale and crop; 0: the short side of what the network sees
    # network
    network: str = "small"
    encoder: str = "default"  # segmentation-models-pytorch encoder name; default: resnet18, segformer mit_b0
    encoder_weights: str = "none"  # or "imagenet"
    # training
    method: str = "cawa"
    epochs: int = 10
    batch_size: int = 8
    optimizer: str = "adamw"
    learning_rate: float = 0.003  # at the start; polynomial decay, power 0.9
    weight_decay: float = 0.0005
    augment: bool = True  # random scale, crop, flip, colour
    scale_min: float = 0.5
    scale_max: float = 2.0
    largest_class_share: float = 1.0  # of a crop's labelled pixels: crops above are drawn again; 1: no limit
    focal_gamma: float = 2.0  # focal: exponent of (1 - p)
    validate_every: int = 5  # epochs
    compile: bool = False  # the network by torch.compile: a few minutes at the start for faster steps after
    evaluation: str = "resize"  # images at the size of training's; whole: at short_side; slide: in windows
    smoke: bool = False  # two batches per split and epoch, only to see that it runs; never compared
    # adaptive class weights (METHOD.md sections 1 to 4)
    score_source: str = "cam"  # what is scored against the labels
    weight_terms: str = "basic*ratio"  # what the class weight is made of
    pseudo_mask_threshold: float = 0.5  # tau
    score_parts: str = "iou,dice,precision,recall"  # CSPS is their mean
    score_momentum: float = 0.95  # m of the running score
    score_stride: int = 2  # labels are scored at 1/stride of their resolution
    absent_images: str = "count"  # or "skip": only images that hold the class count for it
    update_every: int = 1  # steps
    feedback_images: int = 8  # at most so many images of a batch are scored
    target_layer: str = "decoder"  # "decoder": the last classifier's input; or the name of a module of the body
    cam_kind: str = "grad_cam"  # or hires_cam, layer_cam
    # where and how it runs
    seed: int = 0
    device: str = "auto"
    mixed_precision: str = "auto"  # auto: bf16 or fp16 on a GPU, none on a CPU
    data_workers: int = 0  # processes that load images; 0: none
    outputs_root: str = "outputs"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), type(field.default), self)
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"parameter '{name}': found {value}, expected {low} to {high}")
        self._check_together()

    def _check_together(self):
        if self.scale_min > self.scale_max:
            raise ConfigError(f"parameter 'scale_min': found {self.scale_min}, above scale_max {self.scale_max}")
        for name in ("image_height", "image_width"):
            if getattr(self, name) % 32:
                raise ConfigError(f"parameter '{name}': found {getattr(self, name)}, expected a multiple of 32")
        if self.batch_size == 1 and self.network in ("deeplabv3plus", "pspnet"):
            raise ConfigError(f"parameter 'batch_size': found 1, expected at least 2 with network '{self.network}', "
                              "which normalises pooled features over the batch")
        parts = self.score_parts.split(",")
        for part in parts:
            _check_choice("score_parts", part, SCORE_PARTS)
        if len(set(parts)) != len(parts):
            raise ConfigError(f"parameter 'score_parts': found {self.score_parts!r}, expected each part once")
        if self.method != "cawa":
            self._refuse_unused(CAWA_FIELDS, f"method '{self.method}'")
        if self.method != "focal":
            self._refuse_unused(("focal_gamma",), f"method '{self.method}'")
        if self.dataset != "streets":
            self._refuse_unused(("imbalance",), f"dataset '{self.dataset}'")
        if self.dataset != "folder":
            self._refuse_unused(("val_fraction", "split_seed"), f"dataset '{self.dataset}'")
        if self.evaluation == "resize" and self.short_side:
            raise ConfigError(f"parameter 'short_side': found {self.short_side} with evaluation 'resize', which would "
                              "judge at another scale than it trains on; choose evaluation 'whole' or 'slide'")
        if not self.augment:
            self._refuse_unused(("scale_min", "scale_max", "largest_class_share"), "augment False")
        if self.network in ("small", "lraspp_mobilenet_v3_large"):
            self._refuse_unused(("encoder",), f"network '{self.network}'")
        if self.network == "small":
            self._refuse_unused(("encoder_weights",), "network 'small'")

    def _refuse_unused(self, names, where):
        for name in names:
            if getattr(self, name) != getattr(RunConfig, name):
                raise ConfigError(f"parameter '{name}': found {getattr(self, name)!r}, which has no effect with "
                                  f"{where}; leave it out")

    @property
    def weighting(self) -> str:
        return METHODS[self.method][0]

    @property
    def loss(self) -> str:
        return METHODS[self.method][1]

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits of what is computed; seed and place do not enter.

        Only settings that differ from their defaults do, so that a new setting renames no old run.
        """
        kept = {k: v for k, v in self.changed().items() if k not in PLACE_FIELDS}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder(self) -> Path:
        """The run's folder: outputs_root/runs/dataset/method/hash/seed."""
        return Path(self.outputs_root, "runs", self.dataset, self.method, self.hash, f"seed{self.seed}")

    def replace(self, **changes) -> RunConfig:
        return config_from(dataclasses.asdict(self) | changes)

    def changed(self) -> dict:
        """The settings that differ from the defaults: what to pass to a notebook to get this run."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                if getattr(self, f.name) != f.default}


def _check_type(name, value, expected, owner):
    if expected is float and type(value) is int:
        object.__setattr__(owner, name, float(value))
    elif type(value) is not expected:
        raise ConfigError(f"parameter '{name}': found {value!r} ({type(value).__name__}), expected {expected.__name__}")


def _check_choice(name, value, choices):
    if value not in choices:
        close = difflib.get_close_matches(value, choices, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(f"parameter '{name}': found {value!r}; {hint}expected one of {', '.join(choices)}")


def config_from(settings: dict, where: str = "settings") -> RunConfig:
    """A RunConfig from a dict; an unknown name is an error that suggests the nearest known one.

    Raises:
        ConfigError: an unknown name, or whatever RunConfig refuses.
    """
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"{where}: unknown parameter {name!r}{hint}")
    return RunConfig(**settings)


@dataclass(frozen=True)
class Entry:
    """One line of a study: a name to show, the group it is compared in, and its settings without the seed."""

    label: str
    group: str
    settings: dict
    seeds: tuple[int, ...]

    def config(self, seed: int) -> RunConfig:
        return config_from(self.settings | {"seed": seed}, where=f"study entry '{self.label}'")

    @property
    def notebook(self) -> str:
        return "03_cawa_training" if self.settings["method"] == "cawa" else "02_baseline"


@dataclass(frozen=True)
class Study:
    """A grid of runs, read from a YAML file in workflow/grids.

    Args:
        split: the one that its tables are about.
        targets: group -> what its baseline should reach before any comparison in it counts: {"miou": 0 to 1,
            "source": whose number it is}.
    """

    name: str
    entries: tuple[Entry, ...]
    split: str = "test"
    targets: dict[str, dict] = dataclasses.field(default_factory=dict)

    def configs(self) -> list[tuple[Entry, RunConfig]]:
        return [(entry, entry.config(seed)) for entry in self.entries for seed in entry.seeds]

    def group(self, group: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.group == group]

    @property
    def compared(self) -> list[str]:
        """The groups that are compared with a baseline of their own: all but the ablations."""
        return [group for group in dict.fromkeys(entry.group for entry in self.entries) if group != "ablations"]


def group_folder(group: str) -> str:
    """The folder of a group's figures and tables below those of its study; "" for the main one, `methods`."""
    return "" if group in ("methods", "ablations") else "".join(c if c.isalnum() else "-" for c in group.lower())


def load_study(path, **overrides) -> Study:
    """Read a study: `common` settings, `seeds`, and per group a table label -> settings.

    Args:
        path: YAML file, keys `common` (dict), `seeds` (list of int), `groups` (group -> label -> settings);
            a label's settings may hold their own `seeds`. A group may hold its own `common` settings and a
            `target` (see `Study`), a file the `split` to report.
        overrides: settings put over every run's, such as `data_root`.

    Raises:
        ConfigError: the file is missing or malformed, or a run's settings are refused.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"study file {path}: not found")
    table = yaml.safe_load(path.read_text())
    missing = {"common", "seeds", "groups"} - set(table if isinstance(table, dict) else {})
    if missing:
        raise ConfigError(f"study file {path}: missing {', '.join(sorted(missing))}")
    entries, targets = [], {}
    for group, labels in table["groups"].items():
        labels = dict(labels)
        common = table["common"] | labels.pop("common", {})
        if "target" in labels:
            targets[group] = labels.pop("target")
        for label, settings in labels.items():
            settings = dict(settings or {})
            seeds = tuple(settings.pop("seeds", table["seeds"]))
            entries.append(Entry(label, group, common | settings | overrides, seeds))
    study = Study(path.stem, tuple(entries), table.get("split", "test"), targets)
    _check_labels(path, study)
    study.configs()  # every run's settings are checked now, before any of them starts
    return study


def _check_labels(path, study):
    # the ablations are shown beside the methods
    scopes = [study.group(group) + (study.group("ablations") if group == "methods" else []) for group in study.compared]
    for labels in [[entry.label for entry in scope] for scope in scopes]:
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"study file {path}: label '{label}' stands there more than once")
