"""The questions of docs/evidence-plan.md, answered along curves, with verdicts that hold for a whole table.

A question compares two labels, each by one decision: a named point, a decision beside the curve, the line moved until
pixel accuracy is that of the baseline as trained, or by their whole curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cawalib.method import POINTS
from cawalib.results.comparable import check
from cawalib.results.decisions import FOREGROUND, OTHERS, at_its_accuracy, calibration_error, curve, decided, height
from cawalib.results.forms import NOTHING
from cawalib.results.measures import METRICS, ComparisonError, name_of, values_of
from cawalib.results.statistics import with_verdicts
from cawalib.results.tables import OVERVIEW, difference_text, mean_text
from cawalib.runs import Run

BASELINE = "cross entropy"
EQUAL = "equal accuracy"  # the line moved until pixel accuracy is the baseline's
CURVE = "whole curve"  # the mean height of one curve above the other
MIOU, TAIL, ACCURACY = OVERVIEW
COUNTS, OURS = "inverse square root", "CAWA"
BOTH_JOBS, PREDICTIONS = f"{COUNTS}, line from feedback", f"{OURS}, score from predictions"


@dataclass(frozen=True)
class Question:
    """What is asked: the first side minus the second, each a label and the decision that it is judged by."""

    hypothesis: str
    first: tuple[str, str]
    second: tuple[str, str]
    metrics: tuple[str, ...] = (MIOU, TAIL)


def _equal(hypothesis, first, second):
    return Question(hypothesis, (first, EQUAL), (second, EQUAL))


QUESTIONS = (
    *(Question("H1", (OURS, point), (BASELINE, "rare"), OVERVIEW) for point in POINTS),
    Question("H1", (OURS, EQUAL), (BASELINE, "rare")),
    _equal("H2", OURS, BASELINE),
    _equal("H2", OURS, COUNTS),
    Question("H2", (OURS, CURVE), (COUNTS, CURVE)),
    _equal("H4", OURS, PREDICTIONS),
    _equal("H6", BOTH_JOBS, COUNTS),
    _equal("H6", BOTH_JOBS, OURS),
    *(Question("H7", (BASELINE, "fitted"), (BASELINE, other), OVERVIEW)
      for other in ("rare", "logit adjustment", "RankSEG")),
    _equal("H8", OURS, f"{OURS}, frozen weights"),
    _equal("H8", OURS, f"{OURS}, frozen weights permuted"),
    _equal("", OURS, "Dice"),
    _equal("", f"{OURS} + Dice", OURS),
    _equal("", f"{OURS} + Dice", f"{COUNTS} + Dice"),
)


def values(runs: list[Run], label: str, decision: str, split: str, metric: str) -> pd.Series:
    """A label's metric in [0, 1] by seed, judged by a decision; empty where its runs were not judged by it."""
    own = [run for run in runs if name_of(run) == label]
    if decision == EQUAL:
        return at_its_accuracy(runs, label, BASELINE, split, metric)["value"]
    if metric == FOREGROUND:  # of curves alone
        return pd.Series({run.config.seed: curve(run, split).at[0.0, metric] for run in own}, dtype=float)
    return judged(own, decision, split)[metric]


def judged(runs: list[Run], decision: str, split: str) -> pd.DataFrame:
    """One label's metrics in [0, 1] by a decision of its runs: index seed; no rows where they were not judged by it."""
    try:
        found = {run.config.seed: values_of(decided(run, decision).metrics["splits"][split]) for run in runs
                 if split in run.metrics["splits"]}
    except ComparisonError:
        found = {}
    return pd.DataFrame(list(found.values()), index=list(found), columns=list(METRICS), dtype=float)


def verdicts(runs: list[Run], split: str) -> pd.DataFrame:
    """Every question that these runs can be asked, with Holm's correction over all of them.

    Args:
        runs: of one comparison; without "cross entropy" among its labels nothing is asked.

    Returns:
        See `statistics.with_verdicts`, with columns hypothesis, first, second, metric before; differences in [0, 1].
    """
    labels, rows = {name_of(run) for run in runs}, []
    if BASELINE not in labels:
        return with_verdicts(rows)
    check(runs, BASELINE, split, shared_seeds=True)
    for question in QUESTIONS:
        if not {question.first[0], question.second[0]} <= labels:
            continue
        # somebody's own classes may hold a background, which most pixels are of
        foreground = (FOREGROUND,) if question.first[1] == EQUAL and runs[0].config.dataset == "folder" else ()
        for metric in question.metrics + foreground:
            differences = _differences(runs, question, split, metric)
            if len(differences):
                rows.append({"hypothesis": question.hypothesis, "first": side_text(question.first),
                             "second": side_text(question.second), "metric": metric,
                             "differences": differences.to_numpy()})
    return with_verdicts(rows)


def _differences(runs, question, split, metric):
    """First minus second, by seed."""
    (first, decision), (second, _) = question.first, question.second
    if decision == CURVE:
        curves = [{run.config.seed: curve(run, split) for run in runs if name_of(run) == label}
                  for label in (first, second)]
        shared = sorted(curves[0].keys() & curves[1].keys())
        return pd.Series({seed: height(*(side[seed] for side in curves), metric) for seed in shared}).dropna()
    sides = [values(runs, *side, split, metric) for side in (question.first, question.second)]
    return (sides[0] - sides[1]).dropna()


def at_equal_accuracy(runs: list[Run], first: str, second: str, split: str, metric: str) -> pd.Series:
    """One label's metric minus another's by seed, both at cross entropy's own pixel accuracy; in [-1, 1]."""
    return (values(runs, first, EQUAL, split, metric) - values(runs, second, EQUAL, split, metric)).dropna()


def equal_accuracy_table(groups: dict[str, list[Run]], split: str) -> pd.DataFrame:
    """Every label minus CAWA, both at cross entropy's own pixel accuracy, in each of several comparisons.

    Args:
        groups: comparison -> its runs, which `can_be_asked`.

    Returns:
        Text, in percentage points, * where the interval leaves out 0; index (metric, method); a column per comparison;
        "together", the mean of all their differences with Student's interval; "better in all" with a tick where the
        mean of each comparison and the interval of all together lie above 0 (docs/evidence-plan.md, Choosing).
    """
    labels = dict.fromkeys(name_of(run) for runs in groups.values() for run in runs if name_of(run) != OURS)
    rows = {}
    for metric in (MIOU, TAIL):
        for label in labels:
            parts = [at_equal_accuracy(runs, label, OURS, split, metric) for runs in groups.values()]
            found = with_verdicts([{"differences": part} for part in (*parts, pd.concat(parts))], corrected=False)
            *texts, together = (_starred(row) for _, row in found.iterrows())
            better = (found["difference"] > 0).all() and found["low"].iloc[-1] > 0
            rows[metric, label] = dict(zip(groups, texts, strict=True)) | {
                "together": together, "better in all": "✓" if better else ""}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["metric", "method"])
    return table


def side_text(side: tuple[str, str]) -> str:
    """A side of a question in words: "CAWA, balanced"; a method that has but one point alone."""
    label, decision = side
    return label if side == (BASELINE, "rare") else f"{label}, {decision}"


def questions_table(runs: list[Run], split: str) -> pd.DataFrame:
    """`verdicts` as text, in percentage points; p-values raw and after Holm's correction."""
    table = verdicts(runs, split)
    if table.empty:
        return pd.DataFrame()
    return pd.DataFrame({
        "": table["hypothesis"], "first": table["first"], "minus": table["second"], "metric": table["metric"],
        "seeds": table["seeds"].astype(str), "difference": [in_points(row) for _, row in table.iterrows()],
        "p": [_p_text(value) for value in table["p"]], "p, Holm": [_p_text(value) for value in table["p_holm"]],
        "verdict": table["verdict"]})


def in_points(row) -> str:
    """A difference with its interval, in percentage points."""
    return difference_text({"verdict": ""} | {name: row[name] for name in ("difference", "low", "high")})


def _starred(row):
    return in_points(row) + ("*" if row["low"] > 0 or row["high"] < 0 else "")


def _p_text(value):
    return NOTHING if np.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}"


def points_table(runs: list[Run], split: str) -> pd.DataFrame:
    """Every label at every decision it was judged by: mean IoU, tail, pixel accuracy and calibration error in percent.

    Returns:
        Text, mean ± standard deviation; index (method, decision); columns of `tables.OVERVIEW`; each minus that of
        cross entropy as trained, where it is among the runs, paired by seed, * where the interval leaves out 0;
        "calibration error" at the two ends of the curve, and "seeds". At equal accuracy, how many seeds' curves get
        there at all.
    """
    rows, plain = {}, {metric: values(runs, BASELINE, "rare", split, metric) for metric in OVERVIEW}
    for label in dict.fromkeys(name_of(run) for run in runs):
        own = [run for run in runs if name_of(run) == label]
        for decision, name in (named_decisions(own) | dict.fromkeys((*OTHERS, EQUAL))).items():
            found = {metric: values(runs, label, decision, split, metric) for metric in OVERVIEW
                     if decision != EQUAL or metric != ACCURACY}
            if not len(found[MIOU]):
                continue
            row = rows[label, name or decision] = {
                metric: mean_text(column.mean(), column.std()) for metric, column in found.items()}
            if decision == EQUAL:
                reached = at_its_accuracy(runs, label, BASELINE, split, MIOU)["reached"]
                row[ACCURACY] = f"reached by {reached.sum()} of {len(reached)}"
            if len(plain[MIOU]) and (label, decision) != (BASELINE, "rare"):
                row |= {f"{metric} minus {BASELINE}": _difference_from(column, plain[metric])
                        for metric, column in found.items()}
            row |= {"calibration error": _calibration(own, split, {"rare": 0, "accurate": 1}.get(decision)),
                    "seeds": str(len(found[MIOU]))}
    heads = [*OVERVIEW, *(f"{metric} minus {BASELINE}" for metric in OVERVIEW), "calibration error", "seeds"]
    table = pd.DataFrame.from_dict(rows, orient="index")
    table = table[[head for head in heads if head in table]].fillna("")
    table.index = pd.MultiIndex.from_tuples(rows, names=["method", f"{split}, percent"])
    return table


def named_decisions(runs: list[Run]) -> dict[str, str]:
    """The named points of one label, and what tables call them: one without weights has but that as it was trained."""
    return {point: point for point in POINTS} if runs[0].metrics["line"]["own"] else {"rare": "as trained"}


def _difference_from(values, plain):
    return _starred(with_verdicts([{"differences": values - plain}], corrected=False).iloc[0])


def _calibration(runs, split, alpha):
    if alpha is None:
        return ""
    errors = pd.Series([calibration_error(run, split, alpha) for run in runs])
    return mean_text(errors.mean(), errors.std())


def can_be_asked(runs: list[Run], split: str) -> bool:
    """Whether both sides of the paper's claim are among these runs, judged along their curves."""
    return {BASELINE, OURS} <= {name_of(run) for run in runs} and all(
        "decision" in run.metrics["splits"].get(split, {}) for run in runs)
