"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from cawalib.settings import ConfigError


class DiskFullError(OSError):
    """There is no room for a file. The message is one line and names it."""

    def __init__(self, path):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def __reduce__(self):  # to come back whole from a worker process
        return DiskFullError, (self.filename,)

    def __str__(self):
        return f"{self.filename}: cannot be written, the disk is full (or a quota); make room and start the same again"


def no_room(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that a file had no room: disk, quota, or limit of a file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def atomic(path):
    """Yields a temporary path beside `path`; on success it takes the name `path`, on failure nothing is left.

    Raises:
        DiskFullError: there is no room for it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except Exception as error:
        if no_room(error):
            raise DiskFullError(path) from None
        raise
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


def read_arrays(path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, after a look at the checksums of its parts; raises ValueError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is another one")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # noqa: BLE001 - damage makes the reader fail in any way
        raise ValueError(f"{type(error).__name__}: {error}") from None


def sha256(path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sum(content) -> str:
    """The SHA-256 of `content` as JSON has it (see `plain`), whatever the file looks like."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
