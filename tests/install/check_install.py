"""The wheel in bare environments: alone, with the lowest versions, with each extra; what they promise is run.

Not collected by `make test`: `make test-install` calls it. Environments are made one at a time in a temporary folder,
with the versions of requirements.lock, and removed again.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def call(*command, cwd, text=None, fails=False):
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=ENVIRONMENT, input=text, text=True,
                          capture_output=True)
    assert (done.returncode != 0) == fails, done.stdout[-2000:] + done.stderr[-5000:]
    return (done.stderr if fails else done.stdout).strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    # by way of the sdist, so that it holds all that is needed
    call(UV, "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture
def bare(wheel, tmp_path):
    """Makes an environment with the wheel and an extra, and gives what runs Python in it, outside the repository."""
    folder = tmp_path / "environment"

    def install(extra="", *options):
        call(UV, "venv", "--quiet", "--python", sys.executable, folder, cwd=tmp_path)
        options = options or ("--constraints", ROOT / "requirements.lock")
        call(UV, "pip", "install", "--quiet", "--python", folder, *options, f"cawalib{extra} @ {wheel.as_uri()}",
             cwd=tmp_path)

        def python(*words, **options):
            return call(folder / "bin" / "python", *words, **{"cwd": tmp_path} | options)

        assert Path(python("-c", "import cawalib; print(cawalib.__file__)")).is_relative_to(folder)
        return python

    yield install
    shutil.rmtree(folder)


def packages(lines):
    return {re.split("[ =]", line)[0] for line in lines.splitlines() if "==" in line}


SECONDS = """
import resource, sys
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
from cawalib import CAWALoss
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime - before)
"""
LOOP = """
import torch
from torch import nn
torch.manual_seed(0)
device, image = "cpu", torch.randn(1, 3, 32, 32)
network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 19, 1))
loader = [(torch.randn(2, 3, 32, 32), torch.randint(0, 19, (2, 32, 32))) for _ in range(3)]
"""
AFTER = """
assert not torch.equal(criterion.weight, torch.ones(19)) and classes.shape == (1, 32, 32)
"""


def test_alone_it_brings_torch_and_numpy_and_runs_the_loop_of_the_readme(bare, tmp_path):
    python = bare()
    expected = call(UV, "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--constraints",
                    ROOT / "requirements.lock", "--python-version", f"3.{sys.version_info.minor}", "-",
                    cwd=tmp_path, text="torch\nnumpy\n")
    found = packages(call(UV, "pip", "freeze", "--python", tmp_path / "environment", cwd=tmp_path))
    print(f"\n{len(found)} packages: {', '.join(sorted(found))}")
    assert found == packages(expected)  # cawalib itself is listed as a file, without a ==

    section = (ROOT / "README.md").read_text().split("## In your own training loop")[1]
    python("-c", LOOP + re.search(r"```python\n(.*?)```", section, re.DOTALL)[1] + AFTER)

    python("-c", "import cawalib.datasets", fails=True)
    said = python("-m", "cawalib.results.publish", "demo", fails=True)
    assert said.startswith("cawalib: found no package") and 'pip install ".[notebooks]"' in said and "\n" not in said

    seconds = [float(python("-c", SECONDS)) for _ in range(7)]
    print(f"from cawalib import CAWALoss: {statistics.median(seconds):.3f} s of user time beyond import torch, the "
          f"median of {len(seconds)} ({min(seconds):.3f} to {max(seconds):.3f})")
    assert statistics.median(seconds) < 0.2  # what the installation promises, some ten times what it takes


def test_the_lowest_versions_pass_what_needs_no_other_package(bare):
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    python = bare("", "pytest", *[line.replace(">=", "==") for line in lowest])
    print("\n" + python("-c", "import torch, numpy; print('torch', torch.__version__, 'numpy', numpy.__version__)"))
    # networks of torchvision are not there; FSDP2 is not right on a CPU up to torch 2.8
    print(python("-m", "pytest", "-q", "-p", "no:cacheprovider", ROOT / "tests" / "test_scoring.py",
                 ROOT / "tests" / "test_own_loop.py", "-k", "not known_networks and not several_that_fit and not fsdp"))


TRAIN = """
import cawalib.datasets
from cawalib.runs import RunConfig
from cawalib.training import train
run = train(RunConfig(method="cawa", train_images=8, image_height=32, image_width=64, epochs=1, batch_size=4,
                      device="cpu"))
assert (run.folder / "metrics.json").is_file()
"""


def test_train_trains(bare):
    python = bare("[train]")
    python("-c", TRAIN)
    python("-c", "import cawalib.results", fails=True)


def test_notebooks_runs_a_notebook(bare, tmp_path):
    python = bare("[notebooks]")
    repository = tmp_path / "repository"  # without cawalib, so that the installed one is used
    shutil.copytree(ROOT / "notebooks", repository / "notebooks")
    shutil.copy(ROOT / "pyproject.toml", repository)
    python("-c", "import cawalib.results, cawalib.notebook; cawalib.results.compare", cwd=repository)
    python("-m", "cawalib.notebook", "notebooks/01_data_preparation.ipynb", "out.ipynb", cwd=repository)
    assert (repository / "out.ipynb").stat().st_size > 10_000
