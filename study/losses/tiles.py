"""Sweeps over tiles of logits: at any time one tile is held, never rows x columns.

A sweep meets one block: some images with some texts. Where block rows and columns are the same
examples, the diagonal holds the positives, which the sigmoid sweep leaves out: the caller adds
them exactly, from B dot products. Rows and columns are padded to whole tiles and the padding is
masked, so any number of them will do.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.stats import dot

# Larger than any logit that float32 embeddings can make, yet finite: -inf would make NaNs.
BIG = 1e30


class NegativeSums(NamedTuple):
    """Of the negatives in a block: summed loss, summed gradient, extreme logits."""

    loss: jax.Array
    db: jax.Array
    min: jax.Array
    max: jax.Array

    @classmethod
    def zero(cls) -> NegativeSums:
        zero = jnp.zeros((), jnp.float32)
        return cls(zero, zero, zero + BIG, zero - BIG)

    def __add__(self, other: NegativeSums) -> NegativeSums:  # type: ignore[override]
        return NegativeSums(
            self.loss + other.loss,
            self.db + other.db,
            jnp.minimum(self.min, other.min),
            jnp.maximum(self.max, other.max),
        )


def tiled(z_nxD: jax.Array, tile: int) -> jax.Array:
    """Rows in tiles, padded with zeros to whole ones: `z_RxTxD`."""
    rows, dim = z_nxD.shape
    count = -(-rows // tile)
    padded = jnp.pad(z_nxD, ((0, count * tile - rows), (0, 0)))
    return padded.reshape(count, tile, dim)


def sigmoid_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    diagonal: jax.Array | bool,
    tile: int,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """Loss and gradients of all pairs of a block as negatives, three matmuls per tile.

    diagonal: whether row i and column i are the same example, which is then left out.

    Returns the sums, and the unscaled gradients `dzimg_nxD`, `dztxt_mxD` of the summed loss.
    """
    n, m = len(zimg_nxD), len(ztxt_mxD)
    tile = min(tile, max(n, m))
    rows_RxTxD = tiled(t.astype(zimg_nxD.dtype) * zimg_nxD, tile)
    cols_CxTxD = tiled(ztxt_mxD, tile)
    i_T = jnp.arange(tile)
    ragged = bool(n % tile or m % tile)

    def row_tile(dztxt_CxTxD, row):
        r, zimg_TxD = row

        def col_tile(carry, col):
            c, ztxt_TxD = col
            sums, dzimg_TxD = carry
            l_TxT = dot(zimg_TxD, ztxt_TxD.T) + b
            i_Tx1, j_1xT = (r * tile + i_T)[:, None], (c * tile + i_T)[None, :]
            out_TxT = (i_Tx1 == j_1xT) & diagonal
            if ragged:
                out_TxT |= (i_Tx1 >= n) | (j_1xT >= m)
            l_TxT = jnp.where(out_TxT, -BIG, l_TxT)
            e_TxT = jnp.exp(-jnp.abs(l_TxT))
            p_TxT = jnp.where(l_TxT > 0, 1.0, e_TxT) / (1.0 + e_TxT)
            sums += NegativeSums(
                jnp.sum(jnp.maximum(l_TxT, 0.0) + jnp.log1p(e_TxT)),
                jnp.sum(p_TxT),
                jnp.min(jnp.where(out_TxT, BIG, l_TxT)),
                jnp.max(l_TxT),
            )
            p_TxT = p_TxT.astype(ztxt_TxD.dtype)
            return (sums, dzimg_TxD + dot(p_TxT, ztxt_TxD)), dot(p_TxT.T, zimg_TxD)

        start = (NegativeSums.zero(), jnp.zeros(zimg_TxD.shape, jnp.float32))
        steps = (jnp.arange(len(cols_CxTxD)), cols_CxTxD)
        (sums, dzimg_TxD), add_CxTxD = lax.scan(col_tile, start, steps)
        return dztxt_CxTxD + add_CxTxD, (sums, dzimg_TxD)

    dztxt_CxTxD, (sums_R, dzimg_RxTxD) = lax.scan(
        row_tile,
        jnp.zeros(cols_CxTxD.shape, jnp.float32),
        (jnp.arange(len(rows_RxTxD)), rows_RxTxD),
    )
    sums = NegativeSums(sums_R.loss.sum(), sums_R.db.sum(), sums_R.min.min(), sums_R.max.max())
    dim = zimg_nxD.shape[1]
    return sums, t * dzimg_RxTxD.reshape(-1, dim)[:n], dztxt_CxTxD.reshape(-1, dim)[:m]
