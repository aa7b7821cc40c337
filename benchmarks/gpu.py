"""All that only a GPU can show, in one command: under eight minutes, no network, one table and one JSON.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --dataset camvid --data-root data/CamVid --out outputs/gpu

The parts come in order of importance. One that fails becomes a row and not the end; one for which no time is left is
skipped. gpu.json and gpu.md are written anew after every row, so that a kill loses nothing. Without a GPU everything
runs at its smallest, which shows that it works and measures nothing.

Exit status: 1 if a part failed; an aim that is missed is a finding and no failure.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from gpu_parts import agreement, speed, supply, waits
from gpu_parts.bench import FAILED, FULL, SKIPPED, SMALLEST, Bench, release, row

from cawalib.files import atomic, write_json
from cawalib.runs.provenance import commit
from cawalib.settings import DataConfig
from cawalib.training import build_accelerator

PARTS = {
    "parity": agreement.parity,
    "update cost": speed.update_cost,
    "throughput": speed.throughput,
    "host waits": waits.host_waits,
    "out of memory": agreement.out_of_memory,
    "resuming": agreement.resuming,
    "several runs": supply.several_runs,
    "images on the device": supply.held_images,
}
COLUMNS = ("part", "what", "measured", "aim", "verdict")
KEPT_BACK = 0.03  # of the budget, for the start and the end


class OverBudget(BaseException):
    """The time is over. Not an `Exception`, which a part or a library may take for one of its own."""


class Report:
    """gpu.json and gpu.md: whole at any time.

    Args:
        folder: where they go.
        about: what they say besides the rows.
        hidden: folder -> what every row calls it, so that no path of the machine gets into a table.
    """

    def __init__(self, folder: Path, about: dict, hidden: dict[str, str]):
        self.folder, self.about, self.hidden, self.rows = folder, about, hidden, []
        self.started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, part: str, found: dict) -> None:
        cells = {"part": part} | {name: self._cell(text) for name, text in found.items()}
        self.rows.append(cells)
        print(" | ".join(cells[name] for name in COLUMNS if cells[name]), flush=True)
        self.write()

    def _cell(self, text):
        """On one line, without what would end a cell of the table."""
        for path, name in self.hidden.items():
            text = text.replace(path, name)
        return " ".join(text.replace("|", "/").split())

    def write(self, finished: bool = False) -> None:
        about = self.about | {"seconds": round(time.monotonic() - self.started, 1), "finished": finished}
        write_json(self.folder / "gpu.json", about | {"rows": self.rows})
        with atomic(self.folder / "gpu.md") as partial:
            partial.write_text(self.text() + "\n")

    def text(self) -> str:
        about = self.about
        head = [about["device"], f"torch {about['torch']}", f"CUDA {about['cuda']}", f"driver {about['driver']}",
                f"Python {about['python']}", f"{about['cpu_cores']} CPU cores", f"precision {about['precision']}",
                f"data {about['dataset']}", *["smallest size"] * about["smallest"]]
        table = pd.DataFrame(self.rows, columns=COLUMNS).to_markdown(index=False, disable_numparse=True)
        return f"{'; '.join(head)}\n\n{table}"


def about(bench: Bench, budget: float) -> dict:
    """Device, versions and settings of this call; no name or path of the machine."""
    found = {"device": f"CPU, {torch.get_num_threads()} threads", "memory_gib": None, "capability": None,
             "driver": "none"}
    if bench.on_gpu:
        device = torch.cuda.get_device_properties(0)
        found = {"device": device.name, "memory_gib": round(device.total_memory / 2**30, 1),
                 "capability": f"{device.major}.{device.minor}", "driver": driver()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return found | {
        "torch": torch.__version__, "cuda": torch.version.cuda or "none", "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(), "commit": commit(), "cpu_cores": cores,
        "precision": build_accelerator(bench.config()).mixed_precision, "dataset": bench.data["dataset"],
        "smallest": bench.size is SMALLEST, "budget_seconds": budget}


def driver() -> str:
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.split() or ["unknown"])[0] if done.returncode == 0 else "unknown"


@contextmanager
def at_most(seconds: float):
    """Raises OverBudget after so many seconds; where there are no alarms, as on Windows, never."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_):
        raise OverBudget

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_part(part: str, bench: Bench, report: Report) -> None:
    """Every row of a part, and one more if it fails or the time is over."""
    if bench.left <= 0:
        report.add(part, row("all of it", "", "", SKIPPED))
        return
    try:
        with at_most(bench.left):
            for found in PARTS[part](bench):
                report.add(part, found)
    except OverBudget:
        report.add(part, row("the rest of it", "", "", SKIPPED))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are worth having
        report.add(part, row("the rest of it", "", "", f"{FAILED}: {type(error).__name__}: {str(error)[:300]}"))
    release()


def chosen_device(asked: str) -> str:
    if asked == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything looks: some parts take a card wherever there is one
    if asked == "cuda" and not torch.cuda.is_available():
        raise SystemExit("argument --device: found 'cuda', but PyTorch sees no CUDA device; choose 'cpu' or 'auto'")
    return "cuda" if torch.cuda.is_available() else "cpu"


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="outputs/gpu", metavar="FOLDER", help="for gpu.json and gpu.md")
    names = DataConfig.__dataclass_fields__["dataset"].metadata["choices"]
    parser.add_argument("--dataset", default="streets", choices=names, help="what is trained on, where that matters")
    parser.add_argument("--data-root", default=DataConfig.data_root)
    parser.add_argument("--prepared-root", default=DataConfig.prepared_root, help="class counts of large data")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--smallest", action="store_true", help="only to see that it works; without a GPU always")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--budget", type=float, default=480, metavar="SECONDS")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    options = parsed(arguments)
    started = time.monotonic()
    # cuBLAS reads it once, when it is first used; without it resumed runs need not be equal
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = chosen_device(options.device)
    data = {"dataset": options.dataset, "data_root": str(Path(options.data_root).resolve()),
            "prepared_root": str(Path(options.prepared_root).resolve())}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(device, SMALLEST if options.smallest or device == "cpu" else FULL, data, Path(folder),
                      started + options.budget * (1 - KEPT_BACK))
        report = Report(Path(options.out), about(bench, options.budget),
                        {folder: "outputs", data["data_root"]: "data_root", data["prepared_root"]: "prepared_root"})
        for part in options.parts:
            run_part(part, bench, report)
        report.write(finished=True)
    print(f"\n{report.text()}")
    return int(any(cells["verdict"].startswith(FAILED) for cells in report.rows))


if __name__ == "__main__":
    sys.exit(main())
