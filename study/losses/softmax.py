"""The bidirectional softmax loss in two passes: normalisers, then gradients (paper Eq. 1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from study.losses.fused import with_gradients
from study.losses.ring import around
from study.losses.stats import (
    Axis,
    LogitStats,
    dot,
    here,
    mean_of_negatives,
    pmax,
    pmin,
    positives,
    psum,
)
from study.losses.tiles import BIG, Sums, Tile, gradients, sweep, untiled

# Log-sum-exp as (largest logit, sum of exponentials relative to it): safe at any temperature.
Normaliser = tuple[jax.Array, jax.Array]


def softmax_loss(
    zimg_BxD: jax.Array,
    ztxt_BxD: jax.Array,
    t: jax.Array,
    *,
    mesh: Mesh | None = None,
    tile: int = 512,
) -> tuple[jax.Array, LogitStats]:
    """Mean of image-to-text and text-to-image cross-entropy over the whole batch.

    Arguments and returns as `sigmoid_loss`, without a bias: a constant added to all logits
    does not change this loss.
    """

    def both_passes(zimg, ztxt, t, *, axis):
        batch = psum(jnp.asarray(len(zimg)), axis)
        l_b = t * jnp.sum(zimg.astype(jnp.float32) * ztxt, axis=1)
        by_row, by_col, low, high = _normalisers(zimg, ztxt, t, axis=axis, tile=tile)
        # A positive's probability is sigmoid(-d), d being how far its negatives' log-sum-exp lies
        # above it. Told apart from the start, 1 - p keeps its digits however near 1 p is.
        d_2xb = jnp.stack([(top - l_b) + jnp.log(total) for top, total in (by_row, by_col)])
        loss_2xb = jax.nn.softplus(d_2xb)
        gimg, gtxt = _gradients(zimg, ztxt, t, l_b, loss_2xb, axis=axis, tile=tile)
        p_b = -0.5 * jnp.sum(jax.nn.sigmoid(d_2xb), axis=0)
        gimg += p_b[:, None] * ztxt
        gtxt += p_b[:, None] * zimg
        loss = psum(0.5 * jnp.sum(loss_2xb), axis)
        dt = psum(jnp.sum(zimg * gimg), axis)
        negative = (mean_of_negatives(zimg, ztxt, t, 0.0, axis), pmin(low, axis), pmax(high, axis))
        stats = LogitStats(*positives(l_b, axis), *negative, *negative)
        return loss / batch, stats, (t * gimg / batch, t * gtxt / batch, dt / batch)

    return with_gradients(both_passes, mesh)(zimg_BxD, ztxt_BxD, t)


def _joined(a: Normaliser, b: Normaliser) -> Normaliser:
    top = jnp.maximum(a[0], b[0])
    return top, a[1] * jnp.exp(a[0] - top) + b[1] * jnp.exp(b[0] - top)


def _normalisers(zimg: jax.Array, ztxt: jax.Array, t: Any, *, axis: Axis, tile: int) -> Any:
    """Of the negatives in this device's rows and columns: normalisers, lowest, highest logit."""
    me, rows, high = here(axis), len(zimg), min(tile, len(zimg))

    def nothing(size: int) -> Normaliser:
        return jnp.full(size, -BIG), jnp.zeros(size)

    def step(row_sums: Any, by_col: Any, zimg_TxD: Any, ztxt_TxD: Any, at: Tile) -> Any:
        by_row, low = row_sums
        l_TxT, lowest = at.negatives(t * dot(zimg_TxD, ztxt_TxD.T))
        top_T, ctop_T = l_TxT.max(1), l_TxT.max(0)
        by_row = _joined(by_row, (top_T, jnp.exp(l_TxT - top_T[:, None]).sum(1)))
        by_col = _joined(by_col, (ctop_T, jnp.exp(l_TxT - ctop_T[None, :]).sum(0)))
        return (by_row, jnp.minimum(low, lowest)), by_col

    def block(local: Any, ztxt: jax.Array, owner: jax.Array) -> Any:
        by_row, low = local
        start = ((nothing(high), jnp.asarray(BIG)), nothing(high))
        origin = (me * rows, owner * rows)
        (more, lows), by_col = sweep(step, start, zimg, ztxt, tile=tile, origin=origin)
        more, by_col = jax.tree.map(lambda x: untiled(x, rows), (more, by_col))
        return (_joined(by_row, more), jnp.minimum(low, lows.min())), by_col

    start = (nothing(rows), jnp.asarray(BIG))
    (by_row, low), by_col = around(block, start, ztxt, axis, merge=_joined)
    return by_row, by_col, low, by_row[0].max()


def _gradients(
    zimg: jax.Array,
    ztxt: jax.Array,
    t: Any,
    l_b: jax.Array,
    loss_2xb: jax.Array,
    *,
    axis: Axis,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """Half the row and column softmax of each negative, times either side's embeddings."""
    me, rows = here(axis), len(zimg)

    def weigh(x_TxT: jax.Array, at: Tile, of_row: Any, of_col: Any) -> tuple[Sums, jax.Array]:
        l_TxT, _ = at.negatives(t * x_TxT)
        (l_T, loss_T), (cl_T, closs_T) = of_row, of_col
        by_row_TxT = jnp.exp((l_TxT - l_T[:, None]) - loss_T[:, None])
        by_col_TxT = jnp.exp((l_TxT - cl_T[None, :]) - closs_T[None, :])
        return Sums(), 0.5 * (by_row_TxT + by_col_TxT)

    def block(gimg: jax.Array, texts: Any, owner: jax.Array) -> Any:
        ztxt, of_col = texts
        origin = (me * rows, owner * rows)
        of_row = (l_b, loss_2xb[0])
        _, gi, gt = gradients(
            weigh, Sums(), zimg, ztxt, per_row=of_row, per_col=of_col, origin=origin, tile=tile
        )
        return gimg + gi, gt

    texts = (ztxt, (l_b, loss_2xb[1]))
    return around(block, jnp.zeros(zimg.shape, jnp.float32), texts, axis)
