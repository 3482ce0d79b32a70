"""What the processes of a cell print, kept in its record: `logs/<process>.log`, try after try."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOGS = "logs"


def log_of(folder: Path, process: int = 0) -> Path:
    """The log of one process of the cell whose record is `folder`."""
    return folder / LOGS / f"{process}.log"


@contextlib.contextmanager
def logged(folder: Path, process: int = 0) -> Iterator[None]:
    """Sends what this process prints, C++ included, to the cell's log, for the block.

    A log that cannot be written stops nobody: the record itself says so soon enough.
    """
    back = redirect(folder, process)
    try:
        yield
    finally:
        _flush()
        for fd, saved in back:
            os.dup2(saved, fd)
            os.close(saved)


def redirect(folder: Path, process: int = 0) -> list[tuple[int, int]]:
    """As `logged`, for good; returns what standard output and error were."""
    path = log_of(folder, process)
    _flush()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(file, f"--- {stamp} process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError:
        return []
    back = [(fd, os.dup(fd)) for fd in (1, 2)]
    for fd in (1, 2):
        os.dup2(file, fd)
    os.close(file)
    return back


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # one that is closed
            stream.flush()
