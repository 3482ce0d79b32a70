"""Commands in sessions of their own, whose processes, and no others, may be looked at and killed.

Ray's processes stay in the session of their driver. Needs /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

DYING = 10.0  # seconds that the last processes get to be gone, once they were killed


class Sessions:
    """Within a `with`: sessions that were started here; nothing of them is left after it."""

    def __init__(self) -> None:
        self._leaders: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts `command`, which leads a session; what it says is added to `log`."""
        # The number of a session without processes may be given to somebody else's.
        self._leaders = {k: v for k, v in self._leaders.items() if v.poll() is None or members(k)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            driver = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._leaders[driver.pid] = driver
        return driver

    def kill(self, leader: int, pids: Iterable[int]) -> None:
        """Kills those of `pids` that are in the session of `leader`, started here."""
        assert leader in self._leaders
        for pid in pids:
            if _session(pid) == leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def outlived(self, seconds: float) -> list[int]:
        """Processes of sessions whose leader is gone that are still there after so long."""
        until = time.monotonic() + seconds
        while True:
            gone = [pid for pid, leader in self._leaders.items() if leader.poll() is not None]
            left = [member for pid in gone for member in members(pid)]
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pid, leader in self._leaders.items():
            self.kill(pid, members(pid))
            leader.wait()
        self.outlived(DYING)


def members(leader: int) -> list[int]:
    """The live processes of a session."""
    everybody = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in everybody if _session(pid) == leader]


def processes(leader: int, name: str) -> list[int]:
    """Those that go by a name that begins so, or whose program has this name."""
    return [pid for pid in members(leader) if _goes_by(pid, name)]


def has_word(pid: int, word: str) -> bool:
    """Whether `word` is an argument of a process."""
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _session(pid: int) -> int | None:
    """The session of a process; None of one that is dead."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[2])


def _goes_by(pid: int, name: str) -> bool:
    try:
        first = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except (OSError, UnicodeDecodeError):
        return False
    return first.startswith(name) or Path(first).name == name
