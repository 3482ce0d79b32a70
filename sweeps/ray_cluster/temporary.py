"""A temporary folder for Ray, removed with its run, and quiet standard output for it.

Ray 2.60 prints to the terminal whatever `log_to_driver` says, and a session that is left behind
keeps its files in the temporary folder for ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from sweeps.ray_cluster.streams import redirected
from sweeps.study import StudyError

_PREFIX = "study-"
LOCK = "lock"  # held by the process whose folder it is
_LEAST_DISK = 200 * 2**20  # bytes that a session writes at most in logs and sockets, generously


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, removed at the end; also removes those of the dead.

    Raises:
      StudyError: its disk is full.
    """
    base = Path(tempfile.gettempdir())
    if len(str(base)) > 30:  # the path of a socket may have about 100 characters
        base = Path("/tmp")
    free = shutil.disk_usage(base).free
    if free < _LEAST_DISK:
        raise StudyError(
            f"{base} has {free / 2**20:.0f} MiB left and Ray needs {_LEAST_DISK / 2**20:.0f}; "
            "make room, or set TMPDIR to a short path on another disk"
        )
    for old in base.glob(f"{_PREFIX}????????"):
        with contextlib.suppress(OSError):
            if old.stat().st_uid == os.getuid() and _left_behind(old):
                shutil.rmtree(old, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except OSError as error:
        raise StudyError(f"cannot write {base}: {error.strerror or error}; set TMPDIR") from error
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _left_behind(folder: Path) -> bool:
    """Whether the driver whose folder this is has gone.

    Without a lease it has too, if Ray was there: a Ray process that was slow to die wrote on
    while the folder was being removed.
    """
    if (folder / LOCK).exists():
        try:
            with FileLock(folder / LOCK, timeout=0):
                return True
        except Timeout:
            return False
    silent = time.time() - folder.stat().st_mtime > 60
    return silent and (folder / "session_latest").is_symlink()


@contextlib.contextmanager
def quiet(log: Path, *, errors: bool = False) -> Iterator[TextIO]:
    """Sends what this process and its children print to `log`; yields the real standard output.

    With `errors` the real standard error, for standard output may hold what a program reads. At
    the level of file descriptors, because part of what Ray prints comes from C++.
    """
    with log.open("ab") as file, redirected(file.fileno()) as terminal:
        words = _last_words(terminal[1], log)
        try:
            with os.fdopen(os.dup(terminal[1 if errors else 0]), "w", encoding="utf-8") as real:
                yield real
        finally:
            words.communicate(b"\n")


def _last_words(terminal: int, log: Path) -> subprocess.Popen[bytes]:
    """Speaks for this process if that ends without having told it otherwise.

    Ray's C++ part ends the whole process, with code 1 and not a word on the terminal, when one of
    Ray's processes dies while it starts.
    """
    text = (
        f"study: ended at once (killed, or by Ray: see {log}); what is recorded is kept: run the "
        "same again"
    )
    return watchdog("read -r _ || printf '%s\\n' \"$0\"", text, stdout=terminal)


def watchdog(
    script: str, *arguments: str, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Starts a shell whose standard input ends when this process has ended, and only then."""
    return subprocess.Popen(
        ["sh", "-c", f"trap '' INT TERM HUP; {script}", *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
