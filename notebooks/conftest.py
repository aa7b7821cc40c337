"""nbval compares the cells tagged `nbval-check-output`; what a library prints on stderr is not part of that."""

import itertools
import os
import tempfile

import nbval.kernel
from jupyter_client.manager import KernelManager
from nbval.plugin import IPyNbCell

os.environ["CAWALIB_HEADLESS"] = "1"  # kernels inherit it: a line per epoch instead of progress bars
SOCKETS = tempfile.TemporaryDirectory()  # removed at the end
NUMBERS = itertools.count()


def kernel_manager(**options):
    """One whose kernel is reached by files: a port that another test has taken meanwhile lets a kernel hang."""
    if os.name == "posix":
        options |= {"transport": "ipc", "ip": f"{SOCKETS.name}/{next(NUMBERS)}"}
    return KernelManager(**options)


nbval.kernel.KernelManager = kernel_manager


def pytest_collection_modifyitems(items):
    for notebook in {item.parent for item in items if isinstance(item, IPyNbCell)}:
        notebook.skip_compare += ("stderr",)
