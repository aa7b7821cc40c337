"""Answers in words, made from the numbers: what stands below a table or a figure of notebooks 04 and 05.

A difference is called better or worse where its 95 % interval leaves out 0, and inside the noise where it does not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from cawalib.method import POINTS
from cawalib.results.comparison import compare, compare_classes, interval
from cawalib.results.decisions import ON_CURVES, at_its_accuracy, decided
from cawalib.results.measures import name_of, tidy
from cawalib.results.side_by_side import SideBySide
from cawalib.results.tables import OVERVIEW, difference_text, last_weights
from cawalib.runs import Run

FOUND = 0.05  # a class is found where its mean IoU reaches this
SHORT = {"mIoU": "mean IoU", "tail mIoU (pixels)": "tail", "pixel accuracy": "pixel accuracy"}


def against(runs: list[Run], label: str, baseline: str, split: str, metrics=OVERVIEW, shared_seeds=False) -> str:
    """One label against another: "CAWA minus cross entropy, test: mean IoU +5.0 [+3.1, +6.9], better; ..."."""
    table = compare(_of(runs, label, baseline), baseline, split, metrics, shared_seeds).set_index(["label", "metric"])
    rows = [table.loc[label, metric] for metric in metrics]
    parts = [f"{SHORT.get(metric, metric)} {_difference(row)}, {row['verdict']}"
             for metric, row in zip(metrics, rows, strict=True)]
    return f"{label} minus {baseline} on {split}, in points: {'; '.join(parts)}. {_seeds(rows)}"


def found_classes(runs: list[Run], label: str, baseline: str, split: str) -> str:
    """Which rare classes a label finds that the baseline misses, and the tail's difference."""
    groups = runs[0].metrics["groups"]["pixels"]
    means = {name: _class_means(runs, name, split)[groups["tail"]] for name in (label, baseline)}
    missed = [name for name in groups["tail"] if not means[baseline][name] >= FOUND]
    found = [name for name in missed if means[label][name] >= FOUND]
    row = compare(_of(runs, label, baseline), baseline, split, ["tail mIoU (pixels)"]).set_index("label").loc[label]
    if missed:
        first = f"{label} finds {len(found)} of {len(missed)} rare classes that {baseline} misses"
    else:
        first = f"{baseline} misses none of the {len(groups['tail'])} rare classes"
    return f"{first} (found: a mean IoU of at least {100 * FOUND:.0f} %); tail {_difference(row)}, {row['verdict']}."


def counted_classes(runs: list[Run], label: str, baseline: str, split: str) -> str:
    """In how many classes a label is better than the baseline, worse, and inside the noise."""
    table = compare_classes(_of(runs, label, baseline), baseline, split)
    table = table[table["label"] == label]
    named = {verdict: list(table[table["verdict"] == verdict]["class"]) for verdict in ("better", "worse")}
    parts = [f"{verdict} in {len(names)}" + (f" ({', '.join(names)})" if names else "") for verdict, names in
             named.items()]
    rest = len(table) - sum(map(len, named.values()))
    return f"Of {len(table)} classes, {label} is {', '.join(parts)}, and inside the noise of {baseline} in {rest}."


def counted_labels(runs: list[Run], baseline: str, split: str, metrics=OVERVIEW, shared_seeds=False) -> str:
    """Which labels are better than the baseline, worse, and inside the noise, metric by metric."""
    table = compare(runs, baseline, split, metrics, shared_seeds)
    table = table[table["label"] != baseline]
    sentences = []
    for metric in metrics:
        own = table[table["metric"] == metric]
        parts = []
        for verdict in ("better", "worse", "inside the noise", "too few seeds"):
            labels = [label.removeprefix(f"{baseline}, ") for label in own[own["verdict"] == verdict]["label"]]
            parts += [f"{verdict}: {', '.join(labels)}"] if labels else []
        sentences.append(f"{SHORT.get(metric, metric)} beside {baseline}: {'; '.join(parts)}.")
    return "\n".join(_capital(sentence) for sentence in sentences)


def grouped(runs: list[Run], label: str, baseline: str, split: str) -> str:
    """Head, body and tail of one label against the baseline."""
    return against(runs, label, baseline, split, [f"{group} mIoU (pixels)" for group in ("head", "body", "tail")])


def imbalance(statistics) -> str:
    """How uneven the training pixels are, and how many images hold the rarest class."""
    pixels = np.asarray(statistics.pixels, float)
    present = np.flatnonzero(pixels)
    most, least = present[pixels[present].argmax()], present[pixels[present].argmin()]
    return (f"{_capital(statistics.classes[most])} has {pixels[most] / pixels[least]:.0f} times the pixels of "
            f"{statistics.classes[least]}, which {statistics.images[least]} of {statistics.size} images show.")


def gain_and_frequency(runs: list[Run], label: str, baseline: str, split: str) -> str:
    """Whether rarer classes gain more: the rank correlation between training pixels and gain."""
    table = compare_classes(_of(runs, label, baseline), baseline, split)
    gains = table[table["label"] == label].set_index("class")["difference"].dropna()
    pixels = pd.Series(runs[0].metrics["train_pixels"], runs[0].metrics["classes"])[gains.index]
    found = stats.spearmanr(pixels, gains)
    sign = "the rarer a class, the more it gains" if found.statistic < 0 else "the rarer a class, the less it gains"
    sure = sign if found.pvalue < 0.05 else "no order that chance would not give as well"
    return (f"Rank correlation between a class's training pixels and its gain over {baseline}: "
            f"{found.statistic:+.2f} over {len(gains)} classes (p = {found.pvalue:.2g}): {sure}.").replace("-", "−")


def weights(runs: list[Run]) -> str:
    """Where the weights of one label end, and how far they still move in the last third of training."""
    tables = [run.class_weights for run in runs]
    last = max(table["update"].max() for table in tables)
    ends = last_weights(runs).iloc[0]
    first = (f"At the end a pixel of {ends.idxmax()} weighs {ends.max() / ends.min():.0f} times one of "
             f"{ends.idxmin()}.")
    if last == 0:
        return f"{first} The weights are the same from start to end."
    late = pd.concat([table[table["update"] > 2 * last / 3].groupby("class")["weight"].agg(["std", "mean"])
                      for table in tables])
    moved = (late["std"] / late["mean"]).groupby(level=0).mean().dropna()
    if moved.empty:
        return f"{first} There were too few updates to say whether they settle."
    return (f"{first} Within the last third of training a class's weight deviates by {100 * moved.median():.0f} % of "
            f"itself (median over classes; {moved.idxmax()} most, {100 * moved.max():.0f} %).")


def weight_spread(runs: list[Run]) -> str:
    """How many times the lightest class's weight the heaviest one's is at the end, label by label."""
    parts = [f"{label} {ends.max() / ends.min():.0f} ({ends.idxmax()} over {ends.idxmin()})"
             for label, ends in last_weights(runs).iterrows()]
    return f"Largest weight over smallest at the end: {', '.join(parts)}."


def convergence(runs: list[Run]) -> str:
    """How much validation still moves in the last quarter of training, label by label, in words of the largest."""
    changes = {}
    for run in runs:
        curve = run.history.set_index("epoch")["val_miou"].dropna()
        if len(curve) > 1:
            start = curve.index[-1] * 3 / 4
            changes.setdefault(name_of(run), []).append(curve.iloc[-1] - curve[curve.index <= start].iloc[-1]
                                                        if (curve.index <= start).any() else np.nan)
    if not changes:
        return "These runs were validated once, at their end: no word on whether training has converged."
    means = pd.Series({label: np.mean(values) for label, values in changes.items()}).dropna()
    return (f"From three quarters of training to its end, validation mIoU moves by {100 * means.min():+.1f} to "
            f"{100 * means.max():+.1f} points (means over seeds; most: {means.abs().idxmax()}).").replace("-", "−")


def decisions(run: Run, split: str) -> str:
    """What one network gives at the named points of its curve of decisions."""
    points = POINTS if run.metrics["line"]["own"] else ["as trained"]
    table = {point: tidy([decided(run, point) if point in POINTS else run]) for point in points}
    found = {point: rows[rows["split"] == split].set_index("metric")["value"] for point, rows in table.items()}
    parts = [f"- {point}: " + ", ".join(f"{SHORT[metric]} {100 * values[metric]:.1f}" for metric in OVERVIEW)
             for point, values in found.items()]
    return "\n".join([f"On {split}, in percent:", *parts])


def at_equal_accuracy(runs: list[Run], baseline: str, split: str) -> str:
    """What other labels have beyond a baseline where the line between classes makes both equally accurate."""
    parts = []
    for label in dict.fromkeys(name_of(run) for run in runs if name_of(run) != baseline):
        found = {metric: at_its_accuracy(runs, label, baseline, split, metric) for metric in ON_CURVES}
        told = []
        for metric, table in found.items():
            mean, half = interval(table["value"] - table["baseline"])
            around = "" if np.isnan(half) else f" [{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]"
            told.append(f"{SHORT[metric]} {100 * mean:+.1f}{around}")
        missed = int((~table["reached"]).sum())
        rest = f" (never as accurate in {missed} of {len(table)} seeds)" if missed else ""
        parts.append(f"- {label}: {', '.join(told)}{rest}".replace("-", "−").replace("−", "-", 1))
    first = f"With the line moved until pixel accuracy on {split} is that of {baseline}, in points above it:"
    return "\n".join([first, *parts])


def tail_pixels(shown: dict[str, Run]) -> str:
    """Of the labelled pixels of tail classes in the pictures, the share that each run gets right."""
    parts = []
    for label, run in shown.items():
        labels, predictions = run.samples["labels"], run.samples["predictions"]
        tail = np.isin(labels, [run.metrics["classes"].index(name) for name in run.metrics["groups"]["pixels"]["tail"]])
        parts.append(f"{label} {100 * (predictions == labels)[tail].mean():.0f} %")
    return f"Of the {tail.sum()} pixels of tail classes in these images, right are: {', '.join(parts)}."


def mask_precision(run: Run, image: int = 0) -> str:
    """Of the pixels that the maps of one sample claim for its classes, the share that is theirs: rare and frequent."""
    samples, names = run.samples, run.metrics["classes"]
    tail = [names.index(name) for name in run.metrics["groups"]["pixels"]["tail"]]
    labels = samples["labels"][image]
    claimed = (samples["maps"][image] / 255 >= run.config.pseudo_mask_threshold) & (labels != 255)
    shares = {index: (labels == index)[claimed[index]].mean() for index in np.flatnonzero(samples["present"][image])
              if claimed[index].any()}
    groups = {"rare classes": [shares[index] for index in shares if index in tail],
              "all others": [shares[index] for index in shares if index not in tail]}
    parts = [f"{name} {100 * np.mean(own):.0f} %" for name, own in groups.items() if own]
    return f"Of the pixels that a map claims for its class, so many are of it: {', '.join(parts)} (mean over classes)."


def dial(runs: list[Run], label: str, baseline: str, split: str, metric="tail mIoU (pixels)") -> str:
    """One label against another at each imbalance of `streets`."""
    parts = []
    for value in sorted({run.config.imbalance for run in runs}):
        own = _of([run for run in runs if run.config.imbalance == value], label, baseline)
        row = compare(own, baseline, split, [metric]).set_index("label").loc[label]
        parts.append(f"at {value:g} {_difference(row)}, {row['verdict']}")
    return f"{_capital(SHORT.get(metric, metric))} of {label} minus {baseline} on {split}: {'; '.join(parts)}."


def across(beside: SideBySide, label: str, metrics=OVERVIEW) -> str:
    """In how many of a study's comparisons a label is better than each baseline, worse, and inside the noise."""
    lines = []
    for baseline in beside.baselines:
        if baseline == label:
            continue
        parts = []
        for metric in metrics:
            counts = {verdict: beside.count(verdict, label, baseline, metric) for verdict in ("better", "worse")}
            total = counts["better"][1]
            parts.append(f"{SHORT.get(metric, metric)} better in {counts['better'][0]} of {total}, worse in "
                         f"{counts['worse'][0]}")
        lines.append(f"{label} beside {baseline}: {'; '.join(parts)}; the rest is inside the noise.")
    return "\n".join(lines)


def _of(runs, *labels):
    return [run for run in runs if name_of(run) in labels]


def _class_means(runs, label, split):
    """Mean IoU over seeds of every class; NaN where there is none."""
    values = [pd.Series(np.array(run.metrics["splits"][split]["iou"], float), run.metrics["classes"])
              for run in _of(runs, label)]
    return pd.concat(values, axis=1).mean(axis=1)


def _difference(row):
    return difference_text(row).rstrip("*")


def _seeds(rows):
    pairs = sorted({int(row["pairs"]) for row in rows})
    return f"({pairs[0]} seeds.)" if len(pairs) == 1 else f"({pairs[0]} to {pairs[-1]} seeds.)"


def _capital(text):
    return text[:1].upper() + text[1:]
