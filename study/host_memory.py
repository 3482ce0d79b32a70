"""How much of the host's memory this process can still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Limit, usage, and the line of memory.stat with the file cache that the kernel drops under
# pressure: in version 2 of control groups and in version 1.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Bytes that this process can allocate without swapping.

    It is the least of what is free on the machine and what the process's control groups (a
    container's, a Slurm job's) leave: total memory says nothing of either.

    Arguments:
      mount: where control groups are mounted.
      membership: the file that names this process's groups.
    """
    return max(0, min([psutil.virtual_memory().available, *_left_by_groups(mount, membership)]))


def _left_by_groups(mount: Path, membership: Path) -> Iterator[int]:
    """Bytes left under each limit that holds for this process; nothing where none does."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = mount, _V2
        elif "memory" in controllers.split(","):
            root, names = mount / "memory", _V1
        else:
            continue
        # A parent's limit holds too. In a container the path may be the host's, of which only
        # the mount itself, the container's own group, can be seen.
        group = root / path.lstrip("/")
        while True:
            if (left := _left(group, *names)) is not None:
                yield left
            if group == root:
                break
            group = group.parent


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    """Bytes left in one group; None where it has no limit or cannot be read."""
    try:
        most, used = int((group / limit).read_text()), int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return most - used + int(stat[cache])
    except (OSError, ValueError, KeyError):  # "max" means no limit
        return None
