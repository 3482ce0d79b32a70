"""TPU kernels of both losses; `study.losses.tpu_panels` is the loop that they share.

`sigmoid_negatives` replaces `tiled.sigmoid_negatives`; `softmax_normalisers` and
`softmax_gradients` replace the two sweeps of `study.losses.softmax`. All three hold the same panels
and tiles, and the gradients of both losses take the same three matrix products.

The kernels have not been timed on a TPU. `results/bench/tpu.md` has the instruction bundles and the
memory of libtpu's schedules for them beside those of XLA's sweeps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from study.losses.tiled import LogSumExp, NegativeSums
from study.losses.tiles import BIG
from study.losses.tpu_panels import (
    LANES,
    Chip,
    Logits,
    Panels,
    Refs,
    Tiling,
    over_rows,
    product,
)

# One number per image, on all lanes, so that it needs no broadcast in the kernel.
PER_IMAGE = 4 * LANES


def fits(z_nxD: jax.Array) -> bool:
    """Whether the kernels can run on embeddings of this width and type on the current chip."""
    dtype = z_nxD.dtype
    if dtype not in (jnp.float32, jnp.bfloat16):
        return False
    try:
        choose_tiling(z_nxD, z_nxD, LANES, per_image=PER_IMAGE)
    except ValueError:
        return False
    return True


def choose_tiling(
    zimg_nxD: jax.Array, ztxt_mxD: jax.Array, tile: int, *, per_image: int = 0
) -> Tiling:
    (n, dim), m, size = zimg_nxD.shape, len(ztxt_mxD), zimg_nxD.dtype.itemsize
    return Tiling.choose(n, m, dim, size, tile, Chip.current(), per_image=per_image)


def sigmoid_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    shift: jax.Array | int,
    tile: int,
    interpret: bool = False,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """`tiled.sigmoid_negatives` by the kernel.

    Arguments:
      zimg_nxD, ztxt_mxD: unit-norm embeddings, float32 or bfloat16. `jax_default_matmul_precision`
        sets the precision of float32 products.
      t, b: temperature as a factor, and bias.
      shift: the text of image i is row i + shift, and that pair is left out.
      tile: rows and columns of logits held at once, at most; at least 128.
      interpret: run the kernel as array code on any device, for tests.

    Returns the sums over negatives, `p @ ztxt` (`nxD`) and `p.T @ zimg` (`mxD`) with
    p = sigmoid(l), in float32. The gradients of the summed loss are t times these.

    Raises:
      ValueError: the embeddings are too wide for the chip's VMEM.
    """
    panels = Panels(name="sigmoid_negatives", body=_sigmoid_tile, totals=(0.0, 0.0, BIG, -BIG))
    (dzimg_KxnxD,), dztxt_mxD, totals = panels(
        choose_tiling(zimg_nxD, ztxt_mxD, tile),
        (t, b),
        (zimg_nxD,),
        (ztxt_mxD,),
        shift=shift,
        interpret=interpret,
    )
    assert totals is not None
    loss, db, low, high = (totals[:, :, k] for k in range(4))
    sums = NegativeSums(loss.sum(), db.sum(), low.min(), high.max())
    return sums, dzimg_KxnxD.sum(0), dztxt_mxD


def _sigmoid_tile(tile: Logits, refs: Refs) -> None:
    t, b = refs.scalars[0], refs.scalars[1]
    totals = refs.totals
    l_rxT = t * tile.x_rxT + b
    low_rxT = jnp.where(tile.out_rxT, BIG, l_rxT)
    l_rxT = jnp.where(tile.out_rxT, -BIG, l_rxT)

    e_rxT = jnp.exp(-jnp.abs(l_rxT))
    r_rxT = 1.0 / (1.0 + e_rxT)
    p_rxT = jnp.where(l_rxT > 0, r_rxT, e_rxT * r_rxT)
    # softplus(l) = max(l, 0) + log1p(e), with one logarithm for rows / 8 of them as in
    # `tiled.softplus_and_sigmoid`. The product is at most 2 ** (512 / 8).
    factors = e_rxT
    while len(factors) > 8:
        half = len(factors) // 2
        factors = factors[:half] + factors[half:] * (1.0 + factors[:half])
    softplus_T = over_rows(jnp.sum, jnp.maximum(l_rxT, 0.0))
    totals[0, 0:1] += softplus_T + over_rows(jnp.sum, jnp.log1p(factors))
    totals[0, 1:2] += over_rows(jnp.sum, p_rxT)
    totals[0, 2:3] = jnp.minimum(totals[0, 2:3], over_rows(jnp.min, low_rxT))
    totals[0, 3:4] = jnp.maximum(totals[0, 3:4], over_rows(jnp.max, l_rxT))
    _add_gradients(p_rxT, tile, refs)


def _add_gradients(p_rxT: jax.Array, tile: Logits, refs: Refs) -> None:
    """Adds `p @ ztxt` to the panel's gradient, and `p.T @ zimg` to the texts'."""
    dztxt, (dzimg,) = refs.for_texts, refs.for_images
    p_rxT = p_rxT.astype(tile.ztxt_TxD.dtype)
    dzimg[0, tile.rows, :] += product(p_rxT, tile.ztxt_TxD, over=(1, 0))
    dztxt[...] += product(p_rxT, tile.zimg_rxD, over=(0, 0))


def softmax_normalisers(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    *,
    shift: jax.Array | int,
    tile: int,
    interpret: bool = False,
) -> tuple[LogSumExp, LogSumExp, jax.Array]:
    """First pass of the softmax loss: log-sum-exp of the negatives of each row and each column.

    Arguments as for `sigmoid_negatives`.

    Returns (largest logit, sum of exponentials relative to it) per row, the same per column, and
    the smallest logit of a negative.

    Raises:
      ValueError: the embeddings are too wide for the chip's VMEM.
    """
    panels = Panels(
        name="softmax_normalisers",
        body=_normalisers_tile,
        per_image=(-BIG, 0.0),
        per_text=(-BIG, 0.0),
        totals=(BIG,),
    )
    (top_KxnxS, total_KxnxS), (top_m, total_m), low = panels(
        choose_tiling(zimg_nxD, ztxt_mxD, tile, per_image=PER_IMAGE),
        (t,),
        (zimg_nxD,),
        (ztxt_mxD,),
        shift=shift,
        interpret=interpret,
    )
    assert low is not None
    # Each core and each lane has a normaliser of its own part of a row.
    top_n = top_KxnxS.max((0, 2))
    total_n = jnp.sum(total_KxnxS * jnp.exp(top_KxnxS - top_n[:, None]), (0, 2))
    return (top_n, total_n), (top_m, total_m), low.min()


def _normalisers_tile(tile: Logits, refs: Refs) -> None:
    by_col, (top, total) = refs.for_texts, refs.for_images
    l_rxT = refs.scalars[0] * tile.x_rxT
    low_rxT = jnp.where(tile.out_rxT, BIG, l_rxT)
    l_rxT = jnp.where(tile.out_rxT, -BIG, l_rxT)
    refs.totals[0] = jnp.minimum(refs.totals[0], over_rows(jnp.min, low_rxT))

    # Rows: per lane, because a reduction over lanes is slow. `rows x 128` at a time.
    parts = [l_rxT[:, at : at + LANES] for at in range(0, l_rxT.shape[1], LANES)]
    before_rxS = after_rxS = top[0, tile.rows, :]
    for l_rxS in parts:
        after_rxS = jnp.maximum(after_rxS, l_rxS)
    sum_rxS = total[0, tile.rows, :] * jnp.exp(before_rxS - after_rxS)
    for l_rxS in parts:
        sum_rxS += jnp.exp(l_rxS - after_rxS)
    top[0, tile.rows, :], total[0, tile.rows, :] = after_rxS, sum_rxS

    before_1xT = by_col[0:1]
    after_1xT = jnp.maximum(before_1xT, over_rows(jnp.max, l_rxT))
    sum_1xT = by_col[1:2] * jnp.exp(before_1xT - after_1xT)
    by_col[1:2] = sum_1xT + over_rows(jnp.sum, jnp.exp(l_rxT - after_1xT))
    by_col[0:1] = after_1xT


def softmax_gradients(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    row_n: jax.Array,
    col_m: jax.Array,
    *,
    shift: jax.Array | int,
    tile: int,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Second pass of the softmax loss: `p @ ztxt` (`nxD`) and `p.T @ zimg` (`mxD`), float32.

    p is half the sum of a negative's row and column softmax, and zero for positives.

    Arguments:
      row_n, col_m: log-sum-exp of all logits of each row and of each column.
      The others are as for `sigmoid_negatives`.

    Raises:
      ValueError: the embeddings are too wide for the chip's VMEM.
    """
    panels = Panels(name="softmax_gradients", body=_softmax_tile)
    # exp(l - log 2 - lse) is half a softmax.
    row_n, col_m = (lse + jnp.log(2.0) for lse in (row_n, col_m))
    (dzimg_KxnxD,), dztxt_mxD, _ = panels(
        choose_tiling(zimg_nxD, ztxt_mxD, tile, per_image=PER_IMAGE),
        (t,),
        (zimg_nxD, jnp.broadcast_to(row_n[:, None], (len(row_n), LANES))),
        (ztxt_mxD, col_m[None]),
        shift=shift,
        interpret=interpret,
    )
    return dzimg_KxnxD.sum(0), dztxt_mxD


def _softmax_tile(tile: Logits, refs: Refs) -> None:
    row_rxS, col_1xT = refs.images[1][tile.rows, :], refs.texts[1][...]
    l_rxT = jnp.where(tile.out_rxT, -BIG, refs.scalars[0] * tile.x_rxT)
    row_rxT = jnp.concatenate([row_rxS] * (l_rxT.shape[1] // LANES), axis=1)
    _add_gradients(jnp.exp(l_rxT - row_rxT) + jnp.exp(l_rxT - col_1xT), tile, refs)
