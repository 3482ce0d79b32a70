"""Who holds a lease, and whether that process is still alive."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path


class LeaseHeld(RuntimeError):
    """Somebody else is at work here; the message says who."""


class LeaseLost(RuntimeError):
    """Somebody else took this lease over while its holder was silent."""


@functools.cache
def machine() -> str:
    """Names the set of processes among which a process number means something.

    A host name alone does not: containers share it, and it outlives a reboot.
    """
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text()[:8],
        lambda: str(Path("/proc/self/ns/pid").readlink())[5:-1],
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return "/".join(parts)


def process_start(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None if it is dead or unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lease."""

    machine: str
    pid: int
    started: int | None
    token: str

    @classmethod
    def here(cls) -> Holder:
        pid = os.getpid()
        return cls(
            machine=machine(), pid=pid, started=process_start(pid), token=uuid.uuid4().hex[:16]
        )

    @property
    def dead(self) -> bool:
        """The holder was a process of this machine, and is gone."""
        if self.machine != machine():
            return False
        if self.started is not None:
            return process_start(self.pid) != self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.split('/')[0]}"


UNKNOWN = Holder(machine="?", pid=0, started=None, token="")  # its file is being written


def parse(text: bytes) -> Holder:
    """The holder that a lease names; `UNKNOWN` while it is being written."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return UNKNOWN
