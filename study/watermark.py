"""How much memory a step took on a device, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from study.sharding import bytes_per_device

_SELF = Path("/proc/self")


class Peak(NamedTuple):
    """The most that was held on one device at once.

    Attributes:
      peak_bytes: None where nobody could tell.
      source: "device": the fullest device of this process, by its allocator. "process": what the
        system says of this process, where devices share its memory: the state, and by how much
        the process grew above it, a device's share. That counts all that grows in a process, so
        it says little of a step of a few MiB.
    """

    peak_bytes: int | None
    source: Literal["device", "process"]


class Watermark:
    """Watches memory from its making until `read`; made when a step's state is there, but no step
    has run."""

    def __init__(self, state: Any):
        self._known = [_allocated(device) for device in jax.local_devices()]
        self._state_bytes = bytes_per_device(state)
        self._before = None if all(self._known) else _restarted()

    def read(self) -> Peak:
        """The peak since then.

        An allocator knows only the highest peak of its life: one that did not rise was an earlier
        cell's of the same process, and nothing is known of this one.
        """
        if all(self._known):
            now = [_allocated(device) for device in jax.local_devices()]
            peak = max(now)
            return Peak(peak if peak > max(self._known) else None, "device")
        after = _status("VmHWM")
        if self._before is None or after is None:
            return Peak(None, "process")
        grown = max(0, after - self._before) // jax.local_device_count()
        return Peak(self._state_bytes + grown, "process")


def _allocated(device: jax.Device) -> int:
    """The highest that the allocator of `device` has been, or 0 where it does not say."""
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))


def _restarted() -> int | None:
    """Makes the system count the peak of this process anew; returns what it holds now."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:  # no Linux, or a container that does not allow it
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """Bytes, of a line of /proc/self/status."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
