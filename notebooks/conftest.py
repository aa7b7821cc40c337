"""nbval compares the cells tagged `nbval-check-output`; what a library prints on stderr is not part of that."""

import os

from nbval.plugin import IPyNbCell

os.environ["CAWALIB_HEADLESS"] = "1"  # kernels inherit it: a line per epoch instead of progress bars


def pytest_collection_modifyitems(items):
    for notebook in {item.parent for item in items if isinstance(item, IPyNbCell)}:
        notebook.skip_compare += ("stderr",)
