"""Leases: a file with a heartbeat that says who is at work, so that no two processes run one cell.

A lease is created with O_EXCL and renewed by a thread. It is stale when it was not renewed for
`STALE` seconds, or at once when its holder was a process of this machine that is dead. Replacing
and removing a lease happen under a lock on the file itself, which dies with its process and leaves
nothing behind; a holder whose lease was taken over notices, stops, and removes nothing.

A bucket has neither locks nor O_EXCL: its leases are in `sweeps.runner.lease_bucket`.
`Lease.acquire` and `holder_of` take a path of either kind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Self

from study.records.storage import is_bucket
from sweeps.runner import lease_bucket as bucket_lease
from sweeps.runner.lease_owner import Holder, LeaseHeld, LeaseLost, parse

__all__ = ["DRIVER", "LEASE", "Holder", "Lease", "LeaseHeld", "LeaseLost", "holder_of"]

LEASE = "lease.json"
DRIVER = ".driver-"  # begins the name of a folder that holds the lease of a driver
RENEW = 5.0  # seconds between heartbeats
STALE = 60.0  # seconds without a heartbeat after which anybody may take over


def holder_of(path: Path, *, stale: float = STALE) -> Holder | None:
    """The live holder of the lease at `path`, or None where it is free or stale."""
    if is_bucket(path):
        return bucket_lease.holder_of(path)
    try:
        age = time.time() - path.stat().st_mtime
        known = parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if known.dead or age > stale else known


class Lease:
    """A lease that this process holds, renewed until `release` (or the end of a `with`).

    Raises:
      LeaseHeld: by `acquire`, when a live process holds it.
      OSError: by `acquire`, when the file cannot be written.
    """

    def __init__(self, path: Path, fd: int, holder: Holder, renew: float):
        self.path = path
        self.holder = holder
        self.lost = threading.Event()
        self._fd = fd
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._keep, args=(renew,), name=f"lease {path.parent.name}", daemon=True
        )
        self._thread.start()

    @classmethod
    def acquire(
        cls, path: Path, *, renew: float = RENEW, stale: float = STALE
    ) -> Self | bucket_lease.BucketLease:
        """Takes the lease at `path`, whose folder is made if needed.

        A lease in a bucket has times of its own, as each heartbeat there is paid for.
        """
        if is_bucket(path):
            return bucket_lease.BucketLease.acquire(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        me = Holder.here()
        while True:
            try:
                fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            except FileExistsError:
                taken = _take_over(path, me, stale)
                if taken is None:
                    continue  # it was released or replaced in between: look again
                return cls(path, taken, me, renew)
            try:
                os.write(fd, json.dumps(asdict(me)).encode())
            except OSError:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
            return cls(path, fd, me, renew)

    def check(self) -> None:
        """Raises LeaseLost if the lease was taken over."""
        if self.lost.is_set():
            raise LeaseLost(f"{self.path.parent}: another process took this over")

    def release(self) -> None:
        """Gives the lease up; one that was taken over is left alone."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError), _locked(self._fd):
            if _is_at(self._fd, self.path):
                self.path.unlink()
        os.close(self._fd)

    def _keep(self, renew: float) -> None:
        while not self._over.wait(renew):
            if not _is_at(self._fd, self.path):
                self.lost.set()
                return
            with contextlib.suppress(OSError):
                os.utime(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _take_over(path: Path, me: Holder, stale: float) -> int | None:
    """Replaces a stale lease; the new file's descriptor, or None if the old one went away.

    Whoever got the lock on a file that is no longer at `path` came too late, so of any number of
    processes that find a lease stale exactly one replaces it.
    """
    try:
        old = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        with _locked(old):
            if not _is_at(old, path):
                return None
            known = parse(os.pread(old, 4096, 0))
            age = time.time() - os.fstat(old).st_mtime
            if not known.dead and age <= stale:
                raise LeaseHeld(
                    f"{path.parent.name} is being run by {known} (sign of life {age:.0f} s ago); "
                    f"wait for it, or stop it"
                )
            part = path.with_name(f".{path.name}.{me.token}")
            fd = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            try:
                os.write(fd, json.dumps(asdict(me)).encode())
                part.replace(path)
            except OSError:
                os.close(fd)
                part.unlink(missing_ok=True)
                raise
            return fd
    finally:
        os.close(old)


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    locked = True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:  # a file system without locks: the checks around us still hold mostly
        locked = False
    try:
        yield
    finally:
        if locked:
            fcntl.flock(fd, fcntl.LOCK_UN)


def _is_at(fd: int, path: Path) -> bool:
    try:
        here, there = os.fstat(fd), path.stat()
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
