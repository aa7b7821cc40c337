"""The paper's claim, rare classes up and overall accuracy not down, asked of CAWA and of every other method."""

from __future__ import annotations

import pandas as pd

from cawalib.method import POINTS
from cawalib.results.decisions import OTHERS
from cawalib.results.forms import NOTHING
from cawalib.results.measures import name_of
from cawalib.results.statistics import with_verdicts
from cawalib.results.verdicts import (
    ACCURACY,
    BASELINE,
    OURS,
    TAIL,
    in_points,
    judged,
    named_decisions,
    side_text,
    verdicts,
)
from cawalib.runs import Run


def answer(tail: str, accuracy: str) -> str:
    """Yes: the tail better, accuracy better or level. No: one of them worse. Else not decided."""
    if "worse" in (tail, accuracy):
        return "no"
    return "yes" if tail == "better" and accuracy in ("better", "level") else "not decided"


def claim_by_point(table: pd.DataFrame) -> dict[str, tuple[str, pd.Series, pd.Series]]:
    """The claim in one comparison, CAWA against cross entropy.

    Args:
        table: `verdicts.verdicts` of one comparison that `verdicts.can_be_asked`.

    Returns:
        Named point -> `answer`, and the table's rows of the tail and of pixel accuracy.
    """
    found = {}
    for point in POINTS:
        own = table[(table["first"] == side_text((OURS, point))) & (table["second"] == BASELINE)].set_index("metric")
        tail, accuracy = own.loc[TAIL], own.loc[ACCURACY]
        found[point] = answer(tail["verdict"], accuracy["verdict"]), tail, accuracy
    return found


def both_halves(runs: list[Run], split: str) -> str:
    """The claim, a line for each named point: rare classes up, overall accuracy not down, and by how much."""
    table = verdicts(runs, split)
    first = (f"Rare classes up and overall accuracy not down, {OURS} against {BASELINE} on {split}? (Verdicts after "
             f"Holm's correction for {len(table)} comparisons.)")
    return "\n".join([first, *(
        f"- {point}: {found} (tail {in_points(tail)}, {tail['verdict']}; pixel accuracy {in_points(accuracy)}, "
        f"{accuracy['verdict']})" for point, (found, tail, accuracy) in claim_by_point(table).items())])


def every_method(groups: dict[str, list[Run]], split: str) -> pd.DataFrame:
    """The claim asked of every method at each of its named points, against cross entropy as trained.

    Each half by its own interval, corrected for nothing: where to look next, and no answer of docs/evidence-plan.md.

    Args:
        groups: comparison -> its runs, which `verdicts.can_be_asked`.

    Returns:
        Text; index (method, decision); "yes", in how many of the comparisons that have it; a column per comparison
        with the answer and both mean differences in percentage points, the tail's first, such as
        "yes (+7.2, +0.3)". Decisions beside the curve are those of cross entropy alone.
    """
    rows = {}
    for group, runs in groups.items():
        own = {label: [run for run in runs if name_of(run) == label] for label in dict.fromkeys(map(name_of, runs))}
        plain = judged(own[BASELINE], "rare", split)
        for label, some in own.items():
            asked = dict(zip(OTHERS, OTHERS, strict=True)) if label == BASELINE else named_decisions(some)
            for decision, name in asked.items():
                differences = judged(some, decision, split) - plain
                rows.setdefault((label, name), {})[group] = _claimed(differences[TAIL], differences[ACCURACY])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(groups)).fillna(NOTHING)
    has = table.ne(NOTHING).sum(axis=1)
    yes = table.map(lambda cell: cell.startswith("yes")).sum(axis=1)
    table.insert(0, "yes", [f"{some} of {all_}" for some, all_ in zip(yes, has, strict=True)])
    table.index = pd.MultiIndex.from_tuples(rows, names=["method", "decision"])
    return table[has > 0]


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """`every_method` in short: of methods in more than one comparison, in how many both halves hold at each point."""
    short = table["yes"].reset_index().replace({"decision": {"as trained": "rare"}})
    short = short[short["decision"].isin(POINTS) & ~short["yes"].str.endswith(" of 1")]
    return short.pivot(index="method", columns="decision", values="yes").reindex(
        index=short["method"].unique(), columns=list(POINTS)).fillna(NOTHING).reset_index()


def _claimed(*halves):
    """The answer with the means of the tail and of pixel accuracy; None where no seed has them."""
    found = with_verdicts([{"differences": half} for half in halves], corrected=False)
    if not found["seeds"].all():
        return None
    means = ", ".join(f"{100 * mean:+.1f}" for mean in found["difference"]).replace("-", "−")
    return f"{answer(*found['verdict'])} ({means})"
