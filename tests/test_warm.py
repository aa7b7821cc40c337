"""A job of the warm process ends as a job of its own would: same notebook, same errors, same end at a signal."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from test_notebook_runner import ROOT, TRAINING, is_running, write_notebook

from cawalib.notebook import warm

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="a warm process is for Linux alone")]
# with less to import than the batches need
SERVER = """
import sys
from cawalib.notebook import warm
warm.IMPORTED = ('papermill', 'ipykernel.kernelapp', 'cawalib.notebook.warm_kernel')
warm.main(sys.argv[1])
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "socket"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", SERVER, folder / "warm"], stdin=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    while not (folder / "warm").exists():
        time.sleep(0.01)
    monkeypatch.setenv(warm.VARIABLE, str(folder / "warm"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield process
    process.stdin.close()
    process.wait(timeout=60)
    assert not folder.exists()


def job(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "cawalib.notebook", *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def outputs(path):
    nb = nbformat.read(path, as_version=4)
    return [(cell.get("execution_count"), cell.get("outputs")) for cell in nb.cells]


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it never came to that")


def test_the_same_notebook_streams_and_exit_codes(server, tmp_path, monkeypatch):
    source = write_notebook(tmp_path / "a.ipynb", "import os; os.getcwd(), os.environ['COLOUR'], epochs, __name__",
                            "print('seen'); os.read(0, 1)", "import matplotlib.pyplot as plt; plt.plot([1, 2]);")
    monkeypatch.setenv("COLOUR", "green")
    wrong = job(source, tmp_path / "no.ipynb", "-p", "epoch", "3")
    failing = job(write_notebook(tmp_path / "b.ipynb", "1 / 0"), tmp_path / "b_out.ipynb")
    ours = job(source, tmp_path / "ours.ipynb", "-p", "epochs", "7")
    assert ours.communicate(timeout=100)[0] == "seen\n" and ours.returncode == 0
    assert "did you mean 'epochs'?" in wrong.communicate()[1] and wrong.returncode == 2
    error = failing.communicate()[1]
    assert failing.returncode == 1 and "ZeroDivisionError" in error and "Traceback" in error
    monkeypatch.delenv(warm.VARIABLE)
    alone = job(source, tmp_path / "alone.ipynb", "-p", "epochs", "7")
    assert alone.communicate(timeout=100)[0] == "seen\n"
    assert outputs(tmp_path / "ours.ipynb") == outputs(tmp_path / "alone.ipynb")


def test_a_signal_reaches_the_cell_of_its_own_job_alone(server, tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", TRAINING)
    jobs, kernels = [], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        jobs.append(job(source, tmp_path / name / "out.ipynb", "-p", "label", tmp_path / name))
        until((tmp_path / name / "pids").exists)
        kernels.append(int((tmp_path / name / "pids").read_text().split()[0]))
    jobs[0].send_signal(signal.SIGTERM)
    assert "terminated; a started run resumes" in jobs[0].communicate(timeout=100)[1] and jobs[0].returncode == 143
    assert (tmp_path / "one" / "checkpoint").read_text() == "worker is alive" and not is_running(kernels[0])
    assert is_running(kernels[1]) and not (tmp_path / "two" / "checkpoint").exists()
    jobs[1].kill()  # without a chance to say anything
    jobs[1].communicate()
    until(lambda: not is_running(kernels[1]))
    for name in ("one", "two"):
        worker = int((tmp_path / name / "pids").read_text().split()[1])
        if is_running(worker):
            psutil.Process(worker).kill()


def test_a_job_is_told_to_end_when_whoever_started_the_warm_process_has_ended(server, tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", TRAINING)
    ours = job(source, tmp_path / "out.ipynb", "-p", "label", tmp_path)
    until((tmp_path / "pids").exists)
    kernel, worker = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    server.stdin.close()
    assert "terminated; a started run resumes" in ours.communicate(timeout=100)[1] and ours.returncode == 143
    assert (tmp_path / "checkpoint").exists() and not is_running(kernel)
    assert server.wait(timeout=10) == 0
    server.stdin = subprocess.Popen("true", stdin=subprocess.PIPE).stdin
    if is_running(worker):
        psutil.Process(worker).kill()


def test_the_warm_process_killed_in_the_middle(server, tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", TRAINING)
    ours = job(source, tmp_path / "out.ipynb", "-p", "label", tmp_path)
    until((tmp_path / "pids").exists)
    kernel, worker = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    server.kill()
    assert "the warm process ended before its job; start the job again" in ours.communicate(timeout=100)[1]
    assert ours.returncode == 1
    until(lambda: not is_running(kernel))
    assert (tmp_path / "checkpoint").exists()  # the job was told to end, and its cell had time to save
    if is_running(worker):
        psutil.Process(worker).kill()
    (tmp_path / "socket" / "warm").unlink()
    (tmp_path / "socket").rmdir()


def test_without_a_warm_process_that_fits_a_job_is_done_as_ever(monkeypatch, tmp_path):
    monkeypatch.delenv(warm.VARIABLE, raising=False)
    assert warm.call([]) is None
    monkeypatch.setenv(warm.VARIABLE, str(tmp_path / "gone"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert warm.call([]) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert warm.call([]) is None


def test_the_batches_start_one_that_ends_with_them(tmp_path, monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, "")
    monkeypatch.setattr(warm, "__name__", "timeit")  # any module that does not wait for jobs
    process = warm.start()
    place = os.path.dirname(os.environ[warm.VARIABLE])
    assert os.stat(place).st_mode & 0o777 == 0o700
    process.stdin.close()
    process.wait(timeout=60)
    os.rmdir(place)
