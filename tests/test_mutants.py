"""The list of `make mutants` belongs to the code of today; trying it takes an hour, and is not done here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "mutants"))

from check_mutants import read_mutants  # noqa: E402


def test_every_fault_stands_where_its_list_says():
    parts = {Path(mutant["file"]).parts[1] for mutant in read_mutants()}  # reading it looks up each one
    assert parts >= {"method", "datasets", "runs", "training", "results"}
