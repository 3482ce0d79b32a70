"""The ring of devices: texts and their gradients travel, images stay (paper Sec. 3.3, Fig. 1).

A ring of many devices with few rows each is many hops of little work: 512 for a batch of 32,768 on
512 chips, with 64 rows each. `all_pairs_scan` then gathers the texts of several devices first, and
the ring runs over fewer, larger blocks. Each device still receives as many bytes; what becomes less
is the number of collectives that wait for one another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.tiled import NO_POSITIVES, Axes

# Fewer rows per hop are taken to cost more in latency than in bytes: 512 rows of 768 bfloat16
# elements with their float32 gradients are 47 microseconds of a v4 link, and 64 rows are 6.
ROWS_PER_HOP = 512
# At most this much memory per device is for gathered texts with their gradients, in one copy.
GATHERED_BYTES = 256 << 20


def ring_scan(
    block: Callable[[Any, Any, jax.Array], tuple[Any, Any]],
    local: Any,
    texts: Any,
    axes: Axes,
    *,
    merge: Callable[[Any, Any], Any] | None = None,
    group_size: int | None = None,
) -> tuple[Any, Any]:
    """Brings each device's images together with every device's texts, its own first.

    Arguments:
      block: `(local, texts, source_device) -> (local, travelling)`, where `texts` are those of
        `source_device` and `travelling` is what this block adds to their sums.
      local: the initial value of what stays on the device. It is not summed over devices.
      texts: pytree of this device's rows.
      axes: names of the mesh axes, `()` on one device.
      merge: combines two values of `travelling`; by default their sum.
      group_size: consecutive devices that form a ring of their own; None for one ring of all.

    Returns `(local, travelling)`, the latter merged over the blocks of this device's own texts.
    """
    merge = merge or (lambda a, b: jax.tree.map(jnp.add, a, b))
    devices, device = lax.axis_size(axes), jnp.asarray(lax.axis_index(axes), jnp.int32)
    size = group_size or devices
    if size == 1:
        return block(local, texts, device)
    first = device // size * size
    hops = [(k, k // size * size + (k + 1) % size) for k in range(devices)]

    def send(x: Any) -> Any:
        with jax.named_scope("ring_hop"):
            return jax.tree.map(lambda a: lax.ppermute(a, axes, hops), x)

    def hop(carry: Any, k: jax.Array) -> Any:
        local, texts, travelling = carry
        # The block needs neither the next texts nor the sums of the last ones, so both are on
        # their way while it is computed. The sums follow their texts one hop behind.
        next_texts, arrived = send(texts), send(travelling)
        local, block_sums = block(local, texts, first + (device - k) % size)
        return (local, next_texts, merge(arrived, block_sums)), None

    next_texts = send(texts)
    local, travelling = block(local, texts, device)
    init = (local, next_texts, travelling)
    (local, _, travelling), _ = lax.scan(hop, init, jnp.arange(1, size))
    return local, send(travelling)  # the last hop brings the sums home


def all_pairs_scan(
    block: Callable[[Any, Any, jax.Array], tuple[Any, Any]],
    local: Any,
    texts: Any,
    axes: Axes,
    *,
    merge: Callable[[Any, Any], Any] | None = None,
    group_size: int | None = None,
) -> tuple[Any, Any]:
    """`ring_scan` with fewer hops, for blocks that need no numbers of texts.

    The devices of a gathered group are far apart, so that the ring runs between neighbours: across
    slices first, whose network is slow and then carries each text once, and then at equal
    distances within a slice.

    Arguments:
      block: `(local, texts, shift) -> (local, travelling)`. The text of this device's image i is
        row i + shift of `texts`, beyond their end if they are not this device's.
      texts: pytree of this device's rows, embeddings first.
      The others are as for `ring_scan`. If `axes` are two, the first is of slices.
    """
    devices, device = lax.axis_size(axes), jnp.asarray(lax.axis_index(axes), jnp.int32)
    slices = lax.axis_size(axes[0]) if len(axes) > 1 else 1
    ztxt_bxD = jax.tree.leaves(texts)[0]
    (rows, dim), size = ztxt_bxD.shape, ztxt_bxD.dtype.itemsize
    gathered = 1
    if group_size is None:
        gathered = devices_to_gather(rows, dim, size, devices, slices)
    ring = group_size or devices // gathered
    stages, column = [], jnp.int32(0)
    if gathered > 1:
        inside = devices // slices
        across = [[d + s * inside for s in range(slices)] for d in range(inside)]
        within = [
            list(range(s * inside + k, (s + 1) * inside, ring))
            for s in range(slices)
            for k in range(ring)
        ]
        stages = [groups for groups in (across, within) if len(groups[0]) > 1]
        column = (device % inside // ring * slices + device // inside) * rows

    def block_of(local: Any, texts: Any, source_device: jax.Array) -> tuple[Any, Any]:
        return block(local, texts, jnp.where(source_device == device, column, NO_POSITIVES))

    for groups in stages:
        texts = jax.tree.map(
            lambda a, g=groups: lax.all_gather(a, axes, axis_index_groups=g, tiled=True), texts
        )
    local, travelling = ring_scan(block_of, local, texts, axes, merge=merge, group_size=ring)
    for groups in reversed(stages):
        travelling = _reduce_scatter(travelling, axes, groups, merge)
    return local, travelling


def devices_to_gather(rows: int, dim: int, size: int, devices: int, slices: int) -> int:
    """How many devices gather their texts before the ring.

    All, if each has fewer than `ROWS_PER_HOP` rows and the whole batch fits `GATHERED_BYTES`: there
    is no ring then. Otherwise as few as make hops of `ROWS_PER_HOP` rows within a slice.

    Arguments:
      rows, dim, size: embeddings per device, their width and bytes per element.
    """
    per_device = rows * dim * (size + 4)
    possible = [
        g
        for g in range(slices, devices + 1, slices)
        if devices % g == 0 and g * per_device <= GATHERED_BYTES
    ]
    if rows < ROWS_PER_HOP and devices in possible:
        return devices
    return next((g for g in possible if g * rows >= ROWS_PER_HOP), 1)


def _reduce_scatter(
    sums: Any, axes: Axes, groups: list[list[int]], merge: Callable[[Any, Any], Any] | None
) -> Any:
    """Each device's own rows, merged over the devices of its group."""
    if merge is None:
        return jax.tree.map(
            lambda a: lax.psum_scatter(a, axes, axis_index_groups=groups, tiled=True), sums
        )
    size = len(groups[0])

    def exchange(a: jax.Array) -> jax.Array:
        swapped: jax.Array = lax.all_to_all(
            a, axes, split_axis=0, concat_axis=0, axis_index_groups=groups, tiled=True
        )
        return swapped.reshape(size, -1, *a.shape[1:])

    exchanged = jax.tree.map(exchange, sums)
    parts = [jax.tree.map(lambda a, k=k: a[k], exchanged) for k in range(size)]
    return functools.reduce(merge, parts)
