"""A notebook's parameters: what its cell says, and what may be given instead, checked before anything runs."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import math
import os
import types
import typing
from pathlib import Path

from cawalib.notebook.shown import show_names_as_they_are
from cawalib.settings import likely_meant

LITERALS = (str, int, float, bool, list, dict, type(None))
INJECTED = "# Parameters\n"  # how papermill's injected cell begins
# where a notebook has more parameters below its first cell of them: a cell tagged `injected-parameters` that papermill
# replaces, below both
PLACEHOLDER = INJECTED + "# papermill writes here what it is given: below all defaults, so that it counts"


class CallError(ValueError):
    """The call is wrong; nothing was run."""

    exit_code = 2
    traceback = ""
    foreseen = True


class ParameterError(CallError):
    """A parameter is unknown or of the wrong type."""


def parameters(namespace: dict, defaults: type):
    """Make an instance of a dataclass from a notebook's globals, right after its parameters cell.

    From here on the notebook shows class names in tables as they are.

    Args:
        namespace: the notebook's `globals()`.
        defaults: a dataclass; its field names are the parameters.

    Returns:
        The instance; a field without a variable of its name keeps its default.

    Raises:
        ParameterError: an unknown parameter or a wrong type. Unknown is any other name in the parameters
            cells run last and in papermill's cell after them, so that a cell can be run again later; outside
            IPython, any other variable that holds a literal.
    """
    known = [field.name for field in dataclasses.fields(defaults) if field.init]
    for name in _given_names(namespace, known):
        if name not in known:
            raise _unknown(name, namespace[name], known)
    show_names_as_they_are()
    kinds = typing.get_type_hints(defaults)
    return defaults(**{name: _fit(name, namespace[name], kinds[name]) for name in known if name in namespace})


def _given_names(namespace, known):
    names = []
    for source in reversed(namespace.get("In", [])):  # what IPython ran
        found = {}
        with contextlib.suppress(ParameterError):
            found = literal_assignments(source)
        if source.startswith(INJECTED) or found.keys() & set(known):
            names += [name for name in found if name in namespace]
        elif names:
            break
    return names or [name for name, value in namespace.items()
                     if type(value) in LITERALS and not name.startswith("_") and name not in ("In", "Out")]


def read_notebook(path):
    """Read a notebook and the defaults in its parameters cell, and in one tagged `more-parameters`.

    Args:
        path: the `.ipynb` file.

    Returns:
        The notebook as read by nbformat, and a dict parameter -> default.

    Raises:
        CallError: no notebook, not exactly one cell tagged `parameters`, or a kernel other than python3.
        ParameterError: the parameters cell holds more than literals.
    """
    import nbformat

    path = Path(path)
    if not os.path.isfile(path):
        raise CallError(f"notebook {path}: not found")
    try:
        nb = nbformat.read(path, as_version=4)
        nbformat.validate(nb)
    except Exception as error:  # whatever the reader stumbles over, the file is no notebook
        raise CallError(f"notebook {path}: not a notebook ({type(error).__name__})") from None
    cells = {tag: [cell for cell in nb.cells if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])]
             for tag in ("parameters", "more-parameters", "injected-parameters")}
    if len(cells["parameters"]) != 1:
        raise CallError(f"notebook {path}: found {len(cells['parameters'])} code cells tagged 'parameters', "
                        "expected one")
    if any(cell.source.strip() != PLACEHOLDER for cell in cells["injected-parameters"]):
        raise CallError(f"notebook {path}: found papermill's injected cell; give the notebook it came from")
    if cells["more-parameters"] and not cells["injected-parameters"]:
        raise CallError(f"notebook {path}: found a cell tagged 'more-parameters', which would undo what papermill is "
                        "given; put a cell tagged 'injected-parameters' below it")
    kernel = nb.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        raise CallError(f"notebook {path}: found kernel {kernel!r}, expected 'python3'")
    try:
        sources = [cell.source for cell in cells["parameters"] + cells["more-parameters"]]
        return nb, literal_assignments("\n".join(sources))
    except ParameterError as error:
        raise ParameterError(f"notebook {path}: parameters cell, {error}") from None


def literal_assignments(source: str) -> dict:
    """The `name = literal` lines of a cell.

    Args:
        source: the cell's code.

    Returns:
        Name -> value, in order.

    Raises:
        ParameterError: anything else stands in the cell, or a name twice.
    """
    expected = "expected `name = literal`, each name once; move the rest to the next cell"
    values = {}
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        found = (error.text or "").strip()
        raise ParameterError(f"line {error.lineno}: found {found!r}, {expected}") from None
    for statement in statements:
        name, value = _assignment(statement)
        if name is None or name in values or type(value) not in LITERALS:
            found = ast.unparse(statement).splitlines()[0]
            raise ParameterError(f"line {statement.lineno}: found {found!r}, {expected}")
        values[name] = value
    return values


def _assignment(statement):
    with contextlib.suppress(ValueError, TypeError, SyntaxError):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            return statement.target.id, ast.literal_eval(statement.value)
        if isinstance(statement, ast.Assign) and [type(target) for target in statement.targets] == [ast.Name]:
            return statement.targets[0].id, ast.literal_eval(statement.value)
    return None, None


def cast(text: str, default):
    """A command line's text as the type of a default value.

    Args:
        text: what stands on the command line; a list or dict as YAML.
        default: the value in the parameters cell.

    Returns:
        The value; the text itself where it cannot be one of that type, which `check` then refuses.
    """
    import yaml

    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    with contextlib.suppress(ValueError, yaml.YAMLError):
        return type(default)(text) if isinstance(default, int | float) else yaml.safe_load(text)
    return text


def check(given: dict, defaults: dict) -> dict:
    """Check values against the parameters cell.

    Args:
        given: parameter -> value.
        defaults: parameter -> default, as from `read_notebook`.

    Returns:
        The values, an int made a float where the default is one. With the default None, any value passes.

    Raises:
        ParameterError: an unknown parameter or a value, or list item, of another type than the default's.
    """
    checked = {}
    for name, value in given.items():
        if name not in defaults:
            raise _unknown(name, value, defaults)
        default = defaults[name]
        checked[name] = value if default is None else _fit(name, value, type(default))
        kinds = {type(item) for item in default} if isinstance(default, list) else ()
        if len(kinds) == 1:
            checked[name] = [_fit(f"{name}[{i}]", item, *kinds) for i, item in enumerate(value)]
    return checked


def _fit(name, value, kind):
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    kinds = [typing.get_origin(choice) or choice for choice in (typing.get_args(kind) if union else (kind,))]
    if float in kinds and int not in kinds and type(value) is int:
        value = float(value)
    found = f"parameter {name!r}: found {value!r} ({type(value).__name__})"
    if type(value) not in kinds and typing.Any not in kinds:
        names = ["bool (true or false)" if choice is bool else choice.__name__ for choice in kinds]
        raise ParameterError(f"{found}, expected {' or '.join(names)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterError(f"{found}, expected a finite number")
    return value


def _unknown(name, value, known):
    meant = [repr(other) for other in likely_meant(name, known)]
    hint = f"did you mean {' or '.join(meant)}?" if meant else f"known are {', '.join(list(known)[:10])}"
    more = "" if meant or len(known) <= 10 else " and others, see the parameters cell of the notebook"
    return ParameterError(f"unknown parameter {name!r} = {value!r}: {hint}{more}")
