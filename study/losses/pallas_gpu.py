"""A tile's products, loss and derivatives in one GPU kernel (Pallas, Triton backend).

On a GPU the sweep of `tiled.py` writes the products of a tile to memory in float32 and reads them
again for p = sigmoid(l). The kernel keeps them in registers and writes p alone: 6 bytes of memory
traffic per pair where the sweep has 14. The two products of p with the embeddings stay outside:
their sums, D float32 values per row, do not fit the registers for D = 768.

`study bench gpu` times the kernel beside the sweep. Until it has run on a card the loss does not
use it: the compiler's assembler gives it all 255 registers for compute capability 9.0, so that
nothing hides a block's exponentials behind another block's products.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from study.losses.tiled import NegativeSums, gpu_products, gradient_sweep
from study.losses.tiles import BIG, Tile, large_tile, peeled_scan

# Logits of one block and the part of D that it reads at a time: 96 KiB of shared memory with three
# stages of bfloat16, which every card of the table has.
SIDE, DEPTH = 128, 64
PARAMS = plgpu.CompilerParams(num_warps=8, num_stages=3)


def fits(zimg_nxD: jax.Array, ztxt_mxD: jax.Array) -> bool:
    """Whether the kernel's blocks divide these embeddings, and their type is bfloat16."""
    (n, dim), m = zimg_nxD.shape, len(ztxt_mxD)
    tile = large_tile(n, m)
    return (
        zimg_nxD.dtype == ztxt_mxD.dtype == jnp.bfloat16
        and n % tile == m % tile == tile % SIDE == dim % DEPTH == 0
    )


def sigmoid_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    shift: jax.Array | int,
    interpret: bool = False,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """`tiled.sigmoid_negatives` by the kernel.

    Arguments:
      shift: the text of image i is row i + shift, and that pair is left out; beyond the texts' end
        if there is none.
      interpret: run the kernel as array code on any device, for tests.

    Raises:
      ValueError: the embeddings do not fit the kernel, see `fits`.
    """
    if not fits(zimg_nxD, ztxt_mxD):
        raise ValueError(
            f"the GPU kernel needs bfloat16 embeddings in whole blocks of {SIDE} rows and {DEPTH} "
            f"columns, not {zimg_nxD.dtype}{list(zimg_nxD.shape)}"
        )
    dtype, scale = gpu_products(zimg_nxD.dtype)
    learned_2 = jnp.stack([jnp.asarray(t, jnp.float32), jnp.asarray(b, jnp.float32)])

    def tile_gradients(zimg_TxD: Any, ztxt_TxD: Any, at: Tile, *_: Any) -> Any:
        # Of this tile: row i and column i + shift are a positive.
        shift_1 = (at.i_Tx1[0] - at.j_1xT[0, 0]).astype(jnp.int32)
        args = (learned_2, shift_1, zimg_TxD, ztxt_TxD)
        p_TxT, sums = _call(args, dtype, scale, bool(at.masked), interpret)
        loss, db, low, high = (sums[:, :, k] for k in range(4))
        return NegativeSums(loss.sum(), db.sum(), low.min(), high.max()), p_TxT

    tile = large_tile(len(zimg_nxD), len(ztxt_mxD))
    zeros, z = NegativeSums.zeros(), (zimg_nxD, ztxt_mxD)
    sums, gimg_nxD, gtxt_mxD = gradient_sweep(
        tile_gradients, zeros, peeled_scan, tile, *z, (), (), (shift, 0)
    )
    return sums, gimg_nxD / scale, gtxt_mxD / scale


def _call(
    args: tuple[jax.Array, ...], dtype: Any, scale: float, masked: bool, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    """p of a tile, and for each block the sums of `NegativeSums`' first four fields."""
    (rows, dim), cols = args[2].shape, len(args[3])
    grid = (rows // SIDE, cols // SIDE)
    one = pl.BlockSpec((1,), lambda i, j: (0,))
    two = pl.BlockSpec((2,), lambda i, j: (0,))
    call = pl.pallas_call(
        functools.partial(_kernel, scale=scale, masked=masked),
        grid=grid,
        in_specs=[
            *(two, one),
            pl.BlockSpec((SIDE, dim), lambda i, j: (i, 0)),
            pl.BlockSpec((SIDE, dim), lambda i, j: (j, 0)),
        ],
        out_specs=[
            pl.BlockSpec((SIDE, SIDE), lambda i, j: (i, j)),
            pl.BlockSpec((1, 1, 4), lambda i, j: (i, j, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((rows, cols), dtype),
            jax.ShapeDtypeStruct((*grid, 4), jnp.float32),
        ],
        compiler_params=PARAMS,
        interpret=interpret,
        name="sigmoid_tile",
    )
    p_TxT, sums = call(*args)
    return p_TxT, sums


def _kernel(
    learned: Any, shift: Any, zimg: Any, ztxt: Any, p: Any, sums: Any, *, scale: float, masked: bool
) -> None:
    """One block: its products over D, then the loss and p of each logit."""
    f32 = jnp.float32

    def add_products(k: jax.Array, x_TxT: jax.Array) -> jax.Array:
        part = pl.ds(k * DEPTH, DEPTH)
        return x_TxT + plgpu.dot(zimg[:, part], ztxt[:, part].T)

    x_TxT = lax.fori_loop(0, zimg.shape[1] // DEPTH, add_products, jnp.zeros((SIDE, SIDE), f32))
    l_TxT = learned[0] * x_TxT + learned[1]
    low_TxT = l_TxT
    if masked:
        i_TxT = pl.program_id(0) * SIDE + lax.broadcasted_iota(jnp.int32, (SIDE, SIDE), 0)
        j_TxT = pl.program_id(1) * SIDE + lax.broadcasted_iota(jnp.int32, (SIDE, SIDE), 1)
        out_TxT = i_TxT + shift[0] == j_TxT
        low_TxT, l_TxT = jnp.where(out_TxT, BIG, l_TxT), jnp.where(out_TxT, -BIG, l_TxT)
    e_TxT = jnp.exp(-jnp.abs(l_TxT))
    p_TxT = jnp.where(l_TxT > 0, 1.0, e_TxT) / (1.0 + e_TxT)
    p[...] = (scale * p_TxT).astype(p.dtype)
    sums[0, 0, 0] = jnp.sum(jnp.maximum(l_TxT, 0.0) + jnp.log1p(e_TxT))
    sums[0, 0, 1] = jnp.sum(p_TxT)
    sums[0, 0, 2] = jnp.min(low_TxT)
    sums[0, 0, 3] = jnp.max(l_TxT)
