"""Progress where somebody looks: a bar in a terminal; in a notebook one display, updated in place, that stays readable.

Widgets are not used: a notebook that was saved and opened again shows "model not found" in their place.
"""

from __future__ import annotations

import io
import os
import sys

from tqdm import tqdm


def is_watched() -> bool:
    """Whether somebody looks at this process as it goes: a terminal, or a notebook open in JupyterLab or VS Code."""
    if os.environ.get("CAWALIB_HEADLESS"):
        return False
    return sys.stderr.isatty() or _in_notebook()


def in_live_notebook() -> bool:
    """Whether somebody looks at this process in a notebook."""
    return is_watched() and _in_notebook()


def _in_notebook():
    return bool(os.environ.get("JPY_SESSION_NAME") or os.environ.get("VSCODE_PID"))


def progress(iterable=None, total=None, desc: str = "", **kwargs) -> tqdm:
    """A tqdm bar that disappears when done, and shows nothing in a headless run."""
    if in_live_notebook():
        return _NotebookBar(iterable, total=total, desc=desc, leave=False, file=io.StringIO(), ascii=True,
                            bar_format="{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left",
                            mininterval=0.2, **kwargs)
    return tqdm(iterable, total=total, desc=desc, leave=False, disable=not is_watched(), **kwargs)


def say(line: str) -> None:
    """A line that stays: printed, or in a notebook above the bar of the cell that runs."""
    if in_live_notebook():
        display = _Display.of_this_cell()
        display.lines.append(line)
        display.show()
    else:
        print(line, flush=True)


class _Display:
    """The one display of a cell: the lines that were said, and the bar that moves now."""

    last: _Display | None = None

    def __init__(self, cell):
        self.cell, self.lines, self.handle = cell, [], None

    @classmethod
    def of_this_cell(cls) -> _Display:
        from IPython import get_ipython

        cell = getattr(get_ipython(), "execution_count", None)
        if cls.last is None or cls.last.cell != cell:
            cls.last = cls(cell)
        return cls.last

    def show(self, bar: str = "") -> None:
        from IPython.display import display

        text = {"text/plain": "\n".join([*self.lines, bar] if bar else self.lines) or "done"}
        if self.handle is None:
            self.handle = display(text, raw=True, display_id=True)
        else:
            self.handle.update(text, raw=True)


class _NotebookBar(tqdm):
    """tqdm counts and reckons the time left; what it would print goes into the cell's display."""

    def display(self, msg=None, pos=None):
        _Display.of_this_cell().show(str(self) if msg is None else msg)
        return True

    def close(self):
        shown = not self.disable
        super().close()
        if shown and _Display.last is not None:
            _Display.last.show()
