"""One run's settings: all parts of `settings` together, with their hash and the folder that follows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cawalib.settings import (
    ConfigError,
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    NetworkConfig,
    TrainingConfig,
    likely_meant,
)

# Where and on what a run is computed, not what is computed: these stay out of the config hash.
PLACE_FIELDS = ("seed", "data_root", "prepared_root", "outputs_root", "device", "data_workers", "processes")
# How often a run is looked at, and what it is judged on and by besides: none of it changes the numbers that are there.
# Of mixed_precision, what it came to on the device counts, which a run records.
JUDGED_BESIDES = ("validate_every", "evaluate_test", "other_decisions", "ranked", "mixed_precision")
# What runs of different methods must have in common to be compared: all that is not the method's own (MethodConfig).
SHARED_FIELDS = tuple(
    field.name for part in (DataConfig, NetworkConfig, TrainingConfig, EvaluationConfig)
    for field in dataclasses.fields(part) if field.name not in (*PLACE_FIELDS, *JUDGED_BESIDES))


@dataclass(frozen=True)
class RunConfig(DataConfig, NetworkConfig, MethodConfig, TrainingConfig, EvaluationConfig):
    """Every setting of one run; the field names are the notebooks' parameters.

    Raises:
        ConfigError: whatever a part refuses, and settings of several parts that do not go together.
    """

    outputs_root: str = "outputs"  # where run folders go

    def _check(self):
        if self.batch_size % self.processes:
            raise ConfigError(f"parameter 'batch_size': found {self.batch_size}, expected a multiple of the "
                              f"{self.processes} processes that share it")
        if self.batch_size == self.processes and self.network in ("deeplabv3plus", "pspnet"):
            raise ConfigError(f"parameter 'batch_size': found {self.batch_size}, expected at least "
                              f"{2 * self.processes} with network '{self.network}', which normalises pooled features "
                              "over a process's batch")
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(f"parameter 'warmup_epochs': found {self.warmup_epochs}, which leaves none of "
                              f"{self.epochs} epochs for feedback; lower it")
        if self.cooldown_epochs and self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            raise ConfigError(f"parameter 'cooldown_epochs': found {self.cooldown_epochs}, which with warmup_epochs "
                              f"{self.warmup_epochs} leaves none of {self.epochs} epochs for feedback; lower it")
        if self.evaluation == "resize" and self.short_side:
            raise ConfigError(f"parameter 'short_side': found {self.short_side} with evaluation 'resize', which would "
                              "judge at another scale than it trains on; choose evaluation 'whole' or 'slide'")

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
        return Path(self.outputs_root, "runs", self.name)

    @property
    def name(self) -> str:
        """What tells a run from every other one: dataset/method/hash/seed."""
        return f"{self.dataset}/{self.method}/{self.hash}/seed{self.seed}"

    def replace(self, **changes) -> RunConfig:
        return config_from(dataclasses.asdict(self) | changes)

    def changed(self) -> dict:
        """The settings that differ from the defaults: what to pass to a notebook to get this run."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                if getattr(self, f.name) != f.default}


def config_from(settings: dict, where: str = "settings") -> RunConfig:
    """A RunConfig from a dict; an unknown name is an error that suggests the nearest known one.

    Raises:
        ConfigError: an unknown name, or whatever RunConfig refuses.
    """
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for name in settings:
        if name not in known:
            meant = [repr(other) for other in likely_meant(str(name), known)]
            hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
            raise ConfigError(f"{where}: unknown parameter {name!r}{hint}")
    return RunConfig(**settings)
