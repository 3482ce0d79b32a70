"""What the processes of a cell print, kept in its record.

    <root>/<study>/<cell id>/logs/0.log         process 0, try after try
    <root>/<study>/<cell id>/logs/0-<time>.log  in a bucket: a try each, for nothing is appended

A log that cannot be written stops nobody: the record itself says so soon enough.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from study.places import children, is_bucket, replaced

LOGS = "logs"
COPY = 15.0  # seconds between two copies into a bucket


def logs_of(folder: Path, process: int = 0) -> list[Path]:
    """The logs of one process of the cell whose record is `folder`, oldest first."""
    return [
        path
        for path in children(folder / LOGS)
        if path.name == f"{process}.log" or path.name.startswith(f"{process}-")
    ]


@contextlib.contextmanager
def logged(folder: Path, process: int = 0) -> Iterator[None]:
    """Sends what this process prints, C++ included, to the cell's log, for the block."""
    log = Log(folder, process)
    try:
        yield
    finally:
        log.close()


class Log:
    """Standard output and error of this process go to the cell's log until `close`."""

    def __init__(self, folder: Path, process: int):
        self._saved: list[tuple[int, int]] = []
        self._copy: tuple[Path, Path] | None = None
        self._over = threading.Event()
        try:
            file = self._open(folder, process)
        except OSError:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(file, f"--- {stamp} process {os.getpid()} on {socket.gethostname()}\n".encode())
        _flush()
        for fd in (1, 2):
            self._saved.append((fd, os.dup(fd)))
            os.dup2(file, fd)
        os.close(file)
        if self._copy is not None:
            threading.Thread(target=self._keep, name="log", daemon=True).start()

    def close(self) -> None:
        self._over.set()
        _flush()
        for fd, saved in self._saved:
            os.dup2(saved, fd)
            os.close(saved)
        self._saved = []
        if self._copy is not None:
            self._put()
            self._copy[0].unlink(missing_ok=True)
            self._copy = None

    def _open(self, folder: Path, process: int) -> int:
        if is_bucket(folder):
            file, name = tempfile.mkstemp(prefix="study-log-", suffix=".log")
            there = folder / LOGS / f"{process}-{time.strftime('%Y%m%d-%H%M%S')}.log"
            self._copy = (Path(name), there)
            return file
        path = folder / LOGS / f"{process}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def _keep(self) -> None:
        while not self._over.wait(COPY):
            _flush()
            self._put()

    def _put(self) -> None:
        if (copy := self._copy) is not None:
            with contextlib.suppress(Exception):  # every service has errors of its own
                replaced(copy[1], copy[0].read_bytes())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # one that is closed
            stream.flush()
