"""Where the host waits for the card: a step should give the card its work and go on."""

from __future__ import annotations

import contextlib
import itertools
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch
from common import our_step, prepare
from methods import WAYS
from step import reference_step
from torch.autograd import DeviceType

from cawalib.training import build_accelerator, set_up, training_step
from gpu_parts.bench import NOT_HERE, release, row

STEPS = 5
MARK = "one step of the benchmark"
# calls that return when the card is done; a copy to pageable memory waits as well, and is counted by what it does
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize",
         "cuCtxSynchronize", "cuEventSynchronize", "cudaMemcpy", "cudaFree")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")
TO_THE_HOST = "Memcpy DtoH"
ASKS = ("aten::item", "aten::nonzero")  # operations whose result the host needs
ROOT = Path(__file__).resolve().parents[2]


def host_waits(bench):
    """Waits inside a step of CAWA as the profiler counts them, and as PyTorch itself warns of them, line by line."""
    # on a CPU the fused AdamW reads the number of its steps, one for each parameter
    config = bench.config(epochs=10_000, optimizer="adamw" if bench.on_gpu else "sgd")
    training, images, labels = prepare(config, bench.images(config))
    calls = calls_in_steps(bench, our_step(training, images, labels))
    aim = "none" if bench.on_gpu else "no aten::item, all that a CPU shows"
    yield row("a step of CAWA, by the profiler", shown(calls), aim, *judged(bench, calls, waits_of(bench, calls) == 0))
    # whose loop is known to wait once: a count that does not see that means nothing
    calls = calls_in_steps(bench, reference_step(training, images, labels))
    yield row("the same of torchvision's loop, which reads its loss", shown(calls), "at least one a step",
              *judged(bench, calls, waits_of(bench, calls) >= STEPS))
    what = "an epoch of CAWA fed by its loader, by PyTorch's own warnings"
    if not bench.on_gpu:
        yield row(what, "", "none", NOT_HERE)
        return
    found, steps = warned(bench, config, steps=None)
    yield row(what, places(found, steps), "none", not found)
    yield from every_method(bench)


def every_method(bench):
    """A row for all methods and settings of `methods.py` without a wait, and one for each that has some."""
    silent = []
    for name, changes in WAYS.items():
        found, steps = warned(bench, bench.config(**changes, epochs=10_000), steps=3)
        if found:
            yield row(f"{name}, by PyTorch's own warnings", places(found, steps))
        else:
            silent.append(name)
    yield row("without any, by PyTorch's own warnings", f"{len(silent)} of {len(WAYS)}: {'; '.join(silent)}")


# ---------------------------------------------------------------- the profiler

def calls_in_steps(bench, step):
    """Name -> how often it was called within `STEPS` steps, and the copies to the host meanwhile."""
    kinds = torch.profiler.ProfilerActivity
    for _ in range(3):  # the first ones make room and choose algorithms
        step()
    bench.wait()
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA] if bench.on_gpu else [kinds.CPU]) as profiler:
        for _ in range(STEPS):
            with torch.profiler.record_function(MARK):
                step()
        bench.wait()  # outside of the steps, as are the profiler's own waits
    events = list(profiler.events())
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    spans = [event.time_range for event in on_host if event.name == MARK]
    calls = Counter(event.name for event in on_host
                    if any(span.start <= event.time_range.start <= span.end for span in spans))
    copies = sum(event.name.startswith(TO_THE_HOST) for event in events if event.device_type != DeviceType.CPU)
    return calls + Counter({TO_THE_HOST: copies})


def waits_of(bench, calls):
    if not bench.on_gpu:
        return calls["aten::item"]
    # names may carry a version, as in cudaStreamSynchronize_v3020; cudaMemcpyAsync is none of them
    waits = sum(count for name, count in calls.items() if name.split("_v")[0] in WAITS)
    return max(waits, calls[TO_THE_HOST])


def judged(bench, calls, reached):
    """The verdict; none on a card of which the profiler sees nothing, as where it has no permission."""
    if bench.on_gpu and not any(name.startswith(LAUNCHES) for name in calls):
        return (NOT_HERE,)
    return (reached,)


def shown(calls):
    names = [*ASKS, *sorted(name for name in calls if name.split("_v")[0] in WAITS), TO_THE_HOST]
    return f"calls in {STEPS} steps: " + ", ".join(f"{name} {calls[name]}" for name in names)


# ---------------------------------------------------------------- PyTorch's own warnings

def warned(bench, config, steps):
    """Place in the code -> waits, and steps that were looked at; all steps of an epoch if `steps` is None."""
    training = set_up(config, {"train": bench.images(config)}, build_accelerator(config))
    training.model.train()
    some_steps(training, 3)  # the first ones make room and choose algorithms
    with waiting_places() as found:
        count = some_steps(training, steps)
    del training
    release()
    return found, count


def some_steps(training, steps):
    count = 0
    for images, labels in itertools.islice(training.loader, steps):
        training_step(training, images, labels)
        training.batch, count = training.batch + 1, count + 1
    return count


@contextlib.contextmanager
def waiting_places():
    """Counts, by place in the code, the operations for which the host waits."""
    found = Counter()

    def note(message, *_, **__):
        if "called a synchronizing" in str(message):
            found[place(traceback.extract_stack())] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def place(stack):
    """The innermost line of this library, or else of whatever is innermost, without the folders of this machine."""
    for frame in reversed(stack):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / "cawalib"):
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    other = [frame for frame in stack if Path(frame.filename).parent != Path(__file__).parent][-1]
    return f"{'/'.join(Path(other.filename).parts[-2:])}:{other.lineno}"


def places(found, steps):
    lines = ", ".join(f"{name} {count}" for name, count in found.most_common())
    return f"waits in {steps} steps: {lines or 'none'}"
