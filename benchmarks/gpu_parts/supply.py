"""What keeps a card busy: several runs on it at once, and batches that come in time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from unittest import mock

import torch
from common import our_step

from cawalib.runs import RunConfig
from cawalib.training import build_accelerator, set_up, train, training_step
from gpu_parts.bench import NOT_HERE, SKIPPED, release, repeated_images, row

START_SECONDS = 120  # for a process to import everything


# ---------------------------------------------------------------- several runs

def several_runs(bench):
    """So many runs at once on one device, each in a process of its own, against one after the other."""
    bench.images(bench.config())  # what is drawn on first use is drawn here
    alone = last = None
    for count in bench.size.at_once:
        what = f"{count} at once" if count > 1 else "one at a time"
        if last is not None and bench.left < 2 * last:
            yield row(what, "", "", SKIPPED)
            continue
        started = time.monotonic()
        seconds = at_once(bench, count)
        last, alone = time.monotonic() - started, alone or seconds
        yield bench.aimed(what, f"{seconds:.1f} s; {3600 * count / seconds:.0f} runs an hour, "
                          f"{count * alone / seconds:.2f} times one at a time", "", True)


def at_once(bench, count):
    """Seconds from when all processes are ready until the last run is done."""
    # a process that was forked cannot use the card; without one, forking spares the import of everything
    fork = not bench.on_gpu and "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if fork else "spawn")
    ready = context.Barrier(count + 1)
    settings = [bench.config(**bench.size.crowd, seed=seed, outputs_root=str(bench.folder / f"{count} at once"))
                for seed in range(count)]
    processes = [context.Process(target=one_run, args=(config.changed(), ready), daemon=True) for config in settings]
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", CAWALIB_HEADLESS="1"):
        try:
            for process in processes:
                process.start()
            ready.wait(min(bench.left, START_SECONDS))
            started = time.perf_counter()
            for process in processes:
                process.join()
            seconds = time.perf_counter() - started
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
    failed = sum(process.exitcode != 0 for process in processes)
    if failed:
        raise RuntimeError(f"{failed} of {count} runs failed; what they said stands above")
    return seconds


def one_run(settings, ready):
    """Runs in a process of its own."""
    torch.set_num_threads(1)
    config = RunConfig(**settings)
    if config.device == "cuda":
        torch.zeros(1, device="cuda")  # the card is opened before the clock starts
    ready.wait(START_SECONDS)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        train(config)


# ---------------------------------------------------------------- batches from a loader

def held_images(bench):
    """An epoch fed by the loader against as many steps on a batch that lies on the device: what waiting costs."""
    config = bench.config(epochs=10_000)
    yield from fed(bench, f"{config.dataset} {config.image_width}x{config.image_height}, {config.network} network",
                   config, bench.images(config))
    if not bench.size.large_images:
        return
    # as workflow/grids/cityscapes.yaml has it, without the weights of the encoder
    config = bench.config(
        dataset="streets", network="deeplabv3plus", optimizer="sgd", learning_rate=0.001, image_height=512,
        image_width=1024, short_side=1024, evaluation="slide", largest_class_share=0.75, epochs=10_000)
    what = "Cityscapes' size, crops of 1024x512, DeepLabV3+ R18"
    if bench.on_gpu and torch.cuda.get_device_properties(0).total_memory < 15 * 2**30:
        yield row(what, "less than 16 GB of memory", "", NOT_HERE)
        return
    yield from fed(bench, what, config, repeated_images(bench.size.large_images, 1024, 2048))


def fed(bench, what, config, dataset):
    last = 0.0
    for workers in bench.size.workers:
        label = f"{what}, batch {config.batch_size}, {workers} loading processes"
        if bench.left < 1.5 * last:
            yield row(label, "", "", SKIPPED)
            continue
        started = time.monotonic()
        training = set_up(config.replace(data_workers=workers), {"train": dataset}, build_accelerator(config))
        training.model.train()
        held = on_the_device(bench, training)
        loaded, first = by_the_loader(bench, training)
        yield bench.aimed(label, f"{1000 * loaded:.1f} ms a step, {1000 * held:.1f} ms with the batch on the device: "
                          f"{100 * max(0, 1 - held / loaded):.0f} % is waiting; {config.batch_size / loaded:.0f} "
                          f"images a second; first batch of an epoch after {first:.2f} s", "", True)
        last = time.monotonic() - started
        del training
        release()


def on_the_device(bench, training):
    """Seconds of a step whose batch is there already."""
    pairs = [training.loader.dataset[index] for index in range(training.config.batch_size)]
    step = our_step(training, *(torch.stack(part).to(training.accelerator.device) for part in zip(*pairs, strict=True)))
    for _ in range(3):  # the first ones make room and choose algorithms
        step()
    bench.wait()
    started = time.perf_counter()
    for _ in range(training.batches):
        step()
    bench.wait()
    return (time.perf_counter() - started) / training.batches


def by_the_loader(bench, training):
    """Seconds of a step over a whole epoch, the start of its processes included, and seconds until the first batch."""
    started, first = time.perf_counter(), None
    for images, labels in training.loader:
        first = first or time.perf_counter() - started
        training_step(training, images, labels)
        training.batch = (training.batch + 1) % training.batches
    bench.wait()
    return (time.perf_counter() - started) / training.batches, first
