"""Notebooks: what their first cells call, their strict headless runs, and what is drawn for them alone.

`walkthrough` takes one batch through the method, `illustrations` draws it, `weight_tables` shows weights to read.
"""

from cawalib.extras import require

require("notebooks")

from cawalib.notebook.checks import NotebookError, Terminated, source_digest
from cawalib.notebook.parameter_cell import CallError, ParameterError, parameters, read_notebook
from cawalib.notebook.refresh import refresh
from cawalib.notebook.runner import run, start

__all__ = [
    "CallError", "NotebookError", "ParameterError", "Terminated", "parameters", "read_notebook", "refresh", "run",
    "source_digest", "start",
]
