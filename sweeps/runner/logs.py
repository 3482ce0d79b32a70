"""Keeps what the processes of a cell print in its record.

    <root>/<group>/<cell id>/logs/0.log         process 0, all attempts
    <root>/<group>/<cell id>/logs/0-<time>.log  in a bucket, which cannot append: one attempt each

All output passes through `sweeps.runner.log_pump`, a process that removes keys and tokens and
outlives this one. A log that cannot be written stops no cell.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from study.records import redact as secrets
from study.records.storage import is_bucket, listdir, write
from sweeps.runner import log_pump

LOGS = "logs"
COPY_S = 15.0  # between two copies into a bucket
CLOSE_S = 10.0  # that closing a log waits for the last lines


def logs_of(folder: Path, process: int = 0) -> list[Path]:
    """The logs of one process of the cell whose record is `folder`, oldest first."""
    return [
        path
        for path in listdir(folder / LOGS)
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
        self._copied = 0  # bytes that the bucket has
        self._over = threading.Event()
        try:
            with contextlib.ExitStack() as stack:
                file = self._open(folder, process)
                stack.callback(os.close, file)
                stamp = time.strftime("%Y-%m-%d %H:%M:%S")
                head = f"--- {stamp} process {os.getpid()} on {socket.gethostname()}\n"
                os.write(file, head.encode())
                self._pump = _Pump(file)
        except (OSError, subprocess.SubprocessError):
            return
        _flush()
        for fd in (1, 2):
            self._saved.append((fd, os.dup(fd)))
            os.dup2(self._pump.pipe, fd)
        if self._copy is not None:
            threading.Thread(target=self._keep, name="log", daemon=True).start()

    def close(self) -> None:
        self._over.set()
        _flush()
        for fd, saved in self._saved:
            os.dup2(saved, fd)
            os.close(saved)
        if self._saved:
            self._pump.close()
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
        while not self._over.wait(COPY_S):
            _flush()
            self._put()

    def _put(self) -> None:
        if (copy := self._copy) is not None:
            with contextlib.suppress(Exception):  # the rows of the record meet the same error
                text = copy[0].read_bytes()
                if len(text) > self._copied:  # else nothing was printed since
                    write(copy[1], text)
                    self._copied = len(text)


class _Pump:
    """The process that copies what is written to `pipe` into `file`, without keys and tokens.

    It ends when the last writer has: a child of this process may go on after `close`.

    Raises:
      OSError, SubprocessError: it cannot be started.
    """

    def __init__(self, file: int):
        self._mark = os.urandom(16).hex()
        with contextlib.ExitStack() as ends:
            out, self.pipe = os.pipe()
            ends.callback(os.close, out)
            undo = ends.enter_context(contextlib.ExitStack())
            undo.callback(os.close, self.pipe)
            self._ack, ack = os.pipe()
            ends.callback(os.close, ack)
            undo.callback(os.close, self._ack)
            subprocess.run(  # returns once the pump has forked
                [
                    *(sys.executable, "-I", "-S", log_pump.__file__),
                    *(secrets.__file__, self._mark, str(ack)),
                ],
                stdin=out,
                stdout=file,
                stderr=subprocess.DEVNULL,
                pass_fds=[ack],
                start_new_session=True,
                timeout=60,
                check=True,
            )
            undo.pop_all()

    def close(self) -> None:
        """Waits until everything written is in the file."""
        with contextlib.suppress(OSError):
            os.write(self.pipe, self._mark.encode())
            select.select([self._ack], [], [], CLOSE_S)
        os.close(self.pipe)
        os.close(self._ack)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a closed stream
            stream.flush()
