"""Where the files of a dataset lie: the layouts people have, which images pair with which labels, what is missing."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cawalib.datasets.base import DatasetError, SegmentationDataset, from_files

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Layout:
    """One way to keep a split on disk, in two folders of any depth; files pair by name without its ending.

    Args:
        images, labels: folders relative to data_root; "{}" stands for the split's name on disk.
        names: split -> its name on disk.
        image_endings, label_endings: ends of file names; of several that fit a name, the first one counts.
        ignored_endings: files among the labels that are none.
        to_class: (256,) table where this layout's labels need another one than the dataset's.
        lists: split -> text file relative to data_root, one name a line: only these pairs belong to it.
    """

    images: str
    labels: str
    names: dict[str, str]
    image_endings: tuple[str, ...] = IMAGE_ENDINGS
    label_endings: tuple[str, ...] = (".png",)
    to_class: np.ndarray | None = None
    lists: dict[str, str] = field(default_factory=dict)
    ignored_endings: tuple[str, ...] = ()

    def folders(self, root: Path, split: str) -> tuple[Path, Path]:
        return root / self.images.format(self.names[split]), root / self.labels.format(self.names[split])


@dataclass(frozen=True)
class Archive:
    """One file of a dataset's official release.

    Args:
        name: file name.
        sha1: its checksum; "" where none was published that we know of.
        url: where its licence lets anybody fetch it; "" where it needs a login.
        size: bytes, about; to see early whether the disk has room.
        folder: folder under data_root that its members go to.
        keep: endings of the members that are needed; () for all.
    """

    name: str
    sha1: str
    url: str = ""
    size: int = 0
    folder: str = "."
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileDataset:
    """A dataset as a table: what its classes are, what its labels mean, and where its files may lie.

    Args:
        name: as in `DataConfig.dataset`.
        classes, palette: names and RGB colours 0..255, in the order of the ids.
        to_class: (256,) int16 table from the value on disk to the id, 255 = ignore, -1 = not allowed.
        expected: split -> number of pairs of the full release.
        layouts: the one that holds most pairs of a split counts, among equals the first.
        bases: folders under data_root in which a layout may begin.
        archives: of the official release.
        login: how to get the archives where they need a login.
        totals: known facts about the full training split, (name, value) as `preparation.totals` names them.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    to_class: np.ndarray
    expected: dict[str, int]
    layouts: tuple[Layout, ...]
    bases: tuple[str, ...] = ("",)
    archives: tuple[Archive, ...] = ()
    login: str = ""
    totals: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Found:
    """The files of one split: name without ending -> path."""

    split: str
    layout: Layout
    images: Path
    labels: Path
    image_of: dict[str, Path]
    label_of: dict[str, Path]
    problem: str = ""  # with the split's list

    @cached_property
    def rank(self) -> tuple[int, int, int]:
        """Pairs, then files, then a list: what makes one layout a better find than another."""
        pairs = len(self.image_of.keys() & self.label_of.keys())
        return pairs, len(self.image_of) + len(self.label_of), len(self.problem) > 0

    @property
    def pairs(self) -> list[tuple[Path, Path]]:
        return [(self.image_of[key], self.label_of[key]) for key in sorted(self.image_of.keys() & self.label_of.keys())]

    @property
    def lonely(self) -> list[Path]:
        """Images without labels and labels without images."""
        return [(self.image_of.get(key) or self.label_of[key])
                for key in sorted(self.image_of.keys() ^ self.label_of.keys())]

    def check(self) -> None:
        """Raises DatasetError if a file has no partner, or a split's list names files that are not there."""
        if self.problem:
            raise DatasetError(self.problem)
        if not self.lonely:
            return
        first, more = self.lonely[0], len(self.lonely) - 1
        kind, other, folder = ("image", "label", self.labels) if first in self.image_of.values() else (
            "label", "image", self.images)
        rest = f"; {more} more files have no partner" if more else ""
        if not folder.is_dir():
            rest += "; that folder is missing"
        raise DatasetError(f"{first}: {kind} without its {other}, expected one of the same name in {folder}{rest}")


def find(dataset: FileDataset, root, split: str) -> Found | None:
    """The files of a split in the layout that holds most pairs of it; else in the one with most files; or None.

    Raises:
        DatasetError: two files of one name, or a split's list that cannot be used.
    """
    best = None
    for layout in dataset.layouts:
        for base in dataset.bases if split in layout.names else ():
            images, labels = layout.folders(Path(root, base), split)
            if not (images.is_dir() or labels.is_dir()):
                continue
            image_of = _by_name(images, layout.image_endings)
            label_of = _by_name(labels, layout.label_endings, layout.ignored_endings)
            found = Found(split, layout, images, labels, image_of, label_of)
            if split in layout.lists:
                found = _listed(found, Path(root, base))
            if found.rank > (best.rank if best else (0, 0, 0)):  # among equals, the first one
                best = found
    return best


def load(dataset: FileDataset, root, split: str, found: Found | None = None, kept_in=None) -> SegmentationDataset:
    """One split of a dataset.

    Args:
        found: its files, if they were looked for already.
        kept_in: see `digests.pairs_digest`.

    Raises:
        DatasetError: the folder is missing, holds no such split, or images and labels do not pair up.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"parameter 'data_root': folder {root} not found; expected {dataset.name} there: "
                           f"{expected_folders(dataset, split)}")
    found = found or find(dataset, root, split)
    if found is None:
        raise DatasetError(f"parameter 'data_root': {root} holds no split '{split}' of {dataset.name}; expected "
                           f"{expected_folders(dataset, split)}{_archives_hint(dataset, root)}")
    found.check()
    to_class = dataset.to_class if found.layout.to_class is None else found.layout.to_class
    return from_files(dataset.name, split, dataset.classes, dataset.palette, found.pairs, to_class, kept_in)


def expected_folders(dataset: FileDataset, split: str) -> str:
    """The layouts of a split in words."""
    layouts = [layout for layout in dataset.layouts if split in layout.names]
    pairs = [layout.folders(Path(), split) for layout in layouts]
    lists = {layout.lists[split] for layout in layouts if split in layout.lists}
    folders = dict.fromkeys(f"{images.as_posix()} and {labels.as_posix()}" for images, labels in pairs)
    return ", or ".join(folders) + "".join(f", with the list {name}" for name in lists)


def _archives_hint(dataset, root):
    there = [archive.name for archive in dataset.archives if (root / archive.name).is_file()]
    return f"; notebook 01 unpacks {', '.join(there)}" if there else ""


def _by_name(folder, endings, ignored=()):
    """Name without ending -> path, of every file below a folder whose name has one of the endings."""
    found = {}
    # links to folders are followed: on shared disks, cities or splits often are links
    files = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    for path in sorted(files):
        if path.name.startswith(".") or path.name.endswith(ignored):  # "." as in the ._ files that macOS leaves
            continue
        ending = next((ending for ending in endings if path.name.lower().endswith(ending.lower())), None)
        if ending is None:
            continue
        if not path.is_file():  # a pipe would be waited for without end
            raise DatasetError(f"{path}: found a broken link or no plain file, expected an image; remove it or put one "
                               "there")
        shown = os.fsencode(path.name).decode(errors="backslashreplace")
        if shown != path.name:  # no list and no table could name it
            raise DatasetError(f"{path.parent}/{shown}: found a file name that is no UTF-8, expected one that is; "
                               "rename it")
        key = path.name[:-len(ending)]
        if key in found:
            raise DatasetError(f"{path}: a file of the same name, {found[key]}, is there already; names must be unique")
        found[key] = path
    return found


def _listed(found, root):
    """What a split's list names of it, by stem; names as in COCO 2014 (COCO_train2014_000000000009) will do."""
    lists, path = found.layout.lists, root / found.layout.lists[found.split]
    names = {split: _names(root / other) for split, other in lists.items()}
    mine = names.pop(found.split)
    others = {name: split for split, listed in names.items() for name in listed}
    double = next((name for name in mine if name in others), None)
    if double:
        raise DatasetError(f"{path}: names '{double}', which {lists[others[double]]} names too; expected once")
    absent = [name for name in mine if name not in found.image_of and name not in found.label_of]
    problem = f"{path}: names '{absent[0]}', for which there is neither image nor label " \
              f"({len(absent)} of {len(mine)} names)" if absent else ""
    wanted = set(mine)
    image_of, label_of = ({key: path for key, path in paths.items() if key in wanted}
                          for paths in (found.image_of, found.label_of))
    return replace(found, image_of=image_of, label_of=label_of, problem=problem)


def _names(path):
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: cannot be read, expected text in UTF-8 with one name a line") from None
    names = [Path(line.strip()).stem.split("_")[-1] for line in lines if line.strip()]
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise DatasetError(f"{path}: names '{double[0]}' {names.count(double[0])} times, expected each name once")
    return names
