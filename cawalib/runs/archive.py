"""A study's runs in one file, which pandas reads as well: `pandas.read_json("runs.jsonl.gz", lines=True)`.

Gzip, one line of JSON for each run, in the order of their names:

| key | what |
|---|---|
| run | dataset/method/hash/seed, as the run folder is called |
| config | every setting: config.json |
| environment | behaviour, commit, data digest, versions, device, duration in seconds, peak memory in bytes |
| metrics | classes, their counts in train, head/body/tail; per split every metric in [0, 1] and the confusion matrix |
| history | column -> values, one per epoch: history.csv |
| class_weights | "class": C names, "update": U numbers; score, basic_weight, ratio_weight, weight: U lists of C |
| samples | null, or samples.npz in base64: images, labels, predictions, maps |

Nothing is thinned or rounded here: what a run folder holds is what the archive holds, so that a figure drawn from the
one is the figure drawn from the other.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cawalib.files import atomic, plain, write_json, write_table
from cawalib.runs.config import PLACE_FIELDS, RunConfig, config_from
from cawalib.runs.folders import WEIGHTS, Run, RunError, write_metrics

NAME = "runs.jsonl.gz"


@dataclasses.dataclass(frozen=True)
class ArchivedRun(Run):
    """A run read from an archive; `folder` says which one, for messages. Nothing lies there."""

    line: dict = dataclasses.field(default_factory=dict, repr=False)

    @cached_property
    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.line["history"]).astype({"epoch": int}).astype(
            {name: float for name in self.line["history"] if name != "epoch"})

    @cached_property
    def class_weights(self) -> pd.DataFrame:
        kept = self.line["class_weights"]
        count = len(kept["class"])
        table = {"update": np.repeat(kept["update"], count), "class": np.tile(kept["class"], len(kept["update"]))}
        return pd.DataFrame(table | {name: np.array(kept[name], float).reshape(-1) for name in WEIGHTS})

    @property
    def has_samples(self) -> bool:
        return self.line["samples"] is not None

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(base64.b64decode(self.line["samples"])), allow_pickle=False) as arrays:
            return dict(arrays)


def write_archive(path, runs: list[Run], pictures=()) -> None:
    """Write runs into one file, atomically; the same runs, the same bytes.

    Args:
        runs: finished; one that stands there twice, under two labels, is written once.
        pictures: names of the runs whose samples go along.
    """
    unique = {run.config.name: run for run in runs}
    lines = [json.dumps(plain(_line(unique[name], name in pictures)), separators=(",", ":"), allow_nan=False)
             for name in sorted(unique)]
    with atomic(path) as partial, open(partial, "wb") as file, \
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode())


def _line(run, with_samples):
    weights, samples = run.class_weights, None
    if with_samples and run.has_samples:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **run.samples)
        samples = base64.b64encode(buffer.getvalue()).decode()
    classes = list(weights["class"].unique())
    matrices = {name: weights[name].to_numpy().reshape(-1, len(classes)) for name in WEIGHTS}
    no_place = {name: getattr(RunConfig, name) for name in PLACE_FIELDS if name not in ("seed", "device")}
    return {
        "run": run.config.name, "config": dataclasses.asdict(run.config) | no_place | {"outputs_root": "outputs"},
        "environment": run.environment, "metrics": run.metrics,
        "history": {name: column.to_numpy() for name, column in run.history.items()},
        "class_weights": {"class": classes, "update": weights["update"].unique()} | matrices,
        "samples": samples,
    }


def read_archive(path) -> dict[str, ArchivedRun]:
    """The runs of an archive by their names.

    Raises:
        RunError: no such file, or one that is no archive of runs.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"archive {path}: not found; publish the study first")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        return {line["run"]: ArchivedRun(Path(f"{path}:{line['run']}"), config_from(line["config"], f"{path}"),
                                         line["metrics"], line["environment"], line=line) for line in lines}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise RunError(f"archive {path}: cannot be read ({error}); fetch it again") from None


def unpack(run: ArchivedRun, folder) -> None:
    """Write an archived run as a run folder; metrics.json, which means done, is the last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", run.line["config"])
    write_json(folder / "environment.json", run.environment)
    write_table(folder / "history.csv", run.history)
    write_table(folder / "class_weights.csv", run.class_weights)
    if run.has_samples:
        with atomic(folder / "samples.npz") as partial:
            partial.write_bytes(base64.b64decode(run.line["samples"]))
    write_metrics(folder, run.metrics)
