"""The mesh of a run and the shardings of its arrays.

A mesh has two axes: "slice", between which the network is slow, and "data", the devices of one
slice. The rows of a batch are spread over both. Parameters and optimizer state are replicated, or
sharded over "data" alone (FSDP), so that only gradients travel between slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.config import Cell, CellError, Execution

AXES = ("slice", "data")
MIB = 2**20


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """The (slice, data) mesh of these devices.

    Neighbours along "data" are neighbours in a slice's torus, so that a ring's hops are short.
    `mesh_utils.create_hybrid_device_mesh` would do, but it wants a slice_index of every device,
    which CPUs, GPUs and single slices do not have.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    rows = [mesh_utils.create_device_mesh((len(slices[k]),), slices[k]) for k in sorted(slices)]
    return Mesh(np.stack(rows), AXES)


def check_layout(cell: Cell, execution: Execution, mesh: Mesh) -> None:
    """Refuse what a mesh cannot hold, and settings that have no effect there.

    Raises:
      CellError: the batch cannot be spread evenly, `fsdp_min_mib` has nothing to shard over, or
        `memory_gib` bounds no search.
    """
    if cell.batch_size % mesh.size:
        raise CellError(
            f"batch_size: {cell.batch_size} cannot be spread evenly over {mesh.size} devices; "
            f"use a multiple of {mesh.size} or fewer devices"
        )
    if execution.fsdp_min_mib is not None and mesh.shape["data"] == 1:
        raise CellError(
            f"execution.fsdp_min_mib: {execution.fsdp_min_mib:g} shards parameters over several "
            "devices, and here is only one; leave it out (--set execution.fsdp_min_mib=null)"
        )
    if execution.memory_gib is not None and execution.microbatch != "auto":
        raise CellError(
            f"execution.memory_gib: {execution.memory_gib:g} has no effect without a search for a "
            "microbatch; set execution.microbatch=auto, or leave it out"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows spread over all devices, after `leading` axes that are not sharded."""
    return NamedSharding(mesh, P(*[None] * leading, mesh.axis_names))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Indices of the batch's rows on this process's devices, ascending.

    A process's devices need not be neighbours in the mesh.
    """
    rows = batch_size // mesh.size
    own_K = [k for k, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()]
    return (np.array(own_K)[:, None] * rows + np.arange(rows)).ravel()


def param_shardings(tree: Any, mesh: Mesh, fsdp_min_mib: float | None) -> Any:
    """A `NamedSharding` for each array of parameters or optimizer state.

    Arguments:
      tree: arrays, or their shapes and types.
      fsdp_min_mib: arrays of this many MiB or more are sharded over "data", along their longest
        axis that divides evenly (the last of equals); None replicates all.
    """

    def place(leaf: Any) -> NamedSharding:
        if fsdp_min_mib is not None and leaf.size * leaf.dtype.itemsize >= fsdp_min_mib * MIB:
            for axis in sorted(range(leaf.ndim), key=lambda k: (-leaf.shape[k], -k)):
                if leaf.shape[axis] % mesh.shape["data"] == 0:
                    return NamedSharding(mesh, P(*[None] * axis, "data"))
        return replicated(mesh)

    return jax.tree.map(place, tree)


def bytes_per_device(tree: Any) -> int:
    """Bytes on each device of a tree of arrays, or of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
