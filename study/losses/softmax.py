"""The bidirectional softmax loss in two passes: normalisers, then gradients (paper Eq. 1)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from study.losses.ring import all_pairs_scan
from study.losses.tiled import (
    Axes,
    LogitStats,
    LogSumExp,
    by_kernel_on_tpu,
    fused_value_and_grad,
    negative_logit_mean,
    pairwise_gradients,
    positive_logits,
)
from study.losses.tiles import (
    BIG,
    Tile,
    by_platform,
    dot,
    from_tiles,
    large_tile,
    peeled_scan,
    tile_scan,
)


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

    def loss_and_grads(
        zimg_bxD: jax.Array, ztxt_bxD: jax.Array, t: jax.Array, *, axes: Axes
    ) -> Any:
        z = (zimg_bxD, ztxt_bxD)
        batch = len(zimg_bxD) * lax.axis_size(axes)
        l_b = t * jnp.sum(zimg_bxD.astype(jnp.float32) * ztxt_bxD, axis=1)  # the positives
        by_row, by_col, logit_min, logit_max = _normalisers(*z, t, axes=axes, tile=tile)
        # With d = logsumexp(negatives) - l, the loss of a row is softplus(d) and the positive's
        # probability sigmoid(-d). Because positives are not in the normaliser, 1 - p keeps its
        # digits however near 1 p is.
        d_2xb = jnp.stack([(top - l_b) + jnp.log(total) for top, total in (by_row, by_col)])
        loss_2xb = jax.nn.softplus(d_2xb)
        gimg_bxD, gtxt_bxD = _negatives(*z, t, l_b, loss_2xb, axes=axes, tile=tile)
        p_b = -0.5 * jnp.sum(jax.nn.sigmoid(d_2xb), axis=0)  # derivative in a positive's logit
        gimg_bxD += p_b[:, None] * ztxt_bxD
        gtxt_bxD += p_b[:, None] * zimg_bxD
        loss = lax.psum(0.5 * jnp.sum(loss_2xb), axes)
        dt = lax.psum(jnp.sum(zimg_bxD * gimg_bxD), axes)
        negative = (
            negative_logit_mean(*z, t, 0.0, group_size=batch, axes=axes),
            lax.pmin(logit_min, axes),
            lax.pmax(logit_max, axes),
        )
        stats = LogitStats(*positive_logits(l_b, axes), *negative, *negative)
        return loss / batch, stats, (t * gimg_bxD / batch, t * gtxt_bxD / batch, dt / batch)

    return fused_value_and_grad(loss_and_grads, mesh)(zimg_BxD, ztxt_BxD, t)


def _merge(a: LogSumExp, b: LogSumExp) -> LogSumExp:
    top = jnp.maximum(a[0], b[0])
    return top, a[1] * jnp.exp(a[0] - top) + b[1] * jnp.exp(b[0] - top)


def _normalisers(
    zimg_bxD: jax.Array, ztxt_bxD: jax.Array, t: jax.Array, *, axes: Axes, tile: int
) -> tuple[LogSumExp, LogSumExp, jax.Array, jax.Array]:
    """First pass: log-sum-exp of the negatives of this device's rows and columns.

    Returns them, and the smallest and largest logit of this device's rows.
    """

    def block(local: Any, ztxt_mxD: jax.Array, shift: jax.Array) -> Any:
        by_row, logit_min = local
        more, by_col, block_min = by_kernel_on_tpu(
            "softmax_normalisers",
            block_normalisers,
            *(zimg_bxD, ztxt_mxD, t),
            shift=shift,
            tile=tile,
        )
        return (_merge(by_row, more), jnp.minimum(logit_min, block_min)), by_col

    init = (_no_logits(len(zimg_bxD)), jnp.asarray(BIG))
    (by_row, logit_min), by_col = all_pairs_scan(block, init, ztxt_bxD, axes, merge=_merge)
    return by_row, by_col, logit_min, by_row[0].max()


def _negatives(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    l_b: jax.Array,
    loss_2xb: jax.Array,
    *,
    axes: Axes,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """Second pass: the gradients of the embeddings over t, without the positives' part."""
    # loss_i = logsumexp_i - l_i
    row_b, col_b = l_b + loss_2xb

    def block(gimg_bxD: jax.Array, texts: Any, shift: jax.Array) -> Any:
        ztxt_mxD, col_m = texts
        dimg_bxD, dtxt_mxD = by_kernel_on_tpu(
            "softmax_gradients",
            block_gradients,
            *(zimg_bxD, ztxt_mxD, t, row_b, col_m),
            shift=shift,
            tile=tile,
        )
        return gimg_bxD + dimg_bxD, dtxt_mxD

    gimg_bxD = jnp.zeros(zimg_bxD.shape, jnp.float32)
    return all_pairs_scan(block, gimg_bxD, (ztxt_bxD, col_b), axes)


def _no_logits(size: int) -> LogSumExp:
    return jnp.full(size, -BIG), jnp.zeros(size)


def block_normalisers(
    zimg_nxD: jax.Array, ztxt_mxD: jax.Array, t: jax.Array, *, shift: jax.Array, tile: int
) -> tuple[LogSumExp, LogSumExp, jax.Array]:
    """`pallas_tpu.softmax_normalisers` in plain JAX."""
    n, m = len(zimg_nxD), len(ztxt_mxD)

    def sweep(scan: Any, tile: int, zimg_nxD: Any, ztxt_mxD: Any, t: Any, shift: Any) -> Any:
        def step(row_carry: Any, by_col: Any, zimg_TxD: Any, ztxt_TxD: Any, at: Tile) -> Any:
            by_row, logit_min = row_carry
            l_TxT, tile_min = at.negatives(t * dot(zimg_TxD, ztxt_TxD.T))
            row_max_T, col_max_T = l_TxT.max(1), l_TxT.max(0)
            by_row = _merge(by_row, (row_max_T, jnp.exp(l_TxT - row_max_T[:, None]).sum(1)))
            by_col = _merge(by_col, (col_max_T, jnp.exp(l_TxT - col_max_T[None, :]).sum(0)))
            return (by_row, jnp.minimum(logit_min, tile_min)), by_col

        init = ((_no_logits(min(tile, n)), jnp.asarray(BIG)), _no_logits(min(tile, m)))
        (by_row_RxT, min_R), by_col_CxT = scan(
            step, init, zimg_nxD, ztxt_mxD, tile=tile, origin=(shift, 0)
        )
        by_row = jax.tree.map(lambda x: from_tiles(x, n), by_row_RxT)
        return by_row, jax.tree.map(lambda x: from_tiles(x, m), by_col_CxT), min_R.min()

    normalisers: tuple[LogSumExp, LogSumExp, jax.Array] = by_platform(
        *(zimg_nxD, ztxt_mxD, t, shift),
        gpu=functools.partial(sweep, peeled_scan, large_tile(n, m)),
        default=functools.partial(sweep, tile_scan, tile),
    )
    return normalisers


def block_gradients(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    row_n: jax.Array,
    col_m: jax.Array,
    *,
    shift: jax.Array,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """`pallas_tpu.softmax_gradients` in plain JAX."""

    def dlogits(x_TxT: jax.Array, at: Tile, row_T: Any, col_T: Any) -> tuple[None, jax.Array]:
        l_TxT, _ = at.negatives(t * x_TxT)
        return None, 0.5 * (jnp.exp(l_TxT - row_T[:, None]) + jnp.exp(l_TxT - col_T[None, :]))

    _, dimg_nxD, dtxt_mxD = pairwise_gradients(
        dlogits,
        None,
        zimg_nxD,
        ztxt_mxD,
        per_row=row_n,
        per_col=col_m,
        origin=(shift, 0),
        tile=tile,
    )
    return dimg_nxD, dtxt_mxD
