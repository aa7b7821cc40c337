"""Studies: what `grids` reads from the YAML files in workflow/grids, and the runs that there are of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from cawalib.runs.archive import read_archive
from cawalib.runs.behaviour import outdated
from cawalib.runs.config import RunConfig, config_from
from cawalib.runs.folders import Run, RunError, load_run


@dataclass(frozen=True)
class Entry:
    """One line of a study: a name to show, the group it is compared in, and its settings without the seed."""

    label: str
    group: str
    settings: dict
    seeds: tuple[int, ...]

    def config(self, seed: int) -> RunConfig:
        return config_from(self.settings | {"seed": seed}, where=f"study entry '{self.label}'")

    @property
    def notebook(self) -> str:
        return "03_cawa_training" if self.settings["method"] == "cawa" else "02_baseline"


@dataclass(frozen=True)
class Study:
    """A grid of runs, read from a YAML file in workflow/grids.

    Args:
        split: the one that its tables are about.
        targets: group -> what its baseline should reach before any comparison in it counts: {"miou": 0 to 1,
            "source": whose number it is}.
    """

    name: str
    entries: tuple[Entry, ...]
    split: str = "test"
    targets: dict[str, dict] = dataclasses.field(default_factory=dict)

    def configs(self) -> list[tuple[Entry, RunConfig]]:
        return [(entry, entry.config(seed)) for entry in self.entries for seed in entry.seeds]

    def group(self, group: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.group == group]

    def whole_in(self, archive) -> Study:
        """The study with those groups alone whose runs are all in a file of published runs; perhaps with none."""
        published = read_archive(archive)
        missing = {entry.group for entry, config in self.configs() if config.name not in published}
        return dataclasses.replace(self, entries=tuple(e for e in self.entries if e.group not in missing))

    @property
    def compared(self) -> list[str]:
        """The groups that are compared with a baseline of their own: all but the ablations."""
        return [group for group in dict.fromkeys(entry.group for entry in self.entries) if group != "ablations"]


def group_folder(group: str) -> str:
    """The folder of a group's figures and tables below those of its study; "" for the main one, `methods`."""
    return "" if group in ("methods", "ablations") else "".join(c if c.isalnum() else "-" for c in group.lower())


def load_runs(study: Study, groups=None, archive=None, allow_unfinished=False, allow_other_code=False,
              allow_smoke=False) -> list[Run]:
    """The runs of a study (or of some of its groups), every one of them checked.

    Args:
        archive: a file of published runs to take them from; None: from their folders.

    Raises:
        RunError: a run that is unfinished, that would come out differently today, or a smoke run, by name, unless
            allowed.
    """
    published = None if archive is None else read_archive(archive)
    runs = []
    for entry, config in study.configs():
        if groups is not None and entry.group not in groups:
            continue
        where = f"'{entry.label}', seed {config.seed}"
        try:
            run = load_run(config.folder) if published is None else _published(published, config, archive)
        except RunError as error:
            if not allow_unfinished:
                raise RunError(f"{where}: {error}") from None
            continue
        changed = outdated(run.config, run.environment)
        if changed and not allow_other_code:
            raise RunError(f"{where}: {run.folder} comes from code that computed something else "
                           f"({', '.join(changed)}); train again or set allow_other_code")
        if run.metrics["smoke"] and not allow_smoke:
            raise RunError(f"{where}: run folder {run.folder} is a smoke run, good for nothing but to see that it "
                           "runs; train it in full or set allow_smoke")
        runs.append(dataclasses.replace(run, label=entry.label, group=entry.group))
    return runs


def _published(published, config, archive):
    if config.name not in published:
        raise RunError(f"archive {archive}: has no run {config.name}; train it")
    return published[config.name]
