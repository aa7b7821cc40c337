"""What an installation holds: little for `CAWALoss`, and for each room the extra that names what it imports."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cawalib
from cawalib import extras

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = {module: {name.lower().replace("_", "-") for name in names}
            for module, names in importlib.metadata.packages_distributions().items()}
ROOMS = {"method": None, "__init__.py": None, "notebook": "notebooks", "results": "notebooks"}  # all others: train


def named(requirements):
    """The packages that requirements name; those of another extra of ours as well."""
    names = set()
    for line in requirements:
        own = re.fullmatch(r"cawalib\[(.+)\]", line)
        names |= named(PROJECT["optional-dependencies"][own[1]]) if own else {re.match(r"[\w-]+", line)[0]}
    return names


def imported(path):
    """The packages that a file imports, anywhere in it, beside Python's own and ours."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [name.name for name in node.names] if isinstance(node, ast.Import) else \
            [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"cawalib"}


@pytest.mark.parametrize("extra", [None, "train", "notebooks"])
def test_an_extra_names_what_its_rooms_import(extra):
    wanted = {module for path in (ROOT / "cawalib").rglob("*.py") for module in imported(path)
              if ROOMS.get(path.relative_to(ROOT / "cawalib").parts[0], "train") == extra}
    offered = named(PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, []))
    if extra == "train":
        wanted.remove("IPython")  # asked by `progress` in a live notebook alone, where it is
    assert wanted and {module for module in wanted if not PACKAGES[module] & offered} == set()


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.long
def test_the_method_loads_nothing_but_torch_and_numpy():
    loaded = python("import sys, torch, numpy\nbefore = {*sys.modules}\n"
                    "from cawalib import CAWALoss, CAWAWeights, fit_decision\nprint(*{*sys.modules} - before)")
    assert "cawalib.method.cawa_loss" in loaded
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"cawalib"}
    assert len(loaded - {name for name in loaded if name.startswith("cawalib")}) < 5  # and so it is quick


@pytest.mark.long
def test_figures_load_no_torchvision():
    """Which takes as long as torch itself, and they need none of it."""
    assert "torchvision" not in python("import sys, cawalib.results.figures, cawalib.training\nprint(*sys.modules)")


def test_torch_is_loaded_when_it_is_asked_for():
    assert "torch" not in python("import sys, cawalib.settings\nassert cawalib.__version__\nprint(*sys.modules)")
    from cawalib.method import CAWALoss
    assert cawalib.CAWALoss is CAWALoss and set(cawalib.__all__) <= set(dir(cawalib))
    with pytest.raises(AttributeError, match="module 'cawalib' has no attribute 'CAWAloss'"):
        cawalib.CAWAloss  # noqa: B018


def test_a_missing_extra_is_said_in_one_line(monkeypatch):
    lines = ["torch>=2.5", 'pandas; extra == "train"', 'no-such-package>=9; extra == "train"',
             'nor-this; extra == "notebooks"', 'cawalib[train]; extra == "notebooks"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    expected = r"cawalib: found no package no-such-package, expected those of its extra 'train'; in the repository: " \
               r'pip install "\.\[train\]"'
    with pytest.raises(ImportError, match=expected):
        extras.require("train")
    monkeypatch.setattr(sys, "argv", ["-m"])  # as while a command is being looked up
    with pytest.raises(SystemExit, match=expected):
        extras.require("train")
    lines[2:4] = []
    extras.require("train")
    extras.require("notebooks")
