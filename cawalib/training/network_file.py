"""A trained network in one file: its weights, and as metadata what it takes to use them (safetensors, no pickle)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from cawalib.runs import RunConfig
from cawalib.settings import ConfigError

FORMAT = "cawalib network 1"
CLASSIFIER = "classifier."  # what the names of the last layer's weights begin with


def write_network(path, model: nn.Module, said: dict) -> None:
    """Write the weights of a network.

    Args:
        path: of the file.
        said: what is said of it: "classes", "palette", "weight" (C,), "settings".
    """
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    text = json.dumps(said)
    metadata = {"format": FORMAT, "network": text, "checksum": _checksum(tensors, text)}
    Path(path).write_bytes(save(tensors, metadata=metadata))


def _checksum(tensors, text):
    """SHA-256 of the weights and of what is said of them: a file in this format has none of its own."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def read_network(path) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights in a file of `write_network`, and what it says of them.

    Raises:
        ConfigError: the file is not there, damaged, or another one.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: not found, expected a network's .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as safetensors ({error}); export the network again") from None
    if metadata.get("format") != FORMAT:
        raise ConfigError(f"{path}: found format {metadata.get('format')!r} in its metadata, expected {FORMAT!r}; "
                          "export the network of a run: python -m cawalib.predict RUN --export FILE")
    if metadata.get("checksum") != _checksum(tensors, metadata.get("network", "")):
        raise ConfigError(f"{path}: is not what was written (its checksum is another one); export the network again")
    return tensors, json.loads(metadata["network"])


def check_start(config: RunConfig) -> None:
    """Raises ConfigError unless a run's 'initial_weights' are those of its network."""
    if not config.initial_weights:
        return
    try:
        settings = read_network(config.initial_weights)[1]["settings"]
    except ConfigError as error:
        raise ConfigError(f"parameter 'initial_weights': {error}") from None
    for name in ("network", "encoder"):
        found, expected = settings.get(name, getattr(RunConfig, name)), getattr(config, name)
        if found != expected:
            raise ConfigError(f"parameter 'initial_weights': {config.initial_weights} holds a network with {name} "
                              f"{found!r}, expected {expected!r}; set {name} to {found!r}")


def start_from(model: nn.Module, path, classes: tuple[str, ...]) -> None:
    """Put the weights of a file into a network; those of the last layer only where the classes are the same."""
    tensors, said = read_network(path)
    if tuple(said["classes"]) != tuple(classes):
        print(f"initial_weights: {path} has other classes, so the last layer starts at random")
        own = model.state_dict()
        tensors = {name: own[name] if name.startswith(CLASSIFIER) else value for name, value in tensors.items()}
    model.load_state_dict(tensors)
