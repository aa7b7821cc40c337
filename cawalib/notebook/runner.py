"""What a notebook's first cell calls, and the strict headless run of a notebook on papermill."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from cawalib.notebook import checks
from cawalib.notebook.checks import NotebookError, Terminated
from cawalib.notebook.parameter_cell import CallError, check, read_notebook

GRACE = 60.0  # seconds that a terminated notebook has for its checkpoint
LONGEST_SOCKET = 90  # characters of a folder's name: the system takes some 104 for a socket's


def start() -> Path:
    """Change the working directory to the repository root, wherever the notebook was started.

    Returns:
        The repository root.

    Raises:
        CallError: there is no repository above the working directory or around this package.
    """
    root = repository_root(Path.cwd())
    os.chdir(root)
    return root


def repository_root(folder) -> Path:
    """The repository above a folder or around this package; raises CallError if there is none."""
    for root in (folder, *folder.parents, Path(__file__).resolve().parents[2]):
        if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir():
            return root
    raise CallError(f"no repository (pyproject.toml beside notebooks/) found above {folder}; go into the "
                    "repository, or install it with `pip install -e .`")


# Headless run --------------------------------------------------------------------------------------------

def run(notebook, output, parameters: dict | None = None, expect=(), timeout=None, make_folder=False,
        leave_out="") -> None:
    """Execute a notebook from the repository root; the output appears only when all of it succeeded.

    A failed run leaves NAME.failed.ipynb beside the output instead, until the next success.

    Args:
        notebook: the notebook, with one cell tagged `parameters` and the kernel python3.
        output: where the executed notebook goes, a `.ipynb` file in a folder that exists.
        parameters: name -> value, each of the type that it has in the parameters cell.
        expect: files that must be there after the run.
        timeout: seconds that a single cell may take; None: no limit.
        make_folder: make the output's folder.
        leave_out: tag of cells that are left out; "": none.

    Raises:
        CallError: the notebook, a parameter or the output is not as it should be; nothing was run.
        NotebookError: a cell failed or ended the notebook early, or an expected file is absent.
        Terminated: SIGTERM or SIGINT came; the kernel got SIGTERM and up to 60 s for its checkpoint.
    """
    if timeout is not None and not 0 < timeout < float("inf"):
        raise CallError(f"timeout: found {timeout:g} seconds, expected above 0; leave it out for no limit")
    notebook, output = Path(notebook).absolute(), Path(output).absolute()
    expect = [Path(path).absolute() for path in expect]
    nb, defaults = read_notebook(notebook)
    parameters = check(parameters or {}, defaults)
    root = repository_root(notebook.parent)
    nb.cells = [cell for cell in nb.cells if leave_out not in cell.metadata.get("tags", [])]
    partial = _prepare_output(nb, notebook, output, make_folder)
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    try:
        _execute(partial, output, parameters, root, timeout)
        absent = [str(path) for path in expect if not os.path.exists(path)]
        if absent:
            raise NotebookError(f"expected file {', '.join(absent)} is absent after the run")
        _keep(partial, output, notebook, root)
    except NotebookError as error:
        see = f"; see {failed}" if _kept(partial, failed, notebook, root) else ""
        raise type(error)(f"{notebook.name}: {error}{see}", error.traceback, error.name) from error
    failed.unlink(missing_ok=True)


def _prepare_output(nb, notebook, output, make_folder):
    import nbformat

    same = os.path.realpath(output) == os.path.realpath(notebook)
    if output.suffix != ".ipynb" or os.path.isdir(output) or same:
        raise CallError(f"output {output}: expected a file ending in .ipynb, other than the notebook itself")
    if not os.path.isdir(output.parent) and not make_folder:
        raise CallError(f"output {output}: its folder does not exist; make it, or add --make-folder")
    partial = output.with_name(f".{output.stem}.{os.getpid()}.running.ipynb")  # two calls may name the same output
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(nbformat.writes(nb))
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CallError(f"output {output}: cannot be written ({error.strerror})") from None
    return partial


@contextlib.contextmanager
def kernel_config():
    """How to talk to a kernel: through files where the system can.

    Ports are looked for before the kernel takes them: of two kernels that start at once one may find its port taken and
    die. Where there are only ports, they are encrypted if the kernel can, which complains otherwise.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="cawalib-") as folder:
        if os.name == "posix" and len(folder) < LONGEST_SOCKET:
            yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        else:
            yield Config({"KernelManager": {"transport_encryption": "auto"}})


def _execute(partial, output, parameters, root, timeout):
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    def before_cell(cell, cell_index):
        if asked.is_set():
            raise Terminated("terminated between two cells")
        started.append(cell.cell_type == "code" and bool(cell.source.strip()))

    logging.getLogger("papermill").setLevel(logging.ERROR)  # its warnings are our errors
    path = str(partial).replace("{", "{{").replace("}", "}}")  # papermill formats paths: braces in them are doubled
    started, failure = [], None
    with headless(), _forwarded_signals() as asked, kernel_config() as config:
        try:
            nb = papermill.execute_notebook(
                path, path, parameters, kernel_name="python3", cwd=root, progress_bar=False, stdout_file=sys.stdout,
                stderr_file=sys.stderr, execution_timeout=timeout, on_cell_start=before_cell,
                config=config)
            failure = checks.first_failure(nb)
        except papermill.PapermillExecutionError as error:
            text = checks.plain("\n".join(error.traceback))
            last = checks.last_line(error.evalue)
            failure = NotebookError(f"cell In [{error.exec_count}]: {error.ename}: {last}", text, error.ename)
        except DeadKernelError:
            failure = NotebookError(f"cell In [{sum(started)}]: the kernel died (exit(), or out of memory?)")
        except CellTimeoutError:
            failure = NotebookError(f"cell In [{sum(started)}]: took longer than the timeout, {timeout} s")
        except Exception as error:  # the kernel did not start, the disk is full, ...
            failure = _failure_outside(error, output)
    if asked.is_set():
        raise Terminated("terminated; a started run resumes from its checkpoint",
                         failure.traceback if failure else "")
    if failure:
        raise failure


def _keep(partial, path, notebook, root):
    """Put an executed notebook where it goes, without this machine's paths and environment in papermill's metadata."""
    import nbformat

    from cawalib.files import atomic

    nb = nbformat.read(partial, as_version=4)
    record = nb.metadata.get("papermill", {})
    for key in ("environment_variables", "output_path"):
        record.pop(key, None)
    inside = notebook.is_relative_to(root)
    record["input_path"] = notebook.relative_to(root).as_posix() if inside else notebook.name
    try:
        with atomic(path) as whole:
            nbformat.write(nb, whole)
    except OSError as error:
        raise _failure_outside(error, path) from None
    partial.unlink()


def _kept(partial, failed, notebook, root):
    """Keep a failed notebook; False where it was cut short, of which nothing stays."""
    try:
        _keep(partial, failed, notebook, root)
        return True
    except (ValueError, OSError, NotebookError):
        partial.unlink(missing_ok=True)
        return False


def _failure_outside(error, path):
    """An error of the runner's own, while it wrote a notebook or spoke with the kernel."""
    from cawalib.files import DiskFullError, no_room

    if no_room(error):
        return NotebookError(str(DiskFullError(path)))
    return NotebookError(f"{type(error).__name__}: {checks.last_line(str(error))}")


@contextlib.contextmanager
def headless():
    """Nobody looks at what runs in here: no progress bars (see `progress`)."""
    before = os.environ.get("CAWALIB_HEADLESS")
    os.environ["CAWALIB_HEADLESS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("CAWALIB_HEADLESS")
        if before is not None:
            os.environ["CAWALIB_HEADLESS"] = before


def waiting_kernels() -> list[int]:
    """Process ids of kernels that were forked for the notebook that is about to run (see `warm_kernel`)."""
    module = sys.modules.get("cawalib.notebook.warm_kernel")
    return module.waiting() if module else []


@contextlib.contextmanager
def _forwarded_signals():
    """Pass SIGTERM and SIGINT on to the kernel as SIGTERM, for it has a session of its own. Yields an Event.

    Only the kernel itself gets the signal: its data workers must live until its checkpoint is written.
    After GRACE seconds the kernel and every process it had started are killed.
    """
    import psutil

    asked, seen = threading.Event(), []
    before = [child for child in psutil.Process().children() if child.pid not in waiting_kernels()]

    def each(action):
        for process in seen:
            with contextlib.suppress(psutil.Error):
                action(process)

    def forward(number, frame):
        if asked.is_set():
            return
        asked.set()
        for kernel in [process for process in psutil.Process().children() if process not in before]:
            with contextlib.suppress(psutil.Error):
                seen.extend([kernel, *kernel.children(recursive=True)])
                kernel.terminate()
        watchdog.start()

    watchdog = threading.Timer(GRACE, each, [psutil.Process.kill])
    watchdog.daemon = True
    main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, forward)
                for number in (signal.SIGTERM, signal.SIGINT) if main_thread}
    try:
        yield asked
    finally:
        if seen:  # what the kernel left behind
            each(psutil.Process.terminate)
            psutil.wait_procs(seen, timeout=GRACE)
            each(psutil.Process.kill)
        watchdog.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
