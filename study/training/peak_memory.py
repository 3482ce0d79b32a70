"""How much memory a step took on a device, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from study.models.sharding import bytes_per_device

_SELF = Path("/proc/self")
# Bytes per device from which growth of the process is the step's: of 646 recorded cells on CPU the
# 42 with more compiled bytes grew by 0.9 to 1.2 times these, the others by 0.05 to 3 times.
_TELLS_FROM = 100 * 2**20


class Peak(NamedTuple):
    """The most that was held on one device at once.

    Attributes:
      peak_bytes: None where it is unknown.
      source: "device": the allocator's peak on the fullest device of this process. "process": for
        devices that share the memory of the process, the state and a device's share of the growth
        of resident memory. Everything in the process grows it, so it is unknown for small steps.
    """

    peak_bytes: int | None
    source: Literal["device", "process"]


class PeakMemory:
    """Watches memory from its making until `read`; made when a step's state is there, but no step
    has run."""

    def __init__(self, state: Any):
        self._known = [_allocated(device) for device in jax.local_devices()]
        self._state_bytes = bytes_per_device(state)
        self._before = None if all(self._known) else _restarted()

    def read(self, compiled_bytes: int) -> Peak:
        """The peak since then.

        An allocator knows only the highest peak of its life: one that did not rise was an earlier
        cell's of the same process, and nothing is known of this one.

        Arguments:
          compiled_bytes: per device, of the step by the compiler's account.
        """
        if all(self._known):
            now = [_allocated(device) for device in jax.local_devices()]
            peak = max(now)
            return Peak(peak if peak > max(self._known) else None, "device")
        after = _status("VmHWM")
        if self._before is None or after is None or compiled_bytes < _TELLS_FROM:
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
