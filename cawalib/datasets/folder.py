"""Own images: data_root/images, data_root/masks and a class table, as data/README.md describes them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import struct
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cawalib.datasets import layouts
from cawalib.datasets.base import (
    IGNORE,
    DatasetError,
    SegmentationDataset,
    UnknownLabels,
    check_sizes,
)
from cawalib.datasets.class_table import HIGHEST_ID, packed, read_classes, read_text, unpacked, wrong
from cawalib.datasets.digests import pairs_digest

SPLITS = ("train", "val", "test")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
LOSSY = "JPEG or WebP, which change ids and colours"
NO_LOSS = "PNG, BMP or TIFF; export the mask again from where it was drawn"
ENDING = re.compile(f"({'|'.join(map(re.escape, IMAGE_ENDINGS))})$", re.IGNORECASE)
FILES = layouts.FileDataset("folder", (), (), np.empty(0), {}, (
    layouts.Layout("images", "masks", {"all": "all"}, IMAGE_ENDINGS, MASK_ENDINGS),))
ID_MODES = ("1", "L", "P", "I;16", "I;16L", "I;16B", "I")
# of one mask: if it was saved with loss it has colours without end, and the caller gathers those of all masks
MOST_UNKNOWN_VALUES = 256


def splits(root) -> tuple[str, ...]:
    """The splits of a folder: train and val, and test where there is a test.txt."""
    return SPLITS if Path(root, "test.txt").is_file() else SPLITS[:2]


def load(root, split: str, val_fraction: float = 0.2, split_seed: int = 0, kept_in=None) -> SegmentationDataset:
    """One split of a folder of own images.

    Args:
        root: the folder with images/, masks/ and classes.csv or classes.json.
        split: "train", "val" or "test"; the lists train.txt, val.txt and test.txt say what belongs to it.
        val_fraction: without lists: share of the pairs that goes to val, at least one.
        split_seed: without lists: which ones. A pair's rank depends on this and its name alone, so that the choice
            is the same everywhere, and adding an image moves few others.
        kept_in: see `digests.pairs_digest`.

    Raises:
        DatasetError: a folder, list, class table or pairing of files that cannot be used.
    """
    root = Path(root)
    found, table = _find(root), read_classes(root)
    if split not in splits(root):
        raise wrong(root, f"no split '{split}'", f"one of {', '.join(splits(root))}; test needs a list test.txt")
    names = (_listed(root, found) or _drawn(root, found, val_fraction, split_seed))[split]
    images, labels = ({name: path for name, path in paths.items() if name in names}
                      for paths in (found.image_of, found.label_of))
    found = dataclasses.replace(found, image_of=images, label_of=labels)
    found.check()
    meaning = json.dumps([table.names, table.palette, sorted(table.ids.items()), sorted(table.colours.items())])
    return SegmentationDataset("folder", split, table.names, table.palette, len(found.pairs),
                               partial(_read_pair, tuple(found.pairs), table),
                               pairs_digest(found.pairs, meaning.encode(), kept_in))


# ---------------------------------------------------------------- files and splits

def _find(root):
    folders = (root / "images", "image", IMAGE_ENDINGS), (root / "masks", "mask", MASK_ENDINGS)
    for folder, kind, _ in folders:
        if not folder.is_dir():
            raise DatasetError(f"parameter 'data_root': folder {folder} not found, expected your {kind}s there")
    found = layouts.find(FILES, root, "all")
    files = (found.image_of, found.label_of) if found else ({}, {})
    lonely = files[0].keys() - files[1].keys()
    for path in sorted((root / "masks").rglob("*")) if lonely else ():
        if path.suffix.lower() in IMAGE_ENDINGS and path.stem in lonely:
            raise wrong(path, f"a mask as {LOSSY}", NO_LOSS)
    for (folder, kind, endings), there in zip(folders, files, strict=True):
        if not there:
            raise wrong(folder, f"no {kind}", f"files that end with {', '.join(endings)}")
    return found


def _listed(root, found):
    """Split -> names, {} without lists. All lists are read, whichever is wanted: no pair may be in two of them."""
    there = [split for split in SPLITS if (root / f"{split}.txt").is_file()]
    for split in SPLITS[:2]:
        if there and split not in there:
            raise DatasetError(f"{root / split}.txt: not found, but {there[0]}.txt is there; expected train.txt and "
                               "val.txt, or no list")
    known, place = found.image_of.keys() | found.label_of.keys(), {}
    for split in there:
        path, before = root / f"{split}.txt", len(place)
        for number, line in enumerate(read_text(path).splitlines(), 1):
            written = re.split(r"[\\/]", line.strip())[-1]
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name = written if written in known else ENDING.sub("", written)  # a stem may have dots of its own
            if name not in known:
                raise wrong(f"{path}, line {number}", f"name {written!r:.80} of no file",
                             "one name a line, of an image in images and its mask in masks")
            if name in place:
                raise wrong(f"{path}, line {number}", f"name '{name}', which is in {place[name][0]}.txt, line "
                             f"{place[name][1]}, too", "each name once, in one list")
            place[name] = split, number
        if len(place) == before:
            raise wrong(path, "no names", "one file name a line")
    return {split: {name for name, (owner, _) in place.items() if owner == split} for split in there}


def _drawn(root, found, val_fraction, seed):
    """Split -> names, by the rank of a hash."""
    found.check()
    names = sorted(found.image_of, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    if len(names) < 2:
        raise wrong(root / "images", "1 image", "at least 2: one for train, one for val")
    count = min(max(round(val_fraction * len(names)), 1), len(names) - 1)
    return {"train": set(names[count:]), "val": set(names[:count])}


# ---------------------------------------------------------------- pairs

def _read_pair(pairs, table, index):
    image_path, mask_path = pairs[index]
    image, turned = read_photograph(image_path)
    with _decoding(mask_path) as file:  # of its size before it is decoded, which of a large one takes a while
        try:
            check_sizes(image_path, image, mask_path, np.broadcast_to(0, file.size[::-1]))
        except DatasetError as error:
            hint = "; the image was turned as its EXIF orientation tells" if turned else ""
            raise DatasetError(f"{error}{hint}") from None
        return image, _read_mask(mask_path, file, table)


@contextlib.contextmanager
def _decoding(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # images of one's own may be large
            file = Image.open(path)
        with file:
            yield file
    except DatasetError:
        raise
    except Image.DecompressionBombError:
        raise wrong(path, f"more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels",
                    "fewer; cut the image and its mask into tiles") from None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error) as error:  # damaged files
        raise DatasetError(f"{path}: cannot be read as an image ({error}); save it again") from None


def read_photograph(path) -> tuple[np.ndarray, bool]:
    """(H, W, 3) uint8 as viewers and annotation tools show it, and whether that took a quarter turn.

    Raises:
        DatasetError: the file cannot be read as an image of 8 or 16 bits.
    """
    with _decoding(path) as file:
        shown = ImageOps.exif_transpose(file)
        turned = shown.size != file.size
        if shown.mode in ("I", "F"):
            raise wrong(path, f"32 bits a pixel (mode {shown.mode})", "an image of 8 or 16 bits")
        if shown.mode.startswith("I;16"):  # Pillow would cut off at 255
            grey = (np.array(shown).astype(np.int32) + 128) // 257
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), turned
        return np.array(shown.convert("RGB")), turned


def _read_mask(path, file, table):
    """Labels (H, W) uint8, 255 = void, of an open file."""
    if file.format in ("JPEG", "MPO", "WEBP") or file.info.get("compression") == "jpeg":
        raise wrong(path, LOSSY, NO_LOSS)
    own = np.zeros((256, 3), np.int32)  # the palette of the file
    mode, stored = file.mode, np.array(file)
    if mode == "P":
        colours = np.reshape(file.getpalette("RGB"), (-1, 3))
        own[:len(colours)] = colours
    if mode == "P" and not table.ids:
        mode, stored = "RGB", own[stored]
    if mode not in (*ID_MODES, "RGB", "RGBA"):
        raise wrong(path, f"mode {mode} ({1 if stored.ndim == 2 else stored.shape[2]} channels)",
                     "one channel of ids with 8 or 16 bits, or RGB colours")
    if mode == "RGBA" and stored[..., 3].min() < 255:
        raise wrong(path, f"{(stored[..., 3] < 255).sum()} pixels that are not opaque", "a mask without alpha channel")
    kind, meaning = ("id", table.ids) if mode in ID_MODES else ("colour", table.colours)
    if not meaning:
        raise wrong(path, f"{kind}s (mode {mode}), of which {table.file} has none", f"a {kind} of each class there")
    values = stored.astype(np.uint8) if stored.dtype == bool else stored
    if kind == "colour":
        values = packed(*np.moveaxis(values[..., :3].astype(np.int32), 2, 0))
    labels, known = _look_up(meaning, values)
    if not known.all():
        _refuse_unknown(path, table, kind, values, known)
    if mode == "P" and table.colours:
        _check_palette(path, table, np.unique(stored), own)
    return labels


def _look_up(meaning, values):
    """Classes uint8 of values, and which of the values are in the table."""
    if values.dtype.itemsize < 4:  # at once: a search takes eight bytes a pixel, too many for a large mask
        class_of = np.full(HIGHEST_ID + 1, -1, np.int16)
        class_of[list(meaning)] = list(meaning.values())
        classes = class_of[values]
        return classes.astype(np.uint8), classes >= 0
    keys = np.array(sorted(meaning), np.int32)
    places = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return np.array([meaning[key] for key in keys.tolist()], np.uint8)[places], keys[places] == values


def _refuse_unknown(path, table, kind, values, known):
    found, counts = np.unique(values[~known], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_UNKNOWN_VALUES]
    found, counts = found[order].tolist(), counts[order].tolist()
    if kind == "colour":
        levels, colour = np.divmod(np.unique(values), 0x010101)
        if table.ids and not colour.any() and _look_up(table.ids, levels)[1].all():
            raise wrong(path, f"colour {unpacked(found[0])} of no class, and only greys that are ids of classes",
                         "ids in one channel; save the mask as grey, not as RGB")
        found = map(unpacked, found)
    raise UnknownLabels(path, dict(zip(found, counts, strict=True)),
                        f"one of the {len(table.names)} classes; add a row named void to {table.file} to leave it out")


def _check_palette(path, table, used, own):
    """Programs that sort a palette anew keep its colours and change the numbers, which may still look like ids."""
    by_id, (by_colour, known) = _look_up(table.ids, used)[0], _look_up(table.colours, packed(*own[used].T))
    other = (by_id != by_colour) & (by_id != IGNORE) & (by_colour != IGNORE)
    if known.all() and other.any():
        by_id, by_colour = (table.names[classes[other][0]] for classes in (by_id, by_colour))
        raise wrong(path, f"palette number {used[other][0]}, the id of '{by_id}', in the colour of '{by_colour}'",
                     "both of one class; save the mask as RGB")
