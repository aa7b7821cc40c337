"""The class table of own images, classes.csv or classes.json: what the values of a mask mean."""

from __future__ import annotations

import colorsys
import csv
import io
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from cawalib.datasets.base import IGNORE, DatasetError

COLUMNS = {"id": "id", "name": "name", "colour": "colour", "color": "colour",
           "r": "r", "g": "g", "b": "b", "red": "r", "green": "g", "blue": "b"}
JSON_EXAMPLE = '[{"id": 0, "name": "road", "colour": [128, 64, 128]}, ...]'
HIGHEST_ID, MOST_CLASSES = 65535, 254


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
        raise wrong(root, "both classes.csv and classes.json" if paths else "neither classes.csv nor classes.json",
                     "one of them, with the id, name and colour of each class")
    return _table(paths[0], (_csv_rows if paths[0].suffix == ".csv" else _json_rows)(paths[0], read_text(paths[0])))


def read_text(path):
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
            raise wrong(f"{path}, line 1", f"columns {', '.join(columns)!r:.80}",
                         "id, name and colour (or r, g, b), each once, of which id or colour may be left out")
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise wrong(where, f"{len(cells)} cells",
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
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error}), expected {JSON_EXAMPLE}") from None
    entries = found.get("classes") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise wrong(path, f"{found!r:.40}", f"a list: {JSON_EXAMPLE}")
    rows = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise wrong(f"{path}, entry {number}", f"{entry!r:.40}", f"entries as in {JSON_EXAMPLE}")
        rows.append((f"{path}, entry {number}", entry.get("id"), entry.get("name"),
                     entry.get("colour", entry.get("color"))))
    return rows


def _table(path, rows):
    names, ids, colours, first = [], {}, {}, ""
    for where, number, name, colour in rows:
        if not isinstance(name, str) or not name.strip():
            raise wrong(where, f"name {name!r:.40}", "the name of a class, or void")
        name = _one_line(where, name)
        void = name.lower() == "void"
        class_id = IGNORE if void else len(names)
        given = " and ".join(what for what, value in (("id", number), ("colour", colour)) if value is not None)
        if not void:
            first = first or given
            if name in names:
                raise wrong(where, f"name '{name}', which an earlier row has", "each name once")
            names.append(name)
        if not given or (not void and given != first):
            raise wrong(where, f"{given or 'neither id nor colour'} of '{name}'",
                         f"{first} as in the first row of a class" if first else "id or colour")
        if number is not None:
            value = _whole(number, HIGHEST_ID)
            if value is None:
                raise wrong(where, f"id {number!r:.40}", f"a whole number from 0 to {HIGHEST_ID}")
            if value in ids:
                raise wrong(where, f"id {value}, which an earlier row has", "each id once")
            ids[value] = class_id
        if colour is not None:
            value = _colour(where, colour)
            if colours.setdefault(value, class_id) != class_id:  # rows of void may share one: it is void either way
                raise wrong(where, f"colour {colour!r:.40}, which an earlier row has", "one of its own for each class")
    if not 1 <= len(names) <= MOST_CLASSES:
        raise wrong(path, f"{len(names)} classes (void is none)", f"1 to {MOST_CLASSES}")
    ids.setdefault(IGNORE, IGNORE)  # the value that the field keeps for void
    chosen = [value for value, class_id in colours.items() if class_id != IGNORE] or _spread_colours(len(names))
    return ClassTable(path.name, tuple(names), tuple(map(unpacked, chosen)), ids if "id" in first else {},
                      colours if "colour" in first else {})


def _one_line(where, name):
    """A name without space around it, and with one space for each tab and the like."""
    name = name.strip()
    if len(name.splitlines()) > 1:
        raise wrong(where, f"name {name!r:.80}, which has a line break", "a name on one line")
    name = " ".join(name.split())
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise wrong(where, f"name {name!r:.80}, which has a control character", "a name that can be written")
    return name


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
        raise wrong(where, f"colour {value!r:.40}", "three whole numbers from 0 to 255 (128 64 128), or #804080")
    return packed(*parts)


def packed(red, green, blue):
    return red << 16 | green << 8 | blue


def unpacked(value):
    return value >> 16, value >> 8 & 255, value & 255


def _spread_colours(count):
    """Colours that look apart: steps of the golden ratio around the hues, in three degrees of brightness."""
    hues = [colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (0.95, 0.7, 0.45)[index % 3]) for index in range(count)]
    return [packed(*(round(255 * channel) for channel in hue)) for hue in hues]


def wrong(where, found, expected):
    return DatasetError(f"{where}: found {found}, expected {expected}")
