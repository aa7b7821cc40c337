"""Own images: data_root/images, data_root/masks and a class table, as data/README.md describes them."""

from __future__ import annotations

import colorsys
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import re
import struct
from dataclasses import dataclass
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
    file_list_digest,
)

SPLITS = ("train", "val", "test")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")  # JPEG and WebP change values
ENDING = re.compile(f"({'|'.join(map(re.escape, IMAGE_ENDINGS))})$", re.IGNORECASE)
FILES = layouts.FileDataset("folder", (), (), np.empty(0), {}, (
    layouts.Layout("images", "masks", {"all": "all"}, IMAGE_ENDINGS, MASK_ENDINGS),))
COLUMNS = {"id": "id", "name": "name", "colour": "colour", "color": "colour",
           "r": "r", "g": "g", "b": "b", "red": "r", "green": "g", "blue": "b"}
JSON_EXAMPLE = '[{"id": 0, "name": "road", "colour": [128, 64, 128]}, ...]'
ID_MODES = ("1", "L", "P", "I;16", "I;16L", "I;16B", "I")
HIGHEST_ID, MOST_CLASSES = 65535, 254
# of one mask: if it was saved with loss it has colours without end, and the caller gathers those of all masks
MOST_UNKNOWN_VALUES = 256


def splits(root) -> tuple[str, ...]:
    """The splits of a folder: train and val, and test where there is a test.txt."""
    return SPLITS if Path(root, "test.txt").is_file() else SPLITS[:2]


def load(root, split: str, val_fraction: float = 0.2, split_seed: int = 0) -> SegmentationDataset:
    """One split of a folder of own images.

    Args:
        root: the folder with images/, masks/ and classes.csv or classes.json.
        split: "train", "val" or "test"; the lists train.txt, val.txt and test.txt say what belongs to it.
        val_fraction: without lists: share of the pairs that goes to val, at least one.
        split_seed: without lists: which ones. A pair's rank depends on this and its name alone, so that the choice
            is the same everywhere, and adding an image moves few others.

    Raises:
        DatasetError: a folder, list, class table or pairing of files that cannot be used.
    """
    root = Path(root)
    found, table = _find(root), read_classes(root)
    if split not in splits(root):
        raise _wrong(root, f"no split '{split}'", f"one of {', '.join(splits(root))}; test needs a list test.txt")
    names = (_listed(root, found) or _drawn(root, found, val_fraction, split_seed))[split]
    images, labels = ({name: path for name, path in paths.items() if name in names}
                      for paths in (found.image_of, found.label_of))
    found = dataclasses.replace(found, image_of=images, label_of=labels)
    found.check()
    meaning = json.dumps([table.names, table.palette, sorted(table.ids.items()), sorted(table.colours.items())])
    return SegmentationDataset("folder", split, table.names, table.palette, len(found.pairs),
                               partial(_read_pair, tuple(found.pairs), table),
                               file_list_digest(found.pairs, meaning.encode()))


def _wrong(where, found, expected):
    return DatasetError(f"{where}: found {found}, expected {expected}")


# ---------------------------------------------------------------- files and splits

def _find(root):
    folders = (root / "images", "image", IMAGE_ENDINGS), (root / "masks", "mask", MASK_ENDINGS)
    for folder, kind, _ in folders:
        if not folder.is_dir():
            raise DatasetError(f"parameter 'data_root': folder {folder} not found, expected your {kind}s there")
    found = layouts.find(FILES, root, "all")
    files = (found.image_of, found.label_of) if found else ({}, {})
    for (folder, kind, endings), there in zip(folders, files, strict=True):
        if not there:
            raise _wrong(folder, f"no {kind}", f"files that end with {', '.join(endings)}")
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
        for number, line in enumerate(_text(path).splitlines(), 1):
            written = re.split(r"[\\/]", line.strip())[-1]
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name = written if written in known else ENDING.sub("", written)  # a stem may have dots of its own
            if name not in known:
                raise _wrong(f"{path}, line {number}", f"name {written!r:.80} of no file",
                             "one name a line, of an image in images and its mask in masks")
            if name in place:
                raise _wrong(f"{path}, line {number}", f"name '{name}', which is in {place[name][0]}.txt, line "
                             f"{place[name][1]}, too", "each name once, in one list")
            place[name] = split, number
        if len(place) == before:
            raise _wrong(path, "no names", "one file name a line")
    return {split: {name for name, (owner, _) in place.items() if owner == split} for split in there}


def _drawn(root, found, val_fraction, seed):
    """Split -> names, by the rank of a hash."""
    found.check()
    names = sorted(found.image_of, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    if len(names) < 2:
        raise _wrong(root / "images", "1 image", "at least 2: one for train, one for val")
    count = min(max(round(val_fraction * len(names)), 1), len(names) - 1)
    return {"train": set(names[count:]), "val": set(names[:count])}


# ---------------------------------------------------------------- class table

@dataclass(frozen=True)
class ClassTable:
    """What the values of a mask mean.

    Args:
        file: name of the file, for messages.
        names, palette: of the classes; colours are made up where the table has none.
        ids: value -> class, 255 = void; empty where the table has no ids.
        colours: red << 16 | green << 8 | blue -> class; empty where the table has no colours.
    """

    file: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: dict[int, int]
    colours: dict[int, int]


def read_classes(root) -> ClassTable:
    """The class table of a folder: classes.csv or classes.json.

    Raises:
        DatasetError: none or both of them, or a table that cannot be used, by line or entry.
    """
    paths = [path for name in ("classes.csv", "classes.json") if (path := Path(root, name)).is_file()]
    if len(paths) != 1:
        raise _wrong(root, "both classes.csv and classes.json" if paths else "neither classes.csv nor classes.json",
                     "one of them, with the id, name and colour of each class")
    return _table(paths[0], (_csv_rows if paths[0].suffix == ".csv" else _json_rows)(paths[0], _text(paths[0])))


def _text(path):
    try:
        return path.read_text(encoding="utf-8-sig")  # Excel begins its files with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}), expected text in UTF-8") from None


def _csv_rows(path, text):
    """(place, id, name, colour) of each row; None where it is left out."""
    rows = []
    reader = csv.reader(io.StringIO(text), delimiter=";" if ";" in text.partition("\n")[0] else ",",
                        skipinitialspace=True, strict=True)
    try:
        columns = next(reader, [])
        header = [COLUMNS.get(cell.strip().lower(), "") for cell in columns]  # others are no concern of ours
        if " ".join(sorted(filter(None, header))) not in (
                "id name", "colour name", "colour id name", "b g name r", "b g id name r"):
            raise _wrong(f"{path}, line 1", f"columns {', '.join(columns)!r:.80}",
                         "id, name and colour (or r, g, b), each once, of which id or colour may be left out")
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise _wrong(where, f"{len(cells)} cells",
                             f"{len(header)} as in line 1; put quotes around a colour with commas")
            row = dict(zip(header, map(str.strip, cells), strict=True))
            colour = row.get("colour") or " ".join(row.get(channel, "") for channel in "rgb").strip()
            rows.append((where, row.get("id") or None, row["name"], colour or None))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: cannot be read ({error}), check its quotes") from None
    return rows


def _json_rows(path, text):
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error}), expected {JSON_EXAMPLE}") from None
    entries = found.get("classes") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise _wrong(path, f"{found!r:.40}", f"a list: {JSON_EXAMPLE}")
    rows = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise _wrong(f"{path}, entry {number}", f"{entry!r:.40}", f"entries as in {JSON_EXAMPLE}")
        rows.append((f"{path}, entry {number}", entry.get("id"), entry.get("name"),
                     entry.get("colour", entry.get("color"))))
    return rows


def _table(path, rows):
    names, ids, colours, first = [], {}, {}, ""
    for where, number, name, colour in rows:
        if not isinstance(name, str) or not name.strip():
            raise _wrong(where, f"name {name!r:.40}", "the name of a class, or void")
        name = " ".join(name.split())
        void = name.lower() == "void"
        class_id = IGNORE if void else len(names)
        given = " and ".join(what for what, value in (("id", number), ("colour", colour)) if value is not None)
        if not void:
            first = first or given
            if name in names:
                raise _wrong(where, f"name '{name}', which an earlier row has", "each name once")
            names.append(name)
        if not given or (not void and given != first):
            raise _wrong(where, f"{given or 'neither id nor colour'} of '{name}'",
                         f"{first} as in the first row of a class" if first else "id or colour")
        if number is not None:
            value = _whole(number, HIGHEST_ID)
            if value is None:
                raise _wrong(where, f"id {number!r:.40}", f"a whole number from 0 to {HIGHEST_ID}")
            if value in ids:
                raise _wrong(where, f"id {value}, which an earlier row has", "each id once")
            ids[value] = class_id
        if colour is not None:
            value = _colour(where, colour)
            if colours.setdefault(value, class_id) != class_id:  # rows of void may share one: it is void either way
                raise _wrong(where, f"colour {colour!r:.40}, which an earlier row has", "one of its own for each class")
    if not 1 <= len(names) <= MOST_CLASSES:
        raise _wrong(path, f"{len(names)} classes (void is none)", f"1 to {MOST_CLASSES}")
    ids.setdefault(IGNORE, IGNORE)  # the value that the field keeps for void
    packed = [value for value, class_id in colours.items() if class_id != IGNORE] or _spread_colours(len(names))
    return ClassTable(path.name, tuple(names), tuple(map(_unpacked, packed)), ids if "id" in first else {},
                      colours if "colour" in first else {})


def _whole(value, highest):
    """An int from 0 to highest, of a number or its text; or None."""
    text = str(value).strip()
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) <= highest else None


def _colour(where, value):
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return int(text[1:], 16)
    parts = [_whole(part, 255) for part in (value if isinstance(value, list) else re.split(r"[\s,]+", text))]
    if len(parts) != 3 or None in parts:
        raise _wrong(where, f"colour {value!r:.40}", "three whole numbers from 0 to 255 (128 64 128), or #804080")
    return _packed(*parts)


def _packed(red, green, blue):
    return red << 16 | green << 8 | blue


def _unpacked(value):
    return value >> 16, value >> 8 & 255, value & 255


def _spread_colours(count):
    """Colours that look apart: steps of the golden ratio around the hues, in three degrees of brightness."""
    hues = [colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (0.95, 0.7, 0.45)[index % 3]) for index in range(count)]
    return [_packed(*(round(255 * channel) for channel in hue)) for hue in hues]


# ---------------------------------------------------------------- pairs

def _read_pair(pairs, table, index):
    image_path, mask_path = pairs[index]
    image, turned = _read_image(image_path)
    labels = _read_mask(mask_path, table)
    try:
        check_sizes(image_path, image, mask_path, labels)
    except DatasetError as error:
        hint = "; the image was turned as its EXIF orientation tells" if turned else ""
        raise DatasetError(f"{error}{hint}") from None
    return image, labels


@contextlib.contextmanager
def _decoding(path):
    try:
        with Image.open(path) as file:
            yield file
    except DatasetError:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error,  # of damaged files
            Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error}); save it again") from None


def _read_image(path):
    """(H, W, 3) uint8 as viewers and annotation tools show it, and whether that took a quarter turn."""
    with _decoding(path) as file:
        shown = ImageOps.exif_transpose(file)
        turned = shown.size != file.size
        if shown.mode in ("I", "F"):
            raise _wrong(path, f"32 bits a pixel (mode {shown.mode})", "an image of 8 or 16 bits")
        if shown.mode.startswith("I;16"):  # Pillow would cut off at 255
            grey = (np.array(shown).astype(np.int32) + 128) // 257
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), turned
        return np.array(shown.convert("RGB")), turned


def _read_mask(path, table):
    """Labels (H, W) uint8, 255 = void."""
    own = np.zeros((256, 3), np.int32)  # the palette of the file
    with _decoding(path) as file:
        mode, stored = file.mode, np.array(file)
        if mode == "P":
            colours = np.reshape(file.getpalette("RGB"), (-1, 3))
            own[:len(colours)] = colours
    if mode == "P" and not table.ids:
        mode, stored = "RGB", own[stored]
    if mode not in (*ID_MODES, "RGB", "RGBA"):
        raise _wrong(path, f"mode {mode} ({1 if stored.ndim == 2 else stored.shape[2]} channels)",
                     "one channel of ids with 8 or 16 bits, or RGB colours")
    if mode == "RGBA" and stored[..., 3].min() < 255:
        raise _wrong(path, f"{(stored[..., 3] < 255).sum()} pixels that are not opaque", "a mask without alpha channel")
    kind, meaning = ("id", table.ids) if mode in ID_MODES else ("colour", table.colours)
    if not meaning:
        raise _wrong(path, f"{kind}s (mode {mode}), of which {table.file} has none", f"a {kind} of each class there")
    values = stored.astype(np.int32)
    if kind == "colour":
        values = _packed(*np.moveaxis(values[..., :3], 2, 0))
    labels, known = _look_up(meaning, values)
    if not known.all():
        _refuse_unknown(path, table, kind, values, known)
    if mode == "P" and table.colours:
        _check_palette(path, table, np.unique(stored), own)
    return labels


def _look_up(meaning, values):
    """Classes uint8 of values, and which of the values are in the table."""
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
            raise _wrong(path, f"colour {_unpacked(found[0])} of no class, and only greys that are ids of classes",
                         "ids in one channel; save the mask as grey, not as RGB")
        found = map(_unpacked, found)
    raise UnknownLabels(path, dict(zip(found, counts, strict=True)),
                        f"one of the {len(table.names)} classes; add a row named void to {table.file} to leave it out")


def _check_palette(path, table, used, own):
    """Programs that sort a palette anew keep its colours and change the numbers, which may still look like ids."""
    by_id, (by_colour, known) = _look_up(table.ids, used)[0], _look_up(table.colours, _packed(*own[used].T))
    other = (by_id != by_colour) & (by_id != IGNORE) & (by_colour != IGNORE)
    if known.all() and other.any():
        by_id, by_colour = (table.names[classes[other][0]] for classes in (by_id, by_colour))
        raise _wrong(path, f"palette number {used[other][0]}, the id of '{by_id}', in the colour of '{by_colour}'",
                     "both of one class; save the mask as RGB")
