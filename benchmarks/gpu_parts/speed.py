"""A training step on a GPU: what the update of the class weights costs of it, and torchvision's loop beside it."""

from __future__ import annotations

import statistics
import time

import torch
from common import measure, percent, ratio
from step import WAYS, make

from gpu_parts.bench import leading, milliseconds, release

SHAPE_SECONDS = 12  # for a measurement at one shape: a slow card has fewer rounds


def update_cost(bench):
    """The update within the step, over the rest of the step."""
    for name, shape in bench.size.setups.items():
        made, batch, seconds = fitting(bench, shape, WAYS[2:])
        step, training = made[WAYS[2]]
        rounds = rounds_of(bench, 2 * seconds)
        updates, steps = updates_and_steps(bench, training, step, rounds, bench.mark)
        rest = [whole - part for whole, part in zip(steps, updates, strict=True)]
        share = percent(updates, rest)
        waited, _ = updates_and_steps(bench, training, step, rounds, lambda: waited_mark(bench))
        yield bench.aimed(f"{name}, batch {batch}",
                          f"{share} % of the rest of the step: {milliseconds(updates)} of {milliseconds(steps)}; where "
                          f"the host waits before and after it: {milliseconds(waited)}", "at most 2 %",
                          leading(share) <= 2)
        del made, step, training
        release()


def updates_and_steps(bench, training, step, rounds, mark):
    """Seconds of every update, and of every step around it."""
    weighting, updates, steps = training.criterion.weighting, [], []
    update = weighting.update

    def marked(feedback):
        start = mark()
        update(feedback)
        updates.append((start, mark()))

    weighting.update = marked
    try:
        for _ in range(rounds):
            start = mark()
            step()
            steps.append((start, mark()))
    finally:
        del weighting.update  # the method is seen again
    return bench.between(updates), bench.between(steps)


def waited_mark(bench):
    bench.wait()
    return bench.mark()


def throughput(bench):
    """Steps in a row, ours and those of torchvision's loop, in turn."""
    for name, shape in bench.size.setups.items():
        made, batch, seconds = fitting(bench, shape, WAYS)
        count = bench.size.in_a_row
        taken = measure({way: in_a_row(step, count) for way, (step, _) in made.items()},
                        rounds_of(bench, count * seconds))
        taken = {way: [turn / count for turn in turns] for way, turns in taken.items()}
        theirs, plain = taken[WAYS[0]], taken[WAYS[1]]
        for way in WAYS[1:]:
            times = ratio(theirs, taken[way])
            added = percent([one - other for one, other in zip(taken[way], plain, strict=True)], plain)
            yield bench.aimed(f"{name}, batch {batch}: {way}",
                              f"{times} times; {milliseconds(taken[way])} a step, torchvision's loop "
                              f"{milliseconds(theirs)}; {batch / statistics.median(taken[way]):.0f} images a second"
                              + f"; added to cross entropy {added} %" * (way == WAYS[2]), "at least 1",
                              leading(times) >= 1)
        del made
        release()


def in_a_row(step, count):
    def steps():
        for _ in range(count):
            step()
    return steps


def fitting(bench, shape, ways):
    """The steps of some ways at the largest batch that the memory holds, that batch, and seconds of all their steps."""
    batch = shape[3] if bench.on_gpu else 2
    while True:
        made = {}
        try:
            made = {way: make(shape, way, batch) for way in ways}
            for _ in range(3):  # the first ones make room and choose algorithms
                bench.wait()
                started = time.perf_counter()
                for step, _ in made.values():
                    step()
                bench.wait()
            return made, batch, time.perf_counter() - started
        except torch.OutOfMemoryError:
            if batch <= 2:
                raise
        made.clear()
        release()
        batch //= 2


def rounds_of(bench, seconds):
    """As many rounds of so many seconds as there is time for."""
    return max(2, min(bench.size.rounds, int(SHAPE_SECONDS / seconds)))
