"""Where a run's numbers come from: the behaviour of the code, the data, versions and device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import tomllib
from pathlib import Path

from cawalib import __version__
from cawalib.runs.behaviour import versions
from cawalib.runs.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "accelerate", "segmentation-models-pytorch", "numpy", "pillow")


def environment(config: RunConfig, device: str, precision: str, data_digest: str) -> dict:
    """What a run's environment.json says. No name or path of the machine.

    Args:
        device: what it runs on, "CPU, ..." or the name of a GPU.
        precision: "no", "bf16" or "fp16".
        data_digest: SHA-256 over its data.
    """
    return {
        "behaviour": versions(config, precision),
        "version": __version__,
        "commit": commit(),
        "data_digest": data_digest,
        "device": device,
        "device_type": "cpu" if device.startswith("CPU") else "cuda",
        "precision": precision,
        "processes": config.processes,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def commit(root: Path = ROOT) -> str:
    """This repository's commit, "+uncommitted" behind it where code was changed since; "" for an installed copy.

    Only a repository that has this package at its top and as its project is ours: the commit of one into which a copy
    was installed or put says nothing about this code.
    """
    project = root / "pyproject.toml"
    if not (root / ".git").exists() or not project.is_file() \
            or tomllib.loads(project.read_text()).get("project", {}).get("name") != "cawalib":
        return ""
    # a hook or a shell may point git at another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words):
        try:
            done = subprocess.run(["git", *words], cwd=root, env=environment, capture_output=True, text=True)
        except FileNotFoundError:  # no git on this machine
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", "cawalib", "notebooks")
    return git("rev-parse", "HEAD") + "+uncommitted" * bool(changed)
