"""The website as it was built: links, pictures, formulas, folded cells, and nothing that another server must give.

Not collected by `make test`: `make book` builds the site and calls it.
"""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "book/_build/html"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@cache
def page(path):
    return BeautifulSoup((SITE / path).read_text(), "html.parser")


def addresses(path, *wanted):
    """What elements of a page ask for: (name of the element, address)."""
    for element in page(path)(wanted or True):
        for attribute in ("href", "src"):
            if element.get(attribute):
                yield element.name, element[attribute]


def test_every_source_is_a_page():
    sources = {path.relative_to(ROOT).with_suffix(".html").as_posix()
               for pattern in ("*.md", "docs/*.md", "data/README.md", "benchmarks/*.md", "notebooks/*.ipynb",
                               "outputs/reference/**/*.md") for path in ROOT.glob(pattern)}
    assert sources and sources <= set(PAGES)
    assert (SITE / "index.html").read_text() == (SITE / "README.html").read_text()


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path):
    broken = []
    for _, address in addresses(path):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or address == "#":
            continue
        target = (SITE / path).parent.joinpath(unquote(parts.path)).resolve() if parts.path else SITE / path
        name = target.relative_to(SITE).as_posix()
        if not target.is_file() or parts.fragment and not page(name).find(id=unquote(parts.fragment)):
            broken.append(address)
    assert broken == []


@pytest.mark.parametrize("path", PAGES)
def test_pictures_have_an_alternative_text(path):
    texts = [image.get("alt", "") for image in page(path)("img")]
    assert [text for text in texts if len(text.split()) < 2 or re.search(r"\.(png|svg|jpg)$|^<Figure", text)] == []


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_loaded_from_elsewhere(path):
    loaded = addresses(path, "img", "script", "link", "iframe", "source")
    assert [address for _, address in loaded if urlsplit(address).netloc] == []
    assert not re.search(r"""(import|fetch)\s*\(?\s*["'](https?:)?//""", (SITE / path).read_text())


def test_code_is_linked_where_the_badge_of_the_readme_points():
    repository = re.search(r"mybinder\.org/v2/gh/([^/]+/[^/]+)/", (ROOT / "README.md").read_text())[1]
    assert f"https://github.com/{repository}/blob/HEAD/LICENSE" in dict(map(reversed, addresses("README.html", "a")))
    for notebook in NOTEBOOKS:
        launch = f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/{notebook.name}"
        assert launch in [address for _, address in addresses(f"notebooks/{notebook.stem}.html", "a")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_show_what_they_hold(path):
    notebook, html = nbformat.read(path, as_version=4), page(f"notebooks/{path.stem}.html")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert len(html.select("div.cell_output img")) == pictures > 0
    folded = [cell for cell in notebook.cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert len(html.select("div.cell details.hide")) == len(folded)
    formulas = sum(len(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", cell.source, re.DOTALL)) for cell in notebook.cells
                   if cell.cell_type == "markdown")
    assert len(html("math")) == formulas
    assert not html(string=re.compile(r"\$\$|Error displaying widget|Loading widget"))


def test_method_is_documented():
    names = {element.get("id") for element in page("book/method.html")(True)}
    for name in ("cawa_loss.CAWALoss", "decision.fit_decision", "cam.class_activation_maps", "scoring.csps"):
        assert f"cawalib.method.{name}" in names
    text = page("book/method.html").get_text()
    assert "Args:" not in text and "Raises:" in text and "`" not in text


def test_search_finds_pages():
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", (SITE / "searchindex.js").read_text(), re.DOTALL)[1])
    assert index["docnames"][index["terms"]["dinkelbach"]] == "docs/METHOD"  # the one page with this word
    assert set(index["docnames"]) >= {"README", "docs/evidence", "book/method", "notebooks/03_cawa_training"}
