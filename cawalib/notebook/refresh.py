"""The committed outputs of a notebook, made anew from its default parameters."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cawalib.notebook import checks
from cawalib.notebook.checks import NotebookError, source_digest
from cawalib.notebook.parameter_cell import read_notebook
from cawalib.notebook.runner import headless, kernel_config, repository_root


def refresh(notebook) -> None:
    """Execute a notebook with its default parameters and keep its outputs, without what changes by itself.

    Args:
        notebook: the notebook; it is replaced at once at the end, and untouched by a failure.

    Raises:
        CallError: the notebook is not fit for a run; nothing was run.
        NotebookError: a cell failed, wrote to stderr, or shows a path of this machine.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    from cawalib.files import atomic

    notebook = Path(notebook).absolute()
    nb, _ = read_notebook(notebook)
    root = repository_root(notebook.parent)
    options = dict(timeout=None, kernel_name="python3", store_widget_state=False, coalesce_streams=True)
    folder = {"metadata": {"path": str(notebook.parent)}}
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    try:
        with headless(), kernel_config() as config, contextlib.suppress(CellExecutionError):  # found in the outputs
            NotebookClient(nb, resources=folder, config=config, **options).execute()
    except Exception as error:  # the kernel did not start, died, ...
        raise NotebookError(f"{notebook.name}: {type(error).__name__}: {checks.last_line(str(error))}") from error
    failure = checks.first_failure(nb)
    if failure:
        raise NotebookError(f"{notebook.name}: {failure}", failure.traceback, failure.name)
    for cell in nb.cells:
        checks.check_outputs(cell, notebook.name, (str(root), str(Path.home())))
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
    for key in ("papermill", "widgets"):
        nb.metadata.pop(key, None)
    nb.metadata["cawalib"] = {"source_digest": source_digest(nb)}
    try:
        with atomic(notebook) as partial:
            nbformat.write(nb, partial)
    except OSError as error:
        raise NotebookError(f"{notebook.name}: {error}") from None
