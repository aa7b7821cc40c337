"""What the comparisons of docs/evidence-plan.md say together, from their published archives, on one generated page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cawalib.files import atomic
from cawalib.method import POINTS
from cawalib.results import figures, forms
from cawalib.results.claims import claim_by_point, counted, every_method
from cawalib.results.publish import whole_groups
from cawalib.results.statistics import LEVEL, MARGIN, pooled_from, with_verdicts
from cawalib.results.tables import OVERVIEW
from cawalib.results.verdicts import (
    BASELINE,
    COUNTS,
    OURS,
    at_equal_accuracy,
    can_be_asked,
    in_points,
    side_text,
    values,
    verdicts,
)
from cawalib.runs import ARCHIVE, Run, RunError, load_runs, load_study

STUDIES = ("evidence-streets", "evidence-cityscapes", "evidence-clothing", "evidence-camvid", "evidence-camvid-strong",
           "evidence-skill")
LOOKED_AT = "camvid"  # data whose test split earlier studies had read: support, and not what the verdict rests on
DIAL = ("streets 100", "streets 100 easy")  # the same frequencies; rare classes hard, and easy
SKILL = {f"camvid, {epochs} epochs": epochs for epochs in (10, 20, 40, 80, 160)}
SHORTENED = (*SKILL, "camvid, quarter of the images")  # ask how the answer changes, and are none
MIOU, TAIL, ACCURACY = OVERVIEW
KEYS = ["hypothesis", "first", "second", "metric"]


def comparisons(root=".") -> tuple[dict[str, list[Run]], str]:
    """Every published comparison that is whole, by its name, and the split that all of them are judged on.

    Raises:
        RunError: two studies that are judged on different splits.
    """
    found, splits = {}, set()
    for name in STUDIES:
        archive = Path(root, "outputs/reference", name, ARCHIVE)
        if not archive.is_file():
            continue
        study = load_study(Path(root, "workflow/grids", f"{name}.yaml"))
        # what is published is shown; `tiny_runs --accept` has said which of it is stale
        runs = load_runs(study, archive=archive, allow_unfinished=True, allow_other_code=True)
        for group in sorted(whole_groups(study, runs), key=_by_numbers):
            own = [run for run in runs if run.group == group]
            if can_be_asked(own, study.split):
                found[name.removeprefix("evidence-") if group == "methods" else group] = own
                splits.add(study.split)
    if len(splits) > 1:
        raise RunError(f"studies {', '.join(STUDIES)}: found splits {', '.join(sorted(splits))}, expected one for all")
    return found, splits.pop() if splits else ""


def _by_numbers(name):
    """What to sort names by so that "streets 100" stands before "streets 1000", and behind "streets 10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def write(page, root=".") -> None:
    """The page, and in `figures` beside it the pictures of the claim and of CAWA's lead; nothing if none is whole."""
    groups, split = comparisons(root)
    if not groups:
        return
    asked = {name: verdicts(runs, split) for name, runs in groups.items()}
    leads = leads_of(groups, split)
    drawn = {"both_halves": figures.both_halves(_answers(asked), split)} if _answers(asked) else {}
    if SKILL.keys() & groups.keys():
        same = [name for name, runs in groups.items() if runs[0].config.dataset == LOOKED_AT]
        drawn["lead_against_skill"] = figures.lead_against_skill(leads.loc[same], SKILL, split)
    for name, figure in drawn.items():
        figures.save(figure, Path(page).parent / "figures", name)
    with atomic(page) as partial:
        partial.write_text(page_of(groups, asked, leads, split))


def _answers(by_comparison):
    return {name: found for name, found in by_comparison.items() if name not in SHORTENED}


def page_of(groups: dict[str, list[Run]], asked: dict[str, pd.DataFrame], leads: pd.DataFrame, split: str) -> str:
    """Markdown: the claim in each comparison and over all, every question pooled, where CAWA's lead grows.

    Args:
        groups: comparison -> its runs.
        asked: comparison -> `verdicts`.
        leads: `leads_of` these.
    """
    parts = {"verdict": [name for name in groups if groups[name][0].config.dataset != LOOKED_AT], "all": list(groups)}
    by_data = {}
    for name, runs in groups.items():
        by_data.setdefault(runs[0].config.dataset, []).append(name)
    sections = {"each": forms.markdown(each_table(_answers(asked), leads)), "each_on_val": _on_validation(groups)}
    shown = []
    for part, names in (parts | {f"on_{data}": names for data, names in by_data.items()}).items():
        if len(names) > 1 and names not in shown:  # as long as one kind of data is there, all three are the same
            shown.append(names)
            chosen = {name: asked[name] for name in names}
            sections |= {part: claim(chosen), f"{part}_questions": forms.markdown(pooled_table(chosen))}
    sections["leads"] = forms.markdown(leads_table(leads))
    sections["hypotheses"] = "\n".join(filter(None, (_skill(leads), _dial(groups, split))))
    of_all = every_method(_answers(groups), split)
    sections |= {"counted": forms.markdown(counted(of_all)), "every_method": forms.markdown(of_all)}
    return "# All comparisons together\n\n" + ABOUT.format(split=split) + "\n\n".join(
        f"## {name}\n\n{text}" for name, text in sections.items() if text) + "\n"


def _on_validation(groups):
    """`each_table` of the validation images of the same runs; nothing without any."""
    own = {name: runs for name, runs in _answers(groups).items() if can_be_asked(runs, "val")}
    if not own:
        return ""
    return forms.markdown(each_table({name: verdicts(runs, "val") for name, runs in own.items()},
                                     leads_of(own, "val")))


ABOUT = """Generated by `python -m cawalib.results.pages`; differences on {split}, in percentage points, paired by seed.
Means are random-effects means (REML) with the interval of Hartung and Knapp; *in a further one* is the prediction
interval. Not corrected for how many questions stand here; comparisons count as independent, which those on the same
images are not. One in which all seeds agree, such as on a tail of 0, counts as known to a hundredth of a point: where
comparisons differ by no more than their noise, the mean is that one's alone (an interval of ±0.0), and says nothing of
the others. *verdict* and *verdict_questions* leave out CamVid, whose test split earlier studies had looked at.
*each_on_val* asks the same networks on validation images: on CamVid from a drive, on Cityscapes from the cities that
training images are from as well, while most of CamVid's test images and all of Cityscapes' are from elsewhere. It is no
question of the plan's; and CAWA's defaults were chosen by CamVid's validation images.
*every_method* asks the claim of every method at every point: tail up, and pixel accuracy not down, against cross
entropy as trained (in brackets the mean difference of both); *counted* says in how many comparisons. There each answer
goes by two single intervals; but for CAWA it is no question of the plan's, and was seen on test: where to look next,
and no verdict.

"""


def each_table(asked: dict[str, pd.DataFrame], leads: pd.DataFrame) -> pd.DataFrame:
    """The claim in every comparison: the answer at each named point, both halves where the weights are taken out, and
    whether counts do it as well.

    Args:
        asked: comparison -> `verdicts`.
        leads: `leads_of` these and maybe others.

    Returns:
        Text, in percentage points.
    """
    rows = []
    for name, table in asked.items():
        found = claim_by_point(table)
        _, tail, accuracy = found["accurate"]
        rows.append({"data": name, **{point: answer for point, (answer, *_) in found.items()},
                     "tail mIoU at accurate": in_points(tail), "pixel accuracy at accurate": in_points(accuracy),
                     f"tail mIoU against {COUNTS}": in_points(leads.loc[name, "lead in tail"])})
    return pd.DataFrame(rows)


def _pooled(asked, key):
    """The mean over comparisons of one question; None where fewer than two have an interval."""
    rows = [row for table in asked.values() for row in table[table["low"].notna()].to_dict("records")
            if tuple(row[name] for name in KEYS) == key]
    return pooled_from([row | {"pairs": row["seeds"]} for row in rows]) if len(rows) > 1 else None


def pooled_table(asked: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Every question over several comparisons: the random-effects mean, its interval, and that of a further comparison.

    Args:
        asked: comparison -> `verdicts`. One with a single seed does not count.

    Returns:
        Text, in percentage points; a row per question that at least two of them answer.
    """
    keys = dict.fromkeys(tuple(row) for table in asked.values() for row in table[KEYS].to_numpy())
    found = {key: _pooled(asked, key) for key in keys}
    return pd.DataFrame([
        dict(zip(("", "first", "minus", "metric"), key, strict=True)) | {
            "comparisons": str(mean.count), "mean": _mean_text(mean),
            "in a further one": _range(mean.predicted_low, mean.predicted_high)}
        for key, mean in found.items() if mean is not None])


def _mean_text(mean):
    return in_points({"difference": mean.mean, "low": mean.low, "high": mean.high})


def _range(low, high):
    return forms.NOTHING if np.isnan(low) else f"[{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")


def claim(asked: dict[str, pd.DataFrame]) -> str:
    """The paper's claim over several comparisons, a line for each named point.

    Yes: the mean of the tail lies above 0 with its whole interval, and that of pixel accuracy above a loss of
    `statistics.MARGIN`, without lying below 0. No: one of the two lies below 0 with its whole interval.
    """
    lines = [f"Rare classes up and overall accuracy not down, {OURS} against {BASELINE}, "
             f"over {len(asked)} comparisons?"]
    for point in POINTS:
        key = "H1", side_text((OURS, point)), BASELINE
        tail, accuracy = (_pooled(asked, (*key, metric)) for metric in (TAIL, ACCURACY))
        if tail is None or accuracy is None:
            continue
        answer = "not decided"
        if tail.high < 0 or accuracy.high < 0:
            answer = "no"
        elif tail.low > 0 and accuracy.low > -MARGIN:
            answer = "yes"
        lines.append(f"- {point}: {answer} (tail {_mean_text(tail)}; pixel accuracy {_mean_text(accuracy)})")
    return "\n".join(lines)


def leads_of(groups: dict[str, list[Run]], split: str) -> pd.DataFrame:
    """Per comparison how good the network is, CAWA's lead over counts, and what its weights cost.

    Returns:
        In [-1, 1]; index comparison; columns ("skill", "mean" and "seeds") of cross entropy's mean IoU as trained,
        and with "difference", "low" and "high" "lead in mIoU" and "lead in tail" at cross entropy's accuracy, and
        "cost", CAWA's pixel accuracy minus cross entropy's as trained.
    """
    rows = {}
    for name, runs in groups.items():
        skill = values(runs, BASELINE, "rare", split, MIOU)
        trained, plain = (values(runs, label, "rare", split, ACCURACY) for label in (OURS, BASELINE))
        asked = {"lead in mIoU": at_equal_accuracy(runs, OURS, COUNTS, split, MIOU),
                 "lead in tail": at_equal_accuracy(runs, OURS, COUNTS, split, TAIL),
                 "cost": (trained - plain).dropna()}
        rows[name] = {("skill", "mean"): skill.mean(), ("skill", "seeds"): len(skill)} | {
            (kind, part): value for kind, differences in asked.items()
            for part, value in with_verdicts([{"differences": differences}], corrected=False).iloc[0].items()
            if part in ("difference", "low", "high")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("comparison")


def leads_table(leads: pd.DataFrame) -> pd.DataFrame:
    """`leads_of` as text, in percent."""
    heads = {"lead in mIoU": f"{OURS} minus {COUNTS}, {MIOU}", "lead in tail": f"{OURS} minus {COUNTS}, {TAIL}",
             "cost": f"{OURS} minus {BASELINE}, {ACCURACY}"}
    columns = {f"{BASELINE}, mIoU": [f"{100 * value:.1f}" for value in leads["skill", "mean"]]} | {
        head: leads[kind].apply(in_points, axis=1) for kind, head in heads.items()}
    return pd.DataFrame(columns | {"seeds": leads["skill", "seeds"].astype(str)}, leads.index).reset_index()


def _skill(leads):
    """H3: whether CAWA's lead over counts, and its pixel accuracy, are ordered as the network's skill is."""
    own = leads[leads.index.isin(SKILL)]
    if len(own) < 3:
        return ""
    ahead, paid = (_ordered(own["skill", "mean"], own[kind, "difference"]) for kind in ("lead in mIoU", "cost"))
    return (f"- H3: over {len(own)} lengths of training on CamVid the rank correlation of cross entropy's mean IoU "
            f"with CAWA's lead over counts in mean IoU is {ahead}, with CAWA's pixel accuracy minus cross entropy's, "
            f"as trained, {paid}.")


def _ordered(one, other):
    """Spearman's rank correlation, with its p-value over all orders: those of a formula do not hold for five."""
    found = stats.permutation_test([one], lambda ordered: stats.spearmanr(ordered, other).statistic,
                                   permutation_type="pairings", n_resamples=np.inf)
    return f"{found.statistic:+.2f} (p {found.pvalue:.3f})".replace("-", "−")


def _dial(groups, split):
    """H5: whether CAWA's lead over counts is larger where rare classes are easy. Welch's t: other images, no pairs."""
    if not set(DIAL) <= groups.keys():
        return ""
    hard, easy = (at_equal_accuracy(groups[name], OURS, COUNTS, split, MIOU) for name in DIAL)
    found = stats.ttest_ind(easy, hard, equal_var=False)
    low, high = found.confidence_interval(1 - LEVEL)
    verdict = "larger" if low > 0 else "smaller" if high < 0 else "not decided"
    text = in_points({"difference": easy.mean() - hard.mean(), "low": low, "high": high})
    return (f"- H5: CAWA's lead over counts in mean IoU where rare classes are easy minus that where they are hard is "
            f"{text}: {verdict}.")
