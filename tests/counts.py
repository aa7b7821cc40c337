"""What a campaign has counted, put into a page between its markers."""

import re
from pathlib import Path


def into_page(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- counts: NAME -->` and `<!-- end of counts -->`, which must be there once."""
    marked = re.compile(rf"(<!-- counts: {re.escape(name)} -->\n).*?(<!-- end of counts -->)", re.DOTALL)
    filled, count = marked.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page.read_text())
    if count != 1:
        raise SystemExit(f"{page}: found {count} places <!-- counts: {name} -->, expected one")
    page.write_text(filled)
