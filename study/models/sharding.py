"""Where a run's arrays lie: rows over all devices, parameters whole on each or cut up (FSDP).

A mesh has two axes: "slice", between which the network is slow, and "data", the devices of one
slice. Rows of a batch are spread over both. Parameters and optimizer state are whole on every
device, or cut over "data" alone, so that nothing but gradients travels between slices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from study.config.cell import Cell, CellError, Execution

AXES = ("slice", "data")
MIB = 2**20


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """The (slice, data) mesh of these devices; one that names no slice is in the first.

    Neighbours along "data" are neighbours in a slice's torus, so that a ring's hops are short.
    """

    def number(device: Any) -> int:
        return getattr(device, "slice_index", None) or 0

    groups = [list(group) for _, group in itertools.groupby(sorted(devices, key=number), number)]
    rows = [mesh_utils.create_device_mesh((len(group),), group) for group in groups]
    return Mesh(np.stack(rows), AXES)


def check_layout(cell: Cell, execution: Execution, mesh: Mesh) -> None:
    """Refuses what cannot be laid out on a mesh, and what has no effect there.

    Raises:
      CellError: the batch cannot be spread evenly, nothing can be cut, or no microbatch is sought.
    """
    if cell.batch_size % mesh.size:
        raise CellError(
            f"batch_size: {cell.batch_size} cannot be spread evenly over {mesh.size} devices; "
            f"use a multiple of {mesh.size} or fewer devices"
        )
    if execution.fsdp_mib is not None and mesh.shape["data"] == 1:
        raise CellError(
            f"execution.fsdp_mib: {execution.fsdp_mib:g} cuts parameters over the devices of a "
            "slice, and here is one; leave it out (--set execution.fsdp_mib=null)"
        )
    if execution.memory_gib is not None and execution.microbatch != "auto":
        raise CellError(
            f"execution.memory_gib: {execution.memory_gib:g} bounds the search for a microbatch, "
            "and none is sought; set execution.microbatch=auto, or leave it out"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows spread over all devices, after `leading` axes that are not."""
    return NamedSharding(mesh, P(*[None] * leading, mesh.axis_names))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which rows of a batch the devices of this process hold, ascending.

    The processes' devices need not be neighbours in the mesh.
    """
    each = batch_size // mesh.size
    place_K = [k for k, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()]
    return (np.array(place_K)[:, None] * each + np.arange(each)).ravel()


def param_shardings(tree: Any, mesh: Mesh, fsdp_mib: float | None) -> Any:
    """The shardings of parameters or optimizer state, a `NamedSharding` for each array.

    Arguments:
      tree: arrays, or their shapes and types.
      fsdp_mib: arrays of so many MiB or more are cut over "data" along their longest axis that
        can be cut evenly, the last of equals; None leaves all whole.
    """

    def place(leaf: Any) -> NamedSharding:
        if fsdp_mib is not None and leaf.size * leaf.dtype.itemsize >= fsdp_mib * MIB:
            for axis in sorted(range(leaf.ndim), key=lambda k: (-leaf.shape[k], -k)):
                if leaf.shape[axis] % mesh.shape["data"] == 0:
                    return NamedSharding(mesh, P(*[None] * axis, "data"))
        return replicated(mesh)

    return jax.tree.map(place, tree)


def put(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has whole, placed as `shardings` say."""

    def one(a: Any, where: NamedSharding) -> jax.Array:
        a = np.asarray(a)
        return jax.make_array_from_callback(a.shape, where, lambda index: a[index])

    return jax.tree.map(one, tree, shardings)


def bytes_per_device(tree: Any) -> int:
    """What each device holds of a tree of arrays, or of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
