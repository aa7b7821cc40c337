"""A table of results compared, in Markdown; see `comparison.compare` for what the table holds.

    python -m cawalib.results results.csv --baseline "cross entropy"
    python -m cawalib.results results.csv --baseline "cross entropy" --metrics mIoU ece --lower-is-better ece
"""

from __future__ import annotations

import argparse
import sys

from cawalib.results import ComparisonError, compare
from cawalib.results.forms import markdown


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser("python -m cawalib.results", description="Compare methods, paired by seed.")
    parser.add_argument("table", help="CSV file: columns method, seed, and one for each metric")
    parser.add_argument("--baseline", required=True, help="the method that all others are held against")
    parser.add_argument("--split", default="test", help="rows of it, where there is a column 'split' (default: test)")
    parser.add_argument("--metrics", nargs="+", help="columns to compare (default: all that hold numbers)")
    parser.add_argument("--lower-is-better", nargs="+", default=(), metavar="METRIC", help="such as an error")
    parser.add_argument("--shared-seeds", action="store_true", help="pair on the seeds that both methods have")
    parser.add_argument("--differing", nargs="+", default=(), metavar="SETTING", help="columns that may differ: epochs")
    options = parser.parse_args(arguments)
    try:
        table = compare(options.table, options.baseline, options.split, options.metrics, options.shared_seeds,
                        differing=options.differing, lower_is_better=options.lower_is_better)
    except ComparisonError as error:
        print(f"cawalib.results: error: {error}", file=sys.stderr)
        return 1
    but = ", but for " + ", ".join(options.lower_is_better) if options.lower_is_better else ""
    print(markdown(table.map(lambda cell: cell if isinstance(cell, str) else f"{cell:.4g}")))
    print(f"difference: from '{options.baseline}', mean over pairs of the same seed; low, high: its 95 % interval "
          f"(Student t), not corrected for the number of comparisons. Larger is better{but}"
          f"{'' if but else '; --lower-is-better names metrics of which it is not'}.")
    print("".join(f"{note}.\n" for note in table.attrs["notes"]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
