"""Progress bars that show only where somebody looks."""

from __future__ import annotations

import os
import sys

from tqdm.auto import tqdm


def is_watched() -> bool:
    """Whether somebody looks at this process as it goes: a terminal, or a notebook open in JupyterLab or VS Code."""
    if os.environ.get("CAWALIB_HEADLESS"):
        return False
    return sys.stderr.isatty() or bool(os.environ.get("JPY_SESSION_NAME") or os.environ.get("VSCODE_PID"))


def progress(iterable=None, total=None, desc: str = "", **kwargs) -> tqdm:
    """A tqdm bar that disappears when done, and shows nothing in a headless run."""
    return tqdm(iterable, total=total, desc=desc, leave=False, disable=not is_watched(), **kwargs)
