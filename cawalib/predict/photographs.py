"""Photographs through a trained network: masks, overlays, class activation maps, and the areas of all classes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional

from cawalib.datasets import IMAGE_ENDINGS, read_photograph
from cawalib.files import atomic, check_writable, write_table
from cawalib.predict.network import TrainedNetwork
from cawalib.progress import progress
from cawalib.settings import ConfigError
from cawalib.training import activation_maps

OVERLAY_SHARE = 0.5  # of the classes' colours


def segment(network: TrainedNetwork, photographs, out, point: str | float = "balanced",
            maps: bool = True) -> pd.DataFrame:
    """Segment photographs of any size, and write what comes out, file by file.

    - `masks/NAME.png`: the class of each pixel at the photograph's own size, 8 bits, in the classes' colours;
    - `overlays/NAME.jpg`: these colours over the photograph;
    - `maps/NAME/CLASS.png`: the class activation map of each class that was found, grey, white = 1, at the size that
      the network saw;
    - `areas.csv`: what is returned.

    Args:
        network: see `load_network`.
        photographs: a file or a folder, or several, of folders all images in them, at any depth; or what
            `photographs_in` gave. They are turned as EXIF tells.
        out: the folder to write to; it is made, and files of the same names are replaced.
        point: where the line between classes is drawn: "rare", "balanced", "accurate", or a number
            (METHOD.md, section 6).
        maps: whether to write class activation maps.

    Returns:
        One row per photograph and class: photograph, class, pixels, share (of the photograph, in [0, 1]).

    Raises:
        ConfigError: there is no such photograph, two would be written to one file, or `out` cannot be written.
        DatasetError: a file cannot be read as an image. Those before it have been written.
    """
    decision = network.decision(point)
    out = Path(out)
    found = photographs if isinstance(photographs, dict) else photographs_in(photographs, out)
    check_writable(out, "out")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, path in progress(found.items(), len(found), "segmenting, photograph"):
        image, _ = read_photograph(path)
        classes = _classes(network.logits(image), decision, image.shape[:2])
        _write_mask(_file(out / "masks", name, ".png"), classes, network.palette)
        _write_overlay(_file(out / "overlays", name, ".jpg"), image, classes, network.palette)
        pixels = np.bincount(classes.ravel(), minlength=len(network.classes))
        if maps:
            _write_maps(out / "maps" / name, network, image, pixels > 0)
        rows += [(name, label, count, count / classes.size)
                 for label, count in zip(network.classes, pixels.tolist(), strict=True)]
    areas = pd.DataFrame(rows, columns=["photograph", "class", "pixels", "share"])
    write_table(out / "areas.csv", areas)
    return areas


def photographs_in(photographs, out: Path | None = None) -> dict[str, Path]:
    """Name -> file of all photographs; a name is the path below the given folder, without ending.

    Args:
        out: files below it are left out, so that overlays of an earlier call are not segmented.

    Raises:
        ConfigError: as `segment`.
    """
    given = [photographs] if isinstance(photographs, (str, os.PathLike)) else list(photographs)
    found = []
    for path in map(Path, given):
        if not path.exists():
            raise ConfigError(f"photographs: {path} is not there, expected an image file, or a folder of them")
        files = [path] if path.is_file() else [inner for inner in sorted(path.rglob("*")) if _is_photograph(inner, out)]
        if not files:
            raise ConfigError(f"photographs: folder {path} holds no image, expected files ending in "
                              f"{', '.join(IMAGE_ENDINGS)}")
        found += [(file.relative_to(path if path.is_dir() else path.parent), file) for file in files]
    names = Counter(str(name.with_suffix("")) for name, _ in found)
    [(name, count)] = names.most_common(1) or [("", 0)]
    if count > 1:
        two = [str(file) for short, file in found if str(short.with_suffix("")) == name][:2]
        raise ConfigError(f"photographs: {' and '.join(two)} would be written to one file, '{name}'; rename one, or "
                          "segment them into folders of their own")
    if not names:
        raise ConfigError("photographs: found none, expected an image file, or a folder of them")
    return {str(name.with_suffix("")): file for name, file in found}


def _is_photograph(path, out):
    hidden = path.name.startswith(".")
    return path.suffix.lower() in IMAGE_ENDINGS and not hidden and path.is_file() and not (
        out is not None and path.resolve().is_relative_to(out.resolve()))


def _classes(logits, decision, size):
    """The class of every pixel (H, W) uint8; class by class, since all logits of a photograph would be gigabytes."""
    logits = logits + decision.offset[:, None, None]  # a constant for each class, which interpolation keeps
    best = torch.full(size, -torch.inf, device=logits.device)
    chosen = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index, own in enumerate(logits):
        large = functional.interpolate(own[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        chosen[large > best] = index
        best = torch.maximum(best, large)
    return chosen.cpu().numpy()


# ---------------------------------------------------------------- what is written

def _write_mask(path, classes, palette):
    mask = Image.fromarray(classes, mode="P")
    mask.putpalette([value for colour in palette for value in colour])
    _write(path, mask)


def _write_overlay(path, image, classes, palette):
    colours = np.asarray(palette, dtype=np.float32)[classes]
    _write(path, Image.fromarray(((1 - OVERLAY_SHARE) * image + OVERLAY_SHARE * colours).astype(np.uint8)), quality=90)


def _write_maps(folder, network, image, present):
    seen = network.prepared(image)
    with torch.no_grad():
        maps = activation_maps(network.model, seen, torch.from_numpy(present), tuple(seen.shape[-2:]), network.config)
    for index in np.flatnonzero(present):
        _write(_file(folder, f"{index:03d} {file_name(network.classes[index])}", ".png"),
               Image.fromarray(maps[index].numpy()))


def file_name(name: str, most: int = 100) -> str:
    """A class's name as part of a file's: letters, digits, `-`, `_` and spaces; in UTF-8 at most so many bytes."""
    kept = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in name)
    return kept.encode()[:most].decode(errors="ignore")


def _file(folder, name, ending):
    path = folder / f"{name}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(path, picture, **options):
    with atomic(path) as partial:
        picture.save(partial, **options)
