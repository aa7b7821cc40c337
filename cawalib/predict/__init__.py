"""Predict: a trained network, taken from its run or from a file, put to use on photographs, and exported.

    python -m cawalib.predict RUN PHOTOGRAPHS --out FOLDER
"""

from cawalib.extras import require

require("train")

from cawalib.predict.formats import export
from cawalib.predict.network import TrainedNetwork, best_run, load_network
from cawalib.predict.photographs import photographs_in, segment

__all__ = ["TrainedNetwork", "best_run", "export", "load_network", "photographs_in", "segment"]
