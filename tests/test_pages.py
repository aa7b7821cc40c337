"""Tables in pages are the published ones."""

import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import make_run

from cawalib.results import ComparisonError, pages
from cawalib.runs import ARCHIVE, load_study, write_archive
from cawalib.settings import METHODS

ROOT = Path(__file__).resolve().parents[1]


def test_marked_tables_are_put_in_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.md").write_text("| a |\n|---|\n| 1 |\n")
    before = "Text.\n\n<!-- table: one.md -->\nold, typed\n<!-- end of table -->\n\nMore.\n"
    after = "Text.\n\n<!-- table: one.md -->\n\n| a |\n|---|\n| 1 |\n\n<!-- end of table -->\n\nMore.\n"
    assert pages.fill(before) == after
    assert pages.fill(after) == after
    monkeypatch.setattr(pages, "PAGES", ("page.md",))
    Path("page.md").write_text(before)
    assert pages.main() == 0 and Path("page.md").read_text() == after
    Path("one.md").unlink()
    assert pages.main() == 1 and Path("page.md").read_text() == after
    assert "page.md: table one.md: not found; publish the study" in capsys.readouterr().err


def test_a_section_of_a_page_of_tables(tmp_path):
    (tmp_path / "all.md").write_text("# Title\n\n## one\n\n| a |\n\n## two\n\n| b |\n| c |\n")
    text = "<!-- table: all.md#{} -->\nold\n<!-- end of table -->"
    assert pages.fill(text.format("two"), tmp_path) == \
        "<!-- table: all.md#two -->\n\n| b |\n| c |\n\n<!-- end of table -->"
    assert "| a |\n\n<!-- end" in pages.fill(text.format("one"), tmp_path)
    with pytest.raises(FileNotFoundError, match="table all.md#three: not found"):
        pages.fill(text.format("three"), tmp_path)


GRID = """
common: {dataset: camvid}
seeds: [0, 1]
labels: &labels {cross entropy: {method: none}, CAWA: {method: cawa}, "CAWA, other": {method: cawa, score_stride: 4}}
groups:
  methods: *labels
  small: {<<: *labels, common: {image_width: 64}}
  smaller: {<<: *labels, common: {image_width: 32}}
"""


def test_counts_and_differences_are_taken_from_the_runs(tmp_path):
    (tmp_path / "workflow/grids").mkdir(parents=True)
    (tmp_path / "workflow/grids/evidence.yaml").write_text(GRID)
    study, runs = load_study(tmp_path / "workflow/grids/evidence.yaml", outputs_root=str(tmp_path)), []
    for entry, config in study.configs():
        level = {"cross entropy": 0.30, "CAWA": 0.34, "CAWA, other": 0.32}[entry.label]
        if entry.group == "smaller":
            level = 0.30 + 0.1 * config.seed * (entry.label == "CAWA")  # no difference and a tenth: undecided
        noise = 0.002 * config.seed * (entry.label == "CAWA")
        runs.append(make_run(str(tmp_path), entry.label, config.seed, np.full(5, level + noise),
                             **{name: value for name, value in entry.settings.items() if name != "outputs_root"}))
    (tmp_path / "outputs/reference/evidence").mkdir(parents=True)
    write_archive(tmp_path / "outputs/reference/evidence" / ARCHIVE, runs)

    def filled(marker):
        return pages.fill(f"A <!-- {marker} -->typed<!-- end --> B", tmp_path).split("-->")[1].split("<!--")[0]

    assert filled("count: better, CAWA, cross entropy, mIoU") == "2 of 3"
    assert filled("count: worse, CAWA, cross entropy, mIoU") == "0 of 3"
    assert filled("count: worse, CAWA, other, CAWA, mIoU") == "2 of 3"
    assert filled("count: decided, CAWA, cross entropy, mIoU") == "2 of 3"
    assert filled("count: decided, CAWA, other, CAWA, mIoU") == "2 of 3"
    # 4.0 and 4.2 points: mean 4.1, deviation 0.1414, t(1) = 12.706, half width 1.27
    assert filled("difference: small, CAWA, cross entropy, mIoU") == "+4.1 [+2.8, +5.4]"
    # 4.1 twice with errors of .1, and 5 with an error of 5: both alike weigh all, Student's t(2) on what little is left
    assert filled("pooled: mean, CAWA, cross entropy, mIoU").startswith("+4.1 [+")
    for wrong in ("count: bettr, CAWA, cross entropy, mIoU", "count: better, CAVA, cross entropy, mIoU",
                  "difference: huge, CAWA, cross entropy, mIoU"):
        with pytest.raises(ComparisonError, match="mend the marker|no such comparison"):
            filled(wrong)


def test_the_readme_counts_the_remedies_that_there_are():
    rivals = [name for name, method in METHODS.items() if name != "none" and method.weighting != "cawa"]
    assert f"with {len(rivals)} usual remedies" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", pages.PAGES)
def test_committed_pages_show_the_committed_tables(page):
    text = (ROOT / page).read_text()
    assert pages.fill(text, ROOT) == text, "older than what was published: python -m cawalib.results.pages"


@pytest.mark.parametrize("page", pages.PAGES)
def test_no_line_begins_with_the_marker_of_a_number(page):
    """Markdown takes such a line for HTML: it cuts the paragraph there, and shows links as they are typed."""
    assert re.findall(r"^[ >*-]*<!-- (?!table|end of table).*", (ROOT / page).read_text(), re.MULTILINE) == []
