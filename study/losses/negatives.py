"""Sums of the sigmoid loss over all negatives: of a batch, of one side of it, or stored ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from study.config.loss import SameCaption, SameSide
from study.losses.captions import captioned_negatives
from study.losses.queue import Queue, Stored, both_sides
from study.losses.ring import all_pairs_scan
from study.losses.tiled import (
    NO_POSITIVES,
    Axes,
    NegativeSums,
    by_kernel_on_tpu,
    sigmoid_negatives,
)


def all_negatives(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    axes: Axes,
    tile: int,
    group_size: int | None = None,
    caption_bx2: jax.Array | None = None,
    same: SameCaption = "negative",
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """All pairs of the batch, or of each run of `group_size` neighbouring devices."""

    def block(local: Any, texts: Any, shift: jax.Array) -> Any:
        sums, gimg_bxD = local
        ztxt_mxD, caption_mx2 = texts
        arrays = (zimg_bxD, ztxt_mxD, t, b)
        if caption_bx2 is None:
            block_sums, dimg_bxD, dtxt_mxD = by_kernel_on_tpu(
                "sigmoid_negatives", sigmoid_negatives, *arrays, shift=shift, tile=tile
            )
        else:
            captions = (caption_bx2, caption_mx2)
            block_sums, dimg_bxD, dtxt_mxD = captioned_negatives(
                *arrays, captions=captions, same=same, shift=shift, tile=tile
            )
        return (sums.merge(block_sums), gimg_bxD + dimg_bxD), dtxt_mxD

    compared = caption_bx2 is not None
    zeros = NegativeSums.zeros(kept=compared, same=compared)
    init = (zeros, jnp.zeros(zimg_bxD.shape, jnp.float32))
    texts = (ztxt_bxD, caption_bx2)
    (sums, gimg_bxD), gtxt_bxD = all_pairs_scan(block, init, texts, axes, group_size=group_size)
    return sums, gimg_bxD, gtxt_bxD


def further_negatives(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    queue: Queue | None,
    *,
    same_side: SameSide,
    caption_bx2: jax.Array | None,
    same: SameCaption,
    axes: Axes,
    tile: int,
) -> tuple[NegativeSums, jax.Array, tuple[jax.Array, jax.Array]]:
    """Negatives beside those of images with texts of the batch: of one side, or stored.

    Returns sums (the loss and its derivative in b), the derivative in t, and the gradients of both
    embeddings over t, all of this device's rows.
    """
    how: Any = {"caption_bx2": caption_bx2, "same": same, "axes": axes, "tile": tile}
    z = [zimg_bxD, ztxt_bxD]
    g = [jnp.zeros(a.shape, jnp.float32) for a in z]
    sums, dt = NegativeSums.zeros(), jnp.zeros(())
    # dt is the sum of p * x.y; a row's gradient has summed p * y already.
    for k, side in enumerate(("images", "texts")):
        if same_side in (side, "both"):
            more, by_row_bxD, by_col_bxD = all_negatives(z[k], z[k], t, b, **how)
            sums = sums._replace(loss=sums.loss + more.loss, db=sums.db + more.db)
            dt += jnp.sum(z[k] * by_row_bxD)
            g[k] += by_row_bxD + by_col_bxD
    if queue is not None:
        for k, other in enumerate(reversed(both_sides(queue))):  # images meet stored texts
            more, by_row_bxD = _stored_negatives(z[k], t, b, other, **how)
            sums = sums._replace(loss=sums.loss + more.loss, db=sums.db + more.db)
            dt += jnp.sum(z[k] * by_row_bxD)
            g[k] += by_row_bxD
    return sums, dt, (g[0], g[1])


def _stored_negatives(
    z_bxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    stored: Stored,
    *,
    caption_bx2: jax.Array | None,
    same: SameCaption,
    axes: Axes,
    tile: int,
) -> tuple[NegativeSums, jax.Array]:
    """This device's rows with the stored rows of all devices."""

    def block(local: Any, rows: Stored, _: jax.Array) -> Any:
        sums, g_bxD = local
        block_sums, dz_bxD, _ = captioned_negatives(
            *(z_bxD, rows.z_mxD, t, b),
            captions=None if caption_bx2 is None else (caption_bx2, rows.caption_mx2),
            usable_m=rows.usable_m,
            same=same,
            shift=NO_POSITIVES,
            tile=tile,
        )
        return (sums.merge(block_sums), g_bxD + dz_bxD), ()  # stored rows have no gradient

    zeros = NegativeSums.zeros(kept=True, same=True)
    local = (zeros, jnp.zeros(z_bxD.shape, jnp.float32))
    (sums, g_bxD), _ = all_pairs_scan(block, local, stored, axes)
    return sums, g_bxD
