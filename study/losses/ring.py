"""Texts and what they gather travel round the devices; images stay (paper Sec. 3.3, Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.stats import Axis


def around(
    block: Callable[[Any, Any, jax.Array], tuple[Any, Any]],
    local: Any,
    texts: Any,
    axis: Axis,
    *,
    merge: Callable[[Any, Any], Any] | None = None,
    span: int | None = None,
) -> tuple[Any, Any]:
    """Brings each device's images together with every device's texts, its own first.

    What travels are the texts and, one hop behind their use, what they have gathered. Both are
    sent before the block that needs neither of them is computed, so they travel meanwhile.

    Arguments:
      block: `(local, texts, owner) -> (local, gathered)`; `owner` is the device whose texts these
        are, and `gathered` what these texts gather from this device's images alone.
      local: what stays, at the start.
      texts: pytree of this device's rows.
      axis: mesh axis or axes, or None on one device.
      merge: joins two values of `gathered`; a sum when left out.
      span: devices in a ring, when less than all: each run of `span` neighbours is a ring.

    Returns `(local, gathered)`, where `gathered` is what this device's own texts have gathered
    from all. Nothing in `local` is added up over devices.
    """
    if axis is None:
        return block(local, texts, jnp.int32(0))
    merge = merge or (lambda a, b: jax.tree.map(jnp.add, a, b))
    devices = lax.axis_size(axis)
    size = span or devices
    if size == 1:
        return block(local, texts, lax.axis_index(axis))
    here = lax.axis_index(axis)
    first = here // size * size
    hops = [(k, k // size * size + (k + 1) % size) for k in range(devices)]

    def send(x: Any) -> Any:
        return jax.tree.map(lambda a: lax.ppermute(a, axis, hops), x)

    def hop(carry: Any, k: jax.Array) -> Any:
        local, texts, gathered = carry
        onward, arrived = send(texts), send(gathered)
        local, more = block(local, texts, first + (here - k) % size)
        return (local, onward, merge(arrived, more)), None

    onward = send(texts)
    local, gathered = block(local, texts, here)
    (local, _, gathered), _ = lax.scan(hop, (local, onward, gathered), jnp.arange(1, size))
    return local, send(gathered)
