"""Starts commands in sessions of their own, and kills processes of those sessions only.

Ray's processes stay in the session of their driver.
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

import psutil

EXIT_SECONDS = 10.0  # for the last processes to disappear after they were killed


class Sessions:
    """The sessions started within a `with` block; all their processes are killed at its end."""

    def __init__(self) -> None:
        self._leaders: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts `command` as leader of a session, with its output appended to `log`."""
        # The id of a session without processes may be reused by the system.
        self._leaders = {k: v for k, v in self._leaders.items() if v.poll() is None or members(k)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            leader = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._leaders[leader.pid] = leader
        return leader

    def kill(self, leader: int, pids: Iterable[int]) -> None:
        """Kills those of `pids` that are in the session of `leader`, which was started here."""
        assert leader in self._leaders
        for pid in set(pids) & set(members(leader)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def survivors(self, seconds: float) -> list[int]:
        """Processes that are still alive `seconds` after their session's leader has exited."""
        until = time.monotonic() + seconds
        while True:
            gone = [pid for pid, leader in self._leaders.items() if leader.poll() is not None]
            alive = [member for pid in gone for member in members(pid)]
            if not alive or time.monotonic() > until:
                return alive
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pid, leader in self._leaders.items():
            self.kill(pid, members(pid))
            leader.wait()
        self.survivors(EXIT_SECONDS)


def members(leader: int) -> list[int]:
    """The live processes of a session."""
    pids = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            alive = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            if os.getsid(process.pid) == leader and alive:
                pids.append(process.pid)
    return pids


def command_of(pid: int) -> list[str]:
    """The command line of a process; [] if it is gone."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).cmdline()
    return []


def find(leader: int, name: str) -> list[int]:
    """Processes of a session whose program is `name`, or whose command line begins with it."""
    return [
        pid
        for pid in members(leader)
        if (command := command_of(pid))
        and (command[0].startswith(name) or Path(command[0]).name == name)
    ]
