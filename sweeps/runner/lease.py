"""Leases: at most one worker at a time trains a cell.

A lease is the file `lease.json` in the record of a cell. It is free while it is missing or empty.
A worker creates it if it is free, and renews it by a heartbeat. A contender that has seen the same
version for `Store.stale_s` seconds of its own clock takes it over, so the clocks of two machines
are never compared; a lease whose process ran on this machine and has died is taken over at once.

The holder fences itself: `check` raises once the last successful heartbeat is older than
`Store.stale_s`, whatever kept it from renewing (a network that is down, a full disk, SIGSTOP), so
it stops writing when a contender may have begun. Errors of the storage before that are tolerated.
Not guaranteed: that a process which was stopped in the middle of a write does not finish that
write. Rows carry the number of their attempt, and results do not depend on who computes them.

`filelock.SoftFileLease` expires in the same way, but only on file systems, and a contender has to
wait on one lease at a time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from study.records.storage import RecordError
from sweeps.runner.store import LEASE, Store, Version

# CLOCK_BOOTTIME goes on while a laptop sleeps, CLOCK_MONOTONIC does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def monotonic() -> float:
    """Seconds of a clock that never goes back, and that counts suspended time where it can."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class LeaseLost(RuntimeError):
    """Another worker may have taken this lease over; nothing more may be written."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that holds a lease."""

    host: str  # for people
    namespace: str  # identifies the processes among which `pid` is unique
    pid: int
    started: int | None  # in clock ticks since boot; None if unknown
    worker: str  # its name
    token: str  # differs for every lease ever taken

    @classmethod
    def here(cls, worker: str = "") -> Owner:
        """This process, with a new token."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            namespace=_pid_namespace(),
            pid=pid,
            started=_start_of(pid),
            worker=worker,
            token=uuid.uuid4().hex,
        )

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine and has ended."""
        if self.started is None or self.namespace != _pid_namespace():
            return False
        started = _start_of(self.pid)
        return not _exists(self.pid) if started is None else started != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


UNKNOWN = Owner(host="?", namespace="", pid=0, started=None, worker="", token="")


def parse_owner(content: bytes | None) -> Owner | None:
    """The owner that a lease names; None if the lease is free."""
    if not content:
        return None
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):  # of another version of this program
        return UNKNOWN


class Lease:
    """A lease that this process holds. It is renewed from `start` on, or for a `with`.

    Arguments:
      version: of its file, as `acquire` returned it.
      renewed: when `acquire` was called, by `monotonic`.
    """

    def __init__(self, store: Store, cell: str, owner: Owner, version: Version, renewed: float):
        self.owner, self.version = owner, version
        self._store, self._cell, self._renewed = store, cell, renewed
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {cell}", daemon=True)

    @classmethod
    def take(cls, store: Store, cell: str, worker: str, expected: Version | None) -> Self | None:
        """Acquires the lease for this process; None if its file is not `expected` any more."""
        owner, began = Owner.here(worker), monotonic()
        version = acquire(store, cell, owner, expected)
        return None if version is None else cls(store, cell, owner, version, began)

    def start(self) -> Self:
        self._thread.start()
        return self

    def check(self) -> None:
        """Raises LeaseLost if another worker has taken the lease over, or may have."""
        silent = monotonic() - self._renewed
        if silent > self._store.stale_s and not self._lost:
            self._lost = f"its lease could not be renewed for {silent:.0f} s"
        if self._lost:
            raise LeaseLost(f"{self._cell}: {self._lost}; the attempt ends without another write")

    def release(self) -> None:
        """Frees the lease, unless it is another worker's by now."""
        if self._over.is_set():
            return
        self._over.set()
        version: Version | None = self.version
        with contextlib.suppress(OSError, RecordError):  # then it becomes stale
            if self._thread.ident is not None:
                self._thread.join()
                # Renewed once more, for its present version, and to see whether it is still ours.
                version = self._store.touch(self._cell, LEASE, _content(self.owner), self.version)
            if version is not None:
                self._store.swap(self._cell, LEASE, b"", version)

    def _renew(self) -> None:
        while not self._over.wait(self._store.renew_s):
            began = monotonic()
            if began - self._renewed > self._store.stale_s:
                return  # `check` says so
            try:
                version = self._store.touch(self._cell, LEASE, _content(self.owner), self.version)
            except Exception:  # transient, or `check` counts the time
                continue
            if version is None:
                self._lost = "another worker has taken its lease over"
                return
            self.version, self._renewed = version, began

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.release()


def acquire(store: Store, cell: str, owner: Owner, expected: Version | None) -> Version | None:
    """Takes the lease of `cell` if its file still is `expected` (None: missing).

    The caller has made sure that this version is free or stale.

    Raises:
      OSError, RecordError: the storage does not respond, or is full or read-only.
    """
    return store.swap(cell, LEASE, _content(owner), expected)


class Heartbeats:
    """Judges by this process's own clock which leases are alive.

    A one-off look cannot tell a live lease from a stale one. Until a lease has been observed for
    `Store.stale_s` seconds it counts as alive.

    Arguments:
      trust_mtime: judge a lease that is seen for the first time by the time of its file, which is
        good enough for showing it, and wrong where clocks differ.
      seen: what another process has watched: by cell, the token of its lease, and since when by
        this process's clock.
    """

    def __init__(
        self,
        store: Store,
        *,
        trust_mtime: bool = False,
        seen: Mapping[str, tuple[str, float]] | None = None,
        clock: Callable[[], float] = monotonic,
    ):
        self._store, self._clock, self._trust_mtime = store, clock, trust_mtime
        self._seen = dict(seen or {})  # by cell: token, when it was first seen
        self._owners: dict[str, tuple[str, Owner | None]] = {}  # by cell: token, owner

    def ages(self) -> dict[str, tuple[str, float]]:
        """By cell, the token of its lease and for how many seconds it has been observed.

        Nobody may take a lease over by the time of its file, so those that are judged by it have
        no age.
        """
        if self._trust_mtime:
            return {}
        return {cell: (token, self._silent(cell)) for cell, (token, _) in self._seen.items()}

    def owner(self, cell: str, lease: Version | None) -> Owner | None:
        """Who holds the lease of `cell`, seen as `lease`; None if it is free, stale or dead.

        Where reads cost money the owner of a lease that is renewed is `UNKNOWN`, unless this object
        is for showing it.
        """
        self.update({cell: lease})
        if cell not in self._seen or self._silent(cell) > self._store.stale_s:
            return None
        _, owner = self._owners.get(cell, ("", UNKNOWN))
        return None if owner is None or owner.is_dead else owner

    def update(self, leases: Mapping[str, Version | None]) -> None:
        """Notes when these leases were seen, by cell; reads the owners of those that need it."""
        now, unread = self._clock(), []
        for cell, lease in leases.items():
            if lease is None or not lease.size:
                self._seen.pop(cell, None)
                self._owners.pop(cell, None)
                continue
            token, _ = self._seen.get(cell, ("", now))
            if token != lease.token:
                age = time.time() - lease.mtime if self._trust_mtime and not token else 0.0
                self._seen[cell] = (lease.token, now - max(0.0, age))
            if self._must_read(cell, lease.token):
                unread.append(cell)
        if not unread:
            return
        contents = self._store.read_many((cell, LEASE) for cell in unread)
        for cell in unread:  # without content it was freed since
            owner = parse_owner(contents.get((cell, LEASE)))
            self._owners[cell] = (self._seen[cell][0], owner)

    def _must_read(self, cell: str, token: str) -> bool:
        """A heartbeat keeps the content, but a new owner may be behind a new version."""
        read_for, owner = self._owners.get(cell, ("", UNKNOWN))
        silent = self._silent(cell)
        if read_for == token or silent > self._store.stale_s:
            return False
        return (
            self._store.reads_are_cheap
            or silent > 2 * self._store.renew_s
            or owner is None
            or owner.is_dead  # another worker may have taken it over since
            or (self._trust_mtime and not read_for)
        )

    def _silent(self, cell: str) -> float:
        return self._clock() - self._seen[cell][1]


def _content(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


@functools.cache
def _pid_namespace() -> str:
    """Containers share a host's name and a host keeps its name over a reboot, hence all three."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text()[:8],
        lambda: str(Path("/proc/self/ns/pid").readlink())[5:-1],
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return "/".join(parts)


def _exists(pid: int) -> bool:
    """Also of a process that /proc hides, as that of another user may be."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _start_of(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot: 0 if it has ended, None if unknown."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = status.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(rest[18])
