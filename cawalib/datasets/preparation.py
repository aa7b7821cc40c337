"""From archives or folders to data that can be trained on: what notebook 01 does, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cawalib.datasets import download, layouts, prepared
from cawalib.datasets.base import SegmentationDataset
from cawalib.datasets.layouts import FileDataset
from cawalib.datasets.load import FILE_DATASETS, list_datasets, load_datasets
from cawalib.files import check_writable
from cawalib.settings import DataConfig, number


@dataclass(frozen=True)
class PreparationConfig(DataConfig):
    """Parameters of notebook 01: which data, and what to do with them.

    Raises:
        ConfigError: whatever `DataConfig` refuses, or an output folder that cannot be written.
    """

    data_workers: int = number(2, 0, 256)
    download: bool = False
    decode: bool = False
    outputs_root: str = "outputs"

    def _check(self):
        check_writable(self.outputs_root)


# ---------------------------------------------------------------- archives

def obtain(config: PreparationConfig, dataset: FileDataset | None = None) -> None:
    """Unpack, and where it is allowed and asked for download, what is missing; what is there is left as it is.

    Args:
        dataset: the description to go by; None: that of `config.dataset`.

    Raises:
        DatasetError: a wrong checksum, an archive that would write outside its folder, no room, a broken transfer.
    """
    dataset = dataset or FILE_DATASETS.get(config.dataset)
    root = Path(config.data_root)
    if dataset is None or not dataset.archives or _complete(dataset, root):
        print("Nothing to fetch.")
        return
    used = 0
    for archive in dataset.archives:
        path = root / archive.name
        if path.is_file():
            download.verify(archive, path)
        elif config.download and archive.url:
            path = download.fetch(archive, root)
        else:
            continue
        used += 1
        count = download.unpack(path, root / archive.folder, archive.keep)
        print(f"{archive.name}: {count} files unpacked." if count else f"{archive.name}: unpacked before.")
    if not used:
        print("No archives there, none fetched; going on with the files as they are.")


def _complete(dataset, root):
    found = [layouts.find(dataset, root, split) for split in dataset.expected]
    return all(one and len(one.pairs) >= count for one, count in zip(found, dataset.expected.values(), strict=True))


# ---------------------------------------------------------------- what is there

def inventory(config: PreparationConfig) -> pd.DataFrame:
    """What is there and what is missing: a row per split and, where something is missing, per archive.

    Returns:
        Columns images, labels, pairs, "full release" (pairs), state, and the folders of images and labels.
    """
    dataset, root = FILE_DATASETS.get(config.dataset), Path(config.data_root)
    if dataset is None:
        splits = list_datasets(config)
        rows = [{"what": split, "images": len(one), "labels": len(one), "pairs": len(one), "full release": "",
                 "state": "complete"} for split, one in splits.items()]
        return pd.DataFrame(rows).set_index("what")
    rows = [_split_row(dataset, root, split) for split in dataset.expected]
    if any(row["state"] != "complete" for row in rows):
        rows += [_archive_row(dataset, archive, root) for archive in dataset.archives]
    return pd.DataFrame(rows, dtype=object).set_index("what").fillna("")  # objects: counts stay whole numbers


def _split_row(dataset, root, split):
    found, expected = layouts.find(dataset, root, split), dataset.expected[split]
    if found is None:
        return {"what": split, "images": 0, "labels": 0, "pairs": 0, "full release": expected,
                "state": f"missing; expected {layouts.expected_folders(dataset, split)}"}
    pairs, lonely = len(found.pairs), len(found.lonely)
    state = "complete" if pairs == expected else f"a part: {expected - pairs} pairs missing"
    if pairs > expected:
        state = f"{pairs - expected} pairs more than the full release has"
    if lonely:
        state += f"; {lonely} files without partner, first {found.lonely[0].name}"
    for folder in (found.images, found.labels):
        if not folder.is_dir():
            state = f"missing: {folder.relative_to(root).as_posix()}"
    return {"what": split, "images": len(found.image_of), "labels": len(found.label_of), "pairs": pairs,
            "full release": expected, "state": state,
            "folders": f"{found.images.relative_to(root).as_posix()}, {found.labels.relative_to(root).as_posix()}"}


def _archive_row(dataset, archive, root):
    if (root / archive.name).is_file():
        state = "there"
    elif archive.url:
        state = f"not there; set download = True ({archive.size / 1e9:.1f} GB), or put it into data_root"
    else:
        state = f"not there; {dataset.login}"
    return {"what": archive.name, "state": state}


def read(config: PreparationConfig) -> dict[str, SegmentationDataset]:
    """Every split that is there, each pair of it read and verified.

    Raises:
        DatasetError: no split at all, or files that cannot be used, by name.
    """
    return load_datasets(config, partly=True, decoded=False)


def counted(splits: dict[str, SegmentationDataset]) -> SegmentationDataset:
    """The split whose classes are counted: the training split; where it is missing another one, and that is said."""
    if "train" in splits:
        return splits["train"]
    name, dataset = next(iter(splits.items()))
    print(f"There is no training split. What follows counts '{name}', to look at; nothing can be trained on it.")
    return dataset


def totals(dataset: SegmentationDataset) -> pd.DataFrame | None:
    """Known facts about the full training split beside what was counted.

    Returns:
        Columns known, found and agrees ("yes", "no", or that this is only a part of the data); None where nothing is
        known, and that is printed.
    """
    described = FILE_DATASETS.get(dataset.name)
    statistics, found = dataset.survey.statistics, {}
    present = statistics.images > 0
    if present.any():
        rarest = {by: statistics.classes[int(min(present.nonzero()[0], key=lambda i, c=counts: c[i]))]
                  for by, counts in (("pixels", statistics.pixels), ("images", statistics.images))}
        found = {f"rarest class by {by}": name for by, name in rarest.items()}
    found |= {"pairs": len(dataset), "train pixels": dataset.survey.all_pixels}
    known = {} if described is None else {"pairs": described.expected[dataset.split]}
    if described is not None and dataset.split == "train":
        known |= dict(described.totals)
    if not known:
        print(f"Nothing is known about '{dataset.name}' from elsewhere.")
        return None
    whole = known.get("pairs") == len(dataset)
    rows = [{"fact": name, "known": value, "found": found.get(name, ""),
             "agrees": ("yes" if found.get(name) == value else "no") if whole else "only a part is there"}
            for name, value in known.items()]
    return pd.DataFrame(rows, columns=["fact", "known", "found", "agrees"]).set_index("fact")


# ---------------------------------------------------------------- what training needs

def prepare(config: PreparationConfig) -> pd.DataFrame | None:
    """Write decoded pairs of every split, if asked; a run finds them by itself.

    Returns:
        A row per split: pairs, size on disk of what was written, and its folder; None where nothing was written, and
        why is printed.

    Raises:
        DatasetError: no room on the disk, or a folder that cannot be written.
    """
    if not config.decode:
        print("Not asked for (decode = False): runs decode the original files each time.")
        return None
    rows = []
    for split, dataset in list_datasets(config, partly=True).items():
        if dataset.small:
            print(f"{split}: small enough to be kept in memory; nothing to write.")
            continue
        folder = prepared.write(dataset, config.prepared_root, config.short_side, config.data_workers)
        rows.append({"split": split, "pairs": len(dataset), "folder": str(folder),
                     "GB": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e9, 3)})
    return pd.DataFrame(rows, columns=["split", "pairs", "GB", "folder"]).set_index("split") if rows else None
