"""Exact micro-batching: the towers see a batch in parts, the loss sees it whole.

The gradient is the whole batch's. Public trainers that accumulate gradients of partial losses
instead train another objective, with fewer negatives, or count t and b once per part.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.cell import CellError

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


def fitting(
    compiled: Callable[[int | None], Any], rows: int, target: float
) -> tuple[int | None, Any]:
    """A microbatch with which the step fits, near the largest, and the compiled step.

    Arguments:
      compiled: the step compiled for a microbatch (None: the towers see all rows at once).
      rows: examples per device.
      target: bytes per device that arguments, results and temporaries may take.

    Raises:
      CellError: not even one example at a time fits.
    """
    step = compiled(None)
    needed = memory(step)
    if needed <= target:
        return None, step
    # At best everything shrinks with the microbatch, so nothing above this can fit; then by
    # halves, since parameters and embeddings do not shrink.
    size = 1 << max(1, int(rows * target / needed)).bit_length() - 1
    while True:
        step = compiled(size)
        needed = memory(step)
        if needed <= target:
            return size, step
        if size == 1:
            raise CellError(
                f"memory_gib: the step needs {needed / GIB:.2f} GiB per device with one example "
                f"at a time and {target / GIB:.2f} are allowed; raise memory_gib, use more "
                "devices or a smaller batch_size"
            )
        size //= 2


def memory(compiled: Any) -> int:
    """Bytes per device that a compiled step needs at once, by the compiler's own account."""
    m = compiled.memory_analysis()
    taken = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
    return int(taken - m.alias_size_in_bytes)


def room() -> float:
    """Bytes that a step may take on each device when nothing else is said: nine tenths of an
    accelerator's memory, or an equal share of half of the host's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return 0.9 * float(stats["bytes_limit"])
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0.5 * host / len(jax.local_devices())
