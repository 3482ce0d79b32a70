"""Sweeps over tiles of logits: at any time one tile is held, never rows x columns.

A sweep meets one block: some images with some texts. Block rows and columns carry their numbers
in the global batch, so a tile knows which of its pairs are positives, and any number of rows and
columns will do: they are padded to whole tiles and the padding is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from study.losses.stats import Axis, dot, pmax, pmin, psum

# Larger than any logit that float32 embeddings can make, yet finite: -inf would make NaNs.
BIG = 1e30


@dataclass(frozen=True)
class Tile:
    """Where a tile lies: global numbers of its examples, and what of it is no negative."""

    i_Tx1: jax.Array
    j_1xT: jax.Array
    padding: jax.Array | None
    special: jax.Array

    def outside(self) -> jax.Array:
        """Mask `TxT` of positives and padding."""
        positive_TxT = self.i_Tx1 == self.j_1xT
        return positive_TxT if self.padding is None else positive_TxT | self.padding

    def negatives(self, l_TxT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The logits with -BIG in the place of all but negatives, and the lowest negative's.

        Few tiles touch the diagonal or an edge; masking only those halves the elementwise work.
        """

        def masked(l_TxT: jax.Array) -> tuple[jax.Array, jax.Array]:
            out_TxT = self.outside()
            return jnp.where(out_TxT, -BIG, l_TxT), jnp.min(jnp.where(out_TxT, BIG, l_TxT))

        return lax.cond(self.special, masked, lambda l_TxT: (l_TxT, jnp.min(l_TxT)), l_TxT)


def sweep(
    step: Callable[..., tuple[Any, Any]],
    start: tuple[Any, Any],
    rows: Any,
    cols: Any,
    *,
    tile: int,
    origin: tuple[jax.Array | int, jax.Array | int],
) -> tuple[Any, Any]:
    """Brings every tile of rows together with every tile of columns.

    Arguments:
      step: `(row_sums, col_sums, row, col, tile) -> (row_sums, col_sums)`, where `row` and `col`
        are what `rows` and `cols` hold for this tile and `tile` is a `Tile`.
      start: the initial `row_sums` of every tile of rows and `col_sums` of every tile of columns.
      rows, cols: pytrees of arrays with one leading row per example of the block.
      tile: rows and columns of logits held at once.
      origin: numbers of the first row and the first column in the global batch.

    Returns the sums, stacked: one per tile of rows, one per tile of columns.
    """
    n, m = len(jax.tree.leaves(rows)[0]), len(jax.tree.leaves(cols)[0])
    high, wide = min(tile, n), min(tile, m)
    rows_R = jax.tree.map(lambda x: tiled(x, high), rows)
    cols_C = jax.tree.map(lambda x: tiled(x, wide), cols)
    count_R, count_C = -(-n // high), -(-m // wide)
    i0, j0 = (jnp.asarray(x, jnp.int32) for x in origin)

    def place(r: jax.Array, c: jax.Array) -> Tile:
        i_T, j_T = r * high + jnp.arange(high), c * wide + jnp.arange(wide)
        padding, special = None, jnp.bool_(False)
        if n % high or m % wide:
            padding = (i_T >= n)[:, None] | (j_T >= m)[None, :]
            special = (i_T[-1] >= n) | (j_T[-1] >= m)
        i_T, j_T = i0 + i_T, j0 + j_T
        special |= (i_T[0] <= j_T[-1]) & (j_T[0] <= i_T[-1])
        return Tile(i_T[:, None], j_T[None, :], padding, special)

    def row_tile(sums_C: Any, at: Any) -> tuple[Any, Any]:
        r, row = at

        def col_tile(row_sums: Any, at: Any) -> tuple[Any, Any]:
            c, col, col_sums = at
            return step(row_sums, col_sums, row, col, place(r, c))

        row_sums, sums_C = lax.scan(col_tile, start[0], (jnp.arange(count_C), cols_C, sums_C))
        return sums_C, row_sums

    sums_C = jax.tree.map(lambda x: jnp.broadcast_to(x, (count_C, *jnp.shape(x))), start[1])
    sums_C, sums_R = lax.scan(row_tile, sums_C, (jnp.arange(count_R), rows_R))
    return sums_R, sums_C


def tiled(x: jax.Array, tile: int) -> jax.Array:
    """Leading rows in tiles, padded with zeros to whole ones: `(count, tile, ...)`."""
    count = -(-len(x) // tile)
    padded = jnp.pad(x, ((0, count * tile - len(x)), *[(0, 0)] * (x.ndim - 1)))
    return padded.reshape(count, tile, *x.shape[1:])


def untiled(x: jax.Array, rows: int) -> jax.Array:
    """The inverse of `tiled`."""
    return x.reshape(-1, *x.shape[2:])[:rows]


class Sums(NamedTuple):
    """What a loss gathers over pairs: tuples of sums, of minima and of maxima, float32 scalars."""

    add: tuple[jax.Array, ...] = ()
    low: tuple[jax.Array, ...] = ()
    high: tuple[jax.Array, ...] = ()

    def __add__(self, other: Sums) -> Sums:  # type: ignore[override]
        return Sums(
            tuple(map(jnp.add, self.add, other.add)),
            tuple(map(jnp.minimum, self.low, other.low)),
            tuple(map(jnp.maximum, self.high, other.high)),
        )

    @classmethod
    def of_none(cls, add: int, low: int, high: int) -> Sums:
        """So many sums, minima and maxima over no pair at all."""
        zero = jnp.zeros((), jnp.float32)
        return cls((zero,) * add, (zero + BIG,) * low, (zero - BIG,) * high)

    def total(self) -> Sums:
        """Of sums that are stacked, one."""
        return Sums(
            tuple(x.sum() for x in self.add),
            tuple(x.min() for x in self.low),
            tuple(x.max() for x in self.high),
        )

    def over(self, axis: Axis) -> Sums:
        """The sums over all devices."""
        return Sums(
            tuple(psum(x, axis) for x in self.add),
            tuple(pmin(x, axis) for x in self.low),
            tuple(pmax(x, axis) for x in self.high),
        )


def softplus_and_sigmoid(l_TxT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sum(softplus(l))`, `sigmoid(l)` and `max(l)` of a tile, safe for logits of any size.

    The logarithm is the dear part, so it is taken of products: with e = exp(-|l|) in [0, 1],
    (1 + e)(1 + f) - 1 = e + f + ef is exact to rounding however small e and f are, and sixteen
    such factors stay below 2**16.
    """
    high = jnp.max(l_TxT)
    # The barriers keep the compiler from computing exp again for each of its three users.
    e_TxT = lax.optimization_barrier(jnp.exp(-jnp.abs(l_TxT)))
    p_TxT = lax.optimization_barrier(jnp.where(l_TxT > 0, 1.0, e_TxT) / (1.0 + e_TxT))
    product = e_TxT
    while product.shape[0] % 2 == 0 and product.size > e_TxT.size // 16:
        e, f = jnp.split(product, 2)
        product = e + f + e * f
    linear = lax.cond(
        high > 0, lambda x: jnp.sum(jnp.maximum(x, 0.0)), lambda _: jnp.zeros(()), l_TxT
    )
    return linear + jnp.sum(jnp.log1p(product)), p_TxT, high


def gradients(
    weigh: Callable[..., tuple[Sums, jax.Array]],
    none: Sums,
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    *,
    per_row: Any = (),
    per_col: Any = (),
    origin: tuple[jax.Array | int, jax.Array | int],
    tile: int,
) -> tuple[Sums, jax.Array, jax.Array]:
    """One sweep, three matmuls per tile: products, and their weights times either side.

    Arguments:
      weigh: `(x_TxT, tile, per_row, per_col) -> (sums, p_TxT)`: what to gather of a tile of
        products x.y, and the weight of each pair, the derivative of the loss in its logit.
      none: the sums over no pair, of the kind that `weigh` gathers.
      per_row, per_col: pytrees with one leading row per image and per text, for `weigh`.
      origin, tile: as for `sweep`.

    Returns the sums, `p @ ztxt` (`nxD`) and `p.T @ zimg` (`mxD`) in float32: times t, the
    gradients of the embeddings.
    """
    (n, dim), m, f32 = zimg_nxD.shape, len(ztxt_mxD), jnp.float32

    def step(row_sums: Any, gtxt_DxT: jax.Array, row: Any, col: Any, at: Tile) -> Any:
        sums, gimg_TxD = row_sums
        (zimg_TxD, of_row), (ztxt_TxD, of_col) = row, col
        more, p_TxT = weigh(dot(zimg_TxD, ztxt_TxD.T), at, of_row, of_col)
        p_TxT = p_TxT.astype(ztxt_TxD.dtype)
        # The tile of weights is never transposed: gtxt gathers as DxT and is turned at the end.
        return (sums + more, gimg_TxD + dot(p_TxT, ztxt_TxD)), gtxt_DxT + dot(zimg_TxD.T, p_TxT)

    rows, cols = (zimg_nxD, per_row), (ztxt_mxD, per_col)
    start = (
        (none, jnp.zeros((min(tile, n), dim), f32)),
        jnp.zeros((dim, min(tile, m)), f32),
    )
    (sums_R, gimg_RxTxD), gtxt_CxDxT = sweep(step, start, rows, cols, tile=tile, origin=origin)
    return sums_R.total(), untiled(gimg_RxTxD, n), untiled(jnp.swapaxes(gtxt_CxDxT, 1, 2), m)


def sigmoid_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    diagonal: jax.Array | bool,
    tile: int,
) -> tuple[Sums, jax.Array, jax.Array]:
    """All pairs of a block as negatives in the sigmoid loss.

    diagonal: whether row i and column i are the same example, which is then left out.

    Returns `Sums((loss, db), (lowest,), (highest,))` and the products that `gradients` returns.
    """

    def weigh(x_TxT: jax.Array, at: Tile, *_: Any) -> tuple[Sums, jax.Array]:
        l_TxT, low = at.negatives(t * x_TxT + b)
        loss, p_TxT, high = softplus_and_sigmoid(l_TxT)
        return Sums((loss, jnp.sum(p_TxT)), (low,), (high,)), p_TxT

    # Where rows and columns are different examples, no two of their numbers are equal.
    origin = (0, jnp.where(diagonal, 0, len(zimg_nxD)))
    return gradients(weigh, Sums.of_none(2, 1, 1), zimg_nxD, ztxt_mxD, origin=origin, tile=tile)
