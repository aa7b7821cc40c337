"""What is promised of kills, full disks, damaged files, bad input and calls at once, tried many times (`make stress`).

    python tests/stress/check_stress.py                        some 15 minutes on two cores
    python tests/stress/check_stress.py --write docs/trust.md  and its table into the page
    python tests/stress/check_stress.py --only damage disk     some of its parts

Everything random is drawn from one seed. What comes out depends on when a process is killed all the same; a fault is
printed with what was done. The exit status is 1 if one of them was silent, or named in more than one line.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import calls  # noqa: E402
import damage  # noqa: E402
import disk  # noqa: E402
import ground  # noqa: E402
import inputs  # noqa: E402
import kills  # noqa: E402
from counts import into_page  # noqa: E402

PARTS = ("kills", "runs", "disk", "damage", "inputs", "calls")


def campaign(folder: Path, random, parts=PARTS, share=1.0) -> ground.Tally:
    """Every part, `share` of it; small shares are for the tests."""
    tally, place = ground.Tally(), ground.Place.make(folder)

    def times(count):
        return max(1, round(count * share))

    if "inputs" in parts:
        inputs.bad_inputs(place, folder / "inputs", tally, times(len(inputs.CASES)))
    if "damage" in parts:
        damage.damage(place, folder / "damage", tally, random, times(200))
    expected, seconds = None, 0.0
    if {"kills", "disk", "calls"} & set(parts):
        expected, seconds = kills.study_in_peace(place, folder / "peace")
    if "disk" in parts and disk.can_mount():
        sizes = np.linspace(1, 110, times(10)).round().astype(int)
        disk.full_disks(place, folder / "disk", tally, sizes, expected)
    if "calls" in parts:
        calls.two_studies(place, folder / "calls", tally, random, times(5), expected, seconds)
        calls.two_runs(place, folder / "calls", tally, random, times(5), expected)
    if "kills" in parts:
        for workers in (0, 2):
            kills.kill_study(place, folder / f"kills{workers}", tally, random, times(20), workers, expected, seconds)
    if "runs" in parts:
        for processes, count in ((1, 4), (2, 10)):
            kills.kill_run(place, folder / f"runs{processes}", tally, random, times(count), processes)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of all that is tried")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = campaign(Path(folder), np.random.default_rng(options.seed), options.only, options.share)
    text = f"{tally.table()}\n\nIn all: {tally.summary()}."
    print(text)
    if options.write:
        into_page(options.write, "make stress", text)
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
