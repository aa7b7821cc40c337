"""What plain papermill lets pass is an error: each error once, most of them before any kernel starts."""

import ast
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from cawalib.notebook import (
    CallError,
    NotebookError,
    ParameterError,
    parameters,
    refresh,
    run,
    runner,
    source_digest,
    start,
)
from cawalib.notebook.__main__ import main
from cawalib.notebook.checks import FORESEEN
from cawalib.notebook.parameter_cell import PLACEHOLDER

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = "epochs = 3  # passes\nrate = 0.5\nlabel = 'a'\naugment = True\nscales = [0.5, 1.0]"


def write_notebook(path, *sources, parameters=PARAMETERS, kernel="python3", tags=("parameters",)):
    """A notebook with a parameters cell and one code cell per source."""
    cells = [nbformat.v4.new_markdown_cell("# Title")]
    cells += [nbformat.v4.new_code_cell(parameters, metadata={"tags": [tag]}) for tag in tags]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    spec = {"name": kernel, "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return path


@pytest.fixture
def forbidden(monkeypatch):
    """Nothing may be executed: these errors come before."""
    def execute(*arguments):
        pytest.fail("executed")
    monkeypatch.setattr(runner, "_execute", execute)


# Before the run: exit code 2, one line on stderr, no file left -----------------------------------------

BAD_PARAMETERS = {
    "unknown": (["epoch", "3"], "unknown parameter 'epoch' = '3': did you mean 'epochs'?"),
    "int": (["epochs", "ten"], "parameter 'epochs': found 'ten' (str), expected int"),
    "int from float": (["epochs", "3.5"], "parameter 'epochs': found '3.5' (str), expected int"),
    "int from bool": (["epochs", "true"], "parameter 'epochs': found 'true' (str), expected int"),
    "float": (["rate", "fast"], "parameter 'rate': found 'fast' (str), expected float"),
    "not finite": (["rate", "nan"], "parameter 'rate': found nan (float), expected a finite number"),
    "bool": (["augment", "1"], "parameter 'augment': found '1' (str), expected bool (true or false)"),
    "list": (["scales", "0.5"], "parameter 'scales': found 0.5 (float), expected list"),
    "list item": (["scales", "[1, big]"], "parameter 'scales[1]': found 'big' (str), expected float"),
}


def fails_early(arguments, message, capsys):
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cawalib.notebook: error: ") and message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_a_bad_parameter_is_refused(tmp_path, capsys, forbidden, case):
    given, message = BAD_PARAMETERS[case]
    source = write_notebook(tmp_path / "a.ipynb")
    fails_early([source, tmp_path / "out.ipynb", "-p", *given], message, capsys)
    assert os.listdir(tmp_path) == ["a.ipynb"]


BAD_NOTEBOOKS = {
    "no parameters cell": ({"tags": ()}, "found 0 code cells tagged 'parameters', expected one"),
    "two parameters cells": ({"tags": ("parameters", "parameters")}, "found 2 code cells tagged"),
    "executed before": ({"tags": ("parameters", "injected-parameters")}, "found papermill's injected cell"),
    "other kernel": ({"kernel": "ir"}, "found kernel 'ir', expected 'python3'"),
    "call": ({"parameters": "epochs = int(3)"}, "parameters cell, line 1: found 'epochs = int(3)', expected"),
    "import": ({"parameters": "epochs = 3\nimport os"}, "parameters cell, line 2: found 'import os', expected"),
    "syntax": ({"parameters": "%matplotlib inline"}, "parameters cell, line 1: found '%matplotlib inline'"),
    "twice": ({"parameters": "a = 1\na = 2"}, "parameters cell, line 2: found 'a = 2', expected"),
    "no literal type": ({"parameters": "a = (1, 2)"}, "parameters cell, line 1: found 'a = (1, 2)', expected"),
}


@pytest.mark.parametrize("case", BAD_NOTEBOOKS)
def test_a_bad_notebook_is_refused(tmp_path, capsys, forbidden, case):
    changes, message = BAD_NOTEBOOKS[case]
    source = write_notebook(tmp_path / "a.ipynb", **changes)
    fails_early([source, tmp_path / "out.ipynb"], message, capsys)
    assert os.listdir(tmp_path) == ["a.ipynb"]


def test_a_missing_or_broken_notebook_file_is_refused(tmp_path, capsys, forbidden):
    fails_early([tmp_path / "a.ipynb", tmp_path / "out.ipynb"], "a.ipynb: not found", capsys)
    (tmp_path / "b.ipynb").write_text("{")
    fails_early([tmp_path / "b.ipynb", tmp_path / "out.ipynb"], "b.ipynb: not a notebook", capsys)
    (tmp_path / "c.ipynb").write_text("{}")
    fails_early([tmp_path / "c.ipynb", tmp_path / "out.ipynb"], "c.ipynb: not a notebook", capsys)


def test_an_output_that_cannot_be_is_refused(tmp_path, capsys, forbidden):
    source = write_notebook(tmp_path / "a.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    fails_early([source, tmp_path / "absent" / "out.ipynb"], "its folder does not exist; make it, or add", capsys)
    fails_early([source, source], "expected a file ending in .ipynb, other than the notebook", capsys)
    fails_early([source, tmp_path / "folder.ipynb"], "expected a file ending in .ipynb", capsys)
    fails_early([source, tmp_path / "out.html"], "expected a file ending in .ipynb", capsys)
    fails_early([source, tmp_path / ("x" * 300 + ".ipynb")], "cannot be written (File name too long)", capsys)
    fails_early([source, tmp_path / ("x" * 300) / "out.ipynb"], "its folder does not exist", capsys)
    fails_early([tmp_path / ("x" * 300 + ".ipynb"), tmp_path / "out.ipynb"], "not found", capsys)
    fails_early([source, source / "new" / "out.ipynb", "--make-folder"], "cannot be written (Not a dir", capsys)


def test_a_bad_command_line_is_refused(tmp_path, capsys, forbidden):
    source = write_notebook(tmp_path / "a.ipynb")
    fails_early([source], "found 1 file names, expected NOTEBOOK and OUT", capsys)
    fails_early([source, "out.ipynb", "-p", "epochs"], "argument -p: expected 2 arguments", capsys)
    fails_early([source, "out.ipynb", "-p", "epochs", 1, "-p", "epochs", 2], "given more than once", capsys)
    fails_early(["--refresh", source, "-p", "epochs", 1], "found -p or --expect beside --refresh", capsys)
    for seconds in ("0", "-1", "nan"):
        message = f"timeout: found {seconds} seconds, expected above 0; leave it out for no limit"
        fails_early([source, tmp_path / "out.ipynb", f"--timeout={seconds}"], message, capsys)


def test_typed_values_are_checked_too(tmp_path, forbidden):
    source = write_notebook(tmp_path / "a.ipynb")
    for value in (True, 3.0, "3", None):
        with pytest.raises(ParameterError, match="parameter 'epochs': found .*, expected int"):
            run(source, tmp_path / "out.ipynb", {"epochs": value})


# Runs --------------------------------------------------------------------------------------------------

def test_a_good_run_leaves_only_the_output(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the kernel works in the repository root all the same
    monkeypatch.delenv("CAWALIB_HEADLESS", raising=False)  # nbval's conftest sets it
    check = ("import os, pathlib; from cawalib.notebook import start\n"
             "assert os.environ['CAWALIB_HEADLESS'] == '1' and pathlib.Path.cwd() == start()\n"
             "print('given', epochs, repr(rate), label, augment, scales)")
    source = write_notebook(tmp_path / "a.ipynb", check, "pathlib.Path(label).write_text('')")
    product = tmp_path / "12"
    output = tmp_path / "new" / "{out}.ipynb"  # papermill would fill in the braces
    given = {"epochs": "7", "rate": "1", "label": product, "augment": "FALSE", "scales": "[1, 0.25]"}
    pairs = [text for name, value in given.items() for text in ("-p", name, str(value))]
    assert main([str(source), str(output), *pairs, "--expect", "12", "--make-folder"]) == 0
    line = f"given 7 1.0 {product} False [1.0, 0.25]\n"
    assert capfd.readouterr().out == line
    assert os.listdir(output.parent) == ["{out}.ipynb"]
    nb = nbformat.read(output, as_version=4)
    assert nb.cells[3].outputs[0].text == line
    record = nb.metadata["papermill"]
    assert record["parameters"]["epochs"] == 7 and record["duration"] > 0
    assert record["input_path"] == "a.ipynb" and not {"output_path", "environment_variables"} & record.keys()
    assert "CAWALIB_HEADLESS" not in os.environ


def test_a_failing_cell_keeps_the_previous_output(tmp_path, capsys):
    source = write_notebook(tmp_path / "a.ipynb", "raise ValueError('first line\\nlast line')", "print('after')")
    output = tmp_path / "out.ipynb"
    output.write_text("previous")
    assert main([str(source), str(output)]) == 1
    error = capsys.readouterr().err
    failed = tmp_path / "out.failed.ipynb"
    assert error.splitlines()[-1] == ("cawalib.notebook: error: a.ipynb: cell In [2]: ValueError: last line; "
                                      f"see {failed}")
    assert "----> 1 raise ValueError" in error and "\x1b" not in error
    assert output.read_text() == "previous"
    assert sorted(os.listdir(tmp_path)) == ["a.ipynb", "out.failed.ipynb", "out.ipynb"]
    assert "environment_variables" not in nbformat.read(failed, as_version=4).metadata["papermill"]


@pytest.mark.parametrize("cell, message", [
    ("import sys; sys.exit()", r"cell In \[2\]: SystemExit: the notebook ended early"),
    ("import os; os._exit(0)", r"cell In \[2\]: the kernel died"),
])
def test_an_early_exit_is_an_error(tmp_path, cell, message):
    source = write_notebook(tmp_path / "a.ipynb", cell, "print('after')")
    with pytest.raises(NotebookError, match=message):
        run(source, tmp_path / "out.ipynb")
    assert sorted(os.listdir(tmp_path)) == ["a.ipynb", "out.failed.ipynb"]


def test_a_cell_over_the_timeout_is_an_error(tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", "import time; time.sleep(600)")
    with pytest.raises(NotebookError, match="took longer than the timeout, 1 s"):
        run(source, tmp_path / "out.ipynb", timeout=1)


def test_an_absent_artifact_is_an_error_and_a_success_clears_it(tmp_path):
    source = write_notebook(tmp_path / "a.ipynb")
    product, output = tmp_path / "metrics.json", tmp_path / "out.ipynb"
    with pytest.raises(NotebookError, match="expected file .*metrics.json is absent after the run"):
        run(source, output, expect=[product])
    assert sorted(os.listdir(tmp_path)) == ["a.ipynb", "out.failed.ipynb"]
    product.touch()
    run(source, output, expect=[product])
    assert sorted(os.listdir(tmp_path)) == ["a.ipynb", "metrics.json", "out.ipynb"]


# One line, or the traceback -----------------------------------------------------------------------------

def raises(error):
    def execute(*arguments, **options):
        raise error
    return execute


@pytest.mark.parametrize("name, arguments, shown", [
    ("ConfigError", (), False), ("ConfigError", ("--traceback",), True), ("KeyError", (), True)])
def test_a_foreseen_error_is_one_line(tmp_path, capsys, monkeypatch, name, arguments, shown):
    source, output = write_notebook(tmp_path / "a.ipynb", "raise"), tmp_path / "out.ipynb"
    failure = papermill.PapermillExecutionError(2, 2, "raise", name, "what to do", ["\x1b[31mline 1\x1b[0m", "line 2"])
    monkeypatch.setattr(papermill, "execute_notebook", raises(failure))
    assert main([str(source), str(output), *arguments]) == 1
    line = f"cawalib.notebook: error: a.ipynb: cell In [2]: {name}: what to do; see {tmp_path / 'out.failed.ipynb'}\n"
    assert capsys.readouterr().err == "line 1\nline 2\n" * shown + line


def test_every_error_of_the_library_is_foreseen():
    names = set(FORESEEN)
    for path in (ROOT / "cawalib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if any(base.endswith("Error") for base in bases):
                    assert node.name in FORESEEN, path
                    names.discard(node.name)
    assert names == set()


def test_a_full_disk_leaves_no_half_notebook(tmp_path, monkeypatch, capsys):
    source, output = write_notebook(tmp_path / "a.ipynb", "1"), tmp_path / "out.ipynb"
    output.write_text("previous")

    def half(path, *arguments, **options):
        Path(path).write_text('{"cells": [')
        raise OSError(errno.ENOSPC, "No space left on device")

    def nothing_more(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for owner, name, does in ((papermill, "execute_notebook", half), (runner, "_execute", nothing_more)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, does)
            try:
                assert main([str(source), str(output)]) == 1
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        error = capsys.readouterr().err
        assert f"a.ipynb: {output}: cannot be written, the disk is full" in error and error.count("\n") == 1
        assert output.read_text() == "previous" and sorted(os.listdir(tmp_path)) == ["a.ipynb", "out.ipynb"]
    nothing_more()
    try:
        assert main([str(source), str(tmp_path / "other.ipynb")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "other.ipynb: cannot be written (File too large)" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["a.ipynb", "out.ipynb"]


# More parameters, and cells that are left out -----------------------------------------------------------

def with_more(path, *sources, placeholder=PLACEHOLDER, more="depth = 4\nwide = False"):
    """A notebook with a second cell of parameters, and the cell that papermill replaces below it."""
    nb = nbformat.read(write_notebook(path, *sources), as_version=4)
    added = [("more-parameters", more), ("injected-parameters", placeholder)]
    nb.cells[2:2] = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}) for tag, source in added if source]
    nbformat.write(nb, path)
    return path


@pytest.mark.long
def test_both_cells_of_parameters_can_be_set_also_by_plain_papermill(tmp_path):
    source = with_more(tmp_path / "a.ipynb", "print(epochs, rate, depth, wide)")
    run(source, tmp_path / "ours.ipynb", {"epochs": 7, "depth": 9})
    plain = [sys.executable, "-m", "papermill", source, tmp_path / "plain.ipynb"]
    plain += ["-p", "epochs", "7", "-p", "depth", "9"]
    subprocess.run(plain, check=True, capture_output=True)
    for name in ("ours", "plain"):
        cells = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells
        assert cells[-1].outputs[0].text == "7 0.5 9 False\n"
    with pytest.raises(ParameterError, match="unknown parameter 'dept' = 9: did you mean 'depth'?"):
        run(source, tmp_path / "no.ipynb", {"dept": 9})


@pytest.mark.parametrize("options, message", [
    ({"placeholder": ""}, "put a cell tagged 'injected-parameters' below it"),
    ({"placeholder": "# Parameters\nepochs = 7"}, "found papermill's injected cell"),
    ({"more": "epochs = 4"}, "expected `name = literal`, each name once"),
])
def test_a_second_cell_of_parameters_that_would_go_wrong(tmp_path, forbidden, options, message):
    with pytest.raises(CallError, match=message):
        run(with_more(tmp_path / "a.ipynb", **options), tmp_path / "out.ipynb")


def test_cells_with_a_tag_are_left_out(tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", "1 / 0", "print('kept')")
    nb = nbformat.read(source, as_version=4)
    nb.cells[2].metadata["tags"] = ["walk-through"]
    nbformat.write(nb, source)
    assert main([str(source), str(tmp_path / "out.ipynb"), "--leave-out", "walk-through"]) == 0
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert [cell.source for cell in cells[2:]] == ["print('kept')"] and cells[2].outputs[0].text == "kept\n"


# Termination -------------------------------------------------------------------------------------------

TRAINING = """
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(label)
worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def save(number, frame):
    (folder / 'checkpoint').write_text('worker is alive' if worker.poll() is None else 'worker is dead')
    raise RuntimeError('stopped')
signal.signal(signal.SIGTERM, save)
(folder / 'pids.part').write_text(f'{os.getpid()} {worker.pid}')
(folder / 'pids.part').rename(folder / 'pids')
while True:
    time.sleep(0.1)
"""


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def end_training(tmp_path):
    """Start a run, send it a signal once its cell is at work; its exit code, stderr and what still runs."""
    def end(command, number):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        while not (tmp_path / "pids").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        started.extend(psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split())
        process.send_signal(number)
        error = process.communicate(timeout=100)[1]
        return process.returncode, error, [kernel for kernel in started[1:] if is_running(kernel.pid)]

    started = []
    yield end
    for process in started:
        if is_running(process.pid):
            process.kill()


@pytest.mark.long
def test_sigterm_lets_the_cell_save_and_leaves_no_process(tmp_path, end_training):
    source = write_notebook(tmp_path / "a.ipynb", TRAINING, "(folder / 'went on').touch()")
    command = [sys.executable, "-m", "cawalib.notebook", source, tmp_path / "out.ipynb", "-p", "label", tmp_path]
    code, error, running = end_training(command, signal.SIGTERM)
    assert code == 143 and running == []
    assert "terminated; a started run resumes from its checkpoint" in error.splitlines()[-1]
    assert (tmp_path / "checkpoint").read_text() == "worker is alive"
    assert sorted(os.listdir(tmp_path)) == ["a.ipynb", "checkpoint", "out.failed.ipynb", "pids"]


@pytest.mark.long
def test_a_cell_that_does_not_end_at_sigint_is_killed_after_the_grace(tmp_path, end_training):
    source = write_notebook(tmp_path / "a.ipynb", TRAINING.replace("    raise RuntimeError('stopped')\n", ""))
    code = ("import sys; from cawalib.notebook import runner; from cawalib.notebook.__main__ import main; "
            "runner.GRACE = 1; sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", code, source, tmp_path / "out.ipynb", "-p", "label", tmp_path]
    code, _, running = end_training(command, signal.SIGINT)
    assert code == 143 and running == [] and (tmp_path / "checkpoint").exists()


# Refresh -----------------------------------------------------------------------------------------------

def test_refresh_stores_outputs_and_the_digest_of_their_source(tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", "print(epochs)")
    refresh(source)
    text = source.read_text()
    nb = nbformat.reads(text, as_version=4)
    assert nb.cells[2].outputs[0].text == "3\n" and nb.cells[2].metadata == {}
    assert nb.cells[1].metadata == {"tags": ["parameters"]}
    assert set(nb.metadata) == {"kernelspec", "language_info", "cawalib"}
    assert nb.metadata["cawalib"]["source_digest"] == source_digest(nb)
    nb.cells[2].source += "  # changed"
    assert nb.metadata["cawalib"]["source_digest"] != source_digest(nb)
    assert os.listdir(tmp_path) == ["a.ipynb"]


def test_refresh_refuses_what_should_not_be_committed(tmp_path, capsys):
    cells = {"import sys; print('w', file=sys.stderr)": "cell In [2]: found output on stderr, expected none: 'w'",
             f"print({str(ROOT)!r})": f"cell In [2]: found {str(ROOT)!r} in its output",
             "1 / 0": "cell In [2]: ZeroDivisionError: division by zero"}
    for cell, message in cells.items():
        source = write_notebook(tmp_path / "a.ipynb", cell)
        before = source.read_text()
        assert main(["--refresh", str(source)]) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert source.read_text() == before and os.listdir(tmp_path) == ["a.ipynb"]


# In a notebook -----------------------------------------------------------------------------------------

@dataclass
class Settings:
    epochs: int = 3
    rate: float = 0.5
    label: str = "a"
    resume: str | None = None


def test_parameters_takes_the_fields_and_ignores_what_is_no_parameter():
    namespace = {"epochs": 7, "rate": 1, "os": os, "Path": Path, "root": ROOT, "write_notebook": write_notebook,
                 "_i": "x", "__name__": "__main__", "In": [""], "Out": {}, "exit": object()}
    assert parameters(namespace, Settings) == Settings(7, 1.0, "a", None)
    assert type(parameters(namespace, Settings).rate) is float


@pytest.mark.parametrize("namespace, message", [
    ({"epoch": 3}, r"unknown parameter 'epoch' = 3: did you mean 'epochs'\?"),
    ({"zzz": None}, r"unknown parameter 'zzz' = None: known are epochs, rate, label, resume"),
    ({"epochs": "ten"}, r"parameter 'epochs': found 'ten' \(str\), expected int"),
    ({"epochs": True}, r"parameter 'epochs': found True \(bool\), expected int"),
    ({"epochs": 3.0}, r"parameter 'epochs': found 3.0 \(float\), expected int"),
    ({"rate": float("inf")}, r"parameter 'rate': found inf \(float\), expected a finite number"),
    ({"resume": 1}, r"parameter 'resume': found 1 \(int\), expected str or NoneType"),
])
def test_parameters_refuses(namespace, message):
    with pytest.raises(ParameterError, match=message):
        parameters(namespace, Settings)


def test_parameters_in_ipython_looks_at_the_cells_run_last():
    now, cell = "settings = parameters(globals(), Settings)", "epochs = 3\nepoch = 4\n"
    injected = "# Parameters\nepoch = 4\n"
    later = {"epochs": 3, "epoch": 4, "best": 0.7}  # a variable of a later cell, when this one is run again
    in_two = ["epochs = 3\n", "rate = 1.0\n", PLACEHOLDER]  # a typo in either of two cells
    for history in ([cell, now], ["epochs = 3\n", injected, now], [cell, "print(epochs)\n", now],
                    [cell, *in_two[1:], now], [in_two[0], "rate = 1.0\nepoch = 4\n", in_two[2], now]):
        with pytest.raises(ParameterError, match="unknown parameter 'epoch' = 4"):
            parameters(later | {"In": ["", *history]}, Settings)
    corrected = ["", cell, now, "epochs = 3\n", now]
    assert parameters(later | {"In": corrected}, Settings) == Settings(3)


def test_start_goes_to_the_repository_root(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    assert start() == ROOT == Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert start() == ROOT == Path.cwd()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert start() == tmp_path == Path.cwd()


def test_start_without_a_repository_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "__file__", str(tmp_path / "site-packages" / "cawalib" / "notebook.py"))
    with pytest.raises(CallError, match="no repository .* found above"):
        start()


def test_the_import_is_light():
    code = "import sys, cawalib.notebook; print([m for m in ('torch', 'papermill', 'nbclient') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
