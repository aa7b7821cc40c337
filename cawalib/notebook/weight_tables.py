"""Class weights as tables, to read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from cawalib.datasets import ClassStatistics
from cawalib.method import STATIC, basic_weight, cawa_weight, ratio_weight, static_weight


def static_weight_table(statistics: ClassStatistics) -> pd.DataFrame:
    """Every static weighting side by side, most frequent class first; weights of mean 1."""
    counts = (statistics.pixels, statistics.images, statistics.pixels_where_present)
    table = pd.DataFrame({name: static_weight(name, *counts).numpy() for name in STATIC}, index=statistics.classes)
    return table.iloc[np.argsort(-statistics.pixels, kind="stable")].round(3)


def weight_table(classes, score: torch.Tensor, terms: str = "basic*ratio") -> pd.DataFrame:
    """Score, BW, RW and weight per class, for reading; score (C,) in [0, 1]."""
    columns = {"score S": score, "Basic Weight": basic_weight(score), "Ratio Weight": ratio_weight(score),
               "weight w": cawa_weight(score, terms)}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=list(classes)).round(3)
