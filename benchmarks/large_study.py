"""What a study of thousands of runs costs once they are there: the plan, reading, comparing, notebooks 04 and 05.

    python benchmarks/large_study.py                  10,000 made-up runs: 50 groups of 20 labels with 10 seeds
    python benchmarks/large_study.py --groups 5       a tenth of it

The runs are written by the tests' `synthetic_runs`, with the numbers of eleven classes and as many files as real ones
have. Each part is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]
METHODS = ("none", "inverse_sqrt", "cawa", "dice", "focal", "ohem", "enet", "recall", "effective_number",
           "inverse_frequency", "median_frequency", "class_difficulty", "lovasz", "tversky", "logit_adjustment")
NAMES = {"none": "cross entropy", "inverse_sqrt": "inverse square root", "cawa": "CAWA"}
STUDY = "large"
PLAN = ["-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", "1", "--dry-run", "--quiet", "all",
        "--config", f"study={STUDY}"]
READ = f"from cawalib.runs import load_runs, load_study\nruns = load_runs(load_study('workflow/grids/{STUDY}.yaml'))"
TABLES = f"""{READ}
import time
from cawalib.results import main_table, overview_table
from cawalib.results.side_by_side import side_by_side
started = time.perf_counter()
groups = {{}}
for run in runs:
    groups.setdefault(run.group, []).append(run)
for own in groups.values():
    baseline, rival = list(dict.fromkeys(run.label for run in own))[:2]
    main_table(own, baseline, "test", "pixels", rival)
    overview_table(own, (baseline, rival), "test")
print(time.perf_counter() - started)
"""


def labels():
    """Twenty: methods at their defaults, CAWA with other thresholds."""
    found = {NAMES.get(method, method): {"method": method} for method in METHODS}
    return found | {f"CAWA, threshold {value}": {"method": "cawa", "pseudo_mask_threshold": value}
                    for value in (0.1, 0.2, 0.3, 0.4, 0.6)}


def ablations():
    """Twenty more of CAWA, for notebook 04."""
    return {f"CAWA, threshold {value}": {"method": "cawa", "pseudo_mask_threshold": value}
            for value in (round(0.025 + 0.045 * number, 3) for number in range(20))}


def write_study(root: Path, groups: int, seeds: int) -> int:
    """The grid and every finished run of it below a copy of the code; how many runs."""
    from synthetic_runs import edit, make_run

    own = {"methods": {"common": {"epochs": 1}} | labels(), "ablations": {"common": {"epochs": 1}} | ablations()}
    own |= {f"group {number}": {"common": {"epochs": number}} | labels() for number in range(2, groups)}
    grid = {"seeds": list(range(seeds)), "common": {"device": "cpu"}, "groups": own}
    (root / "workflow/grids" / f"{STUDY}.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    os.chdir(root)
    count = 0
    for table in own.values():
        for label, settings in list(table.items())[1:]:
            for seed in range(seeds):
                run = make_run("outputs", label, seed, count=11, device="cpu", **table["common"], **settings)
                edit(run.folder / "environment.json", device="CPU, 1 thread", commit="c" * 40, python="3.11",
                     packages={}, duration_seconds=60, peak_memory_bytes=2**30)
                count += 1
    return count


def measured(name: str, arguments: list[str], root: Path) -> dict:
    """Wall and processor seconds and peak memory of a Python process; what it printed last, if that is a number."""
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.Popen([sys.executable, *arguments], cwd=root, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env=environment)
    output = done.stdout.read()
    _, status, used = os.wait4(done.pid, 0)
    if status:
        raise SystemExit(f"{name}: ended with status {status}:\n{output[-2000:]}")
    return {"part": name, "wall (s)": f"{time.perf_counter() - started:.0f}",
            "processor (s)": f"{used.ru_utime + used.ru_stime:.0f}", "peak memory (MB)": f"{used.ru_maxrss / 1024:.0f}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    from copies import copy_of_the_code

    with tempfile.TemporaryDirectory() as folder:
        root = copy_of_the_code(Path(folder) / "code")
        count = write_study(root, options.groups, options.seeds)
        read_here = ["out.ipynb", "-p", "study", STUDY, "-p", "runs_from", "outputs"]
        notebook_04 = ["-m", "cawalib.notebook", "notebooks/04_ablations.ipynb", *read_here]
        notebook_05 = ["-m", "cawalib.notebook", "notebooks/05_figures.ipynb", *read_here]
        rows = [measured(name, arguments, root) for name, arguments in {
            "Snakemake's plan": PLAN, "reading all runs": ["-c", READ],
            "reading, and two tables for each group": ["-c", TABLES], "notebook 04": notebook_04,
            "notebook 05 on one group": notebook_05}.items()]
    print(f"{count} runs: {options.groups} groups of {len(labels())} labels with {options.seeds} seeds\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
