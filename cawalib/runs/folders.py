"""Run folders: written whole, read back with their provenance, refused by name when they do not fit.

One run is one folder, `outputs/runs/<dataset>/<method>/<config hash>/seed<k>/`. `metrics.json` is written
last: it alone means that the run is done, and it holds checksums of every other file and of itself. A published run
lies in its study's archive instead, see `archive`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cawalib.datasets import ClassStatistics
from cawalib.files import content_sum, plain, read_arrays, sha256, write_json
from cawalib.runs.behaviour import outdated
from cawalib.runs.config import PLACE_FIELDS, RunConfig, config_from
from cawalib.runs.locks import RunError

WEIGHTS = ("score", "basic_weight", "ratio_weight", "weight")  # columns of class_weights.csv
FILES = ("config.json", "environment.json", "history.csv", "class_weights.csv", "samples.npz")


# ---------------------------------------------------------------- writing

def take_up(config: RunConfig, environment: dict) -> Run | None:
    """Look at what the run's folder holds: a finished run is returned, one that would come out otherwise moved aside.

    Args:
        environment: of the run to come, see `environment`; it is written when there is work to do.

    Returns:
        The finished run, or None when there is work to do (from a checkpoint, if one is there).

    Raises:
        RunError: the folder holds another configuration or was made from other data.
    """
    folder = config.folder
    if (folder / "config.json").is_file():
        found = _read_json(folder / "config.json")
        # a setting that it does not name came later, with a default that is what was done before
        different = [field.name for field in dataclasses.fields(config)
                     if found.get(field.name, field.default) != getattr(config, field.name)
                     and (field.name == "seed" or field.name not in PLACE_FIELDS)]
        if different:
            raise RunError(f"run folder {folder}: holds another configuration ('{different[0]}' is "
                           f"{found.get(different[0])!r} there, {getattr(config, different[0])!r} here); move it away")
    if any((folder / name).exists() for name in ("environment.json", "metrics.json", "checkpoint")):
        found = _environment(folder)
        different = outdated(config, found)
        different += [name for name in ("device_type", "precision") if found and found.get(name) != environment[name]]
        if different:
            set_aside(folder, different)
        elif found.get("data_digest") != environment["data_digest"]:
            raise RunError(f"run folder {folder}: made from other data of dataset '{config.dataset}' than now in "
                           f"'{config.data_root}'; choose another 'outputs_root' or move the folder away")
        elif found.get("initial_weights", "") != environment.get("initial_weights", ""):
            raise RunError(f"run folder {folder}: started from another file than '{config.initial_weights}' is now; "
                           "choose another 'outputs_root' or move the folder away")
    if (folder / "metrics.json").is_file():
        return load_run(folder)
    write_json(folder / "config.json", dataclasses.asdict(config))
    write_json(folder / "environment.json", environment)
    return None


def is_stale(config: RunConfig) -> bool:
    """Whether the run's folder holds a finished run that would come out differently today."""
    return (config.folder / "metrics.json").is_file() and bool(outdated(config, _environment(config.folder)))


def _environment(folder):
    path = folder / "environment.json"
    return _read_json(path) if path.is_file() else {}


def _read_json(path):
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"found {type(found).__name__}, expected dict")
        return found
    except (OSError, ValueError) as error:
        raise _unreadable(path.parent, path.name, error) from None


def _unreadable(folder, name, error):
    reason = " ".join(str(error).split())
    return RunError(f"run folder {folder}: {name} cannot be read ({reason}); delete the folder to train it again")


def set_aside(folder: Path, different: list[str]) -> None:
    """Move what a run folder holds beside it, undeleted; `different` says why, for the line that is printed."""
    number = 1
    while (target := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    target.mkdir()
    # what says how it was made goes last, so that a move broken off is taken up again
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "environment.json"):
        if path.name != ".lock":
            path.rename(target / path.name)
    print(f"{folder}: would come out differently now ({', '.join(different)}), moved to {target.name}")


def write_metrics(folder, metrics: dict) -> None:
    """Write metrics.json, with checksums of what else lies in the folder: the run is done."""
    folder = Path(folder)
    sums = {path.name: sha256(path) for path in map(folder.joinpath, FILES) if path.is_file()}
    metrics = plain(metrics)
    write_json(folder / "metrics.json", metrics | {"checksums": sums | {"metrics.json": content_sum(metrics)}})


# ---------------------------------------------------------------- reading

@dataclass(frozen=True)
class Run:
    """A run read back. Tables and arrays are read when asked for."""

    folder: Path
    config: RunConfig
    metrics: dict
    environment: dict
    label: str = ""  # the study's name for it
    group: str = ""  # the study's group it is compared in
    checksums: dict = field(default_factory=dict, repr=False)  # file name -> SHA-256; a run of before has none

    def file(self, name: str) -> Path:
        """A file of the run's folder, after a look at its checksum; raises RunError where that is another one."""
        path = self.folder / name
        if name in self.checksums and (not path.is_file() or sha256(path) != self.checksums[name]):
            raise RunError(f"run folder {self.folder}: {name} is not what the run wrote (its checksum is another one); "
                           "delete the folder to train it again")
        return path

    @cached_property
    def history(self) -> pd.DataFrame:
        """Per epoch: epoch, learning_rate, train_loss, val_miou, val_mean_accuracy, val_pixel_accuracy, seconds."""
        return self._table("history.csv")

    @cached_property
    def class_weights(self) -> pd.DataFrame:
        """Per recorded update and class: update, class, score, basic_weight, ratio_weight, weight."""
        # a class may be called 1 or None: nothing but an empty cell of a number is none
        return self._table("class_weights.csv", dtype={"class": str}, keep_default_na=False,
                           na_values=dict.fromkeys(WEIGHTS, ""))

    def _table(self, name, **options):
        try:
            return pd.read_csv(self.file(name), float_precision="round_trip", **options)
        except (OSError, ValueError) as error:
            raise _unreadable(self.folder, name, error) from None

    @property
    def has_samples(self) -> bool:
        """Whether there are pictures; a published run of real data has none, since images may not be passed on."""
        return (self.folder / "samples.npz").is_file()

    @property
    def statistics(self) -> ClassStatistics:
        """The training split's counts that every static weighting starts from."""
        kept = self.metrics
        return ClassStatistics(tuple(kept["classes"]), np.array(kept["train_pixels"]), np.array(kept["train_images"]),
                               np.array(kept["train_pixels_where_present"]), kept["train_size"])

    def decision(self, point: str | float = "balanced"):
        """What turns logits of this run's network into classes, a `method.Decision` (METHOD.md, section 6).

        Args:
            point: see `method.decision_at`; a run without weights of its own has the same decision at all of them.
        """
        import torch  # imported here: it takes seconds, and who plans a batch needs none of it

        from cawalib.method import decision_at

        weight = torch.tensor(self.metrics["line"]["weight"])
        return decision_at(weight if self.metrics["line"]["own"] else torch.ones_like(weight), point)

    # doors to a later room: whoever holds a run looks here for what can be done with it

    def load_model(self, device: str = "cpu"):
        """The trained network, in evaluation mode: images (B, 3, h, w), normalised, -> logits (B, C, h, w)."""
        from cawalib.predict import load_network

        return load_network(self, device).model

    def segment(self, photographs, out, point: str | float = "balanced", maps: bool = True) -> pd.DataFrame:
        """Masks, overlays, maps and areas of photographs; see `predict.segment`."""
        from cawalib.predict import load_network, segment

        return segment(load_network(self, "auto"), photographs, out, point, maps)

    def export(self, path, point: str | float = "rare") -> Path:
        """The network as one file, .safetensors, .onnx or .pt2; see `predict.export`."""
        from cawalib.predict import export, load_network

        return export(load_network(self), path, point)

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """images (N,H,W,3), labels, predictions (N,H,W) uint8; maps (N,C,H,W) uint8, 255 = 1; present (N,C) bool."""
        try:
            return read_arrays(self.file("samples.npz"))
        except ValueError as error:
            raise _unreadable(self.folder, "samples.npz", error) from None


def load_run(folder, label: str = "", group: str = "") -> Run:
    """Read a finished run.

    Raises:
        RunError: the folder is missing, not finished, cannot be read, or holds another file than the run wrote.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"run folder {folder}: not found; train it first")
    if not (folder / "metrics.json").is_file():
        raise RunError(f"run folder {folder}: not finished (no metrics.json); start the same run again, it resumes")
    try:
        config, metrics, environment = (_read_json(folder / f"{name}.json")
                                        for name in ("config", "metrics", "environment"))
        sums = metrics.pop("checksums", {})
        if sums and sums["metrics.json"] != content_sum(metrics):
            raise ValueError("metrics.json is not what the run wrote: its checksum is another one")
        run = Run(folder, config_from(config, where=f"{folder}/config.json"), metrics, environment, label, group, sums)
        run.file("config.json"), run.file("environment.json")
        return run
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"run folder {folder}: cannot be read ({error}); delete the folder to train it again") from None
