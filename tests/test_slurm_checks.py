"""What is said of Slurm jobs that failed; the rest of workflow/slurm.py needs a cluster: `make slurm-test`."""

import importlib.util
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from cawalib.runs import RunConfig

PATH = Path(__file__).resolve().parents[1] / "workflow" / "slurm.py"
SPEC = importlib.util.spec_from_file_location("slurm_checks", PATH)
slurm = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(slurm)


@pytest.mark.parametrize("limit, expected", [
    ("1:00:00", 60), ("30:00", 30), ("2-00:00:00", 2880), ("1-02:03:04", 1563), ("infinite", None), ("", None)])
def test_limits_in_minutes(limit, expected):
    assert slurm.minutes(limit) == expected


ERROR = """[Thu Nov 26 22:18:47 2026]
Error in rule {rule}:
    message: SLURM-job '{job}' failed, SLURM status is: '{state}'. Detailed failure reason unavailable (status command \
is not 'sacct').For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 3
    input: cawalib/runs/behaviour.json
    output: {output}
    log: {log} (check log file(s) for error details)
    shell:
        OMP_NUM_THREADS=1 python -m cawalib.notebook notebooks/02_baseline.ipynb
        (command exited with non-zero exit code)
    external_jobid: {job}
Trying to restart job 3.
"""


NOT_SENT = """[Fri Nov 27 10:42:25 2026]
Error in rule run:
    message: SLURM sbatch failed. The error message was 'sbatch: error: Memory specification can not be satisfied
sbatch: error: Batch job submission failed: Requested node configuration is not available'.
    sbatch call:
        sbatch --parsable --mem 80000
For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 21
    input: cawalib/runs/behaviour.json
    output: {output}
    shell:
        python -m cawalib.notebook
        (command exited with non-zero exit code)
"""


def test_a_line_for_each_output_that_is_missing(tmp_path):
    job = tmp_path / "12.log"
    job.write_text("Building DAG\ncawalib.notebook: error: 02_baseline.ipynb: parameter 'x'\nsrun: error: task 0\n")
    made = tmp_path / "made.json"
    made.write_text("")
    attempts = [("run", 10, "TIMEOUT", made, job), ("run", 11, "NODE_FAIL", tmp_path / "one.json", job),
                ("run", 12, "FAILED", tmp_path / "one.json", job),
                ("figures", 13, "OUT_OF_MEMORY", f"{tmp_path}/main.csv, {tmp_path}/a.pdf", job),
                ("run", 14, "FAILED", tmp_path / "two.json", tmp_path / "unseen.log"),
                ("run", 15, "FAILED", tmp_path / "three.json", tmp_path / "15.log")]
    (tmp_path / "15.log").write_text("slurmstepd-one: error: StepId=15.0 exceeded memory limit (2 > 1), being killed\n")
    names = ("rule", "job", "state", "output", "log")
    log = tmp_path / "snakemake.log"
    said = [ERROR.format(**dict(zip(names, attempt, strict=True))) for attempt in attempts]
    log.write_text("".join([*said, NOT_SENT.format(output=tmp_path / "four.json")]))
    assert slurm.failures([log]) == [  # the last attempt counts, and what came to be there after all is no failure
        f"{tmp_path}/one.json: Slurm job 12: FAILED: cawalib.notebook: error: 02_baseline.ipynb: parameter 'x'",
        f"{tmp_path}/main.csv: Slurm job 13: OUT_OF_MEMORY: {slurm.REMEDIES['OUT_OF_MEMORY']}",
        f"{tmp_path}/two.json: Slurm job 14: FAILED: no log: the node may not see this folder",
        f"{tmp_path}/three.json: Slurm job 15: OUT_OF_MEMORY: {slurm.REMEDIES['OUT_OF_MEMORY']}",
        f"{tmp_path}/four.json: SLURM sbatch failed. The error message was 'sbatch: error: Memory specification can "
        "not be satisfied; mend it in the profile (workflow/profiles/slurm/config.yaml)"]


def test_a_node_that_does_not_see_the_outputs(tmp_path):
    (tmp_path / ".demo.lock").touch()
    slurm.check_shared(tmp_path, "demo")
    with pytest.raises(WorkflowError, match="outputs folder .*elsewhere: node .* does not see .* on a disk that all"):
        slurm.check_shared(tmp_path / "elsewhere", "demo")


def test_jobs_of_a_killed_call_are_named_but_not_those_of_another_clone(monkeypatch):
    runs = [RunConfig(method="none", seed=5), RunConfig(method="none", seed=6)]
    first, second = (f"rule_run_wildcards_streets_none_{run.folder.parts[-2]}_{run.seed}" for run in runs)
    queue = [f"14 {first} /shared/one clone", f"15 {second} /shared/one clone", "16 (null) /shared/one clone",
             f"17 {first} /shared/other", "18 rule_prepare_data /shared/one clone"]
    monkeypatch.setattr(slurm, "_asked", lambda *command: ("; ".join(queue), True))
    with pytest.raises(WorkflowError, match="2 jobs of an earlier call .* of study 'demo'; .*: scancel 14 15$"):
        slurm._check_queue("demo", runs, "/shared/one clone")
    slurm._check_queue("demo", runs, "/shared/third")
    monkeypatch.setattr(slurm, "_asked", lambda *command: ("", True))
    slurm._check_queue("demo", runs, "/shared/one clone")
