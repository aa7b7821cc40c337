"""What a small installation leaves out is asked for in one line, before an import fails somewhere inside."""

from __future__ import annotations

import importlib.metadata
import re
import sys

DEPENDENCY = re.compile(r"""([\w.-]+).*\bextra\s*==\s*["']([\w-]+)["']""")


def require(extra: str) -> None:
    """A room beyond `method` asks for the packages of its extra ("train" or "notebooks", see pyproject.toml).

    Raises:
        ImportError: one of them is not installed.
        SystemExit: likewise, while a command (`python -m ...`) is being looked up, whose user needs no traceback.
    """
    missing = [name for name in _packages(extra) if not _is_installed(name)]
    if not missing:
        return
    message = (f"cawalib: found no package {', '.join(missing)}, expected those of its extra '{extra}'; in the "
               f'repository: pip install ".[{extra}]"')
    # runpy sets sys.argv[0] to the module's file only once it has found it
    raise SystemExit(message) if sys.argv[:1] == ["-m"] else ImportError(message)


def _packages(extra):
    """The packages of an extra, as the installed metadata have them; none for a copy that is not installed."""
    try:
        found = [DEPENDENCY.match(line) for line in importlib.metadata.requires("cawalib") or ()]
    except importlib.metadata.PackageNotFoundError:
        return []
    return [match[1] for match in found if match and match[2] == extra]


def _is_installed(name):
    try:
        return bool(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return False
