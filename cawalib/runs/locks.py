"""Who may write: one process a run, and one call of the batch engine a study. A lock ends with its process."""

from __future__ import annotations

import json
import os
import platform
from contextlib import contextmanager
from pathlib import Path

import filelock

from cawalib.files import write_json


class RunError(RuntimeError):
    """A run folder cannot be used. The message is one line and names the folder."""


@contextmanager
def claim(folder):
    """Make the folder, see that it can be written, and keep other processes out of it while a run writes there.

    Raises:
        RunError: the folder cannot be written, or another process is writing this very run.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", blocking=False)
        lock.acquire()
    except filelock.Timeout:
        raise RunError(f"run folder {folder}: another process is writing this run; wait for it to end") from None
    except OSError as error:
        raise RunError(f"run folder {folder}: cannot be written ({error.strerror}); "
                       "choose another 'outputs_root' or mend its permissions") from None
    try:
        yield folder
    finally:
        lock.release()
        _remove_if_empty(folder)


def _remove_if_empty(folder):
    # a run refused before it began leaves no trace, not even its empty parents up to `runs`
    if [path.name for path in folder.iterdir()] == [".lock"]:
        (folder / ".lock").unlink()
        for path in [folder, *folder.parents][:5]:
            if any(path.iterdir()):
                break
            path.rmdir()


def alone(outputs_root, study: str) -> filelock.BaseFileLock:
    """Keep other calls of the batch engine away from a study, or wait for the one that is at it.

    Snakemake plans from the files that are there, and removes what a job is to make before the job begins: two calls at
    once would remove what the other has made.

    Returns:
        The lock, to be kept as long as the call lasts.

    Raises:
        RunError: the outputs folder cannot be written, or its disk knows no locks.
    """
    folder = Path(outputs_root)
    path, holder = folder / f".{study}.lock", folder / f".{study}.lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            print(f"study '{study}': {_who(holder)} is computing it in {folder}; waiting for it to end", flush=True)
            lock.acquire()
        write_json(holder, {"host": platform.node(), "process": os.getpid()})
    except (OSError, NotImplementedError) as error:
        raise RunError(f"outputs folder {folder}: cannot be locked for study '{study}' "
                       f"({getattr(error, 'strerror', None) or error}); choose another 'outputs_root'") from None
    return lock


def _who(holder):
    try:
        kept = json.loads(holder.read_text())
        return f"process {kept['process']} on {kept['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
