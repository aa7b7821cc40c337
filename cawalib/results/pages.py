"""Pages whose tables and counted sentences are generated: what stands between two markers is never typed.

    python -m cawalib.results.pages            write them into README.md and both pages of the evidence, and what all
                                               comparisons say together into outputs/reference/regimes.md
                                               and outputs/reference/figures

In a page, a table of a study's page, or of a file that is nothing else:

    <!-- table: outputs/reference/evidence/tables/methods.md#overview -->
    <!-- end of table -->

and within a sentence, of study `evidence`, in how many comparisons CAWA is better (worse; decided, one of the two), by
how much in one, and by how much in the random-effects mean over all of them:

    <!-- count: better, CAWA, cross entropy, mIoU -->6 of 6<!-- end -->
    <!-- difference: camvid, CAWA, cross entropy, mIoU -->+4.3 [+1.9, +6.7]<!-- end -->
    <!-- pooled: mean, CAWA, cross entropy, mIoU -->+4.9 [+2.3, +7.4]<!-- end -->
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

from cawalib.files import atomic
from cawalib.results import regimes
from cawalib.results.measures import ComparisonError
from cawalib.results.side_by_side import SideBySide, side_by_side
from cawalib.results.tables import difference_text
from cawalib.runs import ARCHIVE, RunError, load_runs, load_study
from cawalib.settings import ConfigError

REGIMES = "outputs/reference/regimes.md"
PAGES = ("README.md", "docs/evidence.md", "docs/evidence-points.md")
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
COUNTED = ("better", "worse", "decided")
WORDS = re.compile(r"(<!-- (count|difference|pooled): (.+?) -->).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, root=".") -> str:
    """A page's text with every marked table and number put in anew.

    Args:
        root: what the tables' paths count from.

    Raises:
        FileNotFoundError: a table that a marker names is not there.
        ComparisonError: a label, group or metric that a marker names is not there.
    """
    text = TABLE.sub(lambda match: f"{match[1]}\n{_table(match[2], root)}\n\n{match[3]}", text)
    return WORDS.sub(lambda match: match[1] + _words(match[2], match[3].split(", ", 1), root) + match[4], text)


def _table(place, root):
    """A whole file, or of a page of tables the section behind its `#`."""
    path, _, section = place.partition("#")
    found = Path(root, path)
    if found.is_file():
        whole = found.read_text()
        parts = dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", whole, re.MULTILINE | re.DOTALL))
        if not section or section in parts:
            return (parts[section] if section else whole).strip()
    raise FileNotFoundError(f"table {place}: not found; publish the study it belongs to, or mend the marker")


def _words(kind, arguments, root):
    first, rest = arguments
    beside = _evidence(str(root))
    # labels hold commas: what stands before the last one is "label, other", split where both halves are labels
    names, metric = rest.rsplit(", ", 1)
    labels = {run.label for run in beside.runs}
    pairs = [(names[:match.start()], names[match.end():]) for match in re.finditer(", ", names)]
    pair = next((pair for pair in pairs if set(pair) <= labels), None)
    if pair is None:
        raise ComparisonError(f"marker '{kind}: {first}, {rest}': no two labels of the study; mend the marker")
    if kind == "count":
        if first not in COUNTED:
            raise ComparisonError(f"marker '{kind}: {first}, {rest}': found {first!r}, expected one of "
                                  f"{', '.join(COUNTED)}; mend the marker")
        verdicts = ("better", "worse") if first == "decided" else (first,)
        counts = [beside.count(verdict, *pair, metric) for verdict in verdicts]
        return f"{sum(count for count, _ in counts)} of {counts[0][1]}"
    row = beside.pooled(*pair, metric) if kind == "pooled" else beside.difference(first, *pair, metric)
    if row is None:
        raise ComparisonError(f"marker '{kind}: {first}, {rest}': no such comparison; there are "
                              f"{', '.join(beside.groups)}")
    return difference_text(row).rstrip("*")


@cache
def _evidence(root) -> SideBySide:
    study = load_study(Path(root, "workflow/grids/evidence.yaml"))
    # pages show what is published; `tiny_runs --accept` has said which of it is stale
    runs = load_runs(study, archive=Path(root, "outputs/reference/evidence", ARCHIVE), allow_other_code=True)
    beside = side_by_side(study, runs)
    if beside is None:
        raise ComparisonError("study 'evidence': fewer than two of its groups are finished; train and publish them")
    return beside


def main() -> int:
    for page in (REGIMES, *PAGES):  # in this order: the others quote the first
        try:
            regimes.write(page) if page == REGIMES else _fill_in(page)
        except (FileNotFoundError, ComparisonError, RunError, ConfigError) as error:
            print(f"cawalib.results.pages: error: {page}: {error}", file=sys.stderr)
            return 1
    return 0


def _fill_in(page):
    text = fill(Path(page).read_text())
    with atomic(page) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
