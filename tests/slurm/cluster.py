"""A small cluster of this machine: munge, slurmctld, and three nodes in a temporary folder, on ports of their own."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

# linuxproc and task/none need no cgroups, so it runs in a container; jobs over their memory are ended all the same.
# The node `far` does not see the folder `scratch` (a mount of its own). A requeued job waits for cred_expire seconds.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=one NodeHostname={host} Port={ports[1]} CPUs=2 RealMemory=16000
NodeName=two NodeHostname={host} Port={ports[2]} CPUs=2 RealMemory=16000
NodeName=far NodeHostname={host} Port={ports[3]} CPUs=2 RealMemory=16000
PartitionName=work Nodes=one,two MaxTime=60 Default=YES GraceTime=60
PartitionName=urgent Nodes=one,two PriorityTier=10 PreemptMode=off
PartitionName=far Nodes=far
"""


class Cluster:
    """Start with `with Cluster(folder) as cluster`; nothing of it is left afterwards.

    Attributes:
        environment: of processes that are to find the cluster.
    """

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, {}
        for name in ("munge", "state", "spool", "scratch", "bin"):
            (folder / name).mkdir(parents=True)
        (folder / "munge/key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge/key").chmod(0o400)
        configuration = CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=_free_ports(4))
        (folder / "slurm.conf").write_text(configuration)
        # the executor takes SLURM_CONF out of the environment, since it stands in /etc on a cluster
        for name in ("sacct", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun"):
            command = folder / "bin" / name
            command.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name)} "$@"\n')
            command.chmod(0o755)
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1",
                                         "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin"}

    def __enter__(self):
        try:
            munge = self.folder / "munge"
            self._start("munged", "munged", "-F", f"--key-file={munge}/key", f"--socket={munge}/socket",
                        f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")
            wait(lambda: (munge / "socket").exists(), "munged")
            self._start("slurmctld", "slurmctld", "-D")
            for node in ("one", "two"):
                self.start_node(node)
            hidden = f"mount -t tmpfs none {self.folder}/scratch && exec slurmd -D -N far"
            self._start("far", "unshare", "-m", "sh", "-c", hidden)
            wait(lambda: self.call("sinfo", "-h", "-N", "-p", "work,far", "-o", "%T").split() == ["idle"] * 3, "nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        with suppress(subprocess.CalledProcessError, FileNotFoundError):
            self.call("scancel", "--user=root", "--signal=KILL", "--full")
            self.call("scancel", "--user=root")
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for process in self.left():  # job steps of a node that died
            with suppress(psutil.Error):
                process.kill()

    def _start(self, name, *command):
        with open(self.folder / f"{name}.out", "a") as out:
            self.processes[name] = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)

    def start_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if its power had failed: slurmd and all of its jobs are gone without a word."""
        self.processes[node].kill()
        self.processes[node].wait()
        log = str(self.folder / f"slurmd-{node}.log")
        # the daemon of each job step first, so that none reports what becomes of the rest
        for belongs in (lambda process: _writes(process, log), lambda process: _runs_on(process, node)):
            for process in self.left():
                with suppress(psutil.Error):
                    if belongs(process):
                        process.kill()

    def call(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True,
                              timeout=60).stdout.strip()

    def jobs(self) -> list[dict]:
        """Jobs that run or wait: id, state, node, comment."""
        lines = self.call("squeue", "-h", "-o", "%i|%T|%N|%k").splitlines()
        return [dict(zip(("id", "state", "node", "comment"), line.split("|"), strict=True)) for line in lines]

    def left(self) -> list[psutil.Process]:
        """Processes that belong to the cluster: daemons, and what jobs have started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = str(self.folder) in process.environ().get("SLURM_CONF", "")
                if process.name() == "slurmstepd":  # writes its title over its environment
                    ours = any(file.path.startswith(str(self.folder)) for file in process.open_files())
                if ours and process.pid != os.getpid():
                    found.append(process)
        return found


def wait(happened, what, seconds=600):
    """Until something has happened; its value."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.2)
    return found


def _writes(process, path):
    return path in [file.path for file in process.open_files()]


def _runs_on(process, node):
    return process.environ().get("SLURMD_NODENAME") == node


def _free_ports(count):
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
