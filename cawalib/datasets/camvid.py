"""CamVid in the split and the 11 classes of the SegNet tutorial (Badrinarayanan, Kendall, Cipolla 2017).

Layout: CamVid/{train,val,test} with images (.png or .jpg), CamVid/{train,val,test}annot with labels (.png, 0..10
and 11 = void). 367, 101 and 233 pairs of 480x360 pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cawalib.datasets.base import IGNORE, DatasetError, SegmentationDataset, from_files, list_pairs

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
# the SegNet tutorial's colours
PALETTE = ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
           (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192))
SPLITS = ("train", "val", "test")


def load(root, split: str) -> SegmentationDataset:
    """One split of CamVid.

    Raises:
        DatasetError: the folder is missing, or images and labels do not pair up.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"parameter 'data_root': folder {root} not found; expected CamVid with the folders "
                           "train, trainannot, val, valannot, test, testannot")
    to_class = np.full(256, -1)
    to_class[:len(CLASSES)] = range(len(CLASSES))
    to_class[[len(CLASSES), IGNORE]] = IGNORE
    return from_files("camvid", split, CLASSES, PALETTE, list_pairs(root / split, root / f"{split}annot"), to_class)
