"""Every setting of a run, checked before anything is done.

This room imports nothing heavy: Snakemake reads it to list its jobs.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DATASETS = ("streets", "camvid", "cityscapes", "ade20k", "cocostuff", "cocostuff10k", "folder")
NETWORKS = ("small", "lraspp_mobilenet_v3_large", "unet", "deeplabv3plus", "segformer", "pspnet")


class Method(NamedTuple):
    """What a remedy for rare classes consists of: class weights, a loss, and how training images are drawn."""

    weighting: str = "uniform"
    loss: str = "cross_entropy"
    sampling: str = "uniform"


METHODS = {
    "none": Method(),
    # weights from class counts
    "inverse_frequency": Method("inverse_frequency"),
    "inverse_sqrt": Method("inverse_sqrt"),
    "median_frequency": Method("median_frequency"),
    "enet": Method("enet"),
    "effective_number": Method("effective_number"),
    # weights from predictions
    "recall": Method("recall"),
    "class_difficulty": Method("class_difficulty"),
    # losses
    "focal": Method(loss="focal"),
    "ohem": Method(loss="ohem"),
    "dice": Method(loss="dice"),
    "lovasz": Method(loss="lovasz"),
    "tversky": Method(loss="tversky"),
    "logit_adjustment": Method(loss="logit_adjustment"),
    "logit_variation": Method(loss="logit_variation"),
    # sampling
    "rare_class_sampling": Method(sampling="rare_classes"),
    # combinations
    "inverse_sqrt_dice": Method("inverse_sqrt", "cross_entropy_and_dice"),
    "cawa_dice": Method("cawa", "cross_entropy_and_dice"),
    "cawa_rare_class_sampling": Method("cawa", sampling="rare_classes"),
    "cawa": Method("cawa"),
}
# Settings of single methods; with another method they would do nothing, so they are refused there.
METHOD_FIELDS = {
    "effective_beta": ("effective_number",),
    "difficulty_exponent": ("class_difficulty",),
    "focal_gamma": ("focal",),
    "ohem_threshold": ("ohem",),
    "cross_entropy_share": ("dice", "lovasz", "tversky"),
    "tversky_beta": ("tversky",),
    "logit_adjustment_tau": ("logit_adjustment",),
    "logit_variation_sigma": ("logit_variation",),
    "sampling_temperature": ("rare_class_sampling", "cawa_rare_class_sampling"),
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
    "effective_beta": (0.01, 0.9999999),
    "difficulty_exponent": (0, 10),
    "focal_gamma": (0, 10),
    "ohem_threshold": (0.01, 0.9999),
    "cross_entropy_share": (0, 0.99),
    "tversky_beta": (0.01, 0.99),
    "logit_adjustment_tau": (0.01, 10),
    "logit_variation_sigma": (0.01, 100),
    "sampling_temperature": (0.001, 100),
    "validate_every": (1, 100_000),
    "data_workers": (0, 256),
    "seed": (0, 2**31 - 1),
    "pseudo_mask_threshold": (0.01, 0.99),
    "score_momentum": (0, 0.9999),
    "score_stride": (1, 32),
    "update_every": (1, 100_000),
    "feedback_images": (1, 4096),
    "weight_power": (0.1, 4),
    "frequency_prior": (0, 1),
    "warmup_epochs": (0, 100_000),
    "cooldown_epochs": (0, 100_000),
    "held_out_share": (0, 0.5),
}
# Settings of CAWA alone: with another method they would do nothing, so they are refused there.
CAWA_FIELDS = (
    "score_source", "weight_terms", "pseudo_mask_threshold", "score_parts", "score_momentum", "score_stride",
    "absent_images", "update_every", "feedback_images", "target_layer", "cam_kind", "exclusive_masks", "weight_power",
    "frequency_prior", "warmup_epochs", "cooldown_epochs", "held_out_share",
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
    val_is_test: bool = False  # cityscapes, ade20k, cocostuff: judge on the official val, choose on a share of train
    val_fraction: float = 0.2  # folder without lists, or val_is_test: share of the pairs that is kept for validation
    split_seed: int = 0  # which pairs these are
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
    effective_beta: float = 0.9999  # effective_number
    difficulty_exponent: float = 0.0  # class_difficulty: tau; 0: the dynamic one of its paper
    focal_gamma: float = 2.0  # focal: exponent of (1 - p)
    ohem_threshold: float = 0.7  # ohem: pixels are hard where the true class has less than this
    cross_entropy_share: float = 0.0  # dice, lovasz, tversky: of the loss, the rest is theirs
    tversky_beta: float = 0.7  # tversky: what a missed pixel costs; a false one costs the rest to 1
    logit_adjustment_tau: float = 1.0  # logit_adjustment
    logit_variation_sigma: float = 4.0  # logit_variation: deviation of the noise, before it is cut at 1
    sampling_temperature: float = 0.01  # rare_class_sampling
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
    exclusive_masks: bool = False  # a pixel only in the mask of the class whose map is largest there
    weight_power: float = 1.0  # exponent of BW * RW: above 1 stronger weights, below 1 weaker
    frequency_prior: float = 0.0  # e: weights are also divided by p**e, p the class's share of the pixels
    warmup_epochs: int = 0  # weights stay at their start for so many epochs, while scores gather
    cooldown_epochs: int = 0  # for so many epochs at the end weights go back to their start
    held_out_share: float = 0.0  # of the training images: kept from training, and scored instead of the batch
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
        if self.weighting != "cawa":
            self._refuse_unused(CAWA_FIELDS, f"method '{self.method}'")
        if self.cooldown_epochs and self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            raise ConfigError(f"parameter 'cooldown_epochs': found {self.cooldown_epochs}, which with warmup_epochs "
                              f"{self.warmup_epochs} leaves none of {self.epochs} epochs for feedback; lower it")
        for name, methods in METHOD_FIELDS.items():
            if self.method not in methods:
                self._refuse_unused((name,), f"method '{self.method}'")
        if self.dataset != "streets":
            self._refuse_unused(("imbalance",), f"dataset '{self.dataset}'")
        if self.dataset in ("streets", "camvid", "folder"):
            self._refuse_unused(("val_is_test",), f"dataset '{self.dataset}'")
        if self.dataset != "folder" and not self.val_is_test:
            self._refuse_unused(("val_fraction", "split_seed"), f"dataset '{self.dataset}' and its own splits")
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
        return METHODS[self.method].weighting

    @property
    def loss(self) -> str:
        return METHODS[self.method].loss

    @property
    def sampling(self) -> str:
        return METHODS[self.method].sampling

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
