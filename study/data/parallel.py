"""Runs a function over tasks in several processes, with progress."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from study.config.host import cores
from study.data.formats.dataset import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Called with the name of the work, and how many of its tasks are done and exist.
ProgressFn = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """A `ProgressFn` that shows nothing."""


def map_unordered(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[Result]:
    """Yields results as they complete. With one worker or task it runs in this process.

    Raises:
      DataError: a worker process was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    # "spawn", because a fork of a process that runs threads (JAX, Ray) can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            with _threads(max(1, cores() // workers)):
                futures = [pool.submit(function, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                "a data process was killed (out of memory?); run again, finished work is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """The threads of NumPy's products in processes that start meanwhile, unless the user says.

    By default each takes all cores, and they spend more time waiting for one than multiplying.
    """
    variable = "OMP_NUM_THREADS"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = str(count)
    try:
        yield
    finally:
        del os.environ[variable]
