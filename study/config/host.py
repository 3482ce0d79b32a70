"""What this host lets this process use: cores and memory, within the limits of its control group.

A container or a batch scheduler sets those limits; the totals of the machine do not show them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux only
    count = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas())]))


def total_memory() -> int:
    """Bytes of memory of this host, or the limit of its control group where that is lower."""
    import psutil

    return min([psutil.virtual_memory().total, *(group.limit for group in _memory())])


def available_memory() -> int:
    """Bytes that can be allocated now without swapping, within the limit of the control group.

    Page cache counts as available, because the kernel gives it up on demand.
    """
    import psutil

    rooms = (group.limit - group.held for group in _memory())
    return max(0, min([psutil.virtual_memory().available, *rooms]))


class _Memory(NamedTuple):
    """Bytes of one control group; `held` is what it uses less what the kernel can reclaim."""

    limit: int
    held: int


def _memory() -> Iterator[_Memory]:
    """The limited groups that this process is in."""
    for version, folder in _groups("memory"):
        limit, used, cache = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        texts = [_read(folder / name) for name in (limit, used, "memory.stat")]
        if texts[0].isdigit() and texts[1].isdigit():
            fields = dict(line.split() for line in texts[2].splitlines())
            yield _Memory(int(texts[0]), int(texts[1]) - int(fields.get(cache, 0)))


def _quotas() -> Iterator[float]:
    """Cores' worth of time that the groups of this process get."""
    for version, folder in _groups("cpu"):
        if version == 2:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():  # not "max", not -1
            yield int(quota) / int(period)


def _groups(controller: str) -> Iterator[tuple[int, Path]]:
    """The version and folder of the group of this process and of those that enclose it.

    In a container the path may be the host's, which is not mounted; what is then left is the
    mount itself, which is the container's group.
    """
    for line in _read(_OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, mount = 2, _MOUNT
        elif controller in controllers.split(","):
            version, mount = 1, _MOUNT / controller
        else:
            continue
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(mount):
                yield version, folder


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
