"""Seven rooms, each importing only those before it, each with a face; and a method that needs torch and numpy alone."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cawalib"
ROOMS = ["method", "datasets", "runs", "training", "predict", "results", "notebook"]
DOORS = {("runs/folders.py", "cawalib.predict")}  # opened when a run is asked for them, never when it is imported
GROUND = ["extras", "files", "progress", "settings"]
FACES = {f"cawalib.{room}" for room in ROOMS} | {"cawalib.results.figures"}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported(path):
    """The modules of cawalib that a file imports, `from a import b` as a, or as a.b where that is a module."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "cawalib")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"cawalib.{path.parts[0]}"  # a file beside it
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "cawalib":
            for name in node.names:
                inner = Path(*node.module.split(".")[1:], name.name)
                is_module = (PACKAGE / inner).with_suffix(".py").exists() or (PACKAGE / inner).is_dir()
                yield ".".join(("cawalib", *inner.parts)) if is_module else node.module


@pytest.mark.parametrize("path", FILES, ids=str)
def test_order_of_rooms(path):
    own = path.parts[0].removesuffix(".py")
    for module in imported(path):
        room = module.split(".")[1] if "." in module else ""
        if path == Path("__init__.py") and room == "method":  # offers CAWALoss, and imports it when it is asked for
            continue
        if room in ("", *GROUND) or room == own or (path.as_posix(), module) in DOORS:
            continue
        assert own in ROOMS, f"{path} is ground and imports {module}"
        assert own != "method" and ROOMS.index(room) < ROOMS.index(own), f"{path} imports {module}"
        face, _, name = module.rpartition(".")
        offered = face in FACES and name in importlib.import_module(face).__all__
        assert module in FACES or offered, f"{path} imports {module}: ask the face of that room instead"


def test_method_imports_no_room_and_no_ground():
    for path in FILES:
        if path.parts[0] == "method":
            assert {module.split(".")[1] for module in imported(path)} <= {"method"}, path


def test_no_file_is_too_long():
    assert {str(path): lines for path in FILES if (lines := (PACKAGE / path).read_text().count("\n")) > 300} == {}


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_face_says_what_the_room_is_for_and_offers_what_it_names(face):
    room = importlib.import_module(face)
    assert room.__doc__ and all(hasattr(room, name) for name in room.__all__)
    assert room.__all__ == sorted(room.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


BLOCKED = """
import sys, torch, numpy

class Block:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first not in {"cawalib", "torch", "numpy"} and first not in sys.stdlib_module_names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
from cawalib.method import CAWALoss
from torch import nn

torch.manual_seed(0)
features, head = torch.randn(2, 4, 8, 8), nn.Conv2d(4, 3, 1)
labels = torch.randint(0, 3, (2, 8, 8))
criterion = CAWALoss(num_classes=3)
criterion.update(features, labels, head)
criterion(head(features), labels).backward()
assert head.weight.grad.abs().sum() > 0 and criterion.weighting.weight.std() > 0
import cawalib.method.cam, cawalib.method.cawa, cawalib.method.losses, cawalib.method.scoring, cawalib.method.weighting
try:
    import pandas
except ImportError:
    print("blocked and done")
"""


def test_the_method_needs_torch_and_numpy_alone():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert done.stdout == "blocked and done\n", done.stderr
