"""A run's state on disk, so that it can stop at any step and go on as if it never had.

`training` below is a `loop.Training`.
"""

from __future__ import annotations

import signal
import threading
import zipfile
from contextlib import contextmanager

import torch

from cawalib.files import atomic
from cawalib.runs import RunError


@contextmanager
def stop_on_signal():
    """Yields an event that SIGTERM or an interrupt sets; the loop looks at it after every step.

    Whoever interrupts twice does not want to wait for the step: the second ends the run at once, with no checkpoint.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def save(training) -> None:
    """Write checkpoint/last.pt, atomically; raises DiskFullError. Called by all processes; one of them writes."""
    if training.accelerator.is_main_process:
        _write(training)
    training.accelerator.wait_for_everyone()  # none ends, and has the others ended, before it is written


def _write(training):
    scaler, device = training.accelerator.scaler, training.accelerator.device
    state = {
        "hash": training.config.hash, "seed": training.config.seed,
        "model": training.network.state_dict(),
        "optimizer": training.optimizer.state_dict(), "scheduler": training.scheduler.state_dict(),
        "criterion": training.criterion.state_dict(), "scaler": scaler.state_dict() if scaler else {},
        "epoch": training.epoch, "batch": training.batch, "loss_sum": float(training.loss_sum),
        "epoch_seconds": training.epoch_seconds, "seconds": training.seconds, "history": training.history,
        "weights": [torch.from_numpy(array) for array in training.weights],
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    path = training.config.folder / "checkpoint" / "last.pt"
    path.parent.mkdir(exist_ok=True)
    # through a file of Python's, which says why it cannot be written; PyTorch's own does not
    with atomic(path) as partial, open(partial, "wb") as file:
        torch.save(state, file)


def read_checkpoint(path) -> dict:
    """What `save` wrote, on the CPU; raises RunError if the file is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # checksums of all its parts, at which torch.load does not look
                raise zipfile.BadZipFile
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler fail in any way
        raise RunError(f"{path}: damaged checkpoint ({type(error).__name__}); delete it to start again") from None


def restore(training) -> None:
    """Take up the run's checkpoint, if it has one.

    Raises:
        RunError: the checkpoint is damaged or belongs to another configuration or network.
    """
    path = training.config.folder / "checkpoint" / "last.pt"
    if not path.is_file():
        return
    state = read_checkpoint(path)
    found = (state.get("hash"), state.get("seed"))
    expected = (training.config.hash, training.config.seed)
    if found != expected:
        raise RunError(f"{path}: checkpoint of another configuration (hash and seed {found}, expected {expected}); "
                            "delete it to start again")
    parts = {"model": training.network, "optimizer": training.optimizer, "scheduler": training.scheduler,
             "criterion": training.criterion, "scaler": training.accelerator.scaler}
    for name, part in parts.items():
        if part is None:  # no scaler but with fp16
            continue
        try:
            part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            lines = str(error).strip().splitlines()
            raise RunError(f"{path}: checkpoint of another network, its {name} does not fit ({lines[-1].strip()}); "
                           "delete it to start again") from None
    for name in ("epoch", "batch", "loss_sum", "epoch_seconds", "seconds", "history"):
        setattr(training, name, state[name])
    training.weights = [tensor.numpy() for tensor in state["weights"]]
    torch.set_rng_state(state["random"])
    if training.accelerator.device.type == "cuda" and state["random_cuda"] is not None:
        torch.cuda.set_rng_state(state["random_cuda"], training.accelerator.device)
    training.accelerator.print(f"Going on after epoch {training.epoch}, batch {training.batch}: {path}")
