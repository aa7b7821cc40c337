"""How tables and the names in them are written: CSV, Markdown, LaTeX, and HTML in a notebook.

Classes of own data and methods of own results are called what somebody likes, `a|b`, `$x$` or `<b>`: a name is the same
text in every form, and never a command of it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from cawalib.files import atomic

NOTHING = "–"  # no number, such as the interval of one seed
# bold and asterisks that are ours; all others are a name's: **42.9 ± 0.3**, **worse** −1.2, +4.0 [+3.1, +4.9]*
BOLD = re.compile(r"\*\*(\d+\.\d(?: ± \d+\.\d)?|worse)\*\*((?: −\d+\.\d)?)")
CLEAR = re.compile(r"([+−]\d+\.\d \[[+−]\d+\.\d, [+−]\d+\.\d\])\*")
# an entity alone is mathematics again once the page is made, so that MathJax finds it: it looks past no element
IN_MARKDOWN = {"$": "<span>&#36;</span>", "\\": "<span>&#92;</span>", "&": "&amp;", "<": "&lt;", ">": "&gt;",
               "\n": " ", **{mark: f"\\{mark}" for mark in "|*`~"}}
IN_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}",
            "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "−": "$-$",
            "✓": r"$\checkmark$", "\n": " ", **{mark: f"\\{mark}" for mark in "&%$#_{}"}}


def write_table(table: pd.DataFrame, folder, name: str) -> None:
    """Write NAME.csv, NAME.md and NAME.tex (booktabs) into a folder, atomically; a plain index is left out."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    plain = _with_index(table).map(lambda cell: BOLD.sub(r"\1\2", cell) if _is(BOLD, cell) else cell)
    for suffix, text in (("csv", plain.to_csv(index=False)), ("md", markdown(table)), ("tex", latex(table))):
        with atomic(Path(folder, f"{name}.{suffix}")) as partial:
            partial.write_text(text, encoding="utf-8")


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; a plain index is left out."""
    return _written(table, markdown_text).to_markdown(index=False, disable_numparse=True) + "\n"


def latex(table: pd.DataFrame) -> str:
    """A table as LaTeX with booktabs' rules; a plain index is left out.

    Letters that pdfLaTeX does not know, such as Chinese ones, stand as they are, for XeLaTeX or LuaLaTeX and a font
    that has them.
    """
    written = _written(table, latex_text)
    return written.to_latex(index=False, escape=False, column_format="l" * written.shape[1], na_rep="--")


def displayed(table: pd.DataFrame):
    """A table for a notebook to show, with bold cells bold."""
    from IPython.display import Markdown  # imported here: tables are made without notebooks, too

    return Markdown(markdown(table))


def html(table: pd.DataFrame) -> str | None:
    """A table as a notebook shows it, by pandas, which escapes names; MathJax is kept off what looks like formulas."""
    shown = table._repr_html_()
    if shown is None or not set("$\\") & set(shown):
        return shown
    with pd.option_context("display.html.use_mathjax", False):
        return table._repr_html_()


def markdown_text(text: str) -> str:
    """A name, or a cell that `tables` made, as Markdown that shows this text in a table."""
    if _is(BOLD, text):
        return text
    if _is(CLEAR, text):
        return CLEAR.sub(r"\1\\*", text)
    text = text.translate(str.maketrans(IN_MARKDOWN))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it means nothing
    return re.sub(r"\](?=[(\[])", r"\\]", text)  # no link


def latex_text(text: str) -> str:
    """A name, or a cell that `tables` made, as LaTeX that prints this text in a table."""
    if found := BOLD.fullmatch(text):
        return rf"\textbf{{{latex_text(found[1])}}}{latex_text(found[2])}"
    if found := CLEAR.fullmatch(text):
        return latex_text(found[1]) + "$^{*}$"
    text = text.translate(str.maketrans(IN_LATEX))
    text = re.sub(r"([-,'])(?=\1)", r"\1{}", text)  # no ligature, such as a dash of two hyphens
    return re.sub(r"^[\[*]", r"{\g<0>}", text.replace(NOTHING, "--"))  # at a row's start they belong to the \\ before


def _is(pattern, cell):
    return isinstance(cell, str) and pattern.fullmatch(cell) is not None


def _with_index(table):
    return table.reset_index() if table.index.nlevels > 1 or table.index.name else table


def _written(table, form):
    """Every cell and every column's name in a form; numbers as they are."""
    table = _with_index(table)
    return table.map(lambda cell: form(cell) if isinstance(cell, str) else cell).set_axis(
        [form(str(name)) for name in table.columns], axis=1)
