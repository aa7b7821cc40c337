"""One function over many numbers in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from cawalib.datasets.base import DatasetError

_work = None  # what a process does, set once: a file list is not sent with every number


def in_processes(work: Callable[[int], object], numbers: range, workers: int, chunk: int = 1) -> Iterator:
    """work(number) for every number, in their order; `work` can be pickled.

    Raises:
        DatasetError: a process was ended from outside; else whatever `work` raises.
    """
    # spawned, not forked: a fork of a process that has computed with PyTorch's threads may hang
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _set_work, (work,)) as pool:
        try:
            yield from pool.map(_do, numbers, chunksize=chunk)
        except BrokenProcessPool:
            raise DatasetError(f"parameter 'data_workers': one of {workers} processes was ended, most likely for lack "
                               "of memory; choose fewer") from None


def _set_work(work):
    global _work
    _work = work


def _do(number):
    return _work(number)
