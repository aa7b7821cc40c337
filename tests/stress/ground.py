"""What the parts of the campaign share: a place to work in, the small study, and how a result is told from another."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from copies import copy_of_the_code

from cawalib.notebook import read_notebook
from cawalib.runs import RunError, load_run, load_study
from cawalib.training import tiny_runs

HERE = Path(__file__).resolve().parent
STUDY = "stress"
PATIENCE = 600  # seconds that anything may take to end
OUTCOMES = ("as if nothing had happened", "named in one line", "silent or unnamed")


@dataclass
class Tally:
    """How many were tried in each part, and how they ended."""

    parts: dict[str, Counter] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, part: str, outcome: str, what: str = "") -> None:
        self.parts.setdefault(part, Counter())[outcome] += 1
        if outcome == OUTCOMES[2]:
            self.faults.append(f"{part}: {what}")
            print(f"fault: {part}: {what}", flush=True)

    def table(self) -> str:
        lines = ["| what | tried | " + " | ".join(OUTCOMES) + " |", "|:--|--:|--:|--:|--:|"]
        lines += [f"| {part} | {count.total()} | " + " | ".join(str(count[name]) for name in OUTCOMES) + " |"
                  for part, count in self.parts.items()]
        return "\n".join(lines)

    def summary(self) -> str:
        total = sum(self.parts.values(), Counter())
        return (f"{total.total()} tried, {total[OUTCOMES[0]]} as if nothing had happened, {total[OUTCOMES[1]]} named, "
                f"{total[OUTCOMES[2]]} silent or unnamed")


@dataclass
class Place:
    """A copy of the code with the small study in it, and its data."""

    code: Path
    data: Path

    @classmethod
    def make(cls, folder: Path) -> "Place":
        code = copy_of_the_code(folder / "code")
        (code / "workflow" / "grids" / f"{STUDY}.yaml").write_text((HERE / "grid.yaml").read_text())
        tiny_runs.write_scenes(folder / "data")
        return cls(code, folder / "data")

    def settings(self, outputs: Path) -> dict:
        return {"data_root": str(self.data), "outputs_root": str(outputs), "prepared_root": str(outputs / "prepared")}

    def runs(self, outputs: Path) -> list:
        return [run for _, run in load_study(HERE / "grid.yaml", **self.settings(outputs)).configs()]

    def start(self, *command, **options) -> subprocess.Popen:
        """A command in the copy of the code, in a session of its own; `processes_of` finds all that it starts."""
        environment = os.environ | {"PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1", "CAWALIB_WARM": "",
                                    "CAWALIB_STRESS": uuid.uuid4().hex}
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=self.code, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **options)
        process.mark = environment["CAWALIB_STRESS"]
        return process

    def snakemake(self, outputs: Path, workers=0) -> subprocess.Popen:
        targets = [f"{run.folder}/metrics.json" for run in self.runs(outputs)]
        settings = [f"{name}={value}" for name, value in self.settings(outputs).items()]
        return self.start("-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", "2", "--nolock",
                          "--rerun-incomplete", "--quiet", "rules", "host", "--keep-going", "--config",
                          f"study={STUDY}", f"data_workers={workers}", *settings, "--", *targets)

    def notebook(self, run, out: Path) -> list[str]:
        """The arguments of `python` that make a run of plain weights by notebook 02, without Snakemake."""
        path = "notebooks/02_baseline.ipynb"
        defaults = read_notebook(self.code / path)[1]
        given = {name: value for name, value in asdict(run).items() if value != defaults.get(name, value)}
        return ["-m", "cawalib.notebook", path, str(out), "--leave-out", "walk-through",
                *(word for name, value in given.items() for word in ("-p", name, str(value)))]


def finish(process: subprocess.Popen, seconds=PATIENCE) -> tuple[int, str]:
    """Exit status and output of a process; status 124 if it took longer, and all that it started is killed."""
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        for one in processes_of(process):
            one.kill()
        return 124, process.communicate()[0] + f"\nstill running after {seconds} s"


def processes_of(process) -> list[psutil.Process]:
    """Everything that a started command has started, however deep, and itself."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("CAWALIB_STRESS") == process.mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


def wait_for_quiet(process) -> bool:
    """Whether everything that a command has started ends by itself; what does not is killed."""
    end = time.monotonic() + PATIENCE
    while (left := processes_of(process)) and time.monotonic() < end:
        time.sleep(0.2)
    for one in left:
        one.send_signal(signal.SIGKILL)
    return not left


def numbers(folder: Path):
    """What a run came out as, without what is measured by a clock; None if it is not finished."""
    if not (folder / "metrics.json").is_file():
        return None
    run = load_run(folder)
    samples = {name: array.tobytes() for name, array in run.samples.items()}
    return (json.dumps(run.metrics), run.history.drop(columns="seconds").to_csv(), run.class_weights.to_csv(), samples)


def readable(folder: Path) -> str:
    """Why a folder that says that it is finished cannot be read; "" if it can, or does not say so."""
    try:
        numbers(folder)
        return ""
    except RunError as error:
        return str(error)


def one_line(output: str, *words: str) -> bool:
    """Whether the last line of an output holds one of some words, and no traceback stands above it."""
    lines = [line for line in output.splitlines() if line.strip()]
    return bool(lines) and "Traceback" not in output and any(word in lines[-1] for word in words)
