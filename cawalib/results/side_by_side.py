"""The comparisons of a study side by side: the questions asked of each, how often the answer was yes, tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from functools import cache

import pandas as pd

from cawalib.results.comparison import compare
from cawalib.results.figures.differences import across_groups
from cawalib.results.forms import NOTHING
from cawalib.results.measures import metric_named, name_of
from cawalib.results.statistics import pooled_from
from cawalib.results.tables import OVERVIEW, difference_text, mean_text, summary_table, verdict_table
from cawalib.results.verdicts import can_be_asked, equal_accuracy_table
from cawalib.runs import Run, Study

# what groups are compared with, side by side
BASELINES = ("cross entropy", "inverse square root", "CAWA")
# question -> (label, what it is compared with): the difference is the first minus the second
QUESTIONS = {
    "CAWA or cross entropy": ("CAWA", "cross entropy"),
    "CAWA or inverse square root": ("CAWA", "inverse square root"),
    "maps or predictions": ("CAWA", "CAWA, score from predictions"),
    "live feedback or its end weights": ("CAWA", "CAWA, frozen weights"),
    "own scores or another class's": ("CAWA", "CAWA, shuffled over classes"),
}


@dataclass(frozen=True, eq=False)  # told apart by identity, to be a key of what was computed from it
class SideBySide:
    """Runs of several groups (data, networks), each with the baselines among its labels."""

    runs: tuple[Run, ...]
    baselines: tuple[str, ...]
    split: str

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(run.group for run in self.runs))

    def difference(self, group: str, label: str, other: str, metric: str) -> dict | None:
        """A row of `comparison.compare`: label minus other in one group; None where the group lacks either."""
        return _difference(self, group, label, other, metric_named(metric))

    def count(self, verdict: str, label: str, other: str, metric: str) -> tuple[int, int]:
        """In how many groups a label is "better" than another (or "worse", "inside the noise"), and of how many."""
        found = [self.difference(group, label, other, metric) for group in self.groups]
        verdicts = [row["verdict"] for row in found if row is not None]
        return verdicts.count(verdict), len(verdicts)

    def pooled(self, label: str, other: str, metric: str) -> dict | None:
        """The random-effects mean of label minus other over the groups that have both: difference, low, high, verdict.

        None with fewer than two such groups.
        """
        found = [row for group in self.groups if (row := self.difference(group, label, other, metric)) is not None]
        if len(found) < 2:
            return None
        mean = pooled_from(found)
        return {"difference": mean.mean, "low": mean.low, "high": mean.high, "verdict": ""}

    def questions(self) -> pd.DataFrame:
        """Every question by every group: the first named is better (with by how much), worse, or neither is shown.

        Returns:
            Text, in percentage points; index (question, measure), a column per group.
        """
        rows = {}
        for question, (label, other) in QUESTIONS.items():
            for metric in OVERVIEW:
                cells = [_answer(self.difference(group, label, other, metric)) for group in self.groups]
                if set(cells) != {NOTHING}:
                    rows[question, metric.split(" (")[0]] = cells
        table = pd.DataFrame.from_dict(rows, orient="index", columns=self.groups)
        table.index = pd.MultiIndex.from_tuples(rows, names=["question", "measure"])
        return table

    def headline(self) -> pd.DataFrame:
        """CAWA minus cross entropy: a row per group, a column per measure, in percentage points with the interval."""
        rows = {group: {metric.split(" (")[0]: difference_text(self.difference(group, "CAWA", "cross entropy", metric))
                        for metric in OVERVIEW} for group in self.groups}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("CAWA minus cross entropy")

    def protocol(self) -> pd.DataFrame:
        """What each comparison was made on: data, network, image size, epochs, steps, seeds, its baseline's mIoU."""
        rows = {}
        for group in self.groups:
            own = [run for run in self.runs if run.group == group]
            config, plain = own[0].config, [run for run in own if name_of(run) == self.baselines[0]]
            reached = pd.Series([run.metrics["splits"][self.split]["miou"] for run in plain])
            rows[group] = {
                "data": f"{config.dataset} {config.imbalance:g}" if config.dataset == "streets" else config.dataset,
                "network": f"{config.network}, {config.encoder}" if config.encoder != "default" else config.network,
                "image": f"{config.image_width}x{config.image_height}",
                "epochs (steps)": f"{config.epochs} ({own[0].metrics['steps']})",
                "methods": str(len({name_of(run) for run in own})), "seeds": str(len(plain)),
                f"{self.baselines[0]}, mIoU": mean_text(reached.mean(), reached.std())}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("comparison")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of this kind, by name."""
        runs = list(self.runs)
        found = {"questions": self.questions(), "protocol": self.protocol(),
                 "verdicts": verdict_table(runs, self.baselines, self.split)}
        if {"CAWA", "cross entropy"} <= set(self.baselines):
            found = {"headline": self.headline()} | found
        if "CAWA" in self.baselines:
            ours = [run for run in runs if run.config.method.startswith("cawa")]
            parts = {metric: summary_table(ours, "CAWA", self.split, metric) for metric in OVERVIEW}
            found["variants"] = pd.concat(parts, names=["metric"])
        for baseline in self.baselines:
            for metric in OVERVIEW:
                name = f"{metric.split(' (')[0]}_minus_{baseline}".replace(" ", "_").lower()
                found[name] = summary_table(runs, baseline, self.split, metric)
        groups = {group: [run for run in runs if run.group == group] for group in self.groups}
        if all(can_be_asked(own, self.split) for own in groups.values()):
            against_ours = equal_accuracy_table(groups, self.split)
            for metric in against_ours.index.unique("metric"):
                name = f"{metric.split(' (')[0]}_minus_cawa_at_equal_accuracy".replace(" ", "_").lower()
                found[name] = against_ours.loc[metric]
        return found

    def figure(self):
        """CAWA minus every other baseline in every group."""
        rivals = tuple(label for label in self.baselines if label != "CAWA")
        return across_groups(list(self.runs), "CAWA", rivals, self.split, OVERVIEW)


@cache
def _difference(beside, group, label, other, metric):
    own = [run for run in beside.runs if run.group == group and name_of(run) in (label, other)]
    if {name_of(run) for run in own} != {label, other}:
        return None
    return compare(own, other, beside.split, [metric], shared_seeds=True).set_index("label").loc[label].to_dict()


def _answer(row):
    if row is None:
        return NOTHING
    text = {"better": "better", "worse": "**worse**", "inside the noise": "undecided"}.get(row["verdict"], NOTHING)
    return f"{text} {difference_text(row).split(' [')[0]}"


def side_by_side(study: Study, runs: list[Run]) -> SideBySide | None:
    """The finished groups of a study, and the baselines that all of these have; None with fewer than two.

    The main group goes by the name of its dataset here. Its controls stand among the ablations, those of other groups
    among their methods: in what is returned, all are with the methods.
    """
    count = Counter((run.group, run.label) for run in runs)
    finished = {group: {entry.label for entry in study.group(group) if count[group, entry.label] == len(entry.seeds)}
                for group in ("ablations", *study.compared)}
    groups = [group for group in _with_a_baseline_of_its_own(study) if len(finished[group]) == len(study.group(group))]
    elsewhere = set().union(*(finished[group] for group in groups if group != "methods"))
    shared = []
    for run in runs:
        if run.group == "methods" or (run.group == "ablations" and run.label in finished["ablations"] & elsewhere):
            if "methods" in groups:
                shared.append(dataclasses.replace(run, group=run.config.dataset))
        elif run.group in groups:
            shared.append(run)
    baselines = tuple(label for label in BASELINES if groups and all(label in finished[group] for group in groups))
    if len({run.group for run in shared}) < 2 or not baselines:
        return None
    return SideBySide(tuple(shared), baselines, study.split)


def _with_a_baseline_of_its_own(study):
    """The compared groups but those that begin with an earlier group's runs: more methods, not another data set."""
    groups = {}
    for group in study.compared:
        baseline = study.group(group)[0]
        groups.setdefault(baseline.config(baseline.seeds[0]).folder, group)
    return list(groups.values())
