"""Run folders: written atomically, read back with their provenance, refused by name when they do not fit.

One run is one folder, `outputs/runs/<dataset>/<method>/<config hash>/seed<k>/`. `metrics.json` is written
last: it alone means that the run is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

from cawalib.config import PLACE_FIELDS, RunConfig, config_from
from cawalib.datasets.statistics import ClassStatistics
from cawalib.files import write_json
from cawalib.studies import Study

ROOT = Path(__file__).resolve().parent.parent
# The rooms whose code decides the numbers of a run. Reading, comparing and drawing runs may change without making
# them stale.
COMPUTING_ROOMS = ("config", "sampling", "transforms", "models", "cam", "scoring", "weighting", "cawa", "losses",
                   "metrics", "evaluation", "checkpoints", "training")
PACKAGES = ("torch", "torchvision", "accelerate", "segmentation-models-pytorch", "grad-cam", "numpy", "pillow")


class RunError(RuntimeError):
    """A run folder cannot be used. The message is one line and names the folder."""


# ---------------------------------------------------------------- writing

@contextmanager
def claim(folder):
    """Make the folder, see that it can be written, and keep other processes out of it while a run writes there.

    Raises:
        RunError: the folder cannot be written, or another process is writing this very run.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", blocking=False)
        lock.acquire()
    except filelock.Timeout:
        raise RunError(f"run folder {folder}: another process is writing this run; wait for it to end") from None
    except OSError as error:
        raise RunError(f"run folder {folder}: cannot be written ({error.strerror}); "
                       "choose another 'outputs_root' or mend its permissions") from None
    try:
        yield folder
    finally:
        lock.release()
        _remove_if_empty(folder)


def _remove_if_empty(folder):
    # a run refused before it began leaves no trace, not even its empty parents up to `runs`
    if [path.name for path in folder.iterdir()] == [".lock"]:
        (folder / ".lock").unlink()
        for path in [folder, *folder.parents][:5]:
            if any(path.iterdir()):
                break
            path.rmdir()


def prepare(config: RunConfig, environment: dict) -> Run | None:
    """Look at what the run's folder holds: a finished run is returned, one of other code or device is moved aside.

    Args:
        environment: of the run to come, see `environment`; it is written when there is work to do.

    Returns:
        The finished run, or None when there is work to do (from a checkpoint, if one is there).

    Raises:
        RunError: the folder holds another configuration or was made from other data.
    """
    folder = config.folder
    if (folder / "config.json").is_file():
        found = json.loads((folder / "config.json").read_text())
        different = [k for k, v in dataclasses.asdict(config).items()
                     if found.get(k) != v and (k == "seed" or k not in PLACE_FIELDS)]
        if different:
            raise RunError(f"run folder {folder}: holds another configuration ('{different[0]}' is "
                           f"{found.get(different[0])!r} there, {getattr(config, different[0])!r} here); move it away")
    if (folder / "environment.json").is_file():
        found = json.loads((folder / "environment.json").read_text())
        different = [name for name in ("code_digest", "device_type", "precision")
                     if found.get(name) != environment[name]]
        if different:
            _set_aside(folder, different)
        elif found["data_digest"] != environment["data_digest"]:
            raise RunError(f"run folder {folder}: made from other data of dataset '{config.dataset}' than now in "
                           f"'{config.data_root}'; choose another 'outputs_root' or move the folder away")
    if (folder / "metrics.json").is_file():
        return load_run(folder)
    write_json(folder / "config.json", dataclasses.asdict(config))
    write_json(folder / "environment.json", environment)
    return None


def _set_aside(folder, different):
    # not deleted: what was made in another way stays beside the new run
    number = 1
    while (target := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    target.mkdir()
    for path in folder.iterdir():
        if path.name != ".lock":
            path.rename(target / path.name)
    print(f"{folder}: made with another {', '.join(different)}, moved to {target.name}")


def check_writable(root) -> None:
    """Raises RunError if `root` or the nearest folder above it that exists cannot be written."""
    folder = Path(root)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise RunError(f"parameter 'outputs_root': {folder} is not a folder that can be written; choose another one")


# ---------------------------------------------------------------- provenance

def code_digest() -> str:
    """SHA-256 over the source of every room that decides the numbers of a run."""
    package = Path(__file__).parent
    files = [package / f"{room}.py" for room in COMPUTING_ROOMS]
    files += [file for file in sorted((package / "datasets").glob("*.py")) if file.name != "download.py"]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def environment(device: str, precision: str, data_digest: str) -> dict:
    """Where a run's numbers come from: code, data, versions, device. No name or path of the machine.

    Args:
        device: what it runs on, "CPU, ..." or the name of a GPU.
        precision: "no", "bf16" or "fp16".
    """
    def git(*words):
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        except FileNotFoundError:  # no git on this machine
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD") or "unknown"
    dirty = bool(git("status", "--porcelain", "--", "cawalib", "notebooks"))
    return {
        "code_digest": code_digest(),
        "commit": commit + ("+uncommitted" if dirty else ""),
        "data_digest": data_digest,
        "device": device,
        "device_type": "cpu" if device.startswith("CPU") else "cuda",
        "precision": precision,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


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

    @cached_property
    def history(self) -> pd.DataFrame:
        """Per epoch: epoch, learning_rate, train_loss, val_miou, val_mean_accuracy, val_pixel_accuracy, seconds."""
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def class_weights(self) -> pd.DataFrame:
        """Per update and class: update, class, score, basic_weight, ratio_weight, weight."""
        return pd.read_csv(self.folder / "class_weights.csv")

    @property
    def statistics(self) -> ClassStatistics:
        """The training split's counts that every static weighting starts from."""
        kept = self.metrics
        return ClassStatistics(tuple(kept["classes"]), np.array(kept["train_pixels"]), np.array(kept["train_images"]),
                               np.array(kept["train_pixels_where_present"]), kept["train_size"])

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """images (N,H,W,3), labels, predictions (N,H,W) uint8; maps (N,C,H,W) uint8, 255 = 1; present (N,C) bool."""
        with np.load(self.folder / "samples.npz", allow_pickle=False) as arrays:
            return dict(arrays)


def load_run(folder, label: str = "", group: str = "") -> Run:
    """Read a finished run.

    Raises:
        RunError: the folder is missing, not finished, or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"run folder {folder}: not found; train it first")
    if not (folder / "metrics.json").is_file():
        raise RunError(f"run folder {folder}: not finished (no metrics.json); start the same run again, it resumes")
    try:
        parts = [json.loads((folder / f"{name}.json").read_text()) for name in ("config", "metrics", "environment")]
        return Run(folder, config_from(parts[0], where=f"{folder}/config.json"), parts[1], parts[2], label, group)
    except (OSError, json.JSONDecodeError, ValueError) as error:
        raise RunError(f"run folder {folder}: cannot be read ({error})") from None


def load_runs(study: Study, groups=None, allow_unfinished=False, allow_other_code=False,
              allow_smoke=False) -> list[Run]:
    """The runs of a study (or of some of its groups), every one of them checked.

    Raises:
        RunError: a run that is unfinished, from another code digest, or a smoke run, by name, unless allowed.
    """
    runs = []
    for entry, config in study.configs():
        if groups is not None and entry.group not in groups:
            continue
        try:
            run = load_run(config.folder, entry.label, entry.group)
        except RunError as error:
            if not allow_unfinished:
                raise RunError(f"'{entry.label}', seed {config.seed}: {error}") from None
            continue
        digest = run.environment["code_digest"]
        if digest != code_digest() and not allow_other_code:
            raise RunError(f"'{entry.label}', seed {config.seed}: run folder {run.folder} comes from other code "
                           f"(digest {digest[:8]}, now {code_digest()[:8]}); train again or set allow_other_code")
        if run.metrics["smoke"] and not allow_smoke:
            raise RunError(f"'{entry.label}', seed {config.seed}: run folder {run.folder} is a smoke run, good for "
                           "nothing but to see that it runs; train it in full or set allow_smoke")
        runs.append(run)
    return runs
