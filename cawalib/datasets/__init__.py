"""Datasets: one file each, all of them giving numbered pairs of an image and its labels, and their class counts.

`load` turns settings into datasets; `preparation` is what notebook 01 does.
"""

from cawalib.extras import require

require("train")

from cawalib.datasets.base import IGNORE, DatasetError, SegmentationDataset
from cawalib.datasets.folder import IMAGE_ENDINGS, read_photograph
from cawalib.datasets.load import FILE_DATASETS, list_datasets, load_datasets, load_streets
from cawalib.datasets.preparation import (
    PreparationConfig,
    counted,
    inventory,
    obtain,
    prepare,
    read,
    totals,
)
from cawalib.datasets.statistics import ClassStatistics, Survey, class_statistics, split_table, survey

__all__ = [
    "FILE_DATASETS", "IGNORE", "IMAGE_ENDINGS", "ClassStatistics", "DatasetError", "PreparationConfig",
    "SegmentationDataset", "Survey", "class_statistics", "counted", "inventory", "list_datasets", "load_datasets",
    "load_streets", "obtain", "prepare", "read", "read_photograph", "split_table", "survey", "totals",
]
