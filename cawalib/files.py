"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from cawalib.settings import ConfigError


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
        partial.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def write_table(path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    with atomic(path) as partial:
        table.to_csv(partial, index=False)


def write_arrays(path, **arrays) -> None:
    """Write arrays as compressed npz, atomically."""
    with atomic(path) as partial:
        np.savez_compressed(partial, **arrays)


def sha256(path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LONGEST_NAME = 255  # bytes of a file's or folder's name, in practically every file system


def check_writable(folder, parameter: str = "outputs_root") -> None:
    """Raises ConfigError if `folder`, or the nearest one above it that exists, cannot be written, or is no name."""
    if not str(folder):
        raise ConfigError(f"parameter '{parameter}': found '', expected a folder")
    folder = Path(folder)
    longest = max((len(os.fsencode(part)) for part in folder.parts), default=0)
    if longest > LONGEST_NAME or len(os.fsencode(folder)) > 4096 - LONGEST_NAME:
        raise ConfigError(f"parameter '{parameter}': {str(folder)[:40]}... is too long, its longest name has {longest} "
                          f"bytes, expected at most {LONGEST_NAME}; choose another one")
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"parameter '{parameter}': {folder} is not a folder that can be written; choose another one")


def plain(value):
    """What json can write of a value: arrays as lists, numpy's numbers as Python's, NaN as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, (np.floating, float)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value
