"""pytest in a fork of a process that has imported what all tests import, which takes longer than most tests.

    echo '["tests/test_cam.py"]' | python tests/mutants/forks.py      a line of tests in, their exit status out

Of the code under test nothing is imported before the fork. One that takes longer than MINUTES is ended: status HANGS.
"""

import json
import os
import signal
import sys
import time

import pytest

MINUTES = 10  # the machine may be slow
HANGS = 124
OPTIONS = ["-qx", *(word for name in ("cacheprovider", "nbval", "xdist") for word in ("-p", f"no:{name}"))]


def run(tests) -> int:
    """pytest's exit status; it stops at the first test that fails."""
    child = os.fork()
    if child == 0:
        os.setsid()  # with all that its tests start
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os._exit(int(pytest.main([*OPTIONS, *tests])))
    end = time.monotonic() + 60 * MINUTES
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return HANGS
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(found[1])


if __name__ == "__main__":
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import torchvision.models.segmentation  # noqa: F401

    sys.path.insert(0, os.getcwd())
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)
