"""One run over several processes: torchrun starts them, and what they say comes back in one piece.

`train` calls `launched` where the setting `processes` is above 1. Each process is `python -m cawalib.training`, as
whoever has several machines starts it with torchrun or `accelerate launch` (docs/cluster.md), and `joins` them.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from cawalib.datasets import DatasetError
from cawalib.files import DiskFullError, sha256, write_json
from cawalib.runs import Run, RunConfig, RunError, load_run
from cawalib.settings import ConfigError
from cawalib.training.checkpoints import stop_on_signal
from cawalib.training.loop import TrainingInterrupted

FORESEEN = (ConfigError, DatasetError, DiskFullError, RunError, TrainingInterrupted)
SAID = re.compile(r"^cawalib\.training: error: (\w+): (.*)$", re.MULTILINE)  # what a process ends with
LEFT_ALONE = "another of the run's processes has ended"
# of gloo, NCCL and the store, where a process waits for one that is no more
BROKEN = re.compile("gloo/transport|Connection (closed|reset)|Broken pipe|recvValue failed|ncclRemoteError")
SYSTEM = ctypes.CDLL(None) if sys.platform == "linux" else None


def joined(config: RunConfig) -> RunConfig:
    """The settings with as many processes as torchrun or `accelerate launch` has started; one without them."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return config if processes == config.processes else config.replace(processes=processes)


def threads(config: RunConfig) -> int:
    """So many for each of a machine's processes that each data worker has a core left, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes_here(config) - config.data_workers)


def processes_here(config: RunConfig) -> int:
    """Of the run's processes those on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", config.processes))


def launched(config: RunConfig) -> Run:
    """Train a run in processes of its own on this machine, and read it back.

    SIGTERM and an interrupt are passed on; a second interrupt, and the end of this process, end them at once.

    Raises:
        What `train` raises in one of them; RunError if one was killed.
    """
    environment = {"OMP_NUM_THREADS": str(threads(config))} | os.environ | {"CAWALIB_HEADLESS": "1"}
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "errors"), "w+") as errors, \
            stop_on_signal() as stop:
        write_json(Path(folder, "settings.json"), asdict(config))
        command = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(config.processes),
                   "-m", "cawalib.training", str(Path(folder, "settings.json"))]
        child = subprocess.Popen([sys.executable, "-m", *command], env=environment, text=True, stdout=subprocess.PIPE,
                                 stderr=errors, start_new_session=True, preexec_fn=end_with_parent)
        threading.Thread(target=_pass_on, args=(stop, child), daemon=True).start()
        try:
            for line in child.stdout or ():
                print(line, end="", flush=True)
            status = child.wait()
        finally:
            told = stop.is_set()
            if child.poll() is None:
                child.kill()  # its processes see that it has ended
            stop.set()  # the thread ends
        errors.seek(0)
        said = errors.read()
    if status:
        raise _error(config, said, told, status)
    return load_run(config.folder)


def _pass_on(stop, child):
    stop.wait()
    child.terminate()


def end_with_parent() -> None:
    """Have the system send SIGTERM to this process when its parent ends (Linux)."""
    if SYSTEM is not None:
        SYSTEM.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _error(config, said, told, status):
    """What to raise after processes that ended badly; the first to end says why, and the others that they were left."""
    found = [(name, words) for name, words in SAID.findall(said) if LEFT_ALONE not in words]
    if found:
        kinds = {kind.__name__: kind for kind in FORESEEN if kind is not DiskFullError}
        name, words = found[0]
        return kinds.get(name, RunError)(words)
    if told:
        return TrainingInterrupted(f"stopped; start the same run again to go on from its last checkpoint, if it has "
                                   f"one: {config.folder}")
    # torchrun's words; its SIGTERM is what it ends the others with
    signals = sorted(re.findall(r"Signal \d+ \((SIG\w+)\) received by PID", said), key="SIGTERM".__eq__)
    if signals or status < 0 or LEFT_ALONE in said:
        by = signals[0] if signals else signal.Signals(-status).name if status < 0 else "from outside"
        return RunError(f"run folder {config.folder}: one of its {config.processes} processes was ended ({by}; for "
                        "lack of memory?); start the same run again to go on from its last checkpoint")
    return RuntimeError(f"a process of the run failed with:\n{said}")


@contextmanager
def left_alone(config: RunConfig):
    """Says of a process that waits for one that is no more, in one line, what it is.

    Raises:
        RunError: instead of what PyTorch raises.
    """
    try:
        yield
    except RuntimeError as error:
        if config.processes == 1 or isinstance(error, FORESEEN) or not BROKEN.search(str(error)):
            raise
        raise RunError(f"run folder {config.folder}: {LEFT_ALONE}; start the same run again to go on from its last "
                       "checkpoint") from None


def same_everywhere(config: RunConfig, accelerator: Accelerator, made: dict) -> None:
    """See that all processes are about to do the same.

    Args:
        made: the run's environment, see `runs.environment`.

    Raises:
        RunError: a machine has other settings, code or data, or does not see what the main process reads and writes.
    """
    checkpoint = config.folder / "checkpoint" / "last.pt"
    own = {"settings": (config.hash, config.seed), "code": made["behaviour"], "data": made["data_digest"],
           "initial weights": made["initial_weights"], "run folder": (config.folder / "config.json").is_file(),
           "checkpoint": sha256(checkpoint) if checkpoint.is_file() else ""}
    first = broadcast_object_list([own])[0]
    different = [name for name in own if own[name] != first[name]]
    if different:
        raise RunError(f"run folder {config.folder}: process {accelerator.process_index} has or sees another "
                       f"{' and '.join(different)} than the main process; start all of them with the same settings, "
                       "code and data, and an 'outputs_root' on a disk that all machines share")
