"""What a host needs before its first cell: the data set of the study, and the compile cache."""

from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from study.data.files import absolute, is_bucket, to_path
from sweeps.ray_cluster import compile_cache
from sweeps.runner.display import ProgressLine, Report
from sweeps.runner.worker import import_entry
from sweeps.study import Study


def set_environment(variables: Mapping[str, str]) -> None:
    """Sets that of this process, before it imports JAX."""
    os.environ.update(variables)
    # `prepare` reports it once; JAX 0.10 would for every program, across the progress display.
    # Remove with the first JAX that warns once.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")


def prepare(study: Study, report: Report) -> None:
    """Writes what is missing of the study's data, once if several processes start together.

    Also removes corrupt entries of the compile cache, and reports one that cannot be used.
    """
    if study.prepare is not None:
        _write_data(study, study.prepare, report)
    cache = compile_cache.folder()
    compile_cache.remove_corrupt(cache)
    if (problem := compile_cache.find_problem(cache)) is not None:
        report.line(problem)


def _write_data(study: Study, entry: str | Callable[..., object], report: Report) -> None:
    if is_bucket(to_path(study.data_root)):
        return  # data sets are copied into a bucket once, not by each host
    write = import_entry(entry) if isinstance(entry, str) else entry
    data_root = Path(absolute(study.data_root))
    line = f"preparing the data of {study.name} under {data_root} (what is missing is made once)"
    slow = threading.Timer(1.0, report.line, [line])
    slow.start()
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        with FileLock(data_root / ".prepare.lock"), ProgressLine() as progress:
            offered = {"cells": study.cells, "progress": progress}
            parameters = inspect.signature(write).parameters
            write(data_root, **{k: v for k, v in offered.items() if k in parameters})
    finally:
        slow.cancel()
