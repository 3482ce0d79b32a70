"""The ring of devices: texts and their gradients travel, images stay (paper Sec. 3.3, Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.tiled import Axes


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
