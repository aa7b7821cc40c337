"""CamVid in the split and the 11 classes of the SegNet tutorial (Badrinarayanan, Kendall, Cipolla 2017).

Layout: CamVid/{train,val,test} with images (.png or .jpg), CamVid/{train,val,test}annot with labels (.png, 0..10
and 11 = void). 367, 101 and 233 pairs of 480x360 pixels.
"""

from __future__ import annotations

import numpy as np

from cawalib.datasets.base import IGNORE
from cawalib.datasets.layouts import FileDataset, Layout

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
# the SegNet tutorial's colours
PALETTE = ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
           (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192))
TO_CLASS = np.full(256, -1, np.int16)
TO_CLASS[:len(CLASSES)] = range(len(CLASSES))
TO_CLASS[[len(CLASSES), IGNORE]] = IGNORE

DATASET = FileDataset(
    name="camvid", classes=CLASSES, palette=PALETTE, to_class=TO_CLASS,
    expected={"train": 367, "val": 101, "test": 233},
    layouts=(Layout("{}", "{}annot", {split: split for split in ("train", "val", "test")}),),
    bases=("", "CamVid"),
)
