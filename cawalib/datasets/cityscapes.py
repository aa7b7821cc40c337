"""Cityscapes (Cordts et al. 2016): street scenes of 50 cities, finely labelled, the 19 classes of its evaluation.

Layouts:

- the official one: leftImg8bit/{train,val}/city/*_leftImg8bit.png with gtFine/{train,val}/city/*_gtFine_labelIds.png;
- images/{train,val} and annotations/{train,val}, flat or by city, with the same endings or without any
  (x.png or x.jpg and its labels x.png).

In folders without *_labelIds.png, *_labelTrainIds.png is read, which the official tools and mmsegmentation write.
data_root is the folder that holds these, or the one above if they are in cityscapes/. 2975 and 500 pairs of 2048x1024
pixels; the test split's labels are not public.

Of the official ids 0 to 33, 19 are classes; the others are void. Names, ids and colours: cityscapesScripts, labels.py.
"""

from __future__ import annotations

import numpy as np

from cawalib.datasets.base import IGNORE, DatasetError
from cawalib.datasets.layouts import IMAGE_ENDINGS, Archive, FileDataset, Layout

CLASSES = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
           "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
PALETTE = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
           (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
           (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32))
OFFICIAL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the classes
TO_CLASS = np.full(256, -1, np.int16)
TO_CLASS[:34] = IGNORE
TO_CLASS[255] = IGNORE  # the official id -1, in 8 bits
TO_CLASS[list(OFFICIAL_IDS)] = range(len(CLASSES))
# *_labelTrainIds.png hold the classes as they are
TRAIN_IDS_TO_CLASS = np.full(256, -1, np.int16)
TRAIN_IDS_TO_CLASS[:len(CLASSES)] = range(len(CLASSES))
TRAIN_IDS_TO_CLASS[IGNORE] = IGNORE

OFFICIAL = ("leftImg8bit/{}", "gtFine/{}", {"train": "train", "val": "val"}, ("_leftImg8bit.png", "_leftImg8bit.jpg"))
PLAIN = ("images/{}", "annotations/{}", {"train": "train", "val": "val"}, (*OFFICIAL[3], *IMAGE_ENDINGS))
IDS, TRAIN_IDS = ("_gtFine_labelIds.png",), ("_gtFine_labelTrainIds.png",)

DATASET = FileDataset(
    name="cityscapes", classes=CLASSES, palette=PALETTE, to_class=TO_CLASS,
    expected={"train": 2975, "val": 500},
    layouts=(Layout(*OFFICIAL, IDS), Layout(*OFFICIAL, TRAIN_IDS, TRAIN_IDS_TO_CLASS),
             Layout(*PLAIN, IDS), Layout(*PLAIN, TRAIN_IDS, TRAIN_IDS_TO_CLASS),
             Layout(*PLAIN, ignored_endings=("_gtFine_color.png", "_gtFine_instanceIds.png"))),
    bases=("", "cityscapes"),
    archives=(Archive("gtFine_trainvaltest.zip", "99f532cb1af174f5fcc4c5bc8feea8c66246ddbc", size=252_567_705,
                      keep=IDS),
              Archive("leftImg8bit_trainvaltest.zip", "2c0b77ce9933cc635adda307fbba5566f5d9d404", size=11_592_327_197,
                      keep=("_leftImg8bit.png",))),
    login="register at www.cityscapes-dataset.com, download gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip, "
          "put both into data_root and run notebook 01 again",
    totals=(("train pixels", 2975 * 2048 * 1024), ("rarest class by pixels", "motorcycle"),
            ("rarest class by images", "train")),
)


def check_ids(dataset) -> None:
    """Raises DatasetError if labels taken for ids look like train ids: as ids, they hold nothing above 18.

    Of the classes, ids up to 18 are road to pole; pictures of streets without vegetation, sky and car are none.
    """
    statistics = dataset.survey.statistics
    if statistics.pixels.any() and not statistics.pixels[6:].any():
        raise DatasetError(f"cityscapes, split '{dataset.split}': no label of {statistics.size} files is above 18, so "
                           "they look like train ids, expected ids; name them *_gtFine_labelTrainIds.png if they are")
