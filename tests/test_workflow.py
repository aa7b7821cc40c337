"""The Snakefile lists the jobs that the studies ask for."""

import inspect
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cawalib.runs import load_study, versions

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.long


def dry_run(tmp_path, *words):
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", "1", "-n", "--nolock",
               *[word for word in words if word.startswith("-")], "--config", f"outputs_root={tmp_path}",
               *[word for word in words if not word.startswith("-")]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("study, groups, ablations", [
    ("demo", ["methods"], 1), ("camvid-first", ["methods"], 0), ("evidence-settings", ["methods"], 0),
    ("evidence-options", ["methods", "streets-100"], 0),
    ("evidence-streets", ["streets-100", "streets-100-easy", "streets-10", "streets-1000"], 0),
    ("evidence", ["methods", "camvid-chosen-settings", "camvid-mobilenetv2", "cityscapes-256",
                  "streets-10", "streets-100", "streets-1000"], 1),
    ("cityscapes", ["deeplabv3--r18", "deeplabv3--r50", "segformer-b0"], 0),
    ("ade20k", ["deeplabv3--r18", "deeplabv3--r50", "segformer-b0"], 0),
    ("cocostuff", ["deeplabv3--r18", "deeplabv3--r50", "segformer-b0"], 0),
])
def test_jobs(tmp_path, study, groups, ablations):
    done = dry_run(tmp_path, f"study={study}")
    assert done.returncode == 0, done.stderr
    grid = load_study(ROOT / "workflow" / "grids" / f"{study}.yaml")
    runs = len({config.folder for _, config in grid.configs()})  # groups may share runs
    lines = [line.split() for line in done.stdout.splitlines()]
    table = {line[0]: line[1] for line in lines if len(line) == 2 and line[1].isdigit()}
    assert int(table["run"]) == runs
    assert int(table["prepare_data"]) == 1 and int(table.get("ablations", 0)) == ablations
    for group in groups:
        assert int(table[f"figures_{group}".replace("-", "_")]) == 1


def test_a_space_in_the_outputs_folder(tmp_path):
    done = dry_run(tmp_path / "my outputs", "--printshellcmds")
    assert done.returncode == 0, done.stderr
    assert "--expect '" in done.stdout and f"-p outputs_root '{tmp_path}/my outputs'" in done.stdout


def test_a_run_takes_a_core_for_itself_and_each_data_worker(tmp_path):
    done = dry_run(tmp_path, "--cores=8", "--printshellcmds", "data_workers=2")
    assert done.returncode == 0, done.stderr
    job = next(part for part in done.stdout.split("\n\n") if "rule run:" in part)
    assert "threads: 3" in job
    assert "OMP_NUM_THREADS=1 " in done.stdout.split("rule run:")[1].split("notebooks/")[0]


def test_each_process_of_a_run_takes_its_cores(tmp_path):
    done = dry_run(tmp_path, "--cores=8", "--printshellcmds", "data_workers=1", "processes=2")
    assert done.returncode == 0, done.stderr
    job = next(part for part in done.stdout.split("\n\n") if "rule run:" in part)
    assert "threads: 4" in job and "-p processes 2" in done.stdout


def test_figures_that_are_there_do_not_stand_for_runs(tmp_path):
    for name in ("main", "ablations"):
        (tmp_path / "tables" / "demo").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tables" / "demo" / f"{name}.csv").write_text("")
    assert "rule run:" in dry_run(tmp_path).stdout


def record(config, **behaviour):
    made = {"behaviour": versions(config) | behaviour, "precision": "no"}
    (config.folder / "environment.json").write_text(json.dumps(made))


def test_a_table_drawn_anew_makes_no_run_stale(tmp_path):
    study = load_study(ROOT / "workflow" / "grids" / "demo.yaml", outputs_root=str(tmp_path))
    files = [config.folder / "metrics.json" for _, config in study.configs()]
    tables = ("streets/class_statistics.csv", "demo/main.csv", "demo/ablations.csv")
    files += [tmp_path / "tables" / name for name in tables]
    for age, path in zip(range(len(files), 0, -1), files, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        os.utime(path, (time.time() - 100 * age,) * 2)
    for _, config in study.configs():
        record(config)
    assert "rule run:" not in dry_run(tmp_path).stdout
    # no record of Snakemake's says so, but the code computes focal loss differently since
    stale = next(config for _, config in study.configs() if config.method == "focal")
    record(stale, **{"method focal": 0})
    listed = dry_run(tmp_path).stdout
    assert listed.count("rule run:") == 1 and f"output: {stale.folder}/metrics.json" in listed


def test_of_a_published_study_what_is_whole_is_drawn_and_nothing_trained(tmp_path):
    drawn = dry_run(tmp_path, "study=evidence", "published=true", "--printshellcmds")
    assert drawn.returncode == 0, drawn.stderr
    rules = re.findall(r"^rule (\w+):", drawn.stdout, re.MULTILINE)
    assert len(rules) == 9 and {"ablations", "figures_methods", "all"} < set(rules) and "run" not in rules
    assert drawn.stdout.count("-p runs_from reference") == 8
    study = "camvid-first"
    missing = dry_run(tmp_path, f"study={study}", "published=true")
    assert missing.returncode == 1 and missing.stderr == (
        f"workflow: error: archive outputs/reference/{study}/runs.jsonl.gz: not found; publish the study first\n")


def test_unknown_study(tmp_path):
    done = dry_run(tmp_path, "study=nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "workflow: error: study file workflow/grids/nowhere.yaml: not found\n"


def test_a_job_computes_with_one_thread_whatever_snakemake_tells_its_libraries():
    """With two data workers a job has three threads for Snakemake, which every library would compute with."""
    from snakemake import shell

    told = set(re.findall(r'"(\w+_THREADS)"\] = threads', inspect.getsource(shell)))
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} <= told
    text = (ROOT / "workflow/Snakefile").read_text()
    prefix = re.search(r'^shell.prefix\("(.*)"\)$', text, re.MULTILINE)[1]
    rules = len(re.findall(r"^ *shell:$", text, re.MULTILINE))
    assert text.count('"OMP_NUM_THREADS=1 " + RUNNER') == rules == 4
    assert told - {"OMP_NUM_THREADS"} == set(re.findall(r"(\w+)=1 ", prefix))
