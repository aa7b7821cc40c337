"""A kernel that is forked from a process that has imported everything, by a provisioner of jupyter_client.

The fork is made before the runner starts threads and sockets, and waits for what jupyter_client would have started.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import traceback

from jupyter_client.provisioning import LocalProvisioner

NAME = "cawalib-warm"  # of the entry point in pyproject.toml
_waiting: list[ForkedKernel] = []  # at most one


class ForkedKernel:
    """A forked child with the face of a `subprocess.Popen`, as far as jupyter_client looks at it."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, launch: int):
        self.pid, self.returncode, self.launch = pid, None, launch

    def start(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        """Let the waiting child become the kernel."""
        with os.fdopen(self.launch, "w") as pipe:
            json.dump([command, environment, folder], pipe)

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        return self._wait(0)

    def _wait(self, options):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody else has waited for it
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmProvisioner(LocalProvisioner):
    """Starts the forked kernel; where none waits (a second kernel, a restart), a new process as always."""

    async def launch_kernel(self, cmd: list[str], **options):
        if not _waiting:
            return await super().launch_kernel(cmd, **options)
        kernel = _waiting.pop()
        environment = dict(options.get("env") or os.environ) | {"JPY_PARENT_PID": str(os.getpid())}
        kernel.start(cmd, environment, options.get("cwd") or os.getcwd())
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """The interrupt before a shutdown is left out: its request follows at once, and a busy machine would take it
        for one of the user's."""
        if signum != signal.SIGINT or not isinstance(self.process, ForkedKernel):
            await super().send_signal(signum)


def fork() -> None:
    """Fork a kernel that waits to be started, and have jupyter_client start it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        _become_kernel(reading)
    os.close(reading)
    _waiting.append(ForkedKernel(pid, writing))
    os.environ["JUPYTER_DEFAULT_PROVISIONER_NAME"] = NAME


def waiting() -> list[int]:
    """The process ids of forked kernels that no notebook has got yet."""
    return [kernel.pid for kernel in _waiting]


def _become_kernel(pipe):
    with os.fdopen(pipe) as launch:
        text = launch.read()
    if not text:  # the runner ended without a kernel
        os._exit(0)
    command, environment, folder = json.loads(text)
    environment.pop("JUPYTER_DEFAULT_PROVISIONER_NAME", None)
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    module = command.index("-m") + 1
    # ipykernel reads who its parent is when it is imported, which was before
    sys.argv = [*command[module:], f"--IPKernelApp.parent_handle={environment['JPY_PARENT_PID']}"]
    try:
        runpy.run_module(command[module], run_name="__main__", alter_sys=True)
    except Exception:  # after os._exit nobody would hear of it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
