"""The memory that a compiled program needs, that a device has, and that a step took."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from study.config.host import available_memory
from study.models.sharding import bytes_per_device

_PROC = Path("/proc/self")
# The growth of the process measures a step from this size on: of 646 recorded cells on CPU, the 42
# whose programs needed more grew by 0.9 to 1.2 times that, the others by 0.05 to 3 times.
_MIN_MEASURABLE_BYTES = 100 * 2**20


class CompileResult(NamedTuple):
    """A compiled program, or the size of one that the compiler refused.

    Attributes:
      executable: None if the compiler refused the program as too large for the device.
      needed_bytes: memory per device while the program runs. For a refused program, the number in
        the compiler's message, or None without one.
    """

    executable: Any | None
    needed_bytes: int | None

    def fits(self, limit: float) -> bool:
        """Whether it can run and needs at most `limit` bytes per device."""
        if self.executable is None or self.needed_bytes is None:
            return False
        return self.needed_bytes <= limit


def try_compile(jitted: Any, arguments: tuple[Any, ...]) -> CompileResult:
    """Compile a jitted function; a program that is too large for the device is a result.

    libtpu raises RESOURCE_EXHAUSTED for a program that does not fit the chip. The compilers for
    CPUs and GPUs accept any size, so their account of its memory is all there is to judge by.
    """
    try:
        executable = jitted.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        # Chips have other memories too: a kernel with too little vmem is a bug, not a large batch.
        if "RESOURCE_EXHAUSTED" not in str(error) or "hbm" not in str(error).lower():
            raise
        return CompileResult(None, parse_oom(str(error)))
    return CompileResult(executable, peak_bytes(executable))


def parse_oom(message: str) -> int | None:
    """The bytes of device memory that a compiler asked for in its refusal, or None.

    libtpu gives the size of the whole program, with arguments and results.
    """
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "": 1}
    number = r"([\d.]+)([KMGT]?)"
    for pattern in (rf"\({number}\) exceeds available", rf"Used {number} of"):
        if match := re.search(pattern, message):
            return int(float(match[1]) * unit[match[2]])
    return None


def peak_bytes(executable: jax.stages.Compiled) -> int:
    """Bytes per device that a compiled program needs at once, by its compiler's account.

    libtpu compares the peak with the chip's memory: it accepts programs whose arguments, results
    and temporaries add up to more than the chip has, and refuses those whose peak is larger. The
    peak for a CPU leaves out the temporaries of loops, so there, and on GPUs, this is the sum.
    """
    m: Any = executable.memory_analysis()
    platforms = {
        device.platform
        for sharding in jax.tree.leaves(executable.input_shardings)
        for device in sharding.device_set
    }
    if platforms == {"tpu"}:
        return int(m.peak_memory_in_bytes)
    total = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
    return int(total - m.alias_size_in_bytes)


def available_bytes() -> float:
    """Bytes per device that a step may need if `Execution.memory_gib` is not set.

    Nine tenths of an accelerator's memory, or half of the host's free memory divided by its
    devices. Every process of a run must call this, and all get the smallest value: free memory
    differs between hosts, and all must choose the same microbatch.
    """
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        limit = 0.9 * float(stats["bytes_limit"])
    else:
        limit = 0.5 * available_memory() / len(devices)
    if jax.process_count() > 1:
        limit = float(np.min(multihost_utils.process_allgather(np.float32(limit))))
    return limit


class Peak(NamedTuple):
    """The most memory in use on one device at once.

    Attributes:
      peak_bytes: None if unknown.
      source: "device": the allocator's peak on the fullest device of this process. "process": for
        devices that share the host's memory, the state plus a device's share of the growth of
        resident memory; anything in the process adds to it, so it is unknown for small steps.
    """

    peak_bytes: int | None
    source: Literal["device", "process"]


class PeakMemory:
    """Measures the peak from its construction to `read`.

    Construct it when the state is on the devices and no step has run.
    """

    def __init__(self, state: Any):
        self._allocated = [_allocator_peak(device) for device in jax.local_devices()]
        self._state_bytes = bytes_per_device(state)
        self._resident = None if all(self._allocated) else _reset_peak()

    def read(self, compiled_bytes: int) -> Peak:
        """The peak since construction.

        Arguments:
          compiled_bytes: of the step per device, by the compiler's account.
        """
        if all(self._allocated):
            # The allocator reports the peak of its lifetime. One that did not rise belongs to an
            # earlier cell of this process and bounds this cell's from above only.
            peak = max(_allocator_peak(device) for device in jax.local_devices())
            return Peak(peak if peak > max(self._allocated) else None, "device")
        after = _proc_status("VmHWM")
        if self._resident is None or after is None or compiled_bytes < _MIN_MEASURABLE_BYTES:
            return Peak(None, "process")
        growth = max(0, after - self._resident) // jax.local_device_count()
        return Peak(self._state_bytes + growth, "process")


def _allocator_peak(device: jax.Device) -> int:
    """The peak of the device's allocator, or 0 if it reports none."""
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))


def _reset_peak() -> int | None:
    """Reset this process's VmHWM; the resident bytes now, or None where Linux does not allow it."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return None
    return _proc_status("VmRSS")


def _proc_status(name: str) -> int | None:
    """A line of /proc/self/status in bytes."""
    try:
        lines = (_PROC / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
