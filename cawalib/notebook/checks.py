"""What is checked about a notebook after it ran: its cells and outputs."""

from __future__ import annotations

import hashlib
import json
import re

# the library's own errors, whose one line says what is wrong and what to do: where they were raised helps nobody
FORESEEN = ("CallError", "ComparisonError", "ConfigError", "DatasetError", "DiskFullError", "NotebookError",
            "ParameterError", "RunError", "Terminated", "TrainingInterrupted", "UnknownLabels")


class NotebookError(RuntimeError):
    """The notebook ran and failed.

    Args:
        message: one line.
        traceback: the kernel's own, if there is one.
        name: of the class of the error in the kernel, if there was one.
    """

    exit_code = 1

    def __init__(self, message, traceback="", name=""):
        super().__init__(message)
        self.traceback, self.name = traceback, name

    @property
    def foreseen(self) -> bool:
        """Whether its one line says all that a user needs."""
        return self.name in FORESEEN


class Terminated(NotebookError):
    """SIGTERM or SIGINT ended the run."""

    exit_code = 143
    foreseen = True


def first_failure(nb):
    """What papermill may take for success: an error output (`sys.exit()`), or a cell that was not executed.

    Args:
        nb: an executed notebook.

    Returns:
        A NotebookError to raise, or None.
    """
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                early = output.ename == "SystemExit" and output.evalue in ("", "0", "None")
                last = "the notebook ended early" if early else last_line(output.evalue)
                return NotebookError(f"cell In [{cell.execution_count}]: {output.ename}: {last}",
                                     plain("\n".join(output.traceback)), output.ename)
        skipped = cell.cell_type != "code" or "skip-execution" in cell.metadata.get("tags", [])
        if not skipped and cell.source.strip() and cell.execution_count is None:
            return NotebookError(f"the cell that begins {cell.source.splitlines()[0]!r} was not executed")
    return None


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def last_line(text):
    lines = [line for line in plain(text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def source_digest(nb) -> str:
    """A digest of all code cells' sources, which tells whether outputs are older than their source.

    Args:
        nb: a notebook as read by nbformat.

    Returns:
        64 hexadecimal digits, equal to `nb.metadata["cawalib"]["source_digest"]` after `refresh`.
    """
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def check_outputs(cell, notebook: str, folders) -> None:
    """Refuse what must not stand in a committed notebook.

    Args:
        cell: an executed cell.
        notebook: name for the message.
        folders: absolute paths of this machine.

    Raises:
        NotebookError: the cell wrote to stderr, or one of the paths stands in its outputs.
    """
    where = f"{notebook}: cell In [{cell.get('execution_count')}]"
    for output in cell.get("outputs", []):
        if output.get("name") == "stderr":
            raise NotebookError(f"{where}: found output on stderr, expected none: {last_line(output.text)!r}")
        for folder in folders:
            if folder != "/" and re.search(re.escape(folder) + r"(?![\w-])", json.dumps(output)):
                raise NotebookError(f"{where}: found {folder!r} in its output, expected no path of this machine; "
                                    "print paths relative to the repository")
