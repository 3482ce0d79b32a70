"""Tiles of a block of pairs, and the two orders in which a sweep visits them.

- `tile_scan` brings every tile of rows (images) together with every tile of columns (texts).
- `peeled_scan` does so for GPUs: with large tiles, and without a choice that depends on data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Larger than any logit that float32 embeddings can make, yet finite: -inf would make NaNs.
BIG = 1e30

# Rows and columns of a GPU's tile at most: 256 MiB of float32 products and 128 MiB of p. Per pair
# they move 14 bytes; reading and adding to the gradients of a tile's rows and columns moves about
# 32 * D / LARGE_TILE more, 3 at D = 768.
LARGE_TILE = 8192
# Rows of a GPU's tiles are a multiple of this, so that its products are whole blocks.
ALIGN = 128


def platform() -> str | None:
    """Of the devices that are traced for: "cpu", "gpu" or "tpu"; None outside a mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return None if device is None else device.platform


def by_platform(
    *args: Any,
    default: Callable[..., Any],
    gpu: Callable[..., Any] | None = None,
    tpu: Callable[..., Any] | None = None,
) -> Any:
    """`gpu(*args)` in a program for a GPU, `tpu(*args)` for a TPU, `default(*args)` in others.

    A way that is None is `default`. In a mesh only the one that is taken is traced; outside a mesh
    all are, and the compiler chooses.
    """
    if (name := platform()) is not None:
        return ({"gpu": gpu, "tpu": tpu}.get(name) or default)(*args)
    ways = {"cuda": gpu, "rocm": gpu, "tpu": tpu}
    given = {name: way for name, way in ways.items() if way is not None}
    return lax.platform_dependent(*args, **given, default=default)


@dataclass(frozen=True)
class Tile:
    """One tile of a block: which pairs it holds, and which of them are not negatives.

    Attributes:
      i_Tx1, j_1xT: numbers of the images and texts in the global batch; equal for a positive.
      padding_TxT: mask of pairs that only fill up the tile; None if the block has whole tiles.
      masked: whether any pair is a positive or padding; the compiler knows a bool.
      column: where the tile's columns begin in the block.
    """

    i_Tx1: jax.Array
    j_1xT: jax.Array
    padding_TxT: jax.Array | None
    masked: jax.Array | bool
    column: jax.Array

    def negatives(self, l_TxT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The logits, -BIG for positives and padding, and the smallest logit of a negative."""

        def masked(l_TxT: jax.Array) -> tuple[jax.Array, jax.Array]:
            out_TxT = self.i_Tx1 == self.j_1xT
            if self.padding_TxT is not None:
                out_TxT |= self.padding_TxT
            return jnp.where(out_TxT, -BIG, l_TxT), jnp.min(jnp.where(out_TxT, BIG, l_TxT))

        # Few tiles touch the diagonal or an edge; masking only those halves the elementwise work.
        if isinstance(self.masked, bool):
            return masked(l_TxT) if self.masked else (l_TxT, jnp.min(l_TxT))
        return lax.cond(self.masked, masked, lambda l_TxT: (l_TxT, jnp.min(l_TxT)), l_TxT)


def tile_scan(
    step: Callable[..., tuple[Any, Any]],
    init: tuple[Any, Any],
    rows: Any,
    cols: Any,
    *,
    tile: int,
    origin: tuple[jax.Array | int, jax.Array | int],
) -> tuple[Any, Any]:
    """Brings every tile of rows together with every tile of columns of one block.

    Any number of rows and columns will do: they are padded to whole tiles.

    Arguments:
      step: `(row_carry, col_carry, row, col, tile) -> (row_carry, col_carry)`, where `row` and
        `col` are the tile's slices of `rows` and `cols`, and `tile` is a `Tile`.
      init: the initial `row_carry` of every tile of rows, `col_carry` of every tile of columns.
      rows, cols: pytrees of arrays with one leading row per example of the block.
      tile: rows and columns of a tile, at most.
      origin: numbers of the block's first image and first text in the global batch.

    Returns the final carries, stacked: one per tile of rows, one per tile of columns.
    """
    n, m = len(jax.tree.leaves(rows)[0]), len(jax.tree.leaves(cols)[0])
    height, width = min(tile, n), min(tile, m)
    rows_R = jax.tree.map(lambda x: to_tiles(x, height), rows)
    cols_C = jax.tree.map(lambda x: to_tiles(x, width), cols)
    count_R, count_C = -(-n // height), -(-m // width)
    i0, j0 = (jnp.asarray(x, jnp.int32) for x in origin)

    def tile_at(r: jax.Array, c: jax.Array) -> Tile:
        i_T, j_T = r * height + jnp.arange(height), c * width + jnp.arange(width)
        padding_TxT, any_masked = None, jnp.bool_(False)
        if n % height or m % width:
            padding_TxT = (i_T >= n)[:, None] | (j_T >= m)[None, :]
            any_masked = (i_T[-1] >= n) | (j_T[-1] >= m)
        i_T, j_T = i0 + i_T, j0 + j_T
        any_masked |= (i_T[0] <= j_T[-1]) & (j_T[0] <= i_T[-1])  # on the diagonal
        return Tile(i_T[:, None], j_T[None, :], padding_TxT, any_masked, c * width)

    def row_of_tiles(carry_C: Any, xs: Any) -> tuple[Any, Any]:
        r, row = xs

        def one_tile(row_carry: Any, xs: Any) -> tuple[Any, Any]:
            c, col, col_carry = xs
            return step(row_carry, col_carry, row, col, tile_at(r, c))

        row_carry, carry_C = lax.scan(one_tile, init[0], (jnp.arange(count_C), cols_C, carry_C))
        return carry_C, row_carry

    carry_C = jax.tree.map(lambda x: jnp.broadcast_to(x, (count_C, *jnp.shape(x))), init[1])
    carry_C, carry_R = lax.scan(row_of_tiles, carry_C, (jnp.arange(count_R), rows_R))
    return carry_R, carry_C


def large_tile(rows: int, cols: int) -> int:
    """The tile of `peeled_scan`: of the fewest equal ones of at most `LARGE_TILE` rows."""
    side = min(rows, cols)
    equal = -(-side // -(-side // LARGE_TILE))
    return min(-(-equal // ALIGN) * ALIGN, side)


def peeled_scan(
    step: Callable[..., tuple[Any, Any]],
    init: tuple[Any, Any],
    rows: Any,
    cols: Any,
    *,
    tile: int,
    origin: tuple[jax.Array | int, jax.Array | int],
) -> tuple[Any, Any]:
    """`tile_scan` for a GPU, with `Tile.masked` always a bool.

    A GPU that must choose (`lax.cond`) waits for the host. So each row of tiles begins with the two
    that its positives can lie in, and all others are computed without a mask. Blocks that need
    padding have a mask everywhere.

    Arguments and returns as `tile_scan`, with the tile of `large_tile`.
    """
    n, m = len(jax.tree.leaves(rows)[0]), len(jax.tree.leaves(cols)[0])
    rows_R, cols_C = (jax.tree.map(lambda x: to_tiles(x, tile), z) for z in (rows, cols))
    count_R, count_C = -(-n // tile), -(-m // tile)
    padded = n % tile != 0 or m % tile != 0
    i0, j0 = (jnp.asarray(x, jnp.int32) for x in origin)
    first_R = jnp.arange(count_R) + jnp.floor_divide(i0 - j0, tile)
    visits_RxC = (first_R[:, None] + jnp.arange(count_C)) % count_C

    def tile_at(r: jax.Array, c: jax.Array, masked: bool) -> Tile:
        i_T, j_T = r * tile + jnp.arange(tile), c * tile + jnp.arange(tile)
        padding_TxT = (i_T >= n)[:, None] | (j_T >= m)[None, :] if padded else None
        i_Tx1, j_1xT = (i0 + i_T)[:, None], (j0 + j_T)[None, :]
        return Tile(i_Tx1, j_1xT, padding_TxT, masked or padded, c * tile)

    def row_of_tiles(carry_C: Any, xs: Any) -> tuple[Any, Any]:
        r, row, visits_C = xs

        def one_tile(carry: Any, c: jax.Array, *, masked: bool) -> tuple[Any, None]:
            row_carry, carry_C = carry
            col, col_carry = jax.tree.map(
                lambda x: lax.dynamic_index_in_dim(x, c, keepdims=False), (cols_C, carry_C)
            )
            row_carry, col_carry = step(row_carry, col_carry, row, col, tile_at(r, c, masked))
            carry_C = jax.tree.map(
                lambda x, new: lax.dynamic_update_index_in_dim(x, new, c, 0), carry_C, col_carry
            )
            return (row_carry, carry_C), None

        carry = (init[0], carry_C)
        for part_C, masked in ((visits_C[:2], True), (visits_C[2:], False)):
            if len(part_C):
                carry, _ = lax.scan(functools.partial(one_tile, masked=masked), carry, part_C)
        row_carry, carry_C = carry
        return carry_C, row_carry

    carry_C = jax.tree.map(lambda x: jnp.broadcast_to(x, (count_C, *jnp.shape(x))), init[1])
    carry_C, carry_R = lax.scan(row_of_tiles, carry_C, (jnp.arange(count_R), rows_R, visits_RxC))
    return carry_R, carry_C


def to_tiles(x_nx: jax.Array, tile: int) -> jax.Array:
    """Leading rows in tiles, `(count, tile, ...)`, the last one padded with zeros."""
    count = -(-len(x_nx) // tile)
    padding = [(0, count * tile - len(x_nx)), *[(0, 0)] * (x_nx.ndim - 1)]
    return jnp.pad(x_nx, padding).reshape(count, tile, *x_nx.shape[1:])


def from_tiles(x_RxTx: jax.Array, rows: int) -> jax.Array:
    """The inverse of `to_tiles`."""
    return x_RxTx.reshape(-1, *x_RxTx.shape[2:])[:rows]


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product with float32 sums, also of bfloat16 inputs."""
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
