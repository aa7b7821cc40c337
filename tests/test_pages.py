"""Tables in pages are the published ones."""

from pathlib import Path

import pytest

from cawalib.results import pages

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


@pytest.mark.parametrize("page", pages.PAGES)
def test_committed_pages_show_the_committed_tables(page):
    text = (ROOT / page).read_text()
    assert pages.fill(text, ROOT) == text, "a table is older than what was published: python -m cawalib.pages"
