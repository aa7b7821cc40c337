"""What the notebooks that only read are asked for: a study, where its runs are, and which runs may pass."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cawalib.files import check_writable
from cawalib.results.figures.style import told_apart
from cawalib.results.side_by_side import SideBySide, side_by_side
from cawalib.runs import (
    ARCHIVE,
    EVERY_RUN,
    SHARED_FIELDS,
    Run,
    RunError,
    group_folder,
    load_run,
    load_runs,
    load_study,
    outdated,
)
from cawalib.settings import ConfigError, check_choice


@dataclass(frozen=True)
class ReportConfig:
    """Parameters of the notebooks 04 and 05.

    Raises:
        ConfigError: an unknown study, place or split.
    """

    study: str = "demo"
    evidence: str = "evidence"  # the published study shown below it
    dial: str = "evidence-streets"  # the published study with several imbalances
    group: str = "methods"
    outputs_root: str = "outputs"
    runs_from: str = "auto"  # outputs | reference | auto
    baseline: str = ""
    rival: str = ""
    split: str = "val"
    allow_other_code: bool = False
    allow_unfinished: bool = False
    allow_smoke: bool = False

    def __post_init__(self):
        check_writable(self.outputs_root)
        for name, choices in (("runs_from", ("auto", "outputs", "reference")), ("split", ("val", "test"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"parameter '{name}': found {getattr(self, name)!r}, expected one of "
                                  f"{', '.join(choices)}")
        grids = sorted(path.stem for path in Path("workflow/grids").glob("*.yaml"))
        if self.study not in grids:
            raise ConfigError(f"parameter 'study': found {self.study!r}, expected one of {', '.join(grids)}")
        self._check_baseline(self._study().group(self.group))

    @property
    def figures(self) -> Path:
        return Path(self.outputs_root, "figures", self.study, group_folder(self.group))

    @property
    def tables(self) -> Path:
        return Path(self.outputs_root, "tables", self.study, group_folder(self.group))

    def grid(self, group: str) -> pd.DataFrame:
        """What differs between the entries of a group, and their seeds."""
        entries = self._study().group(group)
        if not entries:
            groups = ", ".join(dict.fromkeys(entry.group for entry in self._study().entries))
            raise ConfigError(f"parameter 'study': '{self.study}' has no group '{group}', only {groups}")
        common = {name: value for name, value in entries[0].settings.items()
                  if all(entry.settings.get(name) == value for entry in entries)}
        rows = [{"label": entry.label,
                 "changed": ", ".join(f"{k} = {v}" for k, v in entry.settings.items() if k not in common) or "nothing",
                 "seeds": len(entry.seeds)} for entry in entries]
        return pd.DataFrame(rows).set_index("label")

    def load(self, groups=(), labels=()) -> list[Run]:
        """The runs of some groups and of single labels of the report's group, checked (see `runs.load_runs`).

        With runs_from "auto", a study that is not complete under outputs_root is read from the published reference.

        Raises:
            RunError: a run that may not pass, by name.
        """
        def read(archive, **allowed):
            study = self._study()
            known = [entry.label for entry in study.group(self.group)]
            for label in labels:
                if label not in known:
                    raise ConfigError(f"label {label!r}: not in group '{self.group}' of study '{self.study}', "
                                      f"which has {', '.join(known)}")
            entries = [entry for entry in study.entries
                       if entry.group in groups or (entry.group == self.group and entry.label in labels)]
            return load_runs(replace(study, entries=tuple(entries)), archive=archive, **allowed)

        asked = {"allow_other_code": self.allow_other_code, "allow_unfinished": self.allow_unfinished,
                 "allow_smoke": self.allow_smoke}
        reference = Path("outputs", "reference", self.study, ARCHIVE)
        if self.runs_from != "reference":
            try:
                return read(None, **asked)
            except RunError as error:
                if self.runs_from == "outputs" or not reference.is_file():
                    raise
                print(f"Not complete under '{self.outputs_root}' ({error}).")
        # a reference was published with what it was made by: that the code has moved on since is no error, but is said
        runs = read(reference, **asked | {"allow_other_code": True})
        print(f"Showing the published runs in {reference.as_posix()}.")
        stale = [(run, cases) for run in runs if (cases := outdated(run.config, run.environment))]
        if stale:
            cases = dict.fromkeys(case for _, found in stale for case in found)
            told = EVERY_RUN if EVERY_RUN in cases else ", ".join(cases)
            print(f"{len(stale)} of these {len(runs)} runs would come out differently with today's code: {told}.")
        return runs

    def side_by_side(self) -> SideBySide:
        """All comparisons of the published study beside each other.

        Raises:
            RunError: it is not published, or has fewer than two finished comparisons.
        """
        study = self._study()
        archive = Path("outputs", "reference", self.study, ARCHIVE)
        beside = side_by_side(study, load_runs(study, archive=archive, allow_unfinished=True, allow_other_code=True))
        if beside is None:
            raise RunError(f"study '{self.study}': fewer than two finished comparisons in {archive.as_posix()}")
        return beside

    def first_of_each(self, runs: list[Run]) -> dict[str, Run]:
        """label -> its run with the first seed: a choice that does not look at results.

        Raises:
            ConfigError: there is a baseline, and no run of it.
        """
        self._check_baseline(runs)
        return {run.label: run for run in sorted(runs, key=lambda run: -run.config.seed)}

    def ours(self, runs: list[Run]) -> str:
        """The label of the runs of CAWA; raises ConfigError if there are none."""
        for run in runs:
            if run.config.method == "cawa":
                return run.label
        raise ConfigError(f"parameter 'group': group '{self.group}' of study '{self.study}' has no run of method cawa, "
                          "with which this notebook compares; choose another one")

    def pictures(self, first: dict[str, Run]) -> bool:
        """Whether these runs have pictures to show; published runs of real data have none."""
        if all(run.has_samples for run in first.values()):
            return True
        print("No pictures: these runs were published without them, since their images may not be passed on.")
        return False

    def with_curves(self, runs: list[Run], ours: str) -> list[Run]:
        """The runs whose curves of decisions are drawn: of the first labels, as many as one can tell apart, and ours.

        None, and a line says why, where runs of before are among them, which were judged as trained alone.
        """
        labels = list(dict.fromkeys(run.label for run in runs))
        drawn = told_apart(labels, ours)
        chosen = [run for run in runs if run.label in drawn]
        if all("decision" in run.metrics["splits"][self.split] for run in chosen):
            return chosen
        print("No curves: these runs were judged as trained alone, by code of before.")
        return []

    def baselines(self, runs: list[Run]) -> tuple[str, ...]:
        """The baseline, and the rival where some run is of it."""
        there = {run.label for run in runs}
        return (self.baseline, *({self.rival} & there - {self.baseline}))

    def target(self, runs: list[Run], baseline: str) -> None:
        """Print what the baseline should reach before a comparison counts, and what it does, where that is known."""
        target = self._study().targets.get(self.group)
        if not target:
            return
        reached = [run.metrics["splits"][self.split]["miou"] for run in runs if run.label == baseline]
        mean = sum(reached) / len(reached)
        verdict = "reached" if mean >= target["miou"] else "not reached, so the comparison does not count yet"
        print(f"{baseline}: {100 * mean:.1f} mIoU on {self.split}, mean of {len(reached)}; "
              f"target {100 * target['miou']:.1f} ({target['source']}): {verdict}.")

    def _check_baseline(self, named):
        """Raises ConfigError unless one of some entries or runs has the baseline's label."""
        if named and self.baseline:
            check_choice("baseline", self.baseline, tuple(dict.fromkeys(one.label for one in named)))

    def _study(self):
        return load_study(Path("workflow/grids", f"{self.study}.yaml"), outputs_root=self.outputs_root)


def runs_beside(run: Run) -> list[Run]:
    """The finished runs of other methods under the same outputs folder that a run may be held against.

    They have the same seed and the same settings but for those of the method (`runs.config.SHARED_FIELDS`), and would
    come out the same today.
    Labelled by their methods, in alphabetical order; of several runs of one method the newest.
    """
    found = {}
    folders = Path(run.config.outputs_root, "runs", run.config.dataset).glob(f"*/*/seed{run.config.seed}/metrics.json")
    for metrics in sorted(folders, key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(RunError):
            other = load_run(metrics.parent)
            if _shared(other.config) == _shared(run.config) and other.config.method != run.config.method \
                    and not outdated(other.config, other.environment):
                found[other.config.method] = replace(other, label=other.config.method)
    return [found[method] for method in sorted(found)]


def _shared(config):
    """The settings that methods which are compared have in common."""
    return {name: getattr(config, name) for name in ("seed", "mixed_precision", *SHARED_FIELDS)}
