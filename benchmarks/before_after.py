"""This working tree beside an earlier revision of it: what a job of a batch costs, and how fast the network is trained.

    python benchmarks/before_after.py REVISION

Both take turns, on the built-in street scenes and one thread. The earlier revision is checked out in a folder of its
own and runs on the packages that are installed now.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
from common import median_ms, ratio

from cawalib.notebook import warm

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "notebooks/03_cawa_training.ipynb"
# name -> settings of a run: the shape of the evidence study, and that of the demo
SHAPES = {
    "evidence: 8 images of 96x128": {"batch_size": 8},
    "demo: 4 images of 96x128": {"batch_size": 4, "scale_min": 1.0, "scale_max": 1.5, "imbalance": 100},
}
# One process trains in each tree: a word on its standard input is a turn, whose seconds it answers.
TRAINING = """
import itertools, json, sys, time
import torch
from cawalib.runs import RunConfig
from cawalib.training import build_accelerator, evaluate, load_checked, set_up, training_step

torch.set_num_threads(1)
config = RunConfig(device="cpu", data_root=sys.argv[1], outputs_root=sys.argv[1], **json.loads(sys.argv[2]))
datasets = load_checked(config)
training = set_up(config, datasets, build_accelerator(config))
training.model.train()
steps = int(sys.argv[3])

def batches():
    for epoch in itertools.count():
        training.loader.dataset.epoch = epoch
        yield from training.loader

several = batches()
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    for images, labels in itertools.islice(several, steps):
        training.loss_sum += training_step(training, images, labels)
        training.batch = (training.batch + 1) % training.batches
    print(time.perf_counter() - started, flush=True)
"""


@contextlib.contextmanager
def earlier(revision: str):
    """A folder with the files of a revision."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, revision], cwd=ROOT, check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def environment(tree, **variables) -> dict:
    return {name: value for name, value in os.environ.items() if name != warm.VARIABLE} | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CAWALIB_HEADLESS": "1"} | variables


# ---------------------------------------------------------------- a job of a batch

def overhead(tree, place, seed, leave_out=(), **variables) -> float:
    """Seconds of one job of notebook 03, without those of the cell that trains and evaluates."""
    executed = place / f"{seed}.ipynb"
    settings = {"seed": seed, "epochs": 1, "imbalance": 100, "batch_size": 4, "device": "cpu", "data_root": place,
                "outputs_root": place / "outputs"}
    words = [word for name, value in settings.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "cawalib.notebook", NOTEBOOK, str(executed), *words, *leave_out]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=tree, env=environment(tree, **variables), capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{tree}: {NOTEBOOK} failed: {done.stdout}{done.stderr}")
    training, = (cell for cell in nbformat.read(executed, as_version=4).cells
                 if cell.cell_type == "code" and "= train(" in cell.source)
    return seconds - training.metadata.papermill.duration


def jobs(before, place, rounds) -> list[dict]:
    process = warm.start()
    socket = os.environ.pop(warm.VARIABLE, "")
    left_out = ["--leave-out", "walk-through"]
    ways = {"before": (before, (), {}), "now, without a warm process": (ROOT, left_out, {}),
            "now": (ROOT, left_out, {warm.VARIABLE: socket})}
    places = {name: place / str(number) for number, name in enumerate(ways)}
    for folder in places.values():
        folder.mkdir()
    seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (tree, words, variables) in ways.items():
            spent = overhead(tree, places[name], turn, words, **variables)
            if turn:  # the first one draws the images and waits for the warm process
                seconds[name].append(spent)
    if process:
        process.communicate()
    return [{"a job but its training": name, "seconds": f"{statistics.median(spent):.1f}",
             "times faster": ratio(seconds["before"], spent)} for name, spent in seconds.items()]


# ---------------------------------------------------------------- training

def quartiles(over, under) -> str:
    """Median and quartiles of the ratios, round by round."""
    low, middle, high = statistics.quantiles([one / other for one, other in zip(over, under, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def steps(before, place, rounds, count) -> list[dict]:
    rows = []
    for shape, settings in SHAPES.items():
        for method in ("none", "cawa"):
            words = [str(place / "steps"), json.dumps(settings | {"method": method}), str(count)]
            trees = {"before": before, "now": ROOT}
            with contextlib.ExitStack() as stack:
                processes = {name: stack.enter_context(subprocess.Popen(
                    [sys.executable, "-c", TRAINING, *words], cwd=tree, env=environment(tree), text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)) for name, tree in trees.items()}
                for process in processes.values():
                    while process.stdout.readline() != "ready\n":
                        if process.poll() is not None:
                            sys.exit(f"training {shape}, {method}: ended with exit code {process.returncode}")
                seconds = {name: [] for name in trees}
                for turn in range(rounds + 1):
                    for name, process in processes.items():
                        process.stdin.write("go\n")
                        process.stdin.flush()
                        spent = float(process.stdout.readline())
                        if turn:
                            seconds[name].append(spent / count)
            rows.append({"shape": shape, "method": method} | {
                f"{name} (ms a step)": median_ms(spent) for name, spent in seconds.items()} | {
                "times as many steps": quartiles(seconds["before"], seconds["now"])})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="what to compare with, as git names it")
    parser.add_argument("--jobs", type=int, default=7, help="rounds of jobs")
    parser.add_argument("--rounds", type=int, default=41, help="rounds of training")
    # short rounds, so that what else goes on falls on both alike
    parser.add_argument("--steps", type=int, default=5, help="of a training in one round")
    options = parser.parse_args()
    with earlier(options.revision) as before, tempfile.TemporaryDirectory() as place:
        for rows in (jobs(before, Path(place), options.jobs),
                     steps(before, Path(place), options.rounds, options.steps)):
            print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True), end="\n\n", flush=True)
    print(f"CPU, 1 thread; medians of {options.jobs} and {options.rounds} rounds, in brackets the range (jobs) and the "
          f"quartiles (training); before: {options.revision}")


if __name__ == "__main__":
    main()
