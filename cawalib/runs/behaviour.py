"""What a run would come out as: tiny fixed runs with committed numbers, and which of them speak for which run.

A run is stale when it would come out differently, not when a file reads differently. So each method, network and option
has a case: a run of seconds on a handful of scenes (`training.tiny_runs`), whose numbers stand in `behaviour.json`
with a version. Whoever changes numbers on purpose raises the version of the cases that changed, by

    python -m cawalib.training.tiny_runs --accept

A run records the versions of the cases that speak for it. It is stale when one of them was raised since.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

from cawalib.runs.config import RunConfig
from cawalib.settings import METHODS

TABLE = Path(__file__).with_name("behaviour.json")
# of every tiny run; the seed is not the default one, so that a seed that never arrives is noticed
BASE = {"dataset": "folder", "method": "none", "image_height": 32, "image_width": 64, "epochs": 3, "batch_size": 4,
        "learning_rate": 0.005, "validate_every": 2, "seed": 3, "device": "cpu", "mixed_precision": "no"}
# plain gradient descent and two steps: in large networks, Adam and every further step blow rounding errors up
NETWORK = {"optimizer": "sgd", "batch_size": 16, "epochs": 2}
CAWA = {"method": "cawa"}
# The settings of each tiny run besides BASE. The last one is what it is about.
CASES = (
    {"method": "none"},
    *({"method": name} for name in METHODS if name not in ("none", "ohem")),
    {"epochs": 8, "method": "ohem"},  # at the start all pixels are hard
    {"method": "effective_number", "effective_beta": 0.8},
    {"method": "class_difficulty", "difficulty_exponent": 2.0},
    {"method": "focal", "focal_gamma": 0.5},
    {"method": "ohem", "ohem_threshold": 0.3},
    {"method": "dice", "cross_entropy_share": 0.5},
    {"method": "tversky", "tversky_beta": 0.3},
    {"method": "logit_adjustment", "logit_adjustment_tau": 0.5},
    {"method": "logit_variation", "logit_variation_sigma": 0.5},
    {"method": "rare_class_sampling", "sampling_temperature": 1.0},
    *(CAWA | {"score_source": name} for name in ("prediction", "both", "shuffled", "frozen", "permuted")),
    *({"method": "inverse_sqrt", "line_source": name} for name in ("prediction", "cam")),
    *(CAWA | {"weight_terms": name} for name in ("basic", "ratio", "neither")),
    CAWA | {"pseudo_mask_threshold": 0.8},
    CAWA | {"score_parts": "iou,recall"},
    CAWA | {"score_momentum": 0.5},
    CAWA | {"score_stride": 4},
    CAWA | {"absent_images": "skip"},
    CAWA | {"update_every": 3},
    CAWA | {"feedback_images": 2},
    CAWA | {"target_layer": "body.down.1"},
    *(CAWA | {"target_layer": "body.down.1", "cam_kind": name} for name in ("hires_cam", "layer_cam")),
    CAWA | {"exclusive_masks": True},
    CAWA | {"weight_power": 2.0},
    CAWA | {"frequency_prior": 0.5},
    CAWA | {"warmup_epochs": 1},
    CAWA | {"cooldown_epochs": 1},
    CAWA | {"held_out_share": 0.25},
    *(NETWORK | {"network": name} for name in ("lraspp_mobilenet_v3_large", "unet", "segformer", "pspnet")),
    NETWORK | {"encoder": "mobilenet_v2", "network": "deeplabv3plus"},
    {"optimizer": "sgd"},
    {"weight_decay": 0.5},
    {"augment": False},
    {"scale_min": 1.0},
    {"scale_max": 1.0},
    {"largest_class_share": 0.4},
    {"train_images": 9},
    {"mixed_precision": "bf16"},
    {"evaluate_test": False},
    {"other_decisions": True},
    {"ranked": True},
    {"evaluation": "whole"},
    {"short_side": 48, "evaluation": "slide"},
    {"evaluation": "whole", "short_side": 40},
)
EVERY_RUN = "every run"  # the case of plain cross entropy: what all runs share


def about(case: dict) -> str:
    """The setting that a case is about."""
    return list(case)[-1]


def name_of(case: dict) -> str:
    """What a case is called: its setting, with the value where that is one of a few."""
    setting = about(case)
    if case == CASES[0]:
        return EVERY_RUN
    return f"{setting} {case[setting]}" if _choices(setting) else setting


def speaks_for(case: dict, config: RunConfig) -> bool:
    """Whether what a case is about is in use in a run: the same choice, or any value but the default."""
    setting = about(case)
    value = getattr(config, setting)
    return case == CASES[0] or (value == case[setting] if _choices(setting) else value != getattr(RunConfig, setting))


@cache
def _choices(setting):
    return next(field for field in dataclasses.fields(RunConfig) if field.name == setting).metadata.get("choices")


@cache
def table() -> dict[str, dict]:
    """Case -> {"version": int, "numbers": what its tiny run gives}."""
    return json.loads(TABLE.read_text())


def versions(config: RunConfig, precision: str | None = None) -> dict[str, int]:
    """The present version of every case that speaks for a run.

    Args:
        precision: what `mixed_precision` "auto" came to on the device, where that is known.
    """
    config = config.replace(mixed_precision=precision) if precision else config
    return {name_of(case): table().get(name_of(case), {"version": 1})["version"]
            for case in CASES if speaks_for(case, config)}


def outdated(config: RunConfig, environment: dict) -> list[str]:
    """The cases whose version a run does not have; empty: the run would come out the same today.

    Args:
        environment: the run's, as environment.json has it. Under "behaviour" it says the versions; nothing there: all
            of it is outdated. A case that it does not name was added later: its first version is what the code did
            before as well.
    """
    recorded = environment.get("behaviour")
    if not recorded:
        return [EVERY_RUN]
    present = versions(config, environment.get("precision"))
    return [name for name, version in present.items() if recorded.get(name, 1) != version]
