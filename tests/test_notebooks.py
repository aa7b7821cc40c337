"""What every committed notebook must be, without running it (nbval runs them)."""

import statistics
from pathlib import Path

import nbformat
import pytest

from cawalib.notebook import source_digest
from cawalib.notebook.parameter_cell import literal_assignments
from cawalib.runs import RunConfig
from cawalib.settings import CAWA_FIELDS, MethodConfig

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def test_all_five_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_data_preparation", "02_baseline", "03_cawa_training", "04_ablations", "05_figures"]


def test_kernel_and_story(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert "Reads:" in notebook.cells[0].source and "rites:" in notebook.cells[0].source
    lines = [len(cell.source.splitlines()) for cell in code_cells(notebook) if "parameters" not in str(cell.metadata)]
    assert statistics.median(lines) <= 5 and max(lines) <= 15


def test_parameters_cell(notebook):
    [cell] = tagged(notebook, "parameters")
    assert cell is code_cells(notebook)[0]
    parameters = literal_assignments(cell.source)  # raises if there is more than literals
    assert len(parameters) == len(cell.source.splitlines())


def test_outputs_are_of_this_source(notebook):
    assert notebook.metadata["cawalib"]["source_digest"] == source_digest(notebook), \
        "outputs are older than the source: make notebooks"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for cell in code_cells(notebook) for output in cell.outputs}
    assert "error" not in kinds and kinds & {"display_data", "execute_result"}


def test_something_is_compared(notebook):
    cells = tagged(notebook, "nbval-check-output")
    assert cells and all(cell.outputs for cell in cells)


@pytest.mark.parametrize("name", ["02_baseline", "03_cawa_training"])
def test_training_notebooks_offer_every_setting(name):
    [path] = [path for path in NOTEBOOKS if path.stem == name]
    [cell] = tagged(nbformat.read(path, as_version=4), "parameters")
    parameters = literal_assignments(cell.source)
    defaults = {field: getattr(RunConfig, field) for field in parameters}
    if name == "02_baseline":
        assert parameters.pop("method") == "inverse_sqrt" and defaults.pop("method")
    assert parameters == defaults
    missing = set(RunConfig.__dataclass_fields__) - set(parameters)
    if name == "03_cawa_training":
        assert missing == set(MethodConfig.__dataclass_fields__) - set(CAWA_FIELDS)
