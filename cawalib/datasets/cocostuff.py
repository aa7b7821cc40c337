"""COCO-Stuff (Caesar, Uijlings, Ferrari 2018): 80 things and 91 kinds of stuff on the images of COCO 2017.

"COCO-Stuff" in a paper may be either of two sets, and CAWASeg's abstract does not say which:

- `cocostuff`: COCO-Stuff 164k, 118287 pairs in train2017 and 5000 in val2017.
- `cocostuff10k`: the 9000 and 1000 images of COCO-Stuff 10k, the first release, by its lists imageLists/train.txt and
  test.txt (which is `val` here); names as 000000000077 or COCO_train2014_000000000077. All of them are in train2017,
  and images and labels are taken from there. The 10k release's own maps (.mat) differ slightly from these, so numbers
  do too.

Layouts: images in images/{train,val}2017 or {train,val}2017 (.jpg), labels in annotations/{train,val}2017 or
stuffthingmaps/{train,val}2017 (.png, "stuffthingmaps"); imageLists beside them. What mmsegmentation's converters put
beside the labels (*_labelTrainIds.png, *_instanceTrainIds.png) is left alone. Images have many sizes.

A label is COCO's id - 1, that is 0 to 181, or 255 = unlabelled. 11 of COCO's ids name things that nobody drew, such as
"street sign"; without them 171 classes remain, in the order of the ids, with the names of labels.txt in
github.com/nightrome/cocostuff.

Colours: those of the official API leave every thing black, and mmsegmentation's palette gives 17 of the classes a
colour that another one has too, and black to handbag. Here each class has its own: PASCAL VOC's rule, applied to
COCO's id, as SPADE (Park et al. 2019) does for all but five classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from cawalib.datasets.base import IGNORE
from cawalib.datasets.layouts import Archive, FileDataset, Layout

CLASSES = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
           "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
           "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
           "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
           "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
           "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
           "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
           "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
           "teddy bear", "hair drier", "toothbrush", "banner", "blanket", "branch", "bridge", "building-other", "bush",
           "cabinet", "cage", "cardboard", "carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds",
           "counter", "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble",
           "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit",
           "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light", "mat", "metal",
           "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement", "pillow", "plant-other",
           "plastic", "platform", "playingfield", "railing", "railroad", "river", "road", "rock", "roof", "rug",
           "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone",
           "straw", "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable", "wall-brick",
           "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other",
           "waterdrops", "window-blind", "window-other", "wood")
MISSING = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # labels that no class has
LABELS = tuple(label for label in range(182) if label not in MISSING)
TO_CLASS = np.full(256, -1, np.int16)
TO_CLASS[list(LABELS)] = range(len(LABELS))
TO_CLASS[IGNORE] = IGNORE


def _voc_colour(number):
    """PASCAL VOC's rule: the number's bits, lowest first, go to red, green and blue in turn, highest bit first."""
    return tuple(sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
                 for channel in range(3))


PALETTE = tuple(_voc_colour(label + 1) for label in LABELS)


def _layouts(names, lists):
    folders = (("images/{}2017", "annotations/{}2017"), ("images/{}2017", "stuffthingmaps/{}2017"),
               ("{}2017", "stuffthingmaps/{}2017"), ("{}2017", "annotations/{}2017"))
    return tuple(Layout(images, labels, names, lists=lists,
                        ignored_endings=("_labelTrainIds.png", "_instanceTrainIds.png")) for images, labels in folders)


IMAGES, CALVIN = "http://images.cocodataset.org/zips/", "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/"
TRAIN = Archive("train2017.zip", "10ad623668ab00c62c096f0ed636d6aff41faca5", IMAGES + "train2017.zip",
                19_336_861_798, keep=(".jpg",))
VAL = Archive("val2017.zip", "4950dc9d00dbe1c933ee0170f5797584351d2a41", IMAGES + "val2017.zip",
              815_585_330, keep=(".jpg",))
MAPS = Archive("stuffthingmaps_trainval2017.zip", "", CALVIN + "cocostuffdataset/stuffthingmaps_trainval2017.zip",
               691_000_000, "stuffthingmaps", (".png",))
LISTS = Archive("cocostuff-10k-v1.1.zip", "", CALVIN + "cocostuffdataset/cocostuff-10k-v1.1.zip",
                2_100_000_000, keep=("imageLists/train.txt", "imageLists/test.txt"))

DATASET = FileDataset(
    name="cocostuff", classes=CLASSES, palette=PALETTE, to_class=TO_CLASS,
    expected={"train": 118287, "val": 5000},
    layouts=_layouts({"train": "train", "val": "val"}, {}),
    bases=("", "cocostuff"),
    archives=(TRAIN, VAL, MAPS),
)
DATASET_10K = dataclasses.replace(
    DATASET, name="cocostuff10k", expected={"train": 9000, "val": 1000},
    layouts=_layouts({"train": "train", "val": "train"},
                     {"train": "imageLists/train.txt", "val": "imageLists/test.txt"}),
    archives=(TRAIN, MAPS, LISTS),
)
