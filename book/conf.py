"""The website (`make book`): README, docs, notebooks with outputs and published tables, all from where they stand.

The source folder is the repository's root, so that links between pages are the same here as on GitHub.
"""

import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.addnodes import download_reference, pending_xref

ROOT = Path(__file__).resolve().parents[1]
# owner and name on GitHub: they stand in the README's badge and nowhere else
BADGE = re.search(r"mybinder\.org/v2/gh/([^/]+/[^/]+)/", (ROOT / "README.md").read_text())
REPOSITORY = f"https://github.com/{BADGE[1]}"

project = "CAWASeg, step by step"
author = "The contributors of CAWASeg, step by step"
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "data/README.md", "benchmarks/*.md", "notebooks/*.ipynb", "book/*.md",
                    "outputs/reference/**.md"]
exclude_patterns = [".*", "**/.*", "book/_build", "book/contents.md", "cawalib", "tests", "workflow", "data/*/**",
                    "outputs/[!r]*"]  # folders that need not be searched
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 6  # with GitHub's names
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"
suppress_warnings = ["myst.header"]  # a table page may begin below a heading

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # of PyTorch's own methods
napoleon_use_rtype = False  # "Returns:" begins with a shape, which is no type
default_role = "py:obj"  # `name` in a docstring is a link where there is such a name
python_maximum_signature_line_length = 100
add_module_names = False
nitpick_ignore_regex = [("py:obj", ".*"), ("py:.*", r"(torch|nn|np|numpy|collections)\..*")]

html_theme = "sphinx_book_theme"
html_title = "CAWASeg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_use_index = html_domain_indices = False  # nothing leads to them; there is a search
html_theme_options = {
    "repository_url": REPOSITORY, "repository_branch": "HEAD", "use_repository_button": True,
    "navbar_persistent": [],  # the search is in the side bar
    "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"},
}


def on_source(app, docname, source):
    """What a page needs here and not where it stands: the site's contents, folded cells, alternative texts."""
    tables = sorted((ROOT / docname).parent.glob("tables/*.md"))
    if docname == root_doc:
        source[0] += "\n" + (ROOT / "book/contents.md").read_text()
    elif docname.endswith("/README") and tables:
        names = "\n".join(f"tables/{path.stem}" for path in tables)
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    elif docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            _prepare(cell)
        source[0] = json.dumps(notebook)


def _prepare(cell):
    """Fold a cell that is folded in JupyterLab, and give its picture the alternative text of its output."""
    metadata = cell["metadata"]
    if metadata.get("jupyter", {}).get("source_hidden"):
        metadata["tags"] = [*metadata.get("tags", []), "hide-input"]
    for output in cell.get("outputs", []):
        alternative = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alternative:
            metadata["mystnb"] = {"image": {"alt": alternative}}


def on_read(app, doctree):
    """Files and folders that are no pages are on GitHub; pictures of other servers, as badges are, become words."""
    here = (ROOT / app.env.current_document.docname).parent
    for node in doctree.findall(lambda node: isinstance(node, (download_reference, pending_xref))):
        path = here.joinpath(node["reftarget"]).resolve()
        if isinstance(node, download_reference) or node["reftype"] == "myst" and path.is_dir():
            address = f"{REPOSITORY}/{'tree' if path.is_dir() else 'blob'}/HEAD/{path.relative_to(ROOT).as_posix()}"
            node.replace_self(nodes.reference("", "", *node.children, refuri=address))
    for node in doctree.findall(nodes.image):
        if "://" in node["uri"]:
            node.replace_self(nodes.Text(node["alt"]))


def on_missing(app, env, node, content):
    """A docstring's `cam.scale_maps` is a name in that file of the method."""
    if node.get("refdomain") == "py":
        return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj",
                                              f"cawalib.method.{node['reftarget']}", node, content)


def on_finish(app, exception):
    """The first page, under the name that servers look for."""
    if exception is None:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def _mathml(latex, display):
    """MathML, with room around names of functions."""
    return re.sub(r"<mi>(log|ln)</mi>", r'<mo lspace="0.17em" rspace="0.17em">\1</mo>', convert(latex, display=display))


def inline_formula(translator, node):
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def formula(translator, node):
    translator.body.append(f'<div class="formula">{_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))  # needs no script and no network
    app.connect("source-read", on_source)
    app.connect("doctree-read", on_read, priority=400)  # before Sphinx collects downloads and pictures
    app.connect("missing-reference", on_missing)
    app.connect("build-finished", on_finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
