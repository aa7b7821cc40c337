"""A small part of `make stress`: a few bad inputs and damaged files, no kills. Its counts are tried as well."""

import sys
from pathlib import Path

import numpy as np
import pytest
from counts import into_page

sys.path.insert(0, str(Path(__file__).with_name("stress")))

import damage  # noqa: E402
import ground  # noqa: E402
import inputs  # noqa: E402


@pytest.mark.long
def test_a_few_of_everything(tmp_path, monkeypatch):
    calls = [case for case in inputs.CASES if case[0] == "call" or case[1:3] == ("02", "epochs=many")]
    monkeypatch.setattr(inputs, "CASES", calls[::5])
    place, tally, random = ground.Place.make(tmp_path), ground.Tally(), np.random.default_rng(0)
    inputs.bad_inputs(place, tmp_path / "inputs", tally, 3)
    damage.damage(place, tmp_path / "damage", tally, random, 14)
    assert not tally.faults and [count.total() for count in tally.parts.values()] == [3, 14]


def test_the_counts_of_the_campaign(tmp_path):
    tally = ground.Tally()
    for part, outcome in [("kills", 0), ("kills", 0), ("inputs", 1), ("inputs", 2)]:
        tally.add(part, ground.OUTCOMES[outcome], "what was done")
    assert tally.faults == ["inputs: what was done"] and tally.table().splitlines()[2:] == [
        "| kills | 2 | 2 | 0 | 0 |", "| inputs | 2 | 0 | 1 | 1 |"]
    assert tally.summary() == "4 tried, 2 as if nothing had happened, 1 named, 1 silent or unnamed"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- counts: make stress -->\nold\n<!-- end of counts -->\nafter\n")
    into_page(page, "make stress", "new")
    assert page.read_text() == "before\n<!-- counts: make stress -->\n\nnew\n\n<!-- end of counts -->\nafter\n"
    with pytest.raises(SystemExit, match="found 0 places"):
        into_page(page, "make mutants", "new")
