"""Pages whose tables are generated: what stands between two markers is a published table, never typed.

    python -m cawalib.pages            write the tables into README.md and docs/evidence.md

In a page:

    <!-- table: outputs/reference/evidence/tables/overview.md -->
    <!-- end of table -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cawalib.files import atomic

PAGES = ("README.md", "docs/evidence.md")
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fill(text: str, root=".") -> str:
    """A page's text with every marked table put in anew.

    Args:
        root: what the tables' paths count from.

    Raises:
        FileNotFoundError: a table that a marker names is not there.
    """
    def table(match):
        path = Path(root, match[2])
        if not path.is_file():
            raise FileNotFoundError(f"table {match[2]}: not found; publish the study it belongs to, or mend the marker")
        return f"{match[1]}\n{path.read_text().strip()}\n\n{match[3]}"

    return MARKED.sub(table, text)


def main() -> int:
    for page in PAGES:
        try:
            text = fill(Path(page).read_text())
        except FileNotFoundError as error:
            print(f"cawalib.pages: error: {page}: {error}", file=sys.stderr)
            return 1
        with atomic(page) as partial:
            partial.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
