"""Classes may be called anything: the same text in CSV, Markdown, LaTeX, HTML, figures, file names and metadata."""

import csv
import html
import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import mistune
import numpy as np
import pandas as pd
import pytest
import synthetic_runs
from IPython.core.interactiveshell import InteractiveShell
from synthetic_runs import make_run
from torch import nn

from cawalib.notebook import illustrations, parameters
from cawalib.predict.photographs import file_name
from cawalib.results import figures, forms, weights_over_thirds, write_table
from cawalib.results.figures import short, style
from cawalib.runs import RunConfig
from cawalib.training import read_network, write_network

LATEX = {  # name -> how one would write it by hand
    "$x$": r"\$x\$", "$\\frac$": r"\$\textbackslash{}frac\$", "a|b": r"a\textbar{}b",
    "<script>alert(1)</script>": r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}",
    "with_underscore": r"with\_underscore", "_em_ __strong__": r"\_em\_ \_\_strong\_\_", "50%": r"50\%",
    "a & b &lt;": r"a \& b \&lt;", "#1": r"\#1", "{brace}": r"\{brace\}", "back\\slash": r"back\textbackslash{}slash",
    "\\(x\\)": r"\textbackslash{}(x\textbackslash{})", "~~old~~": r"\textasciitilde{}" * 2 + "old"
    + r"\textasciitilde{}" * 2, "^": r"\textasciicircum{}", "comma, here": "comma, here",
    "\"double\" 'single'": "\"double\" 'single'", "*star* **bold**": "{*}star* **bold**",
    "`code`": r"\textasciigrave{}code\textasciigrave{}", "[link](http://x)": "{[}link](http://x)",
    "two--hyphens": "two-{}-hyphens", "Caf\u00e9": "Caf\u00e9", "Case": "Case", "case": "case",
    "a class with a name of more than forty letters": "a class with a name of more than forty letters",
}
OTHER_LETTERS = "\u6c7d\u8f66 \U0001f697"  # Chinese and an emoji
NAMES = (*LATEX, OTHER_LETTERS)


def table():
    """Names as rows and as columns, with numbers."""
    return pd.DataFrame(np.arange(2.0 * len(NAMES)).reshape(len(NAMES), 2), index=pd.Index(NAMES, name="class"),
                        columns=["$y$", "a|b"])


def cells(rendered):
    """Rows of a table in HTML, as text; elements that hold nothing but text are let through."""
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td|span)\b)", rendered), rendered
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", rendered, re.DOTALL)
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row)]
            for row in rows]


def test_csv(tmp_path):
    write_table(table(), tmp_path, "t")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["class", "$y$", "a|b"] and tuple(row[0] for row in rows[1:]) == NAMES


def test_markdown_by_another_implementation():
    rendered = mistune.create_markdown(plugins=["table", "strikethrough"], escape=False)(forms.markdown(table()))
    rows = cells(rendered)
    assert rows[0] == ["class", "$y$", "a|b"] and tuple(row[0] for row in rows[1:]) == NAMES
    # a dollar or a backslash stands in an element of its own, past which MathJax does not look for a formula's end
    assert not re.search(r"[$\\]", re.sub(r"<span>[$\\]</span>", "", rendered))


def test_what_tables_write_themselves_keeps_its_meaning():
    table = pd.DataFrame({"a": ["**42.9 ± 0.3**", "+4.0 [+3.1, +4.9]*", "**worse** −1.2", "–"],
                          "b": ["**42**", "4*", "**worse**", "x*"]})
    rows = forms.markdown(table).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["**42.9 ± 0.3**", r"+4.0 [+3.1, +4.9]\*", "**worse** −1.2",
                                                           "–"]
    assert [row.split("|")[2].strip() for row in rows] == [r"\*\*42\*\*", r"4\*", "**worse**", r"x\*"]
    text = forms.latex(table)
    for cell in (r"\textbf{42.9 $\pm$ 0.3} & {*}*42**", "+4.0 [+3.1, +4.9]$^{*}$ & 4*", r"\textbf{worse} $-$1.2", "--"):
        assert cell in text


def test_latex():
    assert {name: forms.latex_text(name) for name in LATEX} == LATEX
    lines = forms.latex(table()).splitlines()
    assert lines[2] == r"class & \$y\$ & a\textbar{}b \\"
    assert [line.partition(" &")[0] for line in lines[4:]][:2] == [r"\$x\$", r"\$\textbackslash{}frac\$"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here: the LaTeX tables are not compiled")
def test_latex_compiles(tmp_path):
    """Without the names whose letters pdfLaTeX does not know."""
    write_table(table().drop(OTHER_LETTERS), tmp_path, "t")
    page = r"""\documentclass{article}\usepackage{amssymb}
\IfFileExists{booktabs.sty}{\usepackage{booktabs}}{\let\toprule\hline\let\midrule\hline\let\bottomrule\hline}
\begin{document}\input{t.tex}\end{document}"""
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"],
                          cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0 and (tmp_path / "page.pdf").stat().st_size > 5000, done.stdout[-2000:]


def test_a_notebook_shows_names_and_no_formulas():
    plain = pd.DataFrame({"road": [1]})
    shell = InteractiveShell.instance()
    try:
        parameters({}, RunConfig)
        found, ordinary = (shell.display_formatter.format(one)[0]["text/html"] for one in (table(), plain))
    finally:
        InteractiveShell.clear_instance()
    rows = cells(re.search("<table.*</table>", found, re.DOTALL)[0])
    assert tuple(row[0] for row in rows[2:]) == NAMES and rows[0] == ["", "$y$", "a|b"]
    assert "mathjax_ignore" in found and ordinary == plain._repr_html_()


def test_figures_show_names_as_they_are(monkeypatch, tmp_path):
    names = [name for name in NAMES if name != OTHER_LETTERS][:11]
    monkeypatch.setattr(synthetic_runs, "NAMES", names)
    run = make_run(tmp_path, "CAWA", 0, count=11, method="cawa")
    maps, labels = np.zeros((11, 8, 8), np.float32), np.arange(64).reshape(8, 8) % 11
    drawn = [figures.class_frequencies(run.statistics, run.metrics["palette"]), figures.weight_trajectories([run]),
             illustrations.mask_outcomes(maps > 0.5, labels, list(range(11)), names)]
    for figure in drawn:
        texts = figure.findobj(plt.Text)
        assert {short(name) for name in names} <= {re.sub(r" \(\d+\)$", "", text.get_text()) for text in texts}
        assert {text.get_text() for text in texts if text.get_parse_math()} <= {"running score $S$", ""}


def test_letters_of_other_scripts_are_asked_of_the_fonts_that_are_there():
    assert style.PRINT["font.family"][0] == "sans-serif"
    assert set(style.PRINT["font.family"][1:]) <= set(style.fontManager.get_font_names())


@pytest.mark.parametrize("name, expected", [
    ("a/b/../c", "a_b____c"), ("..", "__"), ("<b>: *?", "_b__ __"), ("with_underscore", "with_underscore"),
    (OTHER_LETTERS, "\u6c7d\u8f66 _"), ("\u8f66" * 80, "\u8f66" * 33), ("x" * 300, "x" * 100),
])
def test_file_names(name, expected):
    assert file_name(name) == expected


def test_run_folders_keep_names_that_look_like_numbers_or_nothing(monkeypatch, tmp_path):
    names = ("1", "01", "1e3", "None", "NA", "nan", "learning rate", "True", "$x$", '"', "a,b")
    monkeypatch.setattr(synthetic_runs, "NAMES", names)
    run = make_run(tmp_path, "CAWA", 0, count=11, method="cawa")
    assert tuple(run.class_weights["class"][:11]) == names and tuple(run.metrics["classes"]) == names
    table = weights_over_thirds([run])
    assert list(table.index) == [*names, "learning rate"]
    assert table.iloc[6, 0].count("±") == 1 and table.iloc[-1, 0].count(" to ") == 1  # a class, and what stands below


def test_metadata_of_a_network(tmp_path):
    write_network(tmp_path / "n.safetensors", nn.Conv2d(1, 1, 1), {"classes": NAMES})
    assert tuple(read_network(tmp_path / "n.safetensors")[1]["classes"]) == NAMES
