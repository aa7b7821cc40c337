"""One process that has imported everything, and forks a runner and a kernel for each job of a batch.

Starting Python, papermill and a kernel and importing PyTorch take ten times as long as the rest of a small job. So the
Snakefile starts one warm process and names its socket in CAWALIB_WARM; `python -m cawalib.notebook` then hands its
arguments, working directory, environment and streams over and waits for the exit code. Signals are passed on, a killed
caller takes its job with it, and without a warm process, or with another number of threads than it has, everything
goes as it always did. Linux only: elsewhere a process cannot be forked safely after these imports.

    python -m cawalib.notebook.warm SOCKET    ends when its standard input is closed, and tells running jobs to end
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

VARIABLE = "CAWALIB_WARM"
IMPORTED = ("papermill", "ipykernel.kernelapp", "matplotlib_inline.backend_inline", "matplotlib.backends.backend_pdf",
            "scipy.stats", "torchvision.transforms.v2", "cawalib.training", "cawalib.results.figures",
            "cawalib.notebook.walkthrough", "cawalib.notebook.warm_kernel")
LARGEST_CALL = 1 << 22  # bytes


# ---------------------------------------------------------------- whoever calls

def start() -> subprocess.Popen | None:
    """Start a warm process for the jobs that this process starts; None where there can be none.

    It ends when the returned process's stdin is closed, as the end of this process does, even one by SIGKILL. Jobs that
    still run are told to end then: nobody would see them go on, and the next call would meet them in their folders.
    """
    if sys.platform != "linux":
        return None
    path = Path(tempfile.mkdtemp(prefix="cawalib-"), "warm")  # a folder that nobody else may enter
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    process = subprocess.Popen([sys.executable, "-m", __name__, str(path)], stdin=subprocess.PIPE, env=environment,
                               start_new_session=True)
    os.environ[VARIABLE] = str(path)
    return process


def call(arguments: list[str]) -> int | None:
    """Have a job run by the warm process. Returns its exit code; None if there is none, or none that fits."""
    if VARIABLE not in os.environ or os.environ.get("OMP_NUM_THREADS") != "1":
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ[VARIABLE])
        except OSError:  # it has ended, or this is another machine
            return None
        message = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(message)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
        answer = connection.recv(1)
    if not answer:
        print("cawalib.notebook: error: the warm process ended before its job; start the job again", file=sys.stderr)
        return 1
    return answer[0]


# ---------------------------------------------------------------- the warm process

def serve(path: str) -> None:
    """Take jobs at a socket until standard input is closed, then end those that still run, which save their state."""
    with socket.socket(socket.AF_UNIX) as listening, selectors.DefaultSelector() as selector:
        listening.bind(path)
        listening.listen(128)
        for name in IMPORTED:
            if select.select([sys.stdin], [], [], 0)[0]:  # there was nothing to do
                return
            importlib.import_module(name)
        gc.freeze()  # what is here now is shared with every job, so the collector should not touch it
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake.fileno())
        jobs = {}  # connection -> process id
        for file in (sys.stdin, listening, woken):
            selector.register(file, selectors.EVENT_READ)
        while jobs or listening.fileno() >= 0:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    selector.unregister(sys.stdin)
                    selector.unregister(listening)
                    listening.close()
                    for process in jobs.values():
                        os.kill(process, signal.SIGTERM)
                elif key.fileobj is listening and listening.fileno() >= 0:
                    connection, _ = listening.accept()
                    if process := _start_job(connection, [listening, woken, wake, *jobs]):
                        jobs[connection] = process
                        selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj is woken:
                    woken.recv(4096)
                elif key.fileobj in jobs:
                    _pass_on(key.fileobj, jobs, selector)
            _answer(jobs, selector)


def _start_job(connection, others):
    """Fork a job for what a caller sent; its process id, None if the caller is gone."""
    try:
        length, streams, _, _ = socket.recv_fds(connection, 4, 3)
        job = json.loads(_received(connection, int.from_bytes(length, "big")))
    except (OSError, ValueError, EOFError):
        connection.close()
        return None
    process = os.fork()
    if process:
        for stream in streams:
            os.close(stream)
        return process
    code = 1
    try:
        for file in (connection, *others):
            file.close()
        code = _job(job, streams)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _received(connection, length):
    if length > LARGEST_CALL:
        raise ValueError
    parts = []
    while length:
        part = connection.recv(length)
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _job(job, streams):
    """In the forked process: become what the caller would have been."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=True)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    from cawalib.notebook import warm_kernel
    from cawalib.notebook.__main__ import main

    warm_kernel.fork()
    return main(job["arguments"])


def end_with_parent() -> None:
    """Have the system send SIGTERM to this process when its parent ends (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _pass_on(connection, jobs, selector):
    """A signal's number that a caller passes on; or its end, which is the job's as well."""
    try:
        number = connection.recv(1)
    except OSError:
        number = b""
    with contextlib.suppress(ProcessLookupError):
        os.kill(jobs[connection], number[0] if number else signal.SIGKILL)
    if not number:
        selector.unregister(connection)


def _answer(jobs, selector):
    """Give the callers of ended jobs the exit codes."""
    for connection, process in list(jobs.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if not ended:
            continue
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            connection.sendall(bytes([code if code >= 0 else 128 - code]))
        with contextlib.suppress(KeyError):
            selector.unregister(connection)
        connection.close()
        del jobs[connection]


def main(path: str) -> None:
    """Serve at a socket and take it away again."""
    try:
        serve(path)
    finally:
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()
        os._exit(0)  # without the farewells of all that was imported


if __name__ == "__main__":
    main(sys.argv[1])
