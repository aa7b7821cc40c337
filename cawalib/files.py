"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd


@contextmanager
def atomic(path):
    """Yields a temporary path beside `path`; on success it takes the name `path`, on failure nothing is left."""
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, content) -> None:
    """Write `content` as JSON, atomically; NaN becomes null."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def write_table(path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    with atomic(path) as partial:
        table.to_csv(partial, index=False)


def write_arrays(path, **arrays) -> None:
    """Write arrays as compressed npz, atomically."""
    with atomic(path) as partial:
        np.savez_compressed(partial, **arrays)


def _plain(value):
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.floating, float)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value
