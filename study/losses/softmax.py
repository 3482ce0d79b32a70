"""The bidirectional softmax loss in two passes: normalisers, then gradients (paper Eq. 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from study.losses.captions import compare, sums_of_kept
from study.losses.queue import Queue, Stored, both_sides, meet_stored
from study.losses.ring import all_pairs_scan
from study.losses.tiled import (
    NO_POSITIVES,
    Axes,
    LogitStats,
    LogSumExp,
    NegativeSums,
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
    same: Literal["negative", "masked"] = "negative",
    caption_Bx2: jax.Array | None = None,
    queue: Queue | None = None,
    mesh: Mesh | None = None,
    tile: int = 512,
) -> tuple[jax.Array, LogitStats]:
    """Mean of image-to-text and text-to-image cross-entropy over the whole batch.

    Arguments and returns as `sigmoid_loss`, without a bias: a constant added to all logits
    does not change this loss. Masked pairs are in no normaliser. The normaliser of an image has
    the stored texts too, that of a text the stored images.
    """
    if same == "negative":
        caption_Bx2 = None

    def loss_and_grads(
        zimg_bxD: jax.Array,
        ztxt_bxD: jax.Array,
        t: jax.Array,
        rest: tuple[jax.Array | None, Queue | None],
        *,
        axes: Axes,
    ) -> Any:
        z = (zimg_bxD, ztxt_bxD)
        caption_bx2, queue = rest
        how: Any = {"caption_bx2": caption_bx2, "axes": axes, "tile": tile}
        batch = len(zimg_bxD) * lax.axis_size(axes)
        l_b = t * jnp.sum(zimg_bxD.astype(jnp.float32) * ztxt_bxD, axis=1)  # the positives
        by_row, by_col, seen = _normalisers(*z, t, **how)
        stored = None if queue is None else both_sides(queue)[::-1]  # the texts for the images
        if stored is not None:
            by_row, by_col = (
                _merge(own, _stored_normalisers(one, t, other, **how))
                for own, one, other in zip((by_row, by_col), z, stored, strict=True)
            )
        # With d = logsumexp(negatives) - l, the loss of a row is softplus(d) and the positive's
        # probability sigmoid(-d). Because positives are not in the normaliser, 1 - p keeps its
        # digits however near 1 p is.
        d_2xb = jnp.stack([(top - l_b) + jnp.log(total) for top, total in (by_row, by_col)])
        loss_2xb = jax.nn.softplus(d_2xb)
        gimg_bxD, gtxt_bxD = _negatives(*z, t, l_b, loss_2xb, **how)
        p_b = -0.5 * jnp.sum(jax.nn.sigmoid(d_2xb), axis=0)  # derivative in a positive's logit
        gimg_bxD += p_b[:, None] * ztxt_bxD
        gtxt_bxD += p_b[:, None] * zimg_bxD
        dt = jnp.sum(zimg_bxD * gimg_bxD)
        if stored is not None:
            gimg_queue_bxD, gtxt_queue_bxD = (
                _stored_gradients(one, t, l_b + loss_b, other, **how)
                for one, loss_b, other in zip(z, loss_2xb, stored, strict=True)
            )
            dt += jnp.sum(zimg_bxD * gimg_queue_bxD) + jnp.sum(ztxt_bxD * gtxt_queue_bxD)
            gimg_bxD, gtxt_bxD = gimg_bxD + gimg_queue_bxD, gtxt_bxD + gtxt_queue_bxD
        loss = lax.psum(0.5 * jnp.sum(loss_2xb), axes)
        dt = lax.psum(dt, axes)
        seen = seen.over_devices(axes)
        logit_mean = negative_logit_mean(*z, t, 0.0, group_size=batch, axes=axes)
        kept = negative = (logit_mean, seen.logit_min, seen.logit_max)
        same_captions = jnp.float32(jnp.nan)
        if caption_bx2 is not None:
            same_captions = seen.same
            count = jnp.maximum(jnp.float32(batch) * (batch - 1) - same_captions, 1)
            kept = (seen.kept_sum / count, seen.kept_min, seen.kept_max)
        stats = LogitStats(*positive_logits(l_b, axes), *negative, *kept, same_captions)
        return loss / batch, stats, (t * gimg_bxD / batch, t * gtxt_bxD / batch, dt / batch)

    rest_specs = lambda axes: (
        None if caption_Bx2 is None else P(axes),
        None if queue is None else Queue.specs(axes),
    )
    loss = fused_value_and_grad(loss_and_grads, mesh, rest_specs=rest_specs)
    return loss(zimg_BxD, ztxt_BxD, t, (caption_Bx2, queue))


def _merge(a: LogSumExp, b: LogSumExp) -> LogSumExp:
    top = jnp.maximum(a[0], b[0])
    return top, a[1] * jnp.exp(a[0] - top) + b[1] * jnp.exp(b[0] - top)


def _normalisers(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    *,
    caption_bx2: jax.Array | None,
    axes: Axes,
    tile: int,
) -> tuple[LogSumExp, LogSumExp, NegativeSums]:
    """First pass: log-sum-exp of the negatives of this device's rows and columns.

    Returns them, and what `NegativeSums` has on logits, of this device's rows.
    """

    def block(local: Any, texts: Any, shift: jax.Array) -> Any:
        by_row, seen = local
        ztxt_mxD, caption_mx2 = texts
        if caption_bx2 is None:
            more, by_col, logit_min = by_kernel_on_tpu(
                "softmax_normalisers",
                block_normalisers,
                *(zimg_bxD, ztxt_mxD, t),
                shift=shift,
                tile=tile,
            )
            block_seen = zeros._replace(logit_min=logit_min, logit_max=more[0].max())
        else:
            more, by_col, block_seen = captioned_normalisers(
                *(zimg_bxD, ztxt_mxD, t),
                captions=(caption_bx2, caption_mx2),
                shift=shift,
                tile=tile,
            )
        return (_merge(by_row, more), seen.merge(block_seen)), by_col

    compared = caption_bx2 is not None
    zeros = NegativeSums.zeros(kept=compared, same=compared)
    init = (_no_logits(len(zimg_bxD)), zeros)
    texts = (ztxt_bxD, caption_bx2)
    (by_row, seen), by_col = all_pairs_scan(block, init, texts, axes, merge=_merge)
    return by_row, by_col, seen


def _negatives(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    l_b: jax.Array,
    loss_2xb: jax.Array,
    *,
    caption_bx2: jax.Array | None,
    axes: Axes,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """Second pass: the gradients of the embeddings over t, without the positives' part."""
    # loss_i = logsumexp_i - l_i
    row_b, col_b = l_b + loss_2xb

    def block(gimg_bxD: jax.Array, texts: Any, shift: jax.Array) -> Any:
        ztxt_mxD, col_m, caption_mx2 = texts
        arrays = (zimg_bxD, ztxt_mxD, t, row_b, col_m)
        if caption_bx2 is None:
            dimg_bxD, dtxt_mxD = by_kernel_on_tpu(
                "softmax_gradients", block_gradients, *arrays, shift=shift, tile=tile
            )
        else:
            captions = (caption_bx2, caption_mx2)
            dimg_bxD, dtxt_mxD = block_gradients(*arrays, captions=captions, shift=shift, tile=tile)
        return gimg_bxD + dimg_bxD, dtxt_mxD

    gimg_bxD = jnp.zeros(zimg_bxD.shape, jnp.float32)
    return all_pairs_scan(block, gimg_bxD, (ztxt_bxD, col_b, caption_bx2), axes)


def _stored_normalisers(
    z_bxD: jax.Array,
    t: jax.Array,
    stored: Stored,
    *,
    caption_bx2: jax.Array | None,
    axes: Axes,
    tile: int,
) -> LogSumExp:
    """Log-sum-exp of this device's rows over the stored rows of all devices."""

    def block(by_row: LogSumExp, rows: Stored) -> LogSumExp:
        more, _, _ = captioned_normalisers(
            *(z_bxD, rows.z_mxD, t),
            captions=None if caption_bx2 is None else (caption_bx2, rows.caption_mx2),
            usable_m=rows.usable_m,
            shift=NO_POSITIVES,
            tile=tile,
        )
        return _merge(by_row, more)

    by_row: LogSumExp = meet_stored(block, _no_logits(len(z_bxD)), stored, axes)
    return by_row


def _stored_gradients(
    z_bxD: jax.Array,
    t: jax.Array,
    row_b: jax.Array,
    stored: Stored,
    *,
    caption_bx2: jax.Array | None,
    axes: Axes,
    tile: int,
) -> jax.Array:
    """The gradient of this device's rows over t, of their stored negatives."""

    def block(g_bxD: jax.Array, rows: Stored) -> jax.Array:
        dz_bxD, _ = block_gradients(
            *(z_bxD, rows.z_mxD, t, row_b, None),
            captions=None if caption_bx2 is None else (caption_bx2, rows.caption_mx2),
            usable_m=rows.usable_m,
            shift=NO_POSITIVES,
            tile=tile,
        )
        return g_bxD + dz_bxD

    g_bxD: jax.Array = meet_stored(block, jnp.zeros(z_bxD.shape, jnp.float32), stored, axes)
    return g_bxD


def _no_logits(size: int) -> LogSumExp:
    return jnp.full(size, -BIG), jnp.zeros(size)


def block_normalisers(
    zimg_nxD: jax.Array, ztxt_mxD: jax.Array, t: jax.Array, *, shift: jax.Array, tile: int
) -> tuple[LogSumExp, LogSumExp, jax.Array]:
    """`pallas_tpu.softmax_normalisers` in plain JAX."""
    zeros = NegativeSums.zeros()

    def logits(x_TxT: jax.Array, at: Tile, *_: Any) -> tuple[jax.Array, NegativeSums]:
        l_TxT, logit_min = at.negatives(t * x_TxT)
        return l_TxT, zeros._replace(logit_min=logit_min)

    by_row, by_col, seen = _sweep_normalisers(
        logits, zeros, (zimg_nxD, None), (ztxt_mxD, None), shift=shift, tile=tile
    )
    return by_row, by_col, seen.logit_min


def captioned_normalisers(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    *,
    captions: tuple[jax.Array, jax.Array] | None,
    usable_m: jax.Array | None = None,
    shift: jax.Array | int,
    tile: int,
) -> tuple[LogSumExp, LogSumExp, NegativeSums]:
    """`block_normalisers` without pairs of equal captions and columns without a text.

    Arguments as for `study.losses.captions.captioned_negatives`.
    """

    def logits(
        x_TxT: jax.Array, at: Tile, caption_Tx2: Any, col: Any
    ) -> tuple[jax.Array, NegativeSums]:
        all_TxT, same_TxT, logit_min = compare(t * x_TxT, at, caption_Tx2, *col)
        return sums_of_kept(all_TxT, same_TxT, logit_min)

    row_captions, col_captions = (None, None) if captions is None else captions
    return _sweep_normalisers(
        logits,
        NegativeSums.zeros(kept=True, same=True),
        (zimg_nxD, row_captions),
        (ztxt_mxD, (col_captions, usable_m)),
        shift=shift,
        tile=tile,
    )


def _sweep_normalisers(
    logits: Callable[..., tuple[jax.Array, NegativeSums]],
    zeros: NegativeSums,
    rows: tuple[jax.Array, Any],
    cols: tuple[jax.Array, Any],
    *,
    shift: jax.Array | int,
    tile: int,
) -> tuple[LogSumExp, LogSumExp, NegativeSums]:
    """Log-sum-exp of a block by row and by column.

    Arguments:
      logits: `(x_TxT, tile, per_row, per_col) -> (l_TxT, sums)`; -BIG leaves a pair out.
      rows, cols: the embeddings, and what `logits` needs of each.
    """
    n, m = len(rows[0]), len(cols[0])

    def sweep(scan: Any, tile: int, rows: Any, cols: Any, shift: Any) -> Any:
        def step(row_carry: Any, by_col: Any, row: Any, col: Any, at: Tile) -> Any:
            by_row, seen = row_carry
            (zimg_TxD, per_row), (ztxt_TxD, per_col) = row, col
            l_TxT, tile_seen = logits(dot(zimg_TxD, ztxt_TxD.T), at, per_row, per_col)
            row_max_T, col_max_T = l_TxT.max(1), l_TxT.max(0)
            by_row = _merge(by_row, (row_max_T, jnp.exp(l_TxT - row_max_T[:, None]).sum(1)))
            by_col = _merge(by_col, (col_max_T, jnp.exp(l_TxT - col_max_T[None, :]).sum(0)))
            return (by_row, seen.merge(tile_seen)), by_col

        init = ((_no_logits(min(tile, n)), zeros), _no_logits(min(tile, m)))
        (by_row_RxT, seen_R), by_col_CxT = scan(
            step, init, rows, cols, tile=tile, origin=(shift, 0)
        )
        by_row = jax.tree.map(lambda x: from_tiles(x, n), by_row_RxT)
        return by_row, jax.tree.map(lambda x: from_tiles(x, m), by_col_CxT), seen_R.total()

    normalisers: tuple[LogSumExp, LogSumExp, NegativeSums] = by_platform(
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
    shift: jax.Array | int,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """`pallas_tpu.softmax_gradients` in plain JAX.

    Arguments:
      row_n, col_m: log-sum-exp of each row, and of each column unless that is of no interest.
      The others are as for `study.losses.captions.captioned_negatives`.
    """
    compared = captions is not None or usable_m is not None

    def dlogits(x_TxT: jax.Array, at: Tile, row: Any, col: Any) -> tuple[None, jax.Array]:
        row_T, caption_Tx2 = row
        col_T, *texts = col
        if compared:
            all_TxT, same_TxT, _ = compare(t * x_TxT, at, caption_Tx2, *texts)
            l_TxT = jnp.where(same_TxT, -BIG, all_TxT)
        else:
            l_TxT, _ = at.negatives(t * x_TxT)
        p_TxT = jnp.exp(l_TxT - row_T[:, None])
        if col_T is not None:
            p_TxT += jnp.exp(l_TxT - col_T[None, :])
        return None, 0.5 * p_TxT

    row_captions, col_captions = (None, None) if captions is None else captions
    _, dimg_nxD, dtxt_mxD = pairwise_gradients(
        dlogits,
        None,
        zimg_nxD,
        ztxt_mxD,
        per_row=(row_n, row_captions),
        per_col=(col_m, col_captions, usable_m),
        origin=(shift, 0),
        tile=tile,
    )
    return dimg_nxD, dtxt_mxD
