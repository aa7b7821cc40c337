"""Who may write: one process a run, and one call of the batch engine a study. A lock ends with its process.

The system's own locks, which also hold between machines that share a folder (NFS, Lustre, ...), and which no killed
process leaves behind. Where a mount keeps them to itself, what stands in the lock file has the last word: whoever was
at it on another machine.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

MOUNTS = Path("/proc/self/mountinfo")  # Linux; elsewhere nothing is known of mounts
# file system -> mount options with which its locks hold on one machine alone; None: whatever the options
PRIVATE = {"nfs": {"nolock", "local_lock=flock", "local_lock=all"}, "lustre": {"localflock"}, "cifs": {"nobrl"},
           "smb3": {"nobrl"}, "fuse": None, "9p": None}


class RunError(RuntimeError):
    """A run folder cannot be used. The message is one line and names the folder."""


@contextmanager
def claim(folder):
    """Make the folder, see that it can be written, and keep other processes out of it while a run writes there.

    Raises:
        RunError: the folder cannot be written or locked, or another process is writing this very run.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / ".lock")
    except filelock.Timeout:
        raise RunError(f"run folder {folder}: {_who(folder / '.lock')} is writing this run; wait for it to end") \
            from None
    except (OSError, NotImplementedError) as error:
        raise RunError(f"run folder {folder}: cannot be written or locked ({_reason(error)}); "
                       "choose another 'outputs_root' or mend its permissions") from None
    try:
        yield folder
    finally:
        _release(lock)
        _remove_if_empty(folder)


def _remove_if_empty(folder):
    # a run refused before it began leaves no trace, not even its empty parents up to `runs`
    if [path.name for path in folder.iterdir()] == [".lock"]:
        (folder / ".lock").unlink()
        with suppress(OSError):  # up to the first that is not empty, or where a disk is mounted
            for path in [folder, *folder.parents][:5]:
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
    path = folder / f".{study}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = _acquire(path)
        except filelock.Timeout:
            print(f"study '{study}': {_who(path)} is computing it in {folder}; waiting for it to end", flush=True)
            lock = _acquire(path, wait=True)
    except (OSError, NotImplementedError) as error:
        raise RunError(f"outputs folder {folder}: cannot be locked for study '{study}' ({_reason(error)}); "
                       "choose another 'outputs_root'") from None
    atexit.register(_release, lock)
    return lock


def _acquire(path, wait=False):
    """Lock a file and write into it who has it; raises filelock.Timeout where another process has it."""
    lock = filelock.FileLock(path)
    lock.acquire(blocking=wait)
    mount, before = private_mount(path), _holder(path)
    if mount and before and before["host"] != platform.node():
        lock.release()
        raise RunError(f"{path}: {_who(path)} was at it when last seen, and {mount} does not pass locks on to other "
                       "machines; if nothing runs there any more, delete this file")
    path.write_text(json.dumps({"host": platform.node(), "process": os.getpid()}))
    return lock


def _release(lock):
    if lock.is_locked:
        Path(lock.lock_file).write_text("")
        lock.release()


def private_mount(path) -> str:
    """The mount that a file lies on, in words, where a lock on it may not be seen from other machines; else ""."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    path, found = Path(os.path.abspath(path)).resolve(), ("", "", set())
    for line in lines:
        before, _, after = line.partition(" - ")
        place = before.split()[4].encode().decode("unicode_escape")  # a space is written as \040
        kind, _, options = after.split()[:3]
        if path.is_relative_to(place) and len(place) >= len(found[0]):
            found = place, kind, {*before.split()[5].split(","), *options.split(",")}
    place, kind, options = found
    private = PRIVATE.get(kind.partition(".")[0].rstrip("4"), set())
    told = "" if private is None else ", ".join(sorted(private & options))
    return f"its mount {place} ({kind}{', ' * bool(told)}{told})" if private is None or told else ""


def _holder(path):
    try:
        kept = json.loads(path.read_text())
        return kept if {"host", "process"} <= kept.keys() else None
    except (OSError, ValueError, AttributeError):  # nobody, or not written yet
        return None


def _who(path):
    kept = _holder(path)
    return f"process {kept['process']} on {kept['host']}" if kept else "another process"


def _reason(error):
    return getattr(error, "strerror", None) or error
