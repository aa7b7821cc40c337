"""A trained network as one file for other programs: safetensors, ONNX, or PyTorch's own export."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cawalib.files import atomic
from cawalib.predict.network import TrainedNetwork
from cawalib.runs import PLACE_FIELDS, RunError
from cawalib.settings import ConfigError
from cawalib.training import MEAN, STD, read_network, write_network

ENDINGS = (".safetensors", ".onnx", ".pt2")
TOLERANCE = 1e-3  # of logits, relative to the largest: other kernels add up in another order


class Standalone(nn.Module):
    """Images (B, 3, H, W) float32 in [0, 1], sides multiples of 32 -> logits (B, C, H, W); their argmax decides.

    Normalisation stands in front, and the line between classes in the last layer's bias.
    """

    def __init__(self, network: TrainedNetwork, point: str | float):
        super().__init__()
        self.model = copy.deepcopy(network.model).cpu().to(memory_format=torch.contiguous_format)
        network.decision(point).cpu().fold_into(self.model.classifier)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(STD)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model((images - self.mean) / self.deviation)


def export(network: TrainedNetwork, path, point: str | float = "rare") -> Path:
    """Write a network to one file, and read it back: weights by their checksum, other forms by the logits they give.

    - `.safetensors`: weights as they are, with class names, palette, class weights and settings as metadata; what
      `load_network`, `python -m cawalib.predict` and the setting `initial_weights` take.
    - `.onnx`, `.pt2`: a `Standalone` network, for batches and images of any size in multiples of 32, with class names
      and palette as metadata.

    Args:
        network: see `load_network`.
        path: the file; its ending says which kind.
        point: where `.onnx` and `.pt2` draw the line between classes (METHOD.md, section 6); "rare": as trained.

    Raises:
        ConfigError: another ending, or a folder that is not there.
        RunError: the file gives other logits than the network; it is not kept.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ConfigError(f"export: found {path.name!r}, expected a file name ending in {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"export: folder {path.parent} is not there; make it first")
    with atomic(path) as partial:
        if path.suffix == ".safetensors":
            write_network(partial, network.model, _said(network))
            read_network(partial)  # which looks at its checksum
        else:
            standalone = Standalone(network, point).eval()
            write, read = {".onnx": (_write_onnx, _read_onnx), ".pt2": (_write_pt2, _read_pt2)}[path.suffix]
            write(standalone, network, partial)
            _check(standalone, read(partial), network, path)
    return path


def _said(network):
    """What a file says of its network."""
    return {"classes": network.classes, "palette": network.palette, "weight": network.weight.tolist(),
            "settings": {name: value for name, value in network.config.changed().items()
                         if name not in (*PLACE_FIELDS, "initial_weights")}}


# ---------------------------------------------------------------- for other programs

def _example(network, batch=2, more=0):
    # at least 64: of a side that shrinks to one pixel on the way, the exporter takes the size for a constant
    height, width = (max(64, side) + more for side in (network.config.image_height, network.config.image_width))
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def _shapes():
    batch, height, width = (torch.export.Dim(name, min=1, max=most)
                            for name, most in (("batch", 1024), ("height_32", 512), ("width_32", 512)))
    return {"images": {0: batch, 2: 32 * height, 3: 32 * width}}


def _program(standalone, network):
    return torch.export.export(standalone, (_example(network),), dynamic_shapes=_shapes())


def _write_pt2(standalone, network, path):
    torch.export.save(_program(standalone, network), path, extra_files={"network.json": json.dumps(_said(network))})


def _read_pt2(path):
    return torch.export.load(path).module()


def _write_onnx(standalone, network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts, about itself
        program = torch.onnx.export(standalone, (_example(network),), dynamo=True, dynamic_shapes=_shapes(),
                                    input_names=["images"], output_names=["logits"], verbose=False)
    program.model.metadata_props.update({name: json.dumps(value) for name, value in _said(network).items()})
    program.save(path, external_data=False)


def _read_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@torch.no_grad()
def _check(standalone, written, network, path):
    """At another size and another number of images than it was traced with."""
    images = _example(network, batch=1, more=32)
    expected, found = standalone(images), written(images)
    off = float((found - expected).abs().max() / expected.abs().max())
    if not np.isfinite(off) or off > TOLERANCE:
        raise RunError(f"{path}: gives other logits than the network it was made from (largest difference {off:.1e} of "
                       f"the largest logit, expected at most {TOLERANCE}); it is not kept: choose another of "
                       f"{', '.join(ENDINGS)}")
