import gc
import os

# tests compare numbers, some of them bitwise: one thread, as in the workflow
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
CAMVID = Path(__file__).resolve().parents[2] / "shared" / "data" / "CamVid"


@pytest.fixture
def camvid():
    """The folder with real CamVid; the test is skipped, and says so, where it is not."""
    if not CAMVID.is_dir():
        pytest.skip("real CamVid is not at ../shared/data/CamVid beside this repository")
    return CAMVID


def pytest_collection_finish():
    """What is imported stays: statsmodels collects garbage at each correction, a third of a second with torch."""
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # else nanobind says at exit that there are leaks
