"""Decoded pairs on disk: what decoding full-size PNGs costs, paid once.

The format is safetensors: arrays of any size side by side in one file, opened as a memory map, so that a pair is read
at the speed of the disk or of the operating system's file cache and several processes share one copy; a plain header
instead of pickle; kept up by many projects, and here already, since the pretrained encoders come in it. Not compressed:
it is the decompressing that costs. Pairs are bitwise those that reading the originals gives, so a run may use them or
not: nothing of its numbers depends on it.
"""

from __future__ import annotations

import json
import shutil
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cawalib.datasets.base import DatasetError, SegmentationDataset
from cawalib.datasets.processes import in_processes
from cawalib.files import atomic, write_json
from cawalib.progress import progress

SHARD_BYTES = 256 << 20
SHARDS = "[0-9]*.safetensors"  # not what a killed process left half written, which begins with a dot


def folder_of(dataset: SegmentationDataset, root, short_side: int) -> Path:
    """Where the decoded pairs of a dataset go: one folder for what its files hold and a short side."""
    size = f"short{short_side}" if short_side else "original"
    return Path(root, dataset.name, f"{dataset.split}-{dataset.digest[:16]}-{size}")


def write(dataset: SegmentationDataset, root, short_side: int = 0, workers: int = 0) -> Path:
    """Decode every pair and keep it; what is there already is not made again.

    Args:
        dataset: as its files lie. The labels of `train` shrink with the images, others keep their size.
        root: `prepared_root`.
        short_side: pixels; images with a longer short side are shrunk to it. 0: as they are.
        workers: processes that decode; 0 or 1: this one.

    Returns:
        The folder. Its prepared.json is written last and means that it is whole.

    Raises:
        DatasetError: no room on the disk, a folder that cannot be written, or a pair that cannot be used.
    """
    folder = folder_of(dataset, root, short_side)
    if (folder / "prepared.json").is_file():
        return folder
    if short_side:
        dataset = dataset.shrunk(short_side, labels=dataset.split == "train")
    pair_bytes = sum(array.nbytes for array in dataset[0])
    per_shard = max(1, SHARD_BYTES // pair_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(folder, pair_bytes * len(dataset))
        starts = range(0, len(dataset), per_shard)
        job = partial(_write_shard, dataset, folder, per_shard)
        each = map(job, starts) if workers < 2 else in_processes(job, starts, workers)
        for _ in progress(each, len(starts), f"decoding {dataset.name} {dataset.split}"):
            pass
        total = sum(path.stat().st_size for path in folder.glob(SHARDS))
        write_json(folder / "prepared.json", {"digest": dataset.digest, "short_side": short_side, "bytes": total,
                                              "pairs": len(dataset), "per_shard": per_shard})
    except (OSError, SafetensorError) as error:  # the latter on a full disk
        reason = str(getattr(error, "strerror", None) or error).replace("\n", " ")
        raise DatasetError(f"parameter 'prepared_root': {folder} cannot be written ({reason}); make room and start "
                           "again to go on, or choose another folder") from None
    return folder


def _check_room(folder, needed):
    there = sum(path.stat().st_size for path in folder.glob(SHARDS))
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise DatasetError(f"parameter 'prepared_root': {folder} needs about {(needed - there) / 1e9:.1f} GB, "
                           f"{free / 1e9:.1f} GB are free; choose another disk, or a 'short_side' below the images'")


def _write_shard(dataset, folder, per_shard, start):
    path = folder / f"{start // per_shard:05d}.safetensors"
    if path.is_file():
        return
    arrays = {}
    for index in range(start, min(start + per_shard, len(dataset))):
        arrays[f"image.{index}"], arrays[f"labels.{index}"] = map(np.ascontiguousarray, dataset[index])
    with atomic(path) as partial_path:
        save_file(arrays, partial_path, metadata={name: str(zlib.crc32(array)) for name, array in arrays.items()})


def find(dataset: SegmentationDataset, root, short_side: int = 0) -> PreparedPairs | None:
    """The decoded pairs of a dataset (as its files lie), or None if they were not written whole.

    Raises:
        DatasetError: prepared.json cannot be read or is of other data.
    """
    folder = folder_of(dataset, root, short_side)
    if not (folder / "prepared.json").is_file():
        return None
    try:
        kept = json.loads((folder / "prepared.json").read_text())
        whole = kept["digest"] == dataset.digest and kept["pairs"] == len(dataset)
        pairs = PreparedPairs(folder, int(kept["per_shard"]))
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise DatasetError(f"{folder / 'prepared.json'}: is not what notebook 01 wrote; delete the folder and run it "
                           "again")
    return pairs


class PreparedPairs:
    """index -> (image (H, W, 3) uint8, labels (H, W) uint8), read from memory maps."""

    def __init__(self, folder: Path, per_shard: int):
        self.folder, self.per_shard = folder, per_shard
        self._open = {}

    def __getstate__(self):  # memory maps do not travel: another process opens its own
        return self.__dict__ | {"_open": {}}

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        path = self.folder / f"{index // self.per_shard:05d}.safetensors"
        try:
            if path not in self._open:
                shard = safe_open(path, framework="numpy")
                self._open[path] = shard, shard.metadata() or {}
            return tuple(_whole(*self._open[path], f"{part}.{index}") for part in ("image", "labels"))
        except (OSError, SafetensorError, ValueError) as error:
            raise DatasetError(f"{path}: cannot be read ({error}); delete its folder and run 01 again") from None


def _whole(shard, sums, name):
    """An array of a shard, after a look at its checksum; it takes some hundredths of what decoding took."""
    array = shard.get_tensor(name)
    if str(zlib.crc32(array)) != sums.get(name):
        raise ValueError(f"{name} is not what was written")
    return array
