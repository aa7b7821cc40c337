"""Every table of the paper, from finished runs alone; how a table is written, `forms` knows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cawalib.results.comparable import check
from cawalib.results.comparison import compare, compare_classes
from cawalib.results.forms import NOTHING
from cawalib.results.measures import GROUPS, metric_named, name_of, tidy
from cawalib.runs import Run

OVERVIEW = ("mIoU", "tail mIoU (pixels)", "pixel accuracy")  # all classes, the rare ones, and all pixels


def main_table(runs: list[Run], baseline: str, split: str, by: str = "pixels", rival: str = "",
               shared_seeds: bool = False) -> pd.DataFrame:
    """The main result, in percent: mean ± standard deviation over seeds, and paired difference [95 % interval].

    The best label of a metric is set bold (`**` around it) only if it is clear of the noise: its paired interval
    against every other label leaves out 0. Differences that leave out 0 are marked with an asterisk.

    Args:
        by: "pixels" or "images", the frequency that head, body and tail are made by.
        rival: a second label to take differences from, where it is among the runs.
        shared_seeds: see `comparison.compare`.

    Returns:
        Text; two or three rows per label, index (method, quantity); a column per metric; column "seeds".
    """
    metrics = ["mIoU", *(f"{group} mIoU ({by})" for group in GROUPS), "worst class IoU", "mean accuracy",
               "pixel accuracy"]
    table = compare(runs, baseline, split, metrics, shared_seeds)
    best = _clear_best(runs, table, split)
    against = {baseline: table}
    if rival in set(table["label"]) - {baseline}:
        against[rival] = compare(runs, rival, split, metrics, shared_seeds)
    rows = {}
    for label, part in table.groupby("label", sort=False):
        part = part.set_index("metric")
        means = {"seeds": str(part["seeds"].max())}
        for metric in metrics:
            cell = mean_text(part.at[metric, "mean"], part.at[metric, "deviation"])
            means[metric] = f"**{cell}**" if label == best[metric] else cell
        rows[(label, "mean ± deviation")] = means
        for other, compared in against.items():
            if label not in (other, baseline):
                own = compared[compared["label"] == label].set_index("metric")
                rows[(label, f"minus {other}")] = {"seeds": ""} | {
                    metric: difference_text(own.loc[metric]) for metric in metrics}
    result = pd.DataFrame.from_dict(rows, orient="index")
    result.index = pd.MultiIndex.from_tuples(rows, names=["method", f"{split}, percent"])
    return result


def _clear_best(runs, table, split):
    """metric -> the label whose mean is largest, if every other one is worse beyond the noise; else None."""
    seeds, against, found = {}, {}, {}
    for run in runs:
        seeds.setdefault(name_of(run), set()).add(run.config.seed)
    for metric, part in table.groupby("metric", sort=False):
        means = part.set_index("label")["mean"].dropna()
        best = means.idxmax() if len(means) > 1 else None
        found[metric] = None
        if best is None or any(seeds[best] - seeds[label] for label in means.index):
            continue  # alone, or some pairs are missing: not every difference is known
        if best not in against:
            against[best] = compare(runs, best, split, list(table["metric"].unique())).set_index("label")
        verdicts = against[best].loc[against[best]["metric"] == metric, "verdict"]
        found[metric] = best if (verdicts.drop(best) == "worse").all() else None
    return found


def mean_text(mean: float, deviation: float) -> str:
    """Percent with one decimal, such as "42.9 ± 0.3"; without a deviation the mean alone."""
    if np.isnan(mean):
        return NOTHING
    return f"{100 * mean:.1f}" + ("" if np.isnan(deviation) else f" ± {100 * deviation:.1f}")


def difference_text(row) -> str:
    """A row of `compare` as percentage points, such as "+4.0 [+3.1, +4.9]*"; the asterisk: it leaves out 0."""
    if np.isnan(row["difference"]):
        return NOTHING
    text = f"{100 * row['difference']:+.1f}"
    if not np.isnan(row["low"]):
        text += f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return (text + "*" * (row["verdict"] in ("better", "worse"))).replace("-", "−")


def overview_table(runs: list[Run], baselines: tuple[str, ...], split: str,
                   metrics=OVERVIEW, shared_seeds: bool = False) -> pd.DataFrame:
    """One row per label: mean ± standard deviation of a few metrics, each with its difference from every baseline.

    Args:
        shared_seeds: see `comparison.compare`.

    Returns:
        Text, in percent; index method; columns "seeds", and per metric its name and "minus <baseline>" for each.
    """
    compared = {baseline: compare(runs, baseline, split, metrics, shared_seeds) for baseline in baselines}
    columns = {}
    for metric in metrics:
        for baseline, table in compared.items():
            meant = metric_named(metric, list(table["metric"].unique()))
            own = table[table["metric"] == meant].set_index("label")
            columns.setdefault("seeds", own["seeds"].astype(str))
            columns.setdefault(metric, own.apply(lambda row: mean_text(row["mean"], row["deviation"]), axis=1))
            columns[f"{metric} minus {baseline}"] = own.apply(
                lambda row, baseline=baseline: "" if row.name == baseline else difference_text(row), axis=1)
    return pd.DataFrame(columns).rename_axis("method")


def summary_table(runs: list[Run], baseline: str, split: str, metric: str = "mIoU") -> pd.DataFrame:
    """One metric in all groups of a study: the paired difference of every label from the baseline of its group.

    Args:
        runs: of several groups (data, networks), each with the baseline among its labels.

    Returns:
        Text, in percent; index method; a column per group: the baseline's mean ± standard deviation, and below it
        differences with their 95 % interval; "–" where a group lacks the label.
    """
    columns = {}
    for group in dict.fromkeys(run.group for run in runs):
        table = compare([run for run in runs if run.group == group], baseline, split, [metric]).set_index("label")
        columns[group] = table.apply(lambda row: mean_text(row["mean"], row["deviation"]) if row.name == baseline
                                     else difference_text(row), axis=1)
    labels = dict.fromkeys([baseline] + [name_of(run) for run in runs])
    return pd.DataFrame(columns).reindex(list(labels)).fillna(NOTHING).rename_axis("method")


def verdict_table(runs: list[Run], baselines: tuple[str, ...], split: str,
                  metrics=OVERVIEW) -> pd.DataFrame:
    """In how many groups of a study a label is better than a baseline, inside the noise, or worse.

    Args:
        runs: of several groups (data, networks), each with the baselines among its labels.

    Returns:
        Text such as "3 / 2 / 1" (better / inside the noise / worse); index method, in order of appearance; columns
        "groups" (how many have the label) and per metric and baseline "<metric> against <baseline>".
    """
    groups = list(dict.fromkeys(run.group for run in runs))
    labels = list(dict.fromkeys(name_of(run) for run in runs))
    columns = {"groups": [str(len({run.group for run in runs if name_of(run) == label})) for label in labels]}
    for metric in metrics:
        for baseline in baselines:
            verdicts = pd.concat([compare([run for run in runs if run.group == group], baseline, split, [metric])
                                  for group in groups]).groupby("label")["verdict"].value_counts().unstack(fill_value=0)
            verdicts = verdicts.reindex(columns=["better", "inside the noise", "worse"], fill_value=0)
            columns[f"{metric} against {baseline}"] = [
                "" if label == baseline else " / ".join(map(str, verdicts.loc[label])) for label in labels]
    return pd.DataFrame(columns, index=pd.Index(labels, name="method"))


def per_class_table(runs: list[Run], split: str, measure: str = "iou") -> pd.DataFrame:
    """A measure of every class, in percent, mean ± standard deviation over seeds; most training pixels first.

    Args:
        measure: "iou", "precision" or "recall".

    Returns:
        Text; a row per class, the index named by what is measured; columns "pixels (%)" and "images (%)" (shares of the
        training split), then a column per label.
    """
    check(runs, split=split)
    metrics = runs[0].metrics
    pixels, images = np.array(metrics["train_pixels"], float), np.array(metrics["train_images"], float)
    order = np.argsort(-pixels, kind="stable")
    columns = {"pixels (%)": [f"{100 * pixels[i] / pixels.sum():.3g}" for i in order],
               "images (%)": [f"{100 * images[i] / metrics['train_size']:.1f}" for i in order]}
    for label in dict.fromkeys(name_of(run) for run in runs):
        own = [run for run in runs if name_of(run) == label]
        table = compare_classes(own, label, split, measure).set_index("class")
        columns[label] = [mean_text(table.at[metrics["classes"][i], "mean"],
                                    table.at[metrics["classes"][i], "deviation"]) for i in order]
    names = {"iou": "IoU", "precision": "precision", "recall": "recall"}
    title = f"{split} {names[measure]} (%)"
    return pd.DataFrame(columns, index=pd.Index([metrics["classes"][i] for i in order], name=title))


def final_weights(runs: list[Run]) -> pd.DataFrame:
    """`last_weights` as text with two decimals."""
    return last_weights(runs).map("{:.2f}".format)


def last_weights(runs: list[Run]) -> pd.DataFrame:
    """The last weight of every class, mean over seeds; weights average 1.

    Returns:
        Index method, a column per class, most training pixels first.
    """
    columns = {}
    for run in runs:
        last = run.class_weights[run.class_weights["update"] == run.class_weights["update"].max()]
        columns.setdefault(name_of(run), []).append(last.set_index("class")["weight"])
    order = np.argsort([-pixels for pixels in runs[0].metrics["train_pixels"]], kind="stable")
    names = pd.Index([runs[0].metrics["classes"][index] for index in order], name="class")
    means = pd.DataFrame({label: sum(seeds) / len(seeds) for label, seeds in columns.items()}).loc[names]
    return means.T.rename_axis("method")


def weights_over_thirds(runs: list[Run]) -> pd.DataFrame:
    """Do the weights settle? Mean of every class's weight in each third of training ± its deviation within that third.

    The deviation is that of a run's recorded updates but the very first, which judges a network that has learned
    nothing; root mean square over the runs. The last row has the learning rate at the start and end of each third,
    which falls all the time. Most training pixels first.

    Args:
        runs: the seeds of one label, with adaptive weights.

    Returns:
        Text; index class; columns "first third", "middle third", "last third", and "last update" with the deviation
        over the runs (ddof 1).
    """
    thirds = ("first third", "middle third", "last third")
    weights = pd.concat([run.class_weights.assign(seed=run.config.seed) for run in runs])
    last = weights["update"].max()
    weights = weights[weights["update"] > 0].copy()
    weights["third"] = [thirds[min(2, 3 * update // (last + 1))] for update in weights["update"]]
    parts = weights.groupby(["class", "third", "seed"])["weight"].agg(["mean", lambda part: part.std(ddof=0)])
    parts.columns = ["mean", "within"]
    ends = weights[weights["update"] == last].groupby("class")["weight"].agg(["mean", "std"])
    classes = runs[0].metrics["classes"]
    rows = []  # the name in front: a class may be called as the last row is
    for index in np.argsort([-pixels for pixels in runs[0].metrics["train_pixels"]], kind="stable"):
        name = classes[index]
        cells = [parts.loc[name, third] for third in thirds]
        texts = [f"{cell['mean'].mean():.2f} ± {np.sqrt((cell['within'] ** 2).mean()):.2f}" for cell in cells]
        rows.append([name, *texts, f"{ends.at[name, 'mean']:.2f}" + f" ± {ends.at[name, 'std']:.2f}" * (len(runs) > 1)])
    rates = [runs[0].config.learning_rate, *runs[0].history["learning_rate"]]
    marks = [rates[round(third * (len(rates) - 1) / 3)] for third in range(4)]
    spans = [f"{start:.4f} to {end:.4f}" for start, end in zip(marks, marks[1:], strict=False)]
    rows.append(["learning rate", *spans, f"{marks[-1]:.4f}"])
    return pd.DataFrame(rows, columns=["class", *thirds, "last update"]).set_index("class")


def settings_table(runs: list[Run], split: str = "val") -> pd.DataFrame:
    """Which setting of each remedy is best on a split: mIoU, mean ± standard deviation over seeds.

    Returns:
        Text, of remedies with several settings alone; index (method, setting); columns "seeds", "<split> mIoU", and
        "chosen" with a tick at the setting of the largest mean. A tick is a choice, not a finding: see the deviations.
    """
    table = tidy(runs)
    table = table[(table["split"] == split) & (table["metric"] == "mIoU")]
    found = table.groupby(["method", "label"], sort=False)["value"].agg(["count", "mean", "std"])
    found = found[found.groupby("method")["mean"].transform("size") > 1]
    best = found.groupby("method")["mean"].idxmax().tolist()
    return pd.DataFrame({"seeds": found["count"].astype(str),
                         f"{split} mIoU": [mean_text(row["mean"], row["std"]) for _, row in found.iterrows()],
                         "chosen": ["✓" if index in best else "" for index in found.index]},
                        index=found.index.set_names(["method", "setting"]))
