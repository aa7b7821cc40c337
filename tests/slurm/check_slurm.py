"""A study on a small Slurm cluster of this machine: killed, cancelled, preempted, and still the numbers of `--cores 2`.

Not collected by `make test`: `make slurm-test` calls it. It needs Linux, root, and Debian's slurm-wlm and munge.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from cluster import Cluster, wait

ROOT = Path(__file__).resolve().parents[2]
GRID = """
common: {dataset: streets, train_images: 24, image_height: 32, image_width: 64, epochs: EPOCHS, batch_size: 4,
         validate_every: 1000, device: cpu}
seeds: SEEDS
groups:
  methods:
    cross entropy: {method: none}
    CAWA: {method: cawa}
"""
GRIDS = {"storm": ("80", "[0, 1]"), "short": ("2", "[5]"), "long": ("3000", "[7]")}


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    if missing or os.geteuid():
        pytest.fail(f"found no {', '.join(missing) or 'root'}; as root: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("cluster")
    for parent in (folder, *list(folder.parents)[:2]):  # munge wants a path that others may read
        parent.chmod(0o755)
    with Cluster(folder) as cluster:
        say("a cluster of three nodes is up")
        yield cluster
    wait(lambda: not cluster.left(), f"the end of {cluster.left()}", 30)
    say("the cluster is down, and nothing of it is left")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A clone with the studies of this test; its profile is edited as docs/cluster.md says."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("cawalib", "notebooks", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for study, (epochs, seeds) in GRIDS.items():
        text = GRID.replace("EPOCHS", epochs).replace("SEEDS", seeds)
        (folder / f"workflow/grids/{study}.yaml").write_text(text)
    profile(folder)
    return folder


def profile(repository, resources=None, run=None, **settings):
    """Edit the profile; None takes a line out."""
    text = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    text["default-resources"] |= {"slurm_partition": "work", "slurm_account": None, "mem_mb": 1500, "runtime": 30}
    text["default-resources"] |= resources or {}
    text["set-resources"]["run"] |= {"gpu": None, "mem_mb": 1500, "runtime": 30} | (run or {})
    text |= {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 10} | settings
    for part in (text["default-resources"], text["set-resources"]["run"]):
        for name in [name for name, value in part.items() if value is None]:
            del part[name]
    (repository / "workflow/profiles/slurm/config.yaml").write_text(yaml.safe_dump(text))


class Call:
    """A call of Snakemake with the profile, in the background; `outputs` is its folder of outputs."""

    def __init__(self, cluster, repository, study, *options, outputs=None):
        self.outputs = outputs or repository / "outputs"
        self.log = open(cluster.folder / "snakemake.log", "w+")  # as long as the call
        command = [sys.executable, "-m", "snakemake", "--profile", "workflow/profiles/slurm", *options, "--config",
                   f"study={study}", f"outputs_root={self.outputs}"]
        self.process = subprocess.Popen(command, cwd=repository, env=cluster.environment, stdout=self.log,
                                        stderr=subprocess.STDOUT)

    def said(self):
        return Path(self.log.name).read_text()

    def end(self, code=0, seconds=1500):
        try:
            found = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still there after {seconds} s:\n{self.said()[-6000:]}") from None
        assert found == code, self.said()[-6000:]
        return self.said()


def runs(outputs):
    """Name -> folder of each run that has begun."""
    return {f"{path.parts[-3]} {path.parts[-1]}": path for path in sorted(Path(outputs).glob("runs/*/*/*/seed?"))}


def numbers(folder):
    """What a run came to, without how long it took and where."""
    kept = json.loads((folder / "metrics.json").read_text())
    return {name: kept[name] for name in ("splits", "line", "classes", "steps", "train_pixels", "config_hash", "seed")}


def job_of(cluster, folder):
    """The Slurm job that is at a run."""
    method, key, seed = folder.parts[-3:]
    name = f"rule_run_wildcards_streets_{method}_{key}_{seed.removeprefix('seed')}"
    return next((job for job in cluster.jobs() if job["comment"] == name and job["state"] == "RUNNING"), None)


def in_training(cluster, call, hit=()):
    """Wait until a run that was not hit yet has a checkpoint; its name, folder and Slurm job."""
    def happened():
        assert call.process.poll() is None, call.said()[-6000:]
        for name, folder in runs(call.outputs).items():
            if name not in hit and (folder / "checkpoint/last.pt").is_file() and not (folder / "metrics.json").exists():
                job = job_of(cluster, folder)
                if job:
                    return name, folder, job
    return wait(happened, "a run with a checkpoint that nothing happened to yet")


def kernel(cluster, job):
    for process in cluster.left():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job and "ipykernel_launcher" in " ".join(process.cmdline()):
                return process


def record(folder):
    return next(folder.glob("0*.ipynb")).read_text()


def test_storm(cluster, repository):
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "snakemake", "--cores", "2", "--nolock", "--quiet", "all", "--until", "run",
                    "--config", "study=storm", "outputs_root=here"], cwd=repository, check=True, capture_output=True,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})
    expected = {name: numbers(folder) for name, folder in runs(repository / "here").items()}
    assert len(expected) == 4
    say(f"--cores 2: four runs in {time.monotonic() - begun:.0f} s")

    begun = time.monotonic()
    call, hit = Call(cluster, repository, "storm"), {}
    name, _, job = in_training(cluster, call)
    kernel(cluster, job["id"]).kill()
    hit[name] = say(f"{name}, job {job['id']}: its process was killed")

    name, _, job = in_training(cluster, call, hit)
    cluster.call("scancel", job["id"])
    hit[name] = say(f"{name}, job {job['id']}: cancelled")

    name, preempted, job = in_training(cluster, call, hit)
    urgent = cluster.call("sbatch", "--parsable", "-p", "urgent", "-w", job["node"], "--mem", "16000",
                          "-o", "/dev/null", "--wrap", "sleep 3")
    wait(lambda: (job_of(cluster, preempted) or {}).get("id") != job["id"], "preemption")
    hit[name] = say(f"{name}, job {job['id']}: preempted by job {urgent}")

    name, _, job = in_training(cluster, call, hit)
    cluster.kill_node(job["node"])
    hit[name] = say(f"{name}, job {job['id']}: its node {job['node']} died")
    wait(lambda: cluster.call("sinfo", "-h", "-n", job["node"], "-p", "work", "-o", "%T").startswith("down"), "its end")
    cluster.start_node(job["node"])
    say(f"node {job['node']} is back")

    call.end()
    say(f"Snakemake has ended after {time.monotonic() - begun:.0f} s")
    found = runs(repository / "outputs")
    for name, metrics in expected.items():
        assert numbers(found[name]) == metrics, name
        assert (name in hit) <= ("Going on after epoch" in record(found[name])), name
    batch = re.search(r"Going on after epoch \d+, batch (\d+)", record(preempted))[1]
    say(f"{len(hit)} runs went on from their checkpoints, the preempted one from batch {batch} of an epoch")
    say("all four have the numbers of --cores 2")
    assert (repository / "outputs/tables/storm/main.csv").is_file()
    assert "Nothing to be done" in Call(cluster, repository, "storm").end()
    say("called again: nothing to be done")


REFUSED = {
    "partition": ({"slurm_partition": "nowhere"}, {}, {}, "Invalid partition name"),
    "GPU": ({}, {"gpu": 1}, {}, "Invalid generic resource"),
    "memory": ({}, {"mem_mb": 99000}, {}, "node configuration is not available"),
    "memory of the last attempt": ({}, {"mem_mb": "5000 * attempt"}, {}, "mem_mb 30000"),
    "time": ({}, {"runtime": 90}, {}, "more than the partition's limit of 1:00:00"),
    "status": ({}, {}, {"slurm-status-command": "sacct"}, "set slurm-status-command to the other one"),
    "forgetful queue": ({}, {}, {"slurm-init-seconds-before-status-checks": 200}, "to at most 100"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_profile_that_does_not_fit_is_refused(cluster, repository, what):
    resources, run, settings, words = REFUSED[what]
    profile(repository, resources, run, **settings)
    said = Call(cluster, repository, "short").end(1, 120)
    line = next(line for line in said.splitlines() if line.startswith("Slurm: "))
    assert words in line and "workflow/profiles/slurm/config.yaml" in line and "has been submitted" not in said
    say(f"{what}: {line}")


def missing(said):
    """What the end of a call says of each output that is not there."""
    return [line for line in said.split("Missing, and why:\n")[1].splitlines() if ": Slurm job " in line]


def test_a_killed_call_leaves_jobs_that_the_next_one_names(cluster, repository):
    profile(repository)
    call = Call(cluster, repository, "long")
    first, folder, _ = in_training(cluster, call, hit=("none seed5", "cawa seed5"))
    folders = [folder, in_training(cluster, call, hit=("none seed5", "cawa seed5", first))[1]]
    call.process.send_signal(signal.SIGKILL)
    call.process.wait()
    wait(lambda: len(cluster.jobs()) == 2, "the end of the job that prepares data")
    said = Call(cluster, repository, "long").end(1, 120)
    line = next(line for line in said.splitlines() if line.startswith("Slurm: "))
    assert "2 jobs of an earlier call are at runs of study 'long'" in line and "has been submitted" not in said
    say(f"killed, and called again: {line}")
    cluster.call(*line.split(": ")[-1].split())
    wait(lambda: not cluster.jobs(), "the end of the jobs")
    assert all((folder / "checkpoint/last.pt").is_file() for folder in folders)

    profile(repository, run={"runtime": 1}, retries=0)
    lines = missing(Call(cluster, repository, "long", "--until", "run").end(1))
    assert sum(": TIMEOUT: raise 'runtime' in the profile" in line for line in lines) == 2, lines
    assert not any((folder / "metrics.json").exists() for folder in folders)
    say(f"out of time: {lines[0]}")


def test_out_of_memory(cluster, repository):
    profile(repository, run={"mem_mb": 200}, retries=0)
    lines = missing(Call(cluster, repository, "short", "--until", "run").end(1))
    assert sum(": OUT_OF_MEMORY: raise 'mem_mb' in the profile" in line for line in lines) == 2, lines
    say(f"out of memory: {lines[0]}")
    profile(repository, run={"mem_mb": "200 * attempt ** 4"}, retries=1)
    said = Call(cluster, repository, "short", "--until", "run").end()
    assert "Trying to restart job" in said
    found = runs(repository / "outputs")
    assert all((found[f"{method} seed5"] / "metrics.json").is_file() for method in ("none", "cawa"))
    say("with memory that grows with each attempt: done")


def test_a_scratch_folder_that_nodes_do_not_see(cluster, repository):
    profile(repository, {"slurm_partition": "far"}, retries=0)
    scratch = cluster.folder / "scratch"
    lines = missing(Call(cluster, repository, "short", "--until", "run", outputs=scratch).end(1))
    assert lines and all(f"outputs folder {scratch}: node" in line for line in lines), lines
    assert not runs(scratch)
    say(f"a scratch folder: {lines[0]}")


def test_snakemake_is_a_job_itself(cluster, repository):
    profile(repository)
    outputs, said = repository / "by_job", repository / "job.log"
    command = [sys.executable, "-m", "snakemake", "--profile", "workflow/profiles/slurm", "--config", "study=short",
               f"outputs_root={outputs}"]
    job = cluster.call("sbatch", "--parsable", "-t", "30", "--mem", "4000", "--chdir", str(repository),
                       "-o", str(said), "--wrap", shlex.join(command))
    wait(lambda: job not in [each["id"] for each in cluster.jobs()], "the end of the job")
    assert all((folder / "metrics.json").is_file() for folder in runs(outputs).values()), said.read_text()[-6000:]
    figures = sorted(path.name for path in (outputs / "figures/short").glob("*.pdf"))
    assert len(runs(outputs)) == 2 and figures, said.read_text()[-6000:]
    say(f"Snakemake as job {job}: two runs and {len(figures)} figures")
