"""A finished study in a few files, where it can be committed as a reference, and its runs back from there.

    python -m cawalib.results.publish demo outputs/reference/demo
    python -m cawalib.results.publish evidence outputs/reference/evidence --unfinished    of a long study
    python -m cawalib.results.publish evidence outputs/reference/evidence --published     tables and figures anew
    python -m cawalib.results.publish evidence outputs/reference/evidence --restore       published runs back to outputs
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from cawalib.files import atomic, write_table
from cawalib.results import forms
from cawalib.results.claims import both_halves
from cawalib.results.figures.style import save
from cawalib.results.measures import tidy
from cawalib.results.side_by_side import side_by_side
from cawalib.results.verdicts import can_be_asked
from cawalib.runs import (
    ARCHIVE,
    Run,
    RunError,
    Study,
    claim,
    group_folder,
    is_stale,
    load_runs,
    load_study,
    outdated,
    read_archive,
    set_aside,
    unpack,
    write_archive,
)
from cawalib.settings import ConfigError

# figures that show images: only of the built-in data, since real images may not be passed on
PICTURES = ("class_activation_maps", "qualitative")
FIRST = ("overview", "main", "main_by_images")  # tables that open a group's page; the others follow by name


def publish(study: Study, target, outputs_root="outputs", command: str = "", unfinished: bool = False,
            published: bool = False) -> None:
    """Put the runs, tables and figures of a study into a few files, and write a README.md about them.

    One archive holds the runs (see `runs.archive`), `runs.csv` has a row per run and split, and each compared group one
    page of tables. Left out: checkpoints and notebooks; pictures of every run but the two of the main group that
    notebook 05 shows, and of every dataset but the built-in one.

    Args:
        study: every one of its runs must be finished, as the code computes today, and no smoke run.
        target: folder; what it holds of the same names is replaced.
        outputs_root: where the figures and tables of the study are.
        command: what made the runs, for the README.
        unfinished: keep the runs that are there, and show those of whole groups alone: a table that misses runs, or is
            looked at before they are made, says what was not asked. The README says how many are missing.
        published: the runs are those that are published in `target` already, whatever code made them, and stay as they
            are; tables, figures and README are made anew.

    Raises:
        RunError: a run that may not be published, by name, or tables that are missing.
    """
    target = Path(target)
    runs = load_runs(study, archive=target / ARCHIVE if published else None, allow_unfinished=unfinished or published,
                     allow_other_code=published)
    if not runs:
        raise RunError(f"study '{study.name}': not one run is finished; train some first")
    drawn = {kind: Path(outputs_root, kind, study.name) for kind in ("tables", "figures")}
    groups = whole_groups(study, runs)
    for group in filter(groups.__contains__, study.compared):
        path = drawn["tables"] / group_folder(group) / "main.md"
        if not path.is_file() and not unfinished:
            raise RunError(f"{path}: not found; draw the study's figures and tables first (notebook 05)")
    target.mkdir(parents=True, exist_ok=True)
    if not published:
        write_archive(target / ARCHIVE, runs, _shown(study, runs) if study.compared[0] in groups else ())
    whole = [run for run in runs if run.group in groups]
    counted = set()
    for group in filter(groups.__contains__, study.compared):
        own = [run for run in whole if run.group == group]
        data = {run.environment["data_digest"] for run in own}
        left_out = {"class_frequencies"} if data <= counted else set()  # of the same data once
        counted |= data
        _copy_figures(study, group, drawn["figures"], target / "figures", left_out)
        _write_page(study, own, drawn["tables"] / group_folder(group), target)
    if whole:
        write_table(target / "runs.csv", runs_table(whole))
        _write_beside(study, whole, target)
    _write_text(target / "README.md", _readme(study, runs, command))


def whole_groups(study: Study, runs: list[Run]) -> list[str]:
    """The groups all of whose runs are there."""
    found, wanted = Counter(run.group for run in runs), Counter(entry.group for entry, _ in study.configs())
    return [group for group, count in wanted.items() if found[group] == count]


def _write_beside(study, runs, target):
    beside = side_by_side(study, runs)
    if beside:
        sections = [f"## {name}\n\n{forms.markdown(table)}" for name, table in beside.tables().items()]
        _write_text(target / "tables" / "across.md", f"# Study `{study.name}`: all comparisons side by side\n\n"
                    f"{HOW_TO_READ}\n\n" + "\n".join(sections))
        if "CAWA" in beside.baselines:
            save(beside.figure(), target / "figures", "across_groups")


def _copy_figures(study, group, source, target, left_out):
    source, target = source / group_folder(group), target / group_folder(group)
    for path in sorted(source.glob("*.p[dn][fg]")):
        # images stay pixels in a PDF as well, so that one of them says it all
        wanted = path.stem not in PICTURES or (path.suffix == ".png" and _is_built_in(study, group))
        if wanted and path.stem not in left_out:
            target.mkdir(parents=True, exist_ok=True)
            with atomic(target / path.name) as partial:
                shutil.copyfile(path, partial)


def page_of(group: str) -> str:
    """The file name of a group's page of tables."""
    return f"{group_folder(group) or 'methods'}.md"


def _write_page(study, runs, source, target):
    """What came out of a group, and all of its tables, on one page, a section each."""
    group = runs[0].group
    paths = sorted(source.glob("*.md"), key=lambda path: ([*FIRST, path.stem].index(path.stem), path.stem))
    if paths:
        sections = [(path.stem, path.read_text()) for path in paths]
        if can_be_asked(runs, study.split):
            sections.insert(0, ("verdict", both_halves(runs, study.split) + "\n"))
        _write_text(target / "tables" / page_of(group), f"# Study `{study.name}`, group {group}\n\n{HOW_TO_READ}\n\n"
                    + "\n".join(f"## {name}\n\n{text}" for name, text in sections))


def _write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        # the padding of columns is a third of a page of tables, and nobody reads these unrendered
        partial.write_text(re.sub(r" {2,}\|", " |", re.sub(r"(?m)^\|[:-][|:-]*\|$", _thin_rule, text)))


def _thin_rule(match):
    return re.sub(r"-+", "-", match[0])


def _shown(study, runs):
    """The names of the runs whose pictures are published: of the main group, the baseline's and CAWA's first."""
    group = study.compared[0]
    own = sorted((run for run in runs if run.group == group), key=lambda run: run.config.seed)
    baseline = [run.config.name for run in own if run.label == study.group(group)[0].label]
    ours = [run.config.name for run in own if run.config.method == "cawa"]
    return {*baseline[:1], *ours[:1]} if _is_built_in(study, group) else set()


def _is_built_in(study, group):
    entry = study.group(group)[0]
    return entry.config(entry.seeds[0]).dataset == "streets"


def runs_table(runs: list[Run]) -> pd.DataFrame:
    """One row per run and split.

    Returns:
        Columns group, label, dataset, method, seed, split; every metric of `comparison.METRICS` in [0,1]; config_hash,
        duration_seconds, peak_memory_bytes, device, version (empty before 0.2.0), commit (empty: an installed copy).
    """
    keys = ["group", "label", "dataset", "method", "seed", "split"]
    table = tidy(runs)
    metrics = list(table["metric"].unique())
    wide = table.pivot(index=keys, columns="metric", values="value")[metrics].round(5).reset_index()
    made = pd.DataFrame([
        {"group": run.group, "label": run.label, "seed": run.config.seed, "config_hash": run.config.hash,
         "duration_seconds": run.environment["duration_seconds"],
         "peak_memory_bytes": run.environment["peak_memory_bytes"],
         "device": run.environment["device"], "version": run.environment.get("version", ""),
         "commit": run.environment["commit"]} for run in runs])
    return wide.merge(made, on=["group", "label", "seed"])


def restore(study: Study, archive) -> int:
    """Write published runs of a study to where it looks for them, so that only what is missing is trained.

    Runs that are there already are left alone; one that would come out differently today is moved aside for a published
    one that would not, and never comes back from there. A run that is being trained is not touched.

    Returns:
        How many runs were written.
    """
    published, written = read_archive(archive), 0
    # frozen weights are read from another run, which must not be the newer of the two
    for _, config in sorted(study.configs(), key=lambda pair: pair[1].keeps_weights):
        run = published.get(config.name)
        if run is None or outdated(run.config, run.environment):
            continue
        stale = is_stale(config)
        if (config.folder / "metrics.json").is_file() and not stale:
            continue
        with claim(config.folder):
            if stale:
                set_aside(config.folder, ["a published run is as the code computes"])
            unpack(run, config.folder)
        written += 1
    return written


HOW_TO_READ = """In percent: mean ± standard deviation over seeds, and differences paired by seed with their 95 %
interval; * where that leaves out 0. Inside the interval nothing is ranked. Intervals are those of single comparisons,
not corrected for how many stand here: some * are chance. Not to be set beside published numbers."""


def _readme(study, runs, command):
    environments = list({run.config.name: run.environment for run in runs}.values())
    devices = sorted({environment["device"] for environment in environments})
    commits = {environment["commit"][:12] for environment in environments}
    packages = ", ".join(f"{name} {version}" for name, version in environments[0]["packages"].items())
    minutes = sum(environment["duration_seconds"] for environment in environments) / 60
    memory = max(environment["peak_memory_bytes"] for environment in environments) / 2**30
    whole = whole_groups(study, runs)
    metrics = "Metrics of whole groups: `runs.csv`." if whole else "No group is whole, so nothing is shown."
    return f"""# Reference results: study `{study.name}`

Generated by `python -m cawalib.results.publish`; no number here is typed.

{_groups_text(study, runs)}
- All runs, with settings, provenance, histories and weights: `{ARCHIVE}`, one line of JSON each
  (`pandas.read_json("{ARCHIVE}", lines=True)`; schema: `cawalib/runs/archive.py`). {metrics}
- Made by: `{command}`
- {len(environments)} runs of {len(commits)} commits (named in each environment), as the code computed then.
- Device: {'; '.join(devices)}. Together {minutes:.0f} minutes of training, at most {memory:.1f} GiB each.
- Python {environments[0]['python']}, {packages}.

{HOW_TO_READ}
"""


def _groups_text(study, runs):
    """A line per group: how many of its runs are here, and on what they were trained."""
    wanted, groups = Counter(entry.group for entry, _ in study.configs()), whole_groups(study, runs)
    lines = []
    for group, expected in wanted.items():
        own = [run for run in runs if run.group == group]
        count = f"{len(own)} runs" if group in groups else f"**{len(own)} of {expected} runs**"
        if own:
            config, digest = own[0].config, own[0].environment["data_digest"][:12]
            count += (f"; dataset `{config.dataset}` (data digest {digest}), network `{config.network}`, "
                      f"{config.image_width}x{config.image_height}, {config.epochs} epochs")
        pages = f" [Tables](tables/{page_of(group)})." if group in study.compared and group in groups else ""
        lines.append(f"- {group}: {count}.{pages}")
    return "\n".join(lines)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser("cawalib.results.publish",
                                     description="Copy a finished study to a reference folder.")
    parser.add_argument("study", help="a grid in workflow/grids")
    parser.add_argument("target", help="such as outputs/reference/demo")
    parser.add_argument("--outputs-root", default="outputs")
    parser.add_argument("--unfinished", action="store_true", help="take the runs that are there")
    parser.add_argument("--published", action="store_true", help="of the published runs, which stay as they are")
    parser.add_argument("--restore", action="store_true", help="the other way round: published runs to the outputs")
    options = parser.parse_args(arguments)
    command = "make paper" if options.study == "demo" else (
        f"snakemake --snakefile workflow/Snakefile --cores 2 --config study={options.study} data_root=...")
    try:
        study = load_study(Path("workflow/grids", f"{options.study}.yaml"), outputs_root=options.outputs_root)
        if options.restore:
            archive = Path(options.target, ARCHIVE)
            print(f"{restore(study, archive)} runs written from {archive} to {options.outputs_root}")
        else:
            publish(study, options.target, options.outputs_root, command, options.unfinished, options.published)
    except (ConfigError, RunError) as error:
        print(f"cawalib.results.publish: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
