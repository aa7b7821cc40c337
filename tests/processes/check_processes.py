"""One run over several processes and machines, from its settings to what it costs (`make test-processes`).

    python tests/processes/check_processes.py                           some ten minutes on two cores
    python tests/processes/check_processes.py --write docs/cluster.md   and its tables into the page
    python tests/processes/check_processes.py --only kills              some of its parts

The exit status is 1 if something did not come out as it should; that is printed in a line.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import yaml

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import costs  # noqa: E402
from counts import into_page  # noqa: E402
from machines import machines, missing  # noqa: E402

from cawalib.runs import RunConfig, load_run  # noqa: E402
from cawalib.training import load_checked, train  # noqa: E402

HERE = Path(__file__).resolve().parent
PARTS = ("starts", "kills", "machines", "costs")
SMALL = {"train_images": 96, "image_height": 64, "image_width": 96, "epochs": 8, "validate_every": 8, "device": "cpu"}
SEEDS = (0, 1, 2)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


class Check:
    """A folder with data and outputs, and what did not come out as it should."""

    def __init__(self, folder: Path):
        self.folder, self.faults = folder, []
        load_checked(self.config())  # draws the data

    def config(self, outputs="one", **settings) -> RunConfig:
        return RunConfig(**SMALL | {"data_root": str(self.folder / "data"),
                                    "outputs_root": str(self.folder / outputs)} | settings)

    def file(self, config: RunConfig) -> Path:
        path = self.folder / f"settings{len(list(self.folder.glob('settings*')))}.yaml"
        path.write_text(yaml.safe_dump(asdict(config)))
        return path

    def see(self, right: bool, what: str) -> None:
        print(f"{'as it should be' if right else 'FAULT'}: {what}", flush=True)
        if not right:
            self.faults.append(what)


def start(*command, **options) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen([*map(str, command)], env=environment | {"OMP_NUM_THREADS": "1"}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def ended(process, seconds=600) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


# ---------------------------------------------------------------- how a run is started

def by_setting(check, config, count):
    return [sys.executable, "-m", "cawalib.training", check.file(config.replace(processes=count))]


def by_torchrun(check, config, count):
    return [*TORCHRUN, "--standalone", "--nproc-per-node", count, "-m", "cawalib.training", check.file(config)]


def by_accelerate(check, config, count):
    # on CPUs as well: its other ways ask for MPI
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes",
            count, "--main_process_port", "0", "-m", "cawalib.training", check.file(config)]


STARTS = {"the setting `processes`": by_setting, "`torchrun`": by_torchrun, "`accelerate launch`": by_accelerate}


def starts(check) -> str:
    """The same run in one, two and four processes; each way to start it with a seed of its own."""
    found = {1: [train(check.config(seed=seed)) for seed in SEEDS]}
    for count in (2, 4):
        for seed, (name, way) in zip(SEEDS, STARTS.items(), strict=True):
            config = check.config(f"starts{count}", seed=seed)
            code, output = ended(start(*way(check, config, count)))
            right = code == 0 and (config.folder / "metrics.json").is_file()
            check.see(right, f"{count} processes by {name}" + ("" if right else f": {output[-2000:]}"))
            run = load_run(config.folder)
            check.see(run.environment["processes"] == count, f"{count} stand in its environment.json")
            found.setdefault(count, []).append(run)
    noise = statistics.stdev(miou(run) for run in found[1])
    lines = ["| processes | started by | mIoU on val, seeds 0, 1, 2 | mean difference to one process |",
             "|--:|:--|:--|--:|"]
    for count, runs in found.items():
        difference = statistics.mean(miou(run) - miou(one) for run, one in zip(runs, found[1], strict=True))
        lines.append(f"| {count} | {'`train`' if count == 1 else ', '.join(STARTS)} | "
                     f"{', '.join(f'{miou(run):.3f}' for run in runs)} | {difference:+.3f} |")
        check.see(abs(difference) <= 2 * noise, f"{count} processes: {difference:+.4f} mIoU, between seeds {noise:.4f}")
    return "\n".join([*lines, "", f"Standard deviation between the three seeds of one process: {noise:.3f}."])


def miou(run):
    return run.metrics["splits"]["val"]["miou"]


# ---------------------------------------------------------------- one process is killed

def kills(check) -> None:
    """SIGKILL to one process of two, then of four; what is left ends, and one process takes the run to its end."""
    config = check.config("kills", epochs=12)
    for count, rank in ((2, "1"), (4, "0")):
        done = epochs(config)
        process = start(*by_setting(check, config, count))
        while epochs(config) < done + 2 and process.poll() is None:
            time.sleep(0.05)
        ranks = [one for one in psutil.Process(process.pid).children(recursive=True) if rank_of(one) == rank]
        ranks[-1].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        code, output = ended(process)
        seconds, line = time.monotonic() - killed, output.strip().splitlines()[-1]
        check.see(code == 1 and "Traceback" not in output, f"process {rank} of {count} killed: {line}")
        check.see(seconds < 60, f"all of them had ended after {seconds:.0f} s")
        check.see(epochs(config) >= done + 2 and not (config.folder / "metrics.json").exists(),
                  f"its checkpoint is of epoch {epochs(config)}")
    run = train(config)
    check.see(len(run.history) == 12 and run.environment["processes"] == 1,
              f"ended in one process: mIoU {miou(run):.3f}, never killed {miou(train(check.config(epochs=12))):.3f}")


def epochs(config):
    from cawalib.training import read_checkpoint

    path = config.folder / "checkpoint" / "last.pt"
    return read_checkpoint(path)["epoch"] if path.is_file() else 0


def rank_of(process):
    try:
        return process.environ().get("RANK")
    except psutil.Error:
        return None


# ---------------------------------------------------------------- two machines

def two_machines(check) -> None:
    """One run over two network namespaces that share a disk; then they do not, and one line says so."""
    for shared in (True, False):
        config = check.config("machines" if shared else "apart")
        other = config if shared else check.config("apart elsewhere")
        with machines(2) as command:
            both = []
            for number, own in enumerate((config, other)):
                before, options = command(number)
                both.append(start(*before, *TORCHRUN, *options, "-m", "cawalib.training", check.file(own)))
            ends = [ended(process) for process in both]
        if shared:
            right = [code for code, _ in ends] == [0, 0]
            check.see(right, "two network namespaces, one run" + ("" if right else f": {ends}"))
            check.see(load_run(config.folder).environment["processes"] == 2,
                      f"mIoU {miou(load_run(config.folder)):.3f}, one process {miou(train(check.config())):.3f}")
        else:
            said = re.findall("cawalib.training: error: (.*a disk that all machines share)", ends[1][1])
            check.see(all(code for code, _ in ends) and len(said) == 1, f"without a shared disk: {' '.join(said)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    options = parser.parse_args()
    tables, without = {}, missing()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(Path(folder))
        if "starts" in options.only:
            tables["starts"] = starts(check)
        if "kills" in options.only:
            kills(check)
        if without:
            print(f"left out: {without}")
        elif "machines" in options.only:
            two_machines(check)
        if "costs" in options.only:
            tables["costs"] = costs.tables(check, without == "", start, ended, TORCHRUN)
    for part, text in tables.items():
        print(f"\n{text}")
        if options.write:
            into_page(options.write, f"make test-processes, {part}", text)
    print(json.dumps({"faults": check.faults}, indent=1))
    return bool(check.faults)


if __name__ == "__main__":
    sys.exit(main())
