"""What a host needs before its first cell: the data set of the study, and the compile cache."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path

from filelock import FileLock

from sweeps.ray_cluster import compile_cache
from sweeps.runner.display import ProgressLine, Report
from sweeps.runner.worker import import_entry
from sweeps.study import Study


def prepare(study: Study, report: Report) -> None:
    """Writes what is missing of the study's data, once if several processes start together."""
    if study.prepare is None:
        return
    write = import_entry(study.prepare) if isinstance(study.prepare, str) else study.prepare
    data_root = Path(study.data_root).absolute()
    line = f"preparing the data of {study.name} under {data_root} (what is missing is made once)"
    slow = threading.Timer(1.0, report.line, [line])
    slow.start()
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        parameters = inspect.signature(write).parameters
        optional = {"cells": study.cells} if "cells" in parameters else {}
        with FileLock(data_root / ".prepare.lock"):
            if "progress" in parameters:
                with ProgressLine() as progress:
                    write(data_root, progress=progress, **optional)
            else:
                write(data_root, **optional)
    finally:
        slow.cancel()


def keep_programs(report: Report) -> None:
    """Removes corrupt entries of the compile cache; reports a cache that cannot be used."""
    folder = compile_cache.folder()
    compile_cache.remove_corrupt(folder)
    if (problem := compile_cache.find_problem(folder)) is not None:
        report.line(problem)
