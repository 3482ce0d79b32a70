"""The two sweeps of the softmax loss over a block of pairs: normalisers, then gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from study.config.loss import SameCaption
from study.losses.captions import compare, sums_of_kept
from study.losses.tiled import LogSumExp, NegativeSums, pairwise_gradients
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


class Normaliser(NamedTuple):
    """Log-sum-exp of the logits of each row, without an example's own pair.

    Attributes:
      top, total: the largest logit, and the sum of exponentials relative to it.
      same_sum, same: of the pairs with equal captions the sum of logits, and how many they are;
        None unless these are positives.
    """

    top: Any
    total: Any
    same_sum: Any = None
    same: Any = None

    @classmethod
    def empty(cls, size: int, *, same: bool) -> Normaliser:
        zero_n = jnp.zeros(size)
        more = (zero_n, zero_n) if same else (None, None)
        return cls(jnp.full(size, -BIG), zero_n, *more)

    @classmethod
    def of_tile(cls, l_TxT: jax.Array, same_TxT: jax.Array | None, axis: int) -> Normaliser:
        """Over one axis of a tile; `same_TxT` is None unless equal captions are positives."""
        top = l_TxT.max(axis)
        total = jnp.exp(l_TxT - jnp.expand_dims(top, axis)).sum(axis)
        if same_TxT is None:
            return cls(top, total)
        same_sum = jnp.where(same_TxT, l_TxT, 0.0).sum(axis)
        return cls(top, total, same_sum, same_TxT.sum(axis, dtype=jnp.float32))

    def merge(self, other: Normaliser) -> Normaliser:
        """Over the pairs of both."""
        top = jnp.maximum(self.top, other.top)
        total = self.total * jnp.exp(self.top - top) + other.total * jnp.exp(other.top - top)
        more = (None if a is None else a + b for a, b in zip(self[2:], other[2:], strict=True))
        return Normaliser(top, total, *more)


def block_normalisers(
    zimg_nxD: jax.Array, ztxt_mxD: jax.Array, t: jax.Array, *, shift: jax.Array, tile: int
) -> tuple[LogSumExp, LogSumExp, jax.Array]:
    """`pallas_tpu.softmax_normalisers` in plain JAX."""
    zeros = NegativeSums.zeros()

    def logits(x_TxT: jax.Array, at: Tile, *_: Any) -> tuple[jax.Array, None, NegativeSums]:
        l_TxT, logit_min = at.negatives(t * x_TxT)
        return l_TxT, None, zeros._replace(logit_min=logit_min)

    by_row, by_col, seen = _sweep_normalisers(
        logits, zeros, (zimg_nxD, None), (ztxt_mxD, None), same=False, shift=shift, tile=tile
    )
    return (by_row.top, by_row.total), (by_col.top, by_col.total), seen.logit_min


def captioned_normalisers(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    *,
    captions: tuple[jax.Array, jax.Array] | None,
    usable_m: jax.Array | None = None,
    same: SameCaption,
    shift: jax.Array | int,
    tile: int,
) -> tuple[Normaliser, Normaliser, NegativeSums]:
    """`block_normalisers` that knows captions and columns without a text.

    Arguments as for `study.losses.captions.captioned_negatives`; without captions `same` is
    "negative". Pairs with equal captions are in the normaliser if they are positives.

    Returns the normalisers of the rows and of the columns, and what `NegativeSums` has on logits.
    """
    positive = same == "positive"

    def logits(
        x_TxT: jax.Array, at: Tile, caption_Tx2: Any, col: Any
    ) -> tuple[jax.Array, jax.Array | None, NegativeSums]:
        all_TxT, same_TxT, logit_min = compare(t * x_TxT, at, caption_Tx2, *col)
        kept_TxT, sums = sums_of_kept(all_TxT, same_TxT, logit_min)
        return (all_TxT, same_TxT, sums) if positive else (kept_TxT, None, sums)

    row_captions, col_captions = (None, None) if captions is None else captions
    return _sweep_normalisers(
        logits,
        NegativeSums.zeros(kept=True, same=True),
        (zimg_nxD, row_captions),
        (ztxt_mxD, (col_captions, usable_m)),
        same=positive,
        shift=shift,
        tile=tile,
    )


def _sweep_normalisers(
    logits: Callable[..., tuple[jax.Array, jax.Array | None, NegativeSums]],
    zeros: NegativeSums,
    rows: tuple[jax.Array, Any],
    cols: tuple[jax.Array, Any],
    *,
    same: bool,
    shift: jax.Array | int,
    tile: int,
) -> tuple[Normaliser, Normaliser, NegativeSums]:
    """Normalisers of a block by row and by column.

    Arguments:
      logits: `(x_TxT, tile, per_row, per_col) -> (l_TxT, same_TxT, sums)`; -BIG leaves a pair out.
      rows, cols: the embeddings, and what `logits` needs of each.
      same: whether `logits` returns a mask `same_TxT`, of further positives.
    """
    n, m = len(rows[0]), len(cols[0])

    def sweep(scan: Any, tile: int, rows: Any, cols: Any, shift: Any) -> Any:
        def step(row_carry: Any, by_col: Normaliser, row: Any, col: Any, at: Tile) -> Any:
            by_row, seen = row_carry
            (zimg_TxD, per_row), (ztxt_TxD, per_col) = row, col
            l_TxT, same_TxT, tile_seen = logits(dot(zimg_TxD, ztxt_TxD.T), at, per_row, per_col)
            by_row = by_row.merge(Normaliser.of_tile(l_TxT, same_TxT, 1))
            by_col = by_col.merge(Normaliser.of_tile(l_TxT, same_TxT, 0))
            return (by_row, seen.merge(tile_seen)), by_col

        empty_n, empty_m = (Normaliser.empty(min(tile, x), same=same) for x in (n, m))
        (by_row_RxT, seen_R), by_col_CxT = scan(
            step, ((empty_n, zeros), empty_m), rows, cols, tile=tile, origin=(shift, 0)
        )
        by_row = jax.tree.map(lambda x: from_tiles(x, n), by_row_RxT)
        return by_row, jax.tree.map(lambda x: from_tiles(x, m), by_col_CxT), seen_R.total()

    normalisers: tuple[Normaliser, Normaliser, NegativeSums] = by_platform(
        *(rows, cols, shift),
        gpu=functools.partial(sweep, peeled_scan, large_tile(n, m)),
        default=functools.partial(sweep, tile_scan, tile),
    )
    return normalisers


def block_gradients(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    row_n: jax.Array,
    col_m: jax.Array | None,
    *,
    captions: tuple[jax.Array, jax.Array] | None = None,
    usable_m: jax.Array | None = None,
    shares: tuple[jax.Array | None, jax.Array | None] = (None, None),
    shift: jax.Array | int,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """`pallas_tpu.softmax_gradients` in plain JAX.

    Arguments:
      row_n, col_m: log-sum-exp of each row, and of each column unless that is of no interest.
      shares: the target of each positive of a row, and of a column. Without them pairs with equal
        captions are left out.
      The others are as for `study.losses.captions.captioned_negatives`.
    """
    compared = captions is not None or usable_m is not None

    def dlogits(x_TxT: jax.Array, at: Tile, row: Any, col: Any) -> tuple[None, jax.Array]:
        row_T, row_share_T, caption_Tx2 = row
        col_T, col_share_T, *texts = col
        if compared:
            l_TxT, same_TxT, _ = compare(t * x_TxT, at, caption_Tx2, *texts)
            if row_share_T is None:
                l_TxT = jnp.where(same_TxT, -BIG, l_TxT)
        else:
            l_TxT, _ = at.negatives(t * x_TxT)
        p_TxT = jnp.exp(l_TxT - row_T[:, None])
        if col_T is not None:
            p_TxT += jnp.exp(l_TxT - col_T[None, :])
        if row_share_T is not None:
            target_TxT = row_share_T[:, None]
            if col_share_T is not None:
                target_TxT = target_TxT + col_share_T[None, :]
            p_TxT -= jnp.where(same_TxT, target_TxT, 0.0)
        return None, 0.5 * p_TxT

    row_captions, col_captions = (None, None) if captions is None else captions
    _, dimg_nxD, dtxt_mxD = pairwise_gradients(
        dlogits,
        None,
        zimg_nxD,
        ztxt_mxD,
        per_row=(row_n, shares[0], row_captions),
        per_col=(col_m, shares[1], col_captions, usable_m),
        origin=(shift, 0),
        tile=tile,
    )
    return dimg_nxD, dtxt_mxD
