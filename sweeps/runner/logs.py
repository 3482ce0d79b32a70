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
import time
from collections.abc import Iterator
from pathlib import Path

from study.records import redact as secrets
from study.records.storage import is_bucket, listdir, write
from sweeps.ray_cluster.streams import flush, redirected
from sweeps.runner import log_pump
from sweeps.runner.repeating import repeating

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
    with contextlib.ExitStack() as stack:
        try:
            pump, upload = _open(folder, process)
        except (OSError, subprocess.SubprocessError):
            yield
            return
        if upload is not None:
            stack.callback(upload.close)
            stack.enter_context(repeating(upload.update, every_s=COPY_S, name="log"))
        stack.callback(pump.close)
        stack.enter_context(redirected(pump.pipe))
        yield


def _open(folder: Path, process: int) -> tuple[_Pump, _Upload | None]:
    """Begins a log. In a bucket it is a file here, which is copied."""
    upload = None
    if is_bucket(folder):
        fd, name = tempfile.mkstemp(prefix="study-log-", suffix=".log")
        target = folder / LOGS / f"{process}-{time.strftime('%Y%m%d-%H%M%S')}.log"
        upload = _Upload(Path(name), target)
    else:
        path = folder / LOGS / f"{process}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    try:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(fd, f"--- {stamp} process {os.getpid()} on {socket.gethostname()}\n".encode())
        return _Pump(fd), upload
    finally:
        os.close(fd)


class _Upload:
    """Copies a file to a bucket whenever something was printed since."""

    def __init__(self, file: Path, target: Path):
        self._file, self._target, self._copied = file, target, 0

    def update(self) -> None:
        flush()
        text = self._file.read_bytes()
        if len(text) > self._copied:
            write(self._target, text)
            self._copied = len(text)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the rows of the record meet the same error
            self.update()
        self._file.unlink(missing_ok=True)


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
