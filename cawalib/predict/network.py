"""A trained network with all that it takes to use it: from a run's folder, or from a file that `export` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cawalib.method import Decision, decision_at
from cawalib.progress import say
from cawalib.runs import Run, RunConfig, RunError, config_from, load_run
from cawalib.settings import ConfigError, DataConfig, EvaluationConfig, NetworkConfig
from cawalib.training import (
    SegmentationModel,
    as_judged,
    build_model,
    normalised,
    read_checkpoint,
    read_network,
    whole_logits,
)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and what it takes to use it.

    Args:
        model: in evaluation mode: images (B, 3, h, w), normalised, -> logits (B, C, h, w).
        config: the settings that it was trained with, of which those of the network and of evaluation are read.
        classes: the C classes' names.
        palette: their colours, C times (red, green, blue), 0 to 255.
        weight: w (C,), what its line between classes was drawn with; ones where it has none (METHOD.md, section 6).
        source: the folder or file it is from.
    """

    model: SegmentationModel
    config: RunConfig
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    weight: torch.Tensor
    source: Path

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def decision(self, point: str | float = "balanced") -> Decision:
        """What turns logits into classes: "rare", "balanced", "accurate" or a number; see `method.decision_at`."""
        return decision_at(self.weight, point).to(self.device)

    def prepared(self, image: np.ndarray) -> torch.Tensor:
        """An image (H, W, 3) uint8 RGB as the network is judged on it: (1, 3, h, w) float32, normalised."""
        small = as_judged(torch.from_numpy(image), self.config.part(DataConfig), self.config.part(EvaluationConfig))
        return normalised(small)[None].to(self.device)

    @torch.no_grad()
    def logits(self, image: np.ndarray) -> torch.Tensor:
        """An image (H, W, 3) uint8 RGB -> logits (C, h, w) float32, at the size of `prepared`."""
        return whole_logits(self.model, self.prepared(image), self.config)[0].float()


def load_network(source, device: str = "cpu") -> TrainedNetwork:
    """The network of a finished run, or of a file.

    Args:
        source: a `Run`, its folder, a folder that holds runs (`best_run` is taken), or a file that `export` wrote.
        device: "cpu", "cuda", or "auto".

    Raises:
        RunError: there is no such run, it is not finished, or it has no network (as published runs have none).
        ConfigError: the file is not one of `export`, or there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"parameter 'device': found {device!r}, but PyTorch sees no CUDA device; choose 'cpu'")
    if isinstance(source, Run):
        return _from_run(source, device)
    path = Path(source)
    if path.is_file():
        return _from_file(path, device)
    return _from_run(load_run(path) if (path / "config.json").is_file() else best_run(path), device)


def best_run(folder) -> Run:
    """The finished run, of those below a folder, with the best mean IoU on its validation split; test is not looked at.

    Raises:
        RunError: there is none that has its network.
    """
    found = [path.parent for path in sorted(Path(folder).rglob("metrics.json")) if _checkpoint(path.parent).is_file()]
    if not found:
        raise RunError(f"folder {folder}: found no finished run with its network, expected one; train it first "
                       "(notebooks 02 and 03, or make paper)")
    best = max(map(load_run, found), key=lambda run: run.metrics["splits"]["val"]["miou"] or 0)
    say(f"of {len(found)} runs the one with the best mean IoU on validation, "
        f"{best.metrics['splits']['val']['miou']:.3f}: {best.folder}")
    return best


def _checkpoint(folder):
    return folder / "checkpoint" / "last.pt"


def _from_run(run, device):
    if not _checkpoint(run.folder).is_file():
        raise RunError(f"run folder {run.folder}: found no network (checkpoint/last.pt), which published runs do not "
                       "have; train it again")
    return _whole(read_checkpoint(_checkpoint(run.folder))["model"], run.config, run.metrics["classes"],
                  run.metrics["palette"], run.decision("rare").weight, run.folder, device)


def _from_file(path, device):
    tensors, kept = read_network(path)
    return _whole(tensors, config_from(kept["settings"], where=str(path)), kept["classes"], kept["palette"],
                  torch.tensor(kept["weight"]), path, device)


def _whole(tensors, config, classes, palette, weight, source, device):
    # its weights are at hand, those it started from need not be
    model = build_model(config.replace(encoder_weights="none", initial_weights="").part(NetworkConfig), len(classes))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{source}: its weights are not those of network '{config.network}' with {len(classes)} classes "
                       f"({str(error).splitlines()[1].strip()}); train it again") from None
    model = model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    return TrainedNetwork(model, config, tuple(classes), tuple(map(tuple, palette)), weight, Path(source))
