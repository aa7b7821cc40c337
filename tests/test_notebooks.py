"""What every committed notebook must be, without running it (nbval runs them)."""

import statistics
from pathlib import Path

import nbformat
import pytest

from cawalib.notebook import read_notebook, source_digest
from cawalib.notebook.parameter_cell import literal_assignments
from cawalib.runs import RunConfig, load_study
from cawalib.settings import CAWA_FIELDS, MethodConfig

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def test_all_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_data_preparation", "02_baseline", "03_cawa_training", "04_ablations", "05_figures",
        "06_explorer", "07_own_photographs"]


def test_kernel_and_story(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert "Reads:" in notebook.cells[0].source and "rites:" in notebook.cells[0].source
    lines = [len(cell.source.splitlines()) for cell in code_cells(notebook) if "parameters" not in str(cell.metadata)]
    assert statistics.median(lines) <= 5 and max(lines) <= 15


def test_parameters_cells(notebook):
    [first] = tagged(notebook, "parameters")
    assert first is code_cells(notebook)[0] and 7 <= len(first.source.splitlines()) <= 12
    for cell in [first, *tagged(notebook, "more-parameters")]:
        parameters = literal_assignments(cell.source)  # raises if there is more than literals
        assert len(parameters) == len(cell.source.splitlines())
        assert "parameters" in cell.metadata.tags or cell.metadata.jupyter.source_hidden


def test_outputs_are_of_this_source(notebook):
    assert notebook.metadata["cawalib"]["source_digest"] == source_digest(notebook), \
        "outputs are older than the source: make notebooks"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for cell in code_cells(notebook) for output in cell.outputs}
    assert "error" not in kinds and kinds & {"display_data", "execute_result"}


def test_pictures_have_an_alternative_text(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures and all(len(output.metadata["image/png"]["alt"].split()) > 5 for output in pictures)


def test_something_is_compared(notebook):
    cells = tagged(notebook, "nbval-check-output")
    assert cells and all(cell.outputs for cell in cells)


@pytest.mark.parametrize("name, label", [("02_baseline", "inverse square root"), ("03_cawa_training", "CAWA")])
def test_training_notebooks_offer_every_setting_and_are_a_run_of_the_demo(name, label):
    [path] = [path for path in NOTEBOOKS if path.stem == name]
    _, parameters = read_notebook(path)
    study = load_study(path.parents[1] / "workflow" / "grids" / "demo.yaml")
    [run] = [run for entry, run in study.configs() if entry.label == label and run.seed == parameters["seed"]]
    assert RunConfig(**parameters).hash == run.hash
    missing = set(RunConfig.__dataclass_fields__) - set(parameters)
    if name == "03_cawa_training":
        # CAWA and weights from counts may both have their line apart
        assert missing == set(MethodConfig.__dataclass_fields__) - set(CAWA_FIELDS) - {"line_source"}
    else:
        assert missing == set(CAWA_FIELDS)
