"""Texts and what they gather travel round the devices; images stay (paper Sec. 3.3, Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.stats import Axis


def around(block: Callable[..., Any], start: tuple[Any, Any], ztxt: jax.Array, axis: Axis) -> Any:
    """Meets each device's texts in turn, its own first.

    Arguments:
      block: `(sums, local, ztxt, travelling, is_own) -> (sums, local, travelling)`; called with
        the block of texts that has arrived and the accumulator that travels with it.
      start: the initial `sums` and `local`.
      ztxt: this device's texts, `bxD`; their accumulator starts as float32 zeros of that shape.
      axis: mesh axis or axes, or None on one device.

    Returns `(sums, local, travelled)`, where `travelled` is this device's own texts' accumulator
    after it has been round. Sums are not yet added up over devices.
    """
    sums, local = start
    gathered = jnp.zeros(ztxt.shape, jnp.float32)
    sums, local, gathered = block(sums, local, ztxt, gathered, True)
    if axis is None:
        return sums, local, gathered
    size = lax.psum(1, axis)
    hops = [(k, (k + 1) % size) for k in range(size)]

    def send(x: Any) -> Any:
        return jax.tree.map(lambda a: lax.ppermute(a, axis, hops), x)

    def hop(carry: Any, _: None) -> Any:
        sums, local, ztxt, gathered = carry
        ztxt, gathered = send((ztxt, gathered))
        sums, local, gathered = block(sums, local, ztxt, gathered, False)
        return (sums, local, ztxt, gathered), None

    carry = (sums, local, ztxt, gathered)
    (sums, local, _, gathered), _ = lax.scan(hop, carry, None, length=size - 1)
    return sums, local, send(gathered)
