"""A finished study's small files, copied to where they can be committed as a reference, and back.

    python -m cawalib.publish demo outputs/reference/demo
    python -m cawalib.publish evidence outputs/reference/evidence --unfinished    what there is of a long study
    python -m cawalib.publish evidence outputs/reference/evidence --restore       published runs back into outputs/
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from cawalib import tables
from cawalib.comparison import per_class, tidy
from cawalib.config import ConfigError
from cawalib.figures import across_groups, save
from cawalib.files import atomic, write_json, write_table
from cawalib.runs import Run, RunError, code_digest, load_runs
from cawalib.studies import Study, group_folder, load_study

# figures that show images: only of the built-in data, since real images may not be passed on
PICTURES = ("class_activation_maps", "qualitative")
# what groups are compared with, side by side
BASELINES = ("cross entropy", "inverse square root", "CAWA")
EVIDENCE = ("evidence-settings", "evidence-options", "evidence")  # the studies of `make evidence`
RUN_FILES = ("config.json", "environment.json", "history.csv", "class_weights.csv", "samples.npz", "metrics.json")


def publish(study: Study, target, outputs_root="outputs", command: str = "", unfinished: bool = False) -> None:
    """Copy runs, tables and figures of a study and write two CSV files and a README.md about them.

    Left out: checkpoints, notebooks, all but one update per epoch of the class weights; and the pictures of every
    run but the two of each group that notebook 05 shows, and of every dataset but the built-in one. `runs.csv` has
    a row per run and split, `classes.csv` one per run, split and class.

    Args:
        study: every one of its runs must be finished, of the present code and no smoke run.
        target: folder; what it holds of the same names is replaced.
        outputs_root: where the figures and tables of the study are.
        command: what made the runs, for the README.
        unfinished: publish the runs and tables that are there; the README says how many are missing.

    Raises:
        RunError: a run that may not be published, by name, or tables that are missing.
    """
    runs, target = load_runs(study, allow_unfinished=unfinished), Path(target)
    if not runs:
        raise RunError(f"study '{study.name}': not one run is finished; train some first")
    drawn = {kind: Path(outputs_root, kind, study.name) for kind in ("tables", "figures")}
    mains = {group: drawn["tables"] / group_folder(group) / "main.md" for group in study.compared}
    for path in mains.values():
        if not path.is_file() and not unfinished:
            raise RunError(f"{path}: not found; draw the study's figures and tables first (notebook 05)")
    built_in = {entry.group for entry, config in study.configs() if config.dataset == "streets"}
    shown = _shown(study, runs)
    for run in runs:
        folder = target / run.folder.relative_to(run.config.outputs_root)
        pictures = run.config.dataset == "streets" and run.folder in shown
        _copy_run(run, folder, pictures)
    for folder in drawn.values():
        for source in (path for path in folder.rglob("*") if path.is_file()):
            group = next((g for g in study.compared if group_folder(g) == source.parent.relative_to(folder).as_posix()),
                         study.compared[0])
            if group in built_in or source.stem not in PICTURES:
                copy = target / folder.parent.name / source.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    _write_summaries(study, runs, target)
    write_table(target / "runs.csv", runs_table(runs))
    write_table(target / "classes.csv", per_class(runs).round(5))
    main = [f"## {group}\n\n{path.read_text()}" if group != "methods" else path.read_text()
            for group, path in mains.items() if path.is_file()]
    with atomic(target / "README.md") as partial:
        partial.write_text(_readme(study, runs, "\n".join(main), command))


def _shown(study, runs):
    """The folders of the runs whose pictures notebook 05 shows: in each group the baseline's and CAWA's first."""
    folders = set()
    for group in study.compared:
        own = sorted((run for run in runs if run.group == group), key=lambda run: run.config.seed)
        baseline = [run.folder for run in own if run.label == study.group(group)[0].label]
        ours = [run.folder for run in own if run.config.method == "cawa"]
        folders |= {*baseline[:1], *ours[:1]}
    return folders


def _with_a_baseline_of_its_own(study):
    """The compared groups but those that begin with an earlier group's runs: more methods, not another data set."""
    groups = {}
    for group in study.compared:
        baseline = study.group(group)[0]
        groups.setdefault(baseline.config(baseline.seeds[0]).folder, group)
    return list(groups.values())


def _side_by_side(study, runs):
    """The runs of the finished groups of a study, and the baselines that all of these have.

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
    return shared, tuple(label for label in BASELINES if groups and all(label in finished[group] for group in groups))


def _write_summaries(study, runs, target):
    """The groups of a study in one table each, as far as they are finished: differences from what they all have."""
    shared, baselines = _side_by_side(study, runs)
    if len({run.group for run in shared}) < 2 or not baselines:
        return
    folder = target / "tables"
    for baseline in baselines:
        for metric in tables.OVERVIEW:
            name = f"summary_{metric.split(' (')[0]}_minus_{baseline}".replace(" ", "_").lower()
            tables.write_table(tables.summary_table(shared, baseline, study.split, metric), folder, name)
    tables.write_table(tables.verdict_table(shared, baselines, study.split), folder, "verdicts")
    if "CAWA" in baselines and len(baselines) > 1:
        ours = [run for run in shared if run.config.method.startswith("cawa")]
        parts = {metric: tables.summary_table(ours, "CAWA", study.split, metric) for metric in tables.OVERVIEW}
        tables.write_table(pd.concat(parts, names=["metric"]), folder, "variants")
        rivals = tuple(label for label in baselines if label != "CAWA")
        save(across_groups(shared, "CAWA", rivals, study.split, tables.OVERVIEW), target / "figures", "across_groups")


def runs_table(runs: list[Run]) -> pd.DataFrame:
    """One row per run and split.

    Returns:
        Columns group, label, dataset, method, seed, split; every metric of `comparison.METRICS` in [0,1]; config_hash,
        duration_seconds, peak_memory_bytes, device, commit.
    """
    keys = ["group", "label", "dataset", "method", "seed", "split"]
    table = tidy(runs)
    metrics = list(table["metric"].unique())
    wide = table.pivot(index=keys, columns="metric", values="value")[metrics].round(5).reset_index()
    made = pd.DataFrame([
        {"group": run.group, "label": run.label, "seed": run.config.seed, "config_hash": run.config.hash,
         "duration_seconds": run.environment["duration_seconds"],
         "peak_memory_bytes": run.environment["peak_memory_bytes"],
         "device": run.environment["device"], "commit": run.environment["commit"]} for run in runs])
    return wide.merge(made, on=["group", "label", "seed"])


def restore(study: Study, source) -> int:
    """Copy published runs of a study to where it looks for them, so that only what is missing is trained.

    Runs that are there already are left alone; runs of other code do not come back.

    Returns:
        How many runs were copied.
    """
    copied = 0
    present = code_digest()
    # frozen weights are read from another run, which must not be the newer of the two
    for _, config in sorted(study.configs(), key=lambda pair: pair[1].score_source == "frozen"):
        published = Path(source) / config.folder.relative_to(config.outputs_root)
        if not (published / "metrics.json").is_file() or (config.folder / "metrics.json").is_file():
            continue
        if json.loads((published / "environment.json").read_text())["code_digest"] == present:
            config.folder.mkdir(parents=True, exist_ok=True)
            for name in RUN_FILES:  # metrics.json, which means done, is the last
                if (published / name).is_file():
                    with atomic(config.folder / name) as partial:
                        shutil.copyfile(published / name, partial)
            copied += 1
    return copied


def _copy_run(run: Run, folder: Path, pictures: bool):
    folder.mkdir(parents=True, exist_ok=True)
    weights = run.class_weights
    updates = weights["update"]
    every = max(1, (updates.max() + 1) // run.config.epochs)
    write_table(folder / "class_weights.csv", weights[(updates % every == 0) | (updates == updates.max())].round(5))
    write_json(folder / "config.json", dataclasses.asdict(run.config) | {
        "data_root": "", "prepared_root": "data/prepared", "outputs_root": "outputs"})
    for name in ("environment.json", "metrics.json", "history.csv") + ("samples.npz",) * pictures:
        if (run.folder / name).is_file():  # a restored run may have no pictures
            shutil.copyfile(run.folder / name, folder / name)


def _readme(study, runs, table, command):
    environments = [run.environment for run in runs]
    devices = sorted({environment["device"] for environment in environments})
    commits = sorted({environment["commit"][:12] for environment in environments})
    packages = ", ".join(f"{name} {version}" for name, version in environments[0]["packages"].items())
    folders = {run.folder: run.environment for run in runs}.values()
    minutes = sum(environment["duration_seconds"] for environment in folders) / 60
    memory = max(environment["peak_memory_bytes"] for environment in environments) / 2**30
    return f"""# Reference results: study `{study.name}`

Generated by `python -m cawalib.publish`; no number here is typed.

{_groups_text(study, runs)}
- Settings of each run: `config.json` in its folder. All numbers of all runs: `runs.csv`, `classes.csv`.
- Made by: `{command}`
- Commit {', '.join(commits)}; code digest {environments[0]['code_digest'][:12]}.
- Device: {'; '.join(devices)}. Together {minutes:.0f} minutes of training, at most {memory:.1f} GiB each.
- Python {environments[0]['python']}, {packages}.

Mean ± standard deviation over seeds in percent; below it the difference from the first label and, where it stands
there, from a second one, paired by seed, with its 95 % interval; * where that leaves out 0. Inside the interval nothing
is ranked. The intervals are those of single comparisons, not corrected for how many of them stand here: with this many
cells, some * are chance. Comparisons inside this project, not to be set beside published numbers.

{table}
"""


def _groups_text(study, runs):
    """A line per group: how many of its runs are here, and on what they were trained."""
    wanted = Counter(entry.group for entry, _ in study.configs())
    lines = []
    for group, expected in wanted.items():
        own = [run for run in runs if run.group == group]
        count = f"{len(own)} runs" if len(own) == expected else f"**{len(own)} of {expected} runs**"
        if own:
            config, digest = own[0].config, own[0].environment["data_digest"][:12]
            count += (f"; dataset `{config.dataset}` (data digest {digest}), network `{config.network}`, "
                      f"{config.image_width}x{config.image_height}, {config.epochs} epochs")
        lines.append(f"- {group}: {count}.")
    return "\n".join(lines)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser("cawalib.publish", description="Copy a finished study to a reference folder.")
    parser.add_argument("study", help="a grid in workflow/grids")
    parser.add_argument("target", help="such as outputs/reference/demo")
    parser.add_argument("--outputs-root", default="outputs")
    parser.add_argument("--unfinished", action="store_true", help="take the runs that are there")
    parser.add_argument("--restore", action="store_true", help="the other way round: published runs to the outputs")
    options = parser.parse_args(arguments)
    command = {"demo": "make paper", **dict.fromkeys(EVIDENCE, "make evidence")}.get(
        options.study,
        f"snakemake --snakefile workflow/Snakefile --cores 2 --config study={options.study} data_root=...")
    try:
        study = load_study(Path("workflow/grids", f"{options.study}.yaml"), outputs_root=options.outputs_root)
        if options.restore:
            print(f"{restore(study, options.target)} runs copied from {options.target} to {options.outputs_root}")
        else:
            publish(study, options.target, options.outputs_root, command, options.unfinished)
    except (ConfigError, RunError) as error:
        print(f"cawalib.publish: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
