"""What Slurm and Snakemake's executor for it leave unsaid, see docs/cluster.md.

A profile that does not fit is refused before anything is submitted, a node that does not see the outputs is named, and
after a failure each output that is missing has its line: why, and what to set.
"""

import getpass
import platform
import re
import shutil
import subprocess
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

SET = "in the profile (workflow/profiles/slurm/config.yaml)"
REMEDIES = {
    "TIMEOUT": f"raise 'runtime' {SET}; called again, a run goes on from its checkpoint",
    "OUT_OF_MEMORY": f"raise 'mem_mb' {SET}; called again, a run goes on from its checkpoint",
    "CANCELLED": "ended by scancel; called again, a run goes on from its checkpoint",
    "NODE_FAIL": "its node died; called again, a run goes on from its checkpoint",
}
# of a job, in this order; what of them is asked of Slurm, and by which option
RESOURCES = {"slurm_partition": "-p", "slurm_account": "-A", "mem_mb": "--mem", "runtime": "-t", "gpu": "--gpus",
             "gres": "--gres", "constraint": "-C", "qos": "--qos"}


def check_shared(outputs_root: str, study: str) -> None:
    """On a node: does it see the lock that the call on the login node holds?"""
    if not Path(outputs_root, f".{study}.lock").is_file():
        raise WorkflowError(
            f"outputs folder {outputs_root}: node {platform.node()} does not see what the call of "
            "snakemake wrote there; choose an 'outputs_root' on a disk that all nodes share")


def check(workflow, study: str, runs) -> None:
    """Before the first job is submitted; raises WorkflowError, in one line.

    Args:
        runs: the study's `RunConfig`s.
    """
    _check_status(workflow.executor_settings)
    wanted = {}
    for job in workflow.dag.needrun_jobs():
        if not job.is_local:
            for attempt in (job.restart_times + 1, 1):  # what grows may outgrow every node
                job.attempt = attempt
                wanted[job.threads, *map(job.resources.get, RESOURCES)] = job.rule.name
    for (cores, *values), rule in wanted.items():
        _check_resources(rule, cores, dict(zip(RESOURCES, values, strict=True)))
    _check_queue(study, runs, workflow.workdir_init)


def _asked(*command):
    """What a command of Slurm says, and whether it could."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), False
    said = done.stdout if done.returncode == 0 else done.stderr
    return "; ".join(line.strip() for line in said.splitlines()), done.returncode == 0


def _check_status(settings):
    """The executor asks again and again where its jobs are, and takes no answer for "still running": for ever."""
    from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age

    age, kept = get_min_job_age() or 0, 3 * settings.init_seconds_before_status_checks
    command = "sacct" if age < kept and shutil.which("sacct") else settings.status_command
    said, good = _asked(command, "--noheader", "--name", "nothing")
    if not good and command == settings.status_command:
        raise WorkflowError(f"Slurm: {command} does not answer ({said}); set slurm-status-command to the other one of "
                            f"squeue and sacct {SET}")
    if not good:
        raise WorkflowError(f"Slurm: squeue forgets jobs after {age} s, and sacct does not answer ({said}); set "
                            f"slurm-init-seconds-before-status-checks to at most {age // 3} {SET}")


def _check_queue(study, runs, folder):
    """Jobs that a killed call left behind write the same runs, if it was called from the same folder."""
    ours = {f"rule_run_wildcards_{run.name.replace('/seed', '/').replace('/', '_')} {folder}" for run in runs}
    queue, _ = _asked("squeue", "--me", "--noheader", "--format=%i %k %Z")
    jobs = [line.partition(" ") for line in queue.split("; ")]
    left = [job for job, _, what in jobs if what in ours]
    if left:
        raise WorkflowError(f"Slurm: {len(left)} jobs of an earlier call are at runs of study '{study}'; wait for "
                            f"them, or end them (their runs go on from their checkpoints): scancel {' '.join(left)}")


def _check_resources(rule, cores, resources):
    """Slurm itself says whether it would take such a job; but too long a one it takes, which then waits for ever."""
    options = [word for name, value in resources.items() if value for word in (RESOURCES[name], str(value))]
    said, good = _asked("sbatch", "--test-only", "-c", str(cores), *options, "--wrap", "true")
    partition = resources["slurm_partition"]
    limit = _asked("sinfo", "-h", "-o", "%l", *(["-p", str(partition)] if partition else []))[0].split("; ")[0]
    if good and resources["runtime"] and resources["runtime"] > (minutes(limit) or resources["runtime"]):
        said, good = f"more than the partition's limit of {limit}", False
    if not good:
        there, _ = _asked("sinfo", "-h", "-o", "partition %R, %D nodes %T: %c cores, %m MB, GPUs %G, up to %l")
        if "account" in said:
            there, _ = _asked("sacctmgr", "-n", "-P", "show", "user", getpass.getuser(), "withassoc", "format=account")
        asked = ", ".join(f"{name} {value}" for name, value in resources.items() if value)  # by the profile's names
        raise WorkflowError(f"Slurm: rule {rule} asks for threads {cores}, {asked}: {said}; mend it {SET}; there is "
                            f"{there}")


def minutes(limit: str) -> int | None:
    """Of Slurm's [days-]hours:minutes:seconds; None where there is no limit."""
    days, _, clock = limit.rpartition("-")
    if ":" not in clock:
        return None
    seconds = sum(int(part) * 60**power for power, part in enumerate(reversed(clock.split(":"))))
    return 24 * 60 * int(days or 0) + seconds // 60


# up to the next of Snakemake's messages: what sbatch says begins at the margin
FAILURE = re.compile(r"^Error in rule \w+:\n(?P<about>.*?)(?=^\[|^Error in rule|^Trying to restart|^Select jobs|\Z)",
                     re.MULTILINE | re.DOTALL)
WORD = re.compile(r"^(?:cawalib\.notebook: error|slurmstepd\S*: error|outputs folder [^:]+): .*", re.MULTILINE)


def failures(logs: list[str]) -> list[str]:
    """A line for each output that failed and is not there.

    Args:
        logs: Snakemake's log files of this call.
    """
    last = {}
    for failure in FAILURE.finditer("".join(Path(log).read_text() for log in logs)):
        found = dict(re.findall(r"^ {4}(message|output|log|external_jobid): (.*)", failure["about"], re.MULTILINE))
        last[found.get("output", "").split(", ")[0]] = found
    return [f"{output}: {_why(found)}" for output, found in last.items() if not Path(output).is_file()]


def _why(found):
    state = re.search(r"status is: '(\w+)'", found.get("message", ""))
    if state is None:  # not even submitted
        return f"{found.get('message', 'see above')}; mend it {SET}"
    state, log = state[1], Path(found["log"].removesuffix(" (check log file(s) for error details)"))
    text = log.read_text() if log.is_file() else ""
    if re.search("exceeded (job )?memory limit|oom.kill", text, re.IGNORECASE):  # without cgroups Slurm says FAILED
        state = "OUT_OF_MEMORY"
    words = WORD.findall(text) or [f"see {log}" if text else "no log: the node may not see this folder"]
    return f"Slurm job {found['external_jobid']}: {state}: {REMEDIES.get(state, words[-1])}"
