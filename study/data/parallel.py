"""Runs a function over tasks in some processes; results come as they are ready."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from study.data.formats.dataset import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Called with what is being done, how many are done and how many there are.
ProgressFn = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """The progress that shows nothing."""


def map_unordered(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[Result]:
    """Results in the order of completion; in this process when one worker is enough.

    Raises:
      DataError: a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    # "spawn": a fork of a process that runs threads (JAX, Ray) may never wake up.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                "a data process was killed (out of memory?); run again, what is finished is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
