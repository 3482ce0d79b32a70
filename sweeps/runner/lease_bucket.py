"""A lease on a record in a bucket, where nothing can be locked, renamed or touched.

    lease.json, lease-2.json, lease-3.json, ...   the highest number is the lease

Taking one over creates the next number, and creation only if absent is atomic: of any number of
processes that find a lease stale exactly one succeeds. The holder writes its object again every
`RENEW` seconds; its age is the bucket's own time of writing, so a skew of this machine's clock
counts against `STALE`. A holder that sees a higher number or another's token has lost the lease,
and so has one that could not renew for `STALE` seconds: `check` says so before it writes again.

Guaranteed: two processes never both acquire a lease that is free or stale, where the service
creates only if absent (Google's does). Not guaranteed, as nothing in a bucket could:
that a process which was asleep for longer than `STALE` in the middle of a write does not finish
that write. Rows of attempts are objects of their own, so such a write spoils none.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Self

from study.records.storage import listdir, mtime, read, unlink, write, write_new
from sweeps.runner.lease_owner import Holder, LeaseHeld, LeaseLost, parse

RENEW = 15.0  # seconds between heartbeats, each of them three requests
STALE = 90.0  # seconds without a heartbeat after which anybody may take over


def holder_of(path: Path, *, stale: float = STALE) -> Holder | None:
    """The live holder of the lease at `path`, or None where it is free or stale."""
    with contextlib.suppress(FileNotFoundError):  # released in between
        for known, there in reversed(_read(path).values()):
            return None if known.dead or _age(there) > stale else known
    return None


class BucketLease:
    """A lease that this process holds, renewed until `release` (or the end of a `with`).

    Raises:
      LeaseHeld: by `acquire`, when a live process holds it.
    """

    def __init__(
        self, path: Path, own: Path, holder: Holder, renew: float, stale: float, at: float
    ):
        self.path = path
        self.holder = holder
        self.lost = threading.Event()
        self._own, self._stale = own, stale
        self._renewed = at
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._keep, args=(renew,), name=f"lease {path.parent.name}", daemon=True
        )
        self._thread.start()

    @classmethod
    def acquire(cls, path: Path, *, renew: float = RENEW, stale: float = STALE) -> Self:
        """Takes the lease at `path`."""
        me = Holder.here()
        while True:
            known = _read(path)
            number, (holder, there) = next(reversed(known.items()), (0, (None, path)))
            if holder is not None:
                with contextlib.suppress(FileNotFoundError):  # else it was released in between
                    age = _age(there)
                    if not holder.dead and age <= stale:
                        raise LeaseHeld(
                            f"{path.parent.name} is being run by {holder} (sign of life {age:.0f} "
                            "s ago); wait for it, or stop it"
                        )
            began = time.monotonic()
            own = _name(path, number + 1)
            if write_new(own, json.dumps(asdict(me)).encode()):
                # What was found may be long gone, and others at work since: nobody may stand
                # above, and below none but the one that was found stale.
                after = _read(path)
                last = after.pop(max(after, default=0), (None, path))[0]
                below = next(reversed(after.values()), (holder, path))[0]
                if last == me and below == holder:
                    return cls(path, own, me, renew, stale, began)
                unlink(own)

    def check(self) -> None:
        """Raises LeaseLost if the lease was taken over, or may have been."""
        if self.lost.is_set() or time.monotonic() - self._renewed > self._stale:
            raise LeaseLost(f"{self.path.parent}: another process took this over")

    def release(self) -> None:
        """Gives the lease up; one that was taken over is left alone."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # of a bucket that is away: it becomes stale
            if self._is_mine():
                for _, there in _read(self.path).values():  # the highest, our own, last
                    unlink(there)

    def _keep(self, renew: float) -> None:
        while not self._over.wait(renew):
            began = time.monotonic()
            with contextlib.suppress(Exception):  # a bucket that is away: `check` counts the time
                if began - self._renewed > self._stale or not self._is_mine():
                    self.lost.set()
                    return
                write(self._own, json.dumps(asdict(self.holder)).encode())
                self._renewed = began

    def _is_mine(self) -> bool:
        last, _ = next(reversed(_read(self.path).values()), (None, None))
        return last == self.holder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _read(path: Path) -> dict[int, tuple[Holder, Path]]:
    """The holders that the objects of the lease at `path` name, by number, the lowest first."""
    form = re.compile(rf"{re.escape(path.stem)}(?:-(\d+))?{re.escape(path.suffix)}")
    found: dict[int, tuple[Holder, Path]] = {}
    for there in listdir(path.parent):
        if match := form.fullmatch(there.name):
            with contextlib.suppress(FileNotFoundError):  # released in between
                found[int(match[1] or 1)] = parse(read(there)), there
    return dict(sorted(found.items()))


def _name(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _age(path: Path) -> float:
    return time.time() - mtime(path)
