"""Where a run's numbers come from: the behaviour of the code, the data, versions and device."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from cawalib import __version__
from cawalib.runs.behaviour import versions
from cawalib.runs.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "accelerate", "segmentation-models-pytorch", "grad-cam", "numpy", "pillow")


def environment(config: RunConfig, device: str, precision: str, data_digest: str) -> dict:
    """What a run's environment.json says. No name or path of the machine.

    Args:
        device: what it runs on, "CPU, ..." or the name of a GPU.
        precision: "no", "bf16" or "fp16".
        data_digest: SHA-256 over its data.
    """
    return {
        "behaviour": versions(config),
        "version": __version__,
        "commit": commit(),
        "data_digest": data_digest,
        "device": device,
        "device_type": "cpu" if device.startswith("CPU") else "cuda",
        "precision": precision,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def commit(root: Path = ROOT) -> str:
    """This repository's commit, "+uncommitted" behind it where code was changed since; "" for an installed copy.

    Only a repository whose top is right here is ours: a copy installed somewhere inside somebody's repository has that
    one around it, and its commit says nothing about this code.
    """
    if not (root / ".git").exists():
        return ""

    def git(*words):
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        except FileNotFoundError:  # no git on this machine
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", "cawalib", "notebooks")
    return git("rev-parse", "HEAD") + "+uncommitted" * bool(changed)
