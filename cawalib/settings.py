"""Every setting of a run, in one part for each room that reads it, checked when an instance is made.

A part is a frozen dataclass; `runs.RunConfig` is all of them together, flat, and its field names are the notebooks'
parameters. Nothing here knows a run, or needs more than Python.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import NamedTuple


class ConfigError(ValueError):
    """A setting is wrong. The message is one line: the parameter, what was found, what was expected."""


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
# those whose loss is, or holds, a cross entropy with class weights
WEIGHTED = tuple(name for name, method in METHODS.items()
                 if method.loss in ("cross_entropy", "cross_entropy_and_dice"))
SCORE_PARTS = ("iou", "dice", "precision", "recall")


# ---------------------------------------------------------------- what a part is made of

def choice(default: str, *others: str, methods: tuple[str, ...] = ()):
    """A setting with a few values; the default is one of them. With `methods`, only those read it."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others), "methods": methods})


def number(default, low, high, methods: tuple[str, ...] = ()):
    """A setting in a range. With `methods`, only those read it, and any other one refuses it."""
    return dataclasses.field(default=default, metadata={"range": (low, high), "methods": methods})


@dataclass(frozen=True)
class Settings:
    """The base of every part: types, choices and ranges are checked, then what the part itself says in `_check`.

    Raises:
        ConfigError: a value of the wrong type, not among the choices, out of range, or without effect.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            self._check_type(field)
            value = getattr(self, field.name)
            if "choices" in field.metadata:
                check_choice(field.name, value, field.metadata["choices"])
            low, high = field.metadata.get("range", (value, value))
            if not low <= value <= high:
                raise ConfigError(f"parameter '{field.name}': found {value}, expected {low} to {high}")
        for part in reversed(type(self).__mro__):
            if "_check" in vars(part):
                part._check(self)

    def _check_type(self, field):
        value, expected = getattr(self, field.name), type(field.default)
        if expected is float and type(value) is int:
            object.__setattr__(self, field.name, float(value))
        elif type(value) is not expected:
            raise ConfigError(f"parameter '{field.name}': found {value!r} ({type(value).__name__}), "
                              f"expected {expected.__name__}")

    def _refuse_unused(self, names, where):
        """Whoever sets what has no effect is told so, and does not take a run for another one."""
        for name in names:
            if getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"parameter '{name}': found {getattr(self, name)!r}, which has no effect with "
                                  f"{where}; leave it out")

    def part(self, kind: type[Settings]):
        """One part of these settings alone, such as `config.part(DataConfig)`."""
        return kind(**{field.name: getattr(self, field.name) for field in dataclasses.fields(kind)})


def check_choice(name: str, value: str, choices) -> None:
    """Raises ConfigError unless the value is one of the choices; the nearest one is suggested."""
    if value not in choices:
        close = difflib.get_close_matches(value, choices, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(f"parameter '{name}': found {value!r}; {hint}expected one of {', '.join(choices)}")


# what others call a setting
ALSO_CALLED = {"tau": "pseudo_mask_threshold", "threshold": "pseudo_mask_threshold", "lr": "learning_rate",
               "momentum": "score_momentum", "stride": "score_stride", "model": "network", "backbone": "encoder",
               "pretrained": "encoder_weights", "loss": "method", "weights": "method", "workers": "data_workers",
               "num_workers": "data_workers", "amp": "mixed_precision", "precision": "mixed_precision",
               "root": "data_root", "data": "dataset", "height": "image_height", "width": "image_width",
               "gamma": "focal_gamma", "cam": "cam_kind", "layer": "target_layer", "source": "score_source"}


def likely_meant(name: str, known) -> list[str]:
    """The known names, at most three, that somebody may have meant by another one."""
    meant = [ALSO_CALLED.get(name.lower(), ""), *difflib.get_close_matches(name, known, n=2),
             *(other for other in known if name.lower() in other.split("_"))]
    return [other for other in dict.fromkeys(meant) if other in known][:3]


# ---------------------------------------------------------------- the parts

@dataclass(frozen=True)
class DataConfig(Settings):
    """Which images and labels, and at what size: read by `datasets`."""

    dataset: str = choice("streets", "camvid", "cityscapes", "ade20k", "cocostuff", "cocostuff10k", "folder")
    data_root: str = "data"  # folder with the dataset; `streets` keeps its drawn scenes there
    prepared_root: str = "data/prepared"  # what notebook 01 writes: class counts and, if asked, decoded pairs
    imbalance: float = number(1000.0, 10, 10_000)  # streets alone: pixels of the most frequent class over the rarest
    rare_classes: str = choice("hard", "easy")  # streets alone: whether its rare classes are also the hard ones
    val_is_test: bool = False  # cityscapes, ade20k, cocostuff: judge on the official val, choose on a share of train
    val_fraction: float = number(0.2, 0.001, 0.9)  # folder without lists, or val_is_test: share kept for validation
    split_seed: int = number(0, 0, 2**31 - 1)  # which pairs these are
    train_images: int = number(0, 0, 10**9)  # use only the first so many training images; 0: all
    image_height: int = number(96, 32, 8192)  # pixels, what the network sees in training
    image_width: int = number(128, 32, 8192)
    short_side: int = number(0, 0, 16384)  # pixels, of images before scale and crop; 0: that of what the network sees
    data_workers: int = number(0, 0, 256)  # processes that load images; 0: none

    def _check(self):
        for name in ("image_height", "image_width"):
            if getattr(self, name) % 32:
                raise ConfigError(f"parameter '{name}': found {getattr(self, name)}, expected a multiple of 32")
        if self.dataset != "streets":  # what a notebook starts with stays there when the dataset is changed
            for name in ("imbalance", "rare_classes"):
                object.__setattr__(self, name, getattr(type(self), name))
        if self.dataset in ("streets", "camvid", "folder"):
            self._refuse_unused(("val_is_test",), f"dataset '{self.dataset}'")
        if self.dataset != "folder" and not self.val_is_test:
            self._refuse_unused(("val_fraction", "split_seed"), f"dataset '{self.dataset}' and its own splits")


@dataclass(frozen=True)
class NetworkConfig(Settings):
    """Which network: read by `training.models`."""

    network: str = choice("small", "lraspp_mobilenet_v3_large", "unet", "deeplabv3plus", "segformer", "pspnet")
    encoder: str = "default"  # segmentation-models-pytorch encoder name; default: resnet18, segformer mit_b0
    encoder_weights: str = choice("none", "imagenet")
    initial_weights: str = ""  # a .safetensors file of a run's network (cawalib.predict --export) to start from
    compile: bool = False  # the network by torch.compile: a few minutes at the start for faster steps after

    def _check(self):
        if self.network in ("small", "lraspp_mobilenet_v3_large"):
            self._refuse_unused(("encoder",), f"network '{self.network}'")
        if self.network == "small":
            self._refuse_unused(("encoder_weights",), "network 'small'")
        if self.initial_weights:
            self._refuse_unused(("encoder_weights",), "'initial_weights'")


@dataclass(frozen=True)
class MethodConfig(Settings):
    """Which remedy for rare classes and how it is set (METHOD.md): read by `training.criterion`."""

    method: str = choice("cawa", *(name for name in METHODS if name != "cawa"))
    effective_beta: float = number(0.9999, 0.01, 0.9999999, ("effective_number",))
    # class_difficulty: tau; 0: the dynamic one of its paper
    difficulty_exponent: float = number(0.0, 0, 10, ("class_difficulty",))
    focal_gamma: float = number(2.0, 0, 10, ("focal",))  # exponent of (1 - p)
    ohem_threshold: float = number(0.7, 0.01, 0.9999, ("ohem",))  # hard: the true class has less than this
    cross_entropy_share: float = number(0.0, 0, 0.99, ("dice", "lovasz", "tversky"))  # of the loss, the rest is theirs
    tversky_beta: float = number(0.7, 0.01, 0.99, ("tversky",))  # what a missed pixel costs; a false one the rest to 1
    logit_adjustment_tau: float = number(1.0, 0.01, 10, ("logit_adjustment",))
    # deviation of the noise, before it is cut at 1
    logit_variation_sigma: float = number(4.0, 0.01, 100, ("logit_variation",))
    sampling_temperature: float = number(0.01, 0.001, 100, ("rare_class_sampling", "cawa_rare_class_sampling"))
    # adaptive class weights (METHOD.md sections 1 to 4)
    # where the line between classes lies: with the class weights, or apart from them (METHOD.md, section 6)
    line_source: str = choice("weights", "prediction", "cam", methods=WEIGHTED)
    # what is scored against the labels; frozen and permuted: nothing, the weights are another run's last ones
    score_source: str = choice("cam", "prediction", "both", "frozen", "permuted", "shuffled")
    weight_terms: str = choice("basic*ratio", "basic", "ratio", "neither")  # what the class weight is made of
    pseudo_mask_threshold: float = number(0.5, 0.01, 0.99)  # tau
    score_parts: str = "iou,dice,precision,recall"  # CSPS is their mean
    score_momentum: float = number(0.95, 0, 0.9999)  # m of the running score
    score_stride: int = number(2, 1, 32)  # labels are scored at 1/stride of their resolution
    absent_images: str = choice("count", "skip")  # skip: only images that hold the class count for it
    update_every: int = number(1, 1, 100_000)  # steps
    feedback_images: int = number(8, 1, 4096)  # at most so many images of a batch are scored
    target_layer: str = "decoder"  # "decoder": the last classifier's input; or the name of a module of the body
    cam_kind: str = choice("grad_cam", "hires_cam", "layer_cam")
    exclusive_masks: bool = False  # a pixel only in the mask of the class whose map is largest there
    weight_power: float = number(1.0, 0.1, 4)  # exponent of BW * RW: above 1 stronger weights, below 1 weaker
    frequency_prior: float = number(0.0, 0, 1)  # e: weights are also divided by p**e, p the class's share of the pixels
    warmup_epochs: int = number(0, 0, 100_000)  # weights stay at their start for so many epochs, while scores gather
    cooldown_epochs: int = number(0, 0, 100_000)  # for so many epochs at the end weights go back to their start
    # of the training images: kept from training, and scored instead of the batch
    held_out_share: float = number(0.0, 0, 0.5)

    @property
    def weighting(self) -> str:
        return METHODS[self.method].weighting

    @property
    def loss(self) -> str:
        return METHODS[self.method].loss

    @property
    def keeps_weights(self) -> bool:
        """Whether the weights are the last ones of the same run with live feedback."""
        return self.score_source in ("frozen", "permuted")

    @property
    def sampling(self) -> str:
        return METHODS[self.method].sampling

    def _check(self):
        parts = self.score_parts.split(",")
        for part in parts:
            check_choice("score_parts", part, SCORE_PARTS)
        if len(set(parts)) != len(parts):
            raise ConfigError(f"parameter 'score_parts': found {self.score_parts!r}, expected each part once")
        if self.weighting != "cawa":
            self._refuse_unused(CAWA_FIELDS, f"method '{self.method}'")
        for field in dataclasses.fields(MethodConfig):
            if self.method not in field.metadata.get("methods", ()) and field.metadata.get("methods"):
                self._refuse_unused((field.name,), f"method '{self.method}'")


# Settings of CAWA alone: with another method they would do nothing, so they are refused there.
CAWA_FIELDS = tuple(field.name for field in dataclasses.fields(MethodConfig)
                    if field.name != "method" and not field.metadata.get("methods"))


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How the network is trained: read by `training`."""

    epochs: int = number(10, 1, 100_000)
    batch_size: int = number(8, 1, 4096)  # of all processes together
    optimizer: str = choice("adamw", "sgd")
    learning_rate: float = number(0.003, 1e-8, 10)  # at the start; polynomial decay, power 0.9
    weight_decay: float = number(0.0005, 0, 1)
    augment: bool = True  # random scale, crop, flip, colour
    scale_min: float = number(0.5, 0.1, 10)
    scale_max: float = number(2.0, 0.1, 10)
    largest_class_share: float = number(1.0, 0.1, 1)  # of a crop's labelled pixels: crops above are drawn again
    smoke: bool = False  # two batches per split and epoch, only to see that it runs; never compared
    seed: int = number(0, 0, 2**31 - 1)
    device: str = choice("auto", "cpu", "cuda")
    processes: int = number(1, 1, 4096)  # that share each batch, each on a GPU or cores of its own
    mixed_precision: str = choice("auto", "no", "bf16", "fp16")  # auto: bf16 or fp16 on a GPU, none on a CPU

    def _check(self):
        if self.scale_min > self.scale_max:
            raise ConfigError(f"parameter 'scale_min': found {self.scale_min}, above scale_max {self.scale_max}")
        if not self.augment:
            self._refuse_unused(("scale_min", "scale_max", "largest_class_share"), "augment False")


@dataclass(frozen=True)
class EvaluationConfig(Settings):
    """How the network is judged: read by `training.evaluation`."""

    validate_every: int = number(5, 1, 100_000)  # epochs
    # images at the size of training's; whole: at short_side; slide: in windows
    evaluation: str = choice("resize", "whole", "slide")
    evaluate_test: bool = True  # False: only the validation split is judged, as in studies that choose something
    other_decisions: bool = False  # also judge logit adjustment after training, and a line fitted to training images
    ranked: bool = False  # also judge RankSEG's decision, with the package `rankseg`

