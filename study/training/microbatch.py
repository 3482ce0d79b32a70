"""Exact micro-batching: the towers see a batch in parts, the loss sees it whole.

The gradient is the whole batch's. Public trainers that accumulate gradients of partial losses
instead train another objective, with fewer negatives, or count t and b once per part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.config.cell import CellError
from study.config.host import available_memory
from study.models.sharding import bytes_per_device

GIB = 2**30


def in_microbatches(
    encode: Callable[[Any], Any], batch: Any, microbatch: int, mesh: Mesh | None
) -> Any:
    """`encode(batch)` with the activations of `microbatch` examples per device held at a time.

    Arguments:
      encode: rows to rows, each row for itself; computed again in the backward pass.
      batch: pytree of arrays whose leading rows are spread evenly over all axes of `mesh`.
      microbatch: examples per pass and device. A last part that is not full is padded with zero
        rows, whose results are dropped.
    """
    devices = 1 if mesh is None else mesh.size
    rows = len(jax.tree.leaves(batch)[0]) // devices
    size = min(microbatch, rows)
    count = -(-rows // size)

    def placed(x: jax.Array) -> jax.Array:
        """Each part holds some rows of every device, so that no row has to move."""
        if mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(None, mesh.axis_names)))

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(devices, rows, *x.shape[1:])
        x = jnp.pad(x, ((0, 0), (0, count * size - rows), *[(0, 0)] * (x.ndim - 2)))
        x = x.reshape(devices, count, size, *x.shape[2:]).swapaxes(0, 1)
        return placed(x.reshape(count, devices * size, *x.shape[3:]))

    def joined(z: jax.Array) -> jax.Array:
        z = placed(z).reshape(count, devices, size, *z.shape[2:]).swapaxes(0, 1)
        z = z.reshape(devices, count * size, *z.shape[3:])[:, :rows]
        return z.reshape(devices * rows, *z.shape[2:])

    parts = jax.tree.map(split, batch)
    return jax.tree.map(joined, jax.lax.map(jax.checkpoint(encode), parts))


class CompileResult(NamedTuple):
    """What the compiler made of a program.

    Attributes:
      executable: None where the compiler refused a program that is too large for the device.
      needed_bytes: of memory per device while it runs; of a loop of steps, with the next batches
        on their way to the device. Where the compiler refused, by the number that it named; None
        if it named none.
    """

    executable: Any | None
    needed_bytes: int | None

    def fits(self, limit: float) -> bool:
        """Whether it can run and needs at most `limit` bytes per device."""
        if self.executable is None or self.needed_bytes is None:
            return False
        return self.needed_bytes <= limit


def compile_loop(loop: Any, arguments: tuple[Any, ...]) -> CompileResult:
    """Compiles a loop of steps; the one account of its memory, for training and for planning.

    Arguments:
      loop, arguments: as in `study.training.compile.Program`.
    """
    attempt = try_to_compile(loop, arguments)
    if attempt.needed_bytes is None:
        return attempt
    # The host sends the batches of the next loop while this one runs.
    ahead = bytes_per_device(arguments[1])
    return attempt._replace(needed_bytes=attempt.needed_bytes + ahead)


def try_to_compile(jitted: Any, arguments: tuple[Any, ...]) -> CompileResult:
    """Compiles a jitted function, or learns how much it needs where the compiler refuses.

    libtpu returns no program that does not fit the chip: it raises RESOURCE_EXHAUSTED. Compilers
    for CPUs and GPUs return one of any size; its account is all there is to judge it by, and what
    that leaves out shows when memory runs out as it runs.
    """
    try:
        executable = jitted.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        # Chips have other memories: a kernel with too little vmem is an error of another kind.
        if "RESOURCE_EXHAUSTED" not in str(error) or "hbm" not in str(error).lower():
            raise
        return CompileResult(None, parse_oom(str(error)))
    return CompileResult(executable, peak_bytes(executable))


def parse_oom(message: str) -> int | None:
    """The bytes of device memory that a compiler asked for when it refused; None if it names none.

    libtpu names what the whole program needs, with arguments and results.
    """
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "": 1}
    number = r"([\d.]+)([KMGT]?)"
    for pattern in (rf"\({number}\) exceeds available", rf"Used {number} of"):
        if match := re.search(pattern, message):
            return int(float(match[1]) * unit[match[2]])
    return None


def find_microbatch(
    compiled: Callable[[int | None], CompileResult], rows: int, target: float
) -> tuple[int | None, Any]:
    """A microbatch with which the step fits, near the largest, and the compiled step.

    Arguments:
      compiled: the step compiled for a microbatch (None: the towers see all rows at once).
      rows: examples per device.
      target: bytes per device that the step may need.

    Raises:
      CellError: not even one example at a time fits.
    """
    attempt = compiled(None)
    if attempt.fits(target):
        return None, attempt.executable
    # At best everything shrinks with the microbatch, so nothing above this share can fit; then by
    # halves, since parameters and embeddings do not shrink. A compiler that refuses may name no
    # number, or one below a target that is more than the device has.
    share = min(1.0, target / attempt.needed_bytes) if attempt.needed_bytes else 0.5
    size = 1 << max(1, int(rows * share)).bit_length() - 1
    while not (attempt := compiled(size)).fits(target):
        if size == 1:
            raise CellError(_too_large(attempt, target))
        size //= 2
    return size, attempt.executable


def _too_large(attempt: CompileResult, target: float) -> str:
    needed = "too much" if attempt.needed_bytes is None else f"{attempt.needed_bytes / GIB:.2f} GiB"
    what = f"the step needs {needed} per device with one example at a time"
    remedy = "use more devices or a smaller batch_size"
    if attempt.executable is None:
        return f"batch_size: {what}, and its compiler refuses it; {remedy}"
    return f"memory_gib: {what} and {target / GIB:.2f} are allowed; raise memory_gib, or {remedy}"


def peak_bytes(compiled: Any) -> int:
    """Bytes per device that a compiled program needs at once, by its compiler's own account.

    For a TPU that is the peak, which libtpu holds against the chip's memory: it returns programs
    whose sum of arguments, results and temporaries is more than the chip has, and refuses those
    whose peak is. For a CPU the peak leaves out the temporaries of loops, so there, and on GPUs,
    of which nothing is known, it is the sum.

    Arguments:
      compiled: a `jax.stages.Compiled`.
    """
    m = compiled.memory_analysis()
    platforms = {
        device.platform
        for sharding in jax.tree.leaves(compiled.input_shardings)
        for device in sharding.device_set
    }
    if platforms == {"tpu"}:
        return int(m.peak_memory_in_bytes)
    taken = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
    return int(taken - m.alias_size_in_bytes)


def available_bytes() -> float:
    """Bytes that a step may need on each device when `memory_gib` is not given: nine tenths of an
    accelerator's memory, or an equal share of half of the memory that is free on the host.

    All processes of a run call it together and get the same answer: they must choose the same
    microbatch, and free memory differs between hosts.
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
