"""How a notebook shows tables: names as they are, in HTML as well."""

from __future__ import annotations

import sys


def show_names_as_they_are() -> None:
    """Let IPython, where there is one, show tables by `results.html`; by itself it takes `$x$` for mathematics."""
    shell = "IPython" in sys.modules and sys.modules["IPython"].get_ipython()
    if shell:
        formatter = shell.display_formatter.formatters["text/html"]
        for module in ("pandas", "pandas.core.frame"):  # where pandas 3 says that its tables live, and where pandas 2
            formatter.for_type_by_name(module, "DataFrame", _html)


def _html(table):
    from cawalib.results import html  # only now: it takes seconds, and there are notebooks without tables

    return html(table)
