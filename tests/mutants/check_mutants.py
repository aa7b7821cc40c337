"""Would the tests notice? One realistic fault at a time is put into a copy of the code, and its tests must fail.

    python tests/mutants/check_mutants.py                      all of them (`make mutants`)
    python tests/mutants/check_mutants.py --only method cam    those whose file's path holds one of these words
    python tests/mutants/check_mutants.py --write docs/trust.md  and its table into the page
    python tests/mutants/check_mutants.py --keep kept.jsonl    goes on where a call that ended early was

Each YAML file beside this one is a list of mutants:

    - file: cawalib/method/cam.py         where the fault is
      was: "text that stands there once"
      now: "text in its place"
      tests: [test_cam.py]                what must fail, quickest first
      equivalent: why nobody could tell   only where the fault changes no result; it is not run, and not counted

A mutant is killed when pytest ends with a failed test (exit status 1); one that cannot even be imported is not
realistic and ends the call. The mutants were written down from what the code promises, not from what the tests hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pandas as pd
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from copies import ROOT, copy_of_the_code  # noqa: E402
from counts import into_page  # noqa: E402
from forks import HANGS  # noqa: E402

LOWEST = 0.9  # share of the mutants of each file that must be killed
KEYS = {"file", "was", "now", "tests", "equivalent"}


def read_mutants(words=()) -> list[dict]:
    """All mutants, checked: known keys, a text that stands in its file exactly once, tests that exist."""
    mutants = [mutant | {"list": path.name} for path in sorted(HERE.glob("*.yaml"))
               for mutant in yaml.safe_load(path.read_text()) or []]
    for mutant in mutants:
        where = f"{mutant['list']}, {mutant.get('file')}, was {mutant.get('was')!r}"
        unknown = mutant.keys() - KEYS - {"list"}
        if unknown or not KEYS - {"equivalent"} <= mutant.keys():
            raise SystemExit(f"{where}: found keys {', '.join(mutant)}, expected {', '.join(sorted(KEYS))}")
        count = (ROOT / mutant["file"]).read_text().count(mutant["was"])
        if count != 1 or mutant["was"] == mutant["now"]:
            raise SystemExit(f"{where}: stands there {count} times, expected one, and another text in its place")
        absent = [test for test in mutant["tests"] if not (ROOT / "tests" / test.split("::")[0]).is_file()]
        if absent or not mutant["tests"]:
            raise SystemExit(f"{where}: tests {', '.join(absent) or 'none'} not found in tests/")
    return [mutant for mutant in mutants if not words or any(word in mutant["file"] for word in words)]


class Copy:
    """A copy of the code, and the process whose forks run its tests."""

    def __init__(self, folder: Path):
        self.folder = copy_of_the_code(folder)
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "forks.py")], cwd=folder, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)})

    def run_tests(self, tests) -> int:
        """pytest's exit status: 0 all passed, 1 some failed, HANGS. Stops at the first that fails."""
        print(json.dumps([f"tests/{test}" for test in tests]), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


def try_one(mutant, copy: Copy) -> bool:
    """Whether the tests notice a mutant in this copy of the code, which is as before afterwards."""
    path = copy.folder / mutant["file"]
    text = path.read_text()
    path.write_text(text.replace(mutant["was"], mutant["now"]))
    try:
        code = copy.run_tests(mutant["tests"])
    finally:
        path.write_text(text)
    if code == HANGS:  # counts as killed, and is listed: the machine may be slow
        print(f"hangs: {mutant['file']}: {mutant['was']!r} -> {mutant['now']!r}", flush=True)
    elif code not in (0, 1):
        raise SystemExit(f"{mutant['file']}, now {mutant['now']!r}: pytest ended with {code}, expected 0 or 1; "
                         "mend the mutant, which must be code that can be imported")
    return code != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="part of a mutated file's path")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="mutants tried at once")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="what was found, and need not be tried again")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    options = parser.parse_args()
    mutants = read_mutants(options.only)
    tried = [mutant for mutant in mutants if "equivalent" not in mutant]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.processes) as pool:
        copies = SimpleQueue()
        for number in range(options.processes):
            copies.put(copy := Copy(Path(temporary) / str(number)))
        kept = read_kept(options.keep)
        tests = sorted({test for mutant in tried if key_of(mutant) not in kept for test in mutant["tests"]})
        if tests and copy.run_tests(tests):
            raise SystemExit("the tests fail without any mutant; mend them first")

        def noticed(mutant):
            if (key := key_of(mutant)) in kept:
                return kept[key]
            copy = copies.get()
            try:
                dead = try_one(mutant, copy)
            finally:
                copies.put(copy)
            if not dead:
                print(f"lives: {mutant['file']}: {mutant['was']!r} -> {mutant['now']!r}", flush=True)
            if options.keep:
                with options.keep.open("a") as file:
                    print(json.dumps([key, dead]), file=file)
            return dead

        killed = list(pool.map(noticed, tried))
    lowest, text = table(mutants, tried, killed)
    print(text)
    if options.write:
        into_page(options.write, "make mutants", text)
    return int(lowest < LOWEST)


def key_of(mutant) -> str:
    """Of a mutant, the code that it changes, and its tests: what was found holds as long as these are the same."""
    files = [ROOT / mutant["file"], *(ROOT / "tests" / test.split("::")[0] for test in mutant["tests"])]
    texts = [mutant["was"], mutant["now"], *mutant["tests"], *(file.read_text() for file in files)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def read_kept(path: Path | None) -> dict[str, bool]:
    """Key -> whether the tests noticed, from a file that `--keep` wrote; a line that was cut counts for nothing."""
    if path is None or not path.exists():
        return {}
    return dict(json.loads(line) for line in path.read_text().splitlines() if line.endswith("]"))


def table(mutants, tried, killed) -> tuple[float, str]:
    """The lowest share of a file's that was killed; a table by parts of the library, and a sentence for all."""
    found = pd.DataFrame({"file": [mutant["file"] for mutant in tried], "killed": killed})
    found["part"] = found["file"].map(lambda file: Path(file).parent.name if file.count("/") > 1 else "the ground")
    files = found.groupby(["part", "file"], sort=False)["killed"].agg(["size", "sum", "mean"])
    lines = ["| part | files | tried | killed | share | lowest of a file |", "|:--|--:|--:|--:|--:|--:|"]
    for part, own in files.groupby("part", sort=False):
        (_, worst), tried_here, dead = own["mean"].idxmin(), own["size"].sum(), own["sum"].sum()
        lines.append(f"| {part} | {len(own)} | {tried_here} | {dead} | {dead / tried_here:.0%} "
                     f"| {own['mean'].min():.0%} ({Path(worst).stem}) |")
    sentence = (f"In all: {len(tried)} tried, {sum(killed)} killed, {sum(killed) / len(tried):.1%}; "
                f"{len(mutants) - len(tried)} more are equivalent, each with its reason.")
    return files["mean"].min(), "\n".join([*lines, "", sentence])


if __name__ == "__main__":
    sys.exit(main())
