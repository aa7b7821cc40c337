"""The command line: photographs through a trained network, or the network into a file.

    python -m cawalib.predict RUN PHOTOGRAPH ... --out FOLDER [--point balanced] [--no-maps]
    python -m cawalib.predict RUN --export FILE [--point rare]

Exit codes: 0 done, 1 something could not be read or written, with one line that says what.
"""

from __future__ import annotations

import argparse
import sys

from cawalib.datasets import DatasetError
from cawalib.method import POINTS
from cawalib.predict import export, load_network, segment
from cawalib.runs import RunError
from cawalib.settings import ConfigError


def main(arguments=None) -> int:
    """The command line; returns the exit code."""
    options = _options(arguments)
    try:
        network = load_network(options.run, options.device)
        if options.export:
            print(f"written and checked: {export(network, options.export, options.point or 'rare')}")
        if options.photographs:
            areas = segment(network, options.photographs, options.out, options.point or "balanced", options.maps)
            print(_answer(areas))
            print(f"written: {options.out}/areas.csv, masks, overlays{', maps' * options.maps}")
    except (ConfigError, DatasetError, RunError) as error:
        print(f"cawalib.predict: error: {error}", file=sys.stderr)
        return 1
    return 0


def _answer(areas):
    """The classes that cover most, over all photographs."""
    shares = areas.groupby("class", sort=False)["pixels"].sum()
    shares = (shares / shares.sum()).sort_values(ascending=False)
    most = ", ".join(f"{name} {share:.0%}" for name, share in shares[shares > 0].head(5).items())
    photographs = areas["photograph"].nunique()
    return f"{photographs} photograph{'s' * (photographs > 1)}: {most}"


def _options(arguments):
    parser = argparse.ArgumentParser("python -m cawalib.predict", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a finished run; a folder of runs, of which the best one on validation "
                        "is taken; or a .safetensors file that --export wrote")
    parser.add_argument("photographs", nargs="*", help="image files, or folders of them")
    parser.add_argument("--out", help="folder for masks, overlays, maps and areas.csv")
    parser.add_argument("--point", choices=POINTS, help="where the line between classes is drawn: rare, as trained; "
                        "balanced (for photographs, where nothing is said); accurate, the weights taken out")
    parser.add_argument("--no-maps", dest="maps", action="store_false", help="write no class activation maps")
    parser.add_argument("--export", metavar="FILE", help="write the network to a .safetensors, .onnx or .pt2 file")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args(arguments)
    if not options.photographs and not options.export:
        parser.error("nothing to do: name photographs and --out, or --export")
    if options.photographs and not options.out:
        parser.error("--out: the folder to write to is missing")
    return options


if __name__ == "__main__":
    sys.exit(main())
