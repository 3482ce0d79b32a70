"""The bidirectional softmax loss in two passes: normalisers, then gradients (paper Eq. 1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from study.losses.fused import with_gradients
from study.losses.stats import LogitStats, dot, mean_of_negatives, pmax, pmin, positives, psum
from study.losses.tiles import BIG, tiled


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

    def sweep(zimg, ztxt, t, *, axis):
        ztxt_BxD = ztxt if axis is None else lax.all_gather(ztxt, axis, tiled=True)
        first = 0 if axis is None else lax.axis_index(axis) * len(zimg)
        batch = psum(jnp.asarray(len(zimg)), axis)
        block = _Block(zimg, ztxt_BxD, t, first, tile)
        row_lse, col_max, col_sum, low, high = block.normalisers()
        top = pmax(col_max, axis)
        col_lse = top + jnp.log(psum(col_sum * jnp.exp(col_max - top), axis))
        dzimg, dztxt = block.gradients(row_lse, col_lse)
        if axis is not None:
            dztxt = lax.psum_scatter(dztxt, axis, tiled=True)
        x_b = jnp.sum(zimg.astype(jnp.float32) * ztxt, axis=1)
        l_b = t * x_b
        own = lax.dynamic_slice_in_dim(col_lse, first, len(zimg))
        loss = psum(jnp.sum(0.5 * (row_lse + own) - l_b), axis)
        dzimg -= ztxt
        dztxt -= zimg
        dt = psum(jnp.sum(zimg * dzimg), axis)
        negative = (mean_of_negatives(zimg, ztxt, t, 0.0, axis), pmin(low, axis), pmax(high, axis))
        stats = LogitStats(*positives(l_b, axis), *negative, *negative)
        return loss / batch, stats, (t * dzimg / batch, t * dztxt / batch, dt / batch)

    return with_gradients(sweep, mesh)(zimg_BxD, ztxt_BxD, t)


class _Block:
    """This device's images with all texts, a tile of logits at a time."""

    def __init__(self, zimg_nxD, ztxt_mxD, t, first, tile):
        self.n, self.m, self.first = len(zimg_nxD), len(ztxt_mxD), first
        self.tile = min(tile, self.m)
        self.dim = zimg_nxD.shape[1]
        self.rows_RxTxD = tiled(zimg_nxD, self.tile)
        self.cols_CxTxD = tiled(ztxt_mxD, self.tile)
        self.t = t.astype(zimg_nxD.dtype)

    def _logits(self, r: Any, zimg_TxD: Any, c: Any, ztxt_TxD: Any) -> tuple[Any, Any]:
        """A tile of logits, -BIG where it is padding, and the mask of its positives."""
        l_TxT = dot(self.t * zimg_TxD, ztxt_TxD.T)
        i = (r * self.tile + jnp.arange(self.tile))[:, None]
        j = (c * self.tile + jnp.arange(self.tile))[None, :]
        if self.n % self.tile or self.m % self.tile:
            l_TxT = jnp.where((i >= self.n) | (j >= self.m), -BIG, l_TxT)
        return l_TxT, i + self.first == j

    def normalisers(self) -> Any:
        """Row log-sum-exp `n`, column running maximum and sum `m`, extreme negative logits."""

        def row_tile(carry, row):
            col_max_CxT, col_sum_CxT, low, high = carry
            r, zimg_TxD = row

            def col_tile(carry, col):
                top_T, sum_T, low, high = carry
                c, ztxt_TxD, cmax_T, csum_T = col
                l_TxT, positive = self._logits(r, zimg_TxD, c, ztxt_TxD)
                row_max, col_max = l_TxT.max(1), l_TxT.max(0)
                new_top, new_cmax = jnp.maximum(top_T, row_max), jnp.maximum(cmax_T, col_max)
                sum_T = sum_T * jnp.exp(top_T - new_top) + jnp.exp(l_TxT - new_top[:, None]).sum(1)
                csum_T = csum_T * jnp.exp(cmax_T - new_cmax) + jnp.exp(
                    l_TxT - new_cmax[None, :]
                ).sum(0)
                padding = l_TxT <= -BIG
                low = jnp.minimum(low, jnp.min(jnp.where(positive | padding, BIG, l_TxT)))
                high = jnp.maximum(high, jnp.max(jnp.where(positive, -BIG, l_TxT)))
                return (new_top, sum_T, low, high), (new_cmax, csum_T)

            start = (jnp.full(self.tile, -BIG), jnp.zeros(self.tile), low, high)
            steps = (jnp.arange(len(self.cols_CxTxD)), self.cols_CxTxD, col_max_CxT, col_sum_CxT)
            (top_T, sum_T, low, high), (cmax, csum) = lax.scan(col_tile, start, steps)
            return (cmax, csum, low, high), top_T + jnp.log(sum_T)

        shape = self.cols_CxTxD.shape[:2]
        start = (jnp.full(shape, -BIG), jnp.zeros(shape), jnp.asarray(BIG), jnp.asarray(-BIG))
        steps = (jnp.arange(len(self.rows_RxTxD)), self.rows_RxTxD)
        (cmax, csum, low, high), lse = lax.scan(row_tile, start, steps)
        return lse.ravel()[: self.n], cmax.ravel()[: self.m], csum.ravel()[: self.m], low, high

    def gradients(self, row_lse_n: Any, col_lse_m: Any) -> Any:
        """Sums of 0.5 * (row + column softmax) times the other side's embeddings."""
        tile = self.tile

        def padded(x: Any, count: int) -> Any:
            return jnp.pad(x, (0, count * tile - len(x))).reshape(count, tile)

        row_lse_RxT = padded(row_lse_n, len(self.rows_RxTxD))
        col_lse_CxT = padded(col_lse_m, len(self.cols_CxTxD))

        def row_tile(dztxt_CxTxD, row):
            r, zimg_TxD, row_lse_T = row

            def col_tile(dzimg_TxD, col):
                c, ztxt_TxD, col_lse_T = col
                l_TxT, _ = self._logits(r, zimg_TxD, c, ztxt_TxD)
                p_TxT = 0.5 * (
                    jnp.exp(l_TxT - row_lse_T[:, None]) + jnp.exp(l_TxT - col_lse_T[None, :])
                )
                p_TxT = p_TxT.astype(ztxt_TxD.dtype)
                return dzimg_TxD + dot(p_TxT, ztxt_TxD), dot(p_TxT.T, zimg_TxD)

            start = jnp.zeros(zimg_TxD.shape, jnp.float32)
            steps = (jnp.arange(len(self.cols_CxTxD)), self.cols_CxTxD, col_lse_CxT)
            dzimg_TxD, add_CxTxD = lax.scan(col_tile, start, steps)
            return dztxt_CxTxD + add_CxTxD, dzimg_TxD

        start = jnp.zeros(self.cols_CxTxD.shape, jnp.float32)
        steps = (jnp.arange(len(self.rows_RxTxD)), self.rows_RxTxD, row_lse_RxT)
        dztxt, dzimg = lax.scan(row_tile, start, steps)
        return dzimg.reshape(-1, self.dim)[: self.n], dztxt.reshape(-1, self.dim)[: self.m]
