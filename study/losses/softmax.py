"""The bidirectional softmax loss in two passes: normalisers, then gradients (paper Eq. 1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from study.config.loss import SameCaption, SameSide
from study.losses.queue import Queue, Stored, both_sides
from study.losses.ring import all_pairs_scan
from study.losses.softmax_sweeps import (
    Normaliser,
    block_gradients,
    block_normalisers,
    captioned_normalisers,
)
from study.losses.tiled import (
    NO_POSITIVES,
    Axes,
    LogitStats,
    NegativeSums,
    by_kernel_on_tpu,
    fused_value_and_grad,
    negative_logit_mean,
    positive_logits,
)


def softmax_loss(
    zimg_BxD: jax.Array,
    ztxt_BxD: jax.Array,
    t: jax.Array,
    *,
    same: SameCaption = "negative",
    same_side: SameSide = "none",
    caption_Bx2: jax.Array | None = None,
    queue: Queue | None = None,
    mesh: Mesh | None = None,
    tile: int = 512,
) -> tuple[jax.Array, LogitStats]:
    """Mean of image-to-text and text-to-image cross-entropy over the whole batch.

    Arguments and returns as `sigmoid_loss`, without a bias: a constant added to all logits
    does not change this loss. The normaliser of an image also has the stored texts and, with
    `same_side`, the other images; that of a text the stored images and the other texts. Masked
    pairs are in no normaliser. If pairs with equal captions are positives, the target of a row is
    spread evenly over all of its positives, as in supervised contrastive learning (Khosla et al.,
    arXiv 2004.11362) and UniCL (Yang et al., arXiv 2204.03610).
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
        *normalisers, seen = _normalisers(*z, t, same=same, **how)
        further = _further(*z, caption_bx2, queue, same_side)
        for k, others in enumerate(further):
            for other in others:
                more = _further_normalisers(z[k], t, other, same=same, **how)
                normalisers[k] = normalisers[k].merge(more)
        sides = [_side(one, l_b) for one in normalisers]
        gimg_bxD, gtxt_bxD = _negatives(*z, t, *sides, **how)
        # The derivative in an own pair's logit.
        p_b = 0.5 * (sides[0].own_p + sides[1].own_p)
        gimg_bxD += p_b[:, None] * ztxt_bxD
        gtxt_bxD += p_b[:, None] * zimg_bxD
        # The sum of p * x.y; a row's gradient has summed p * y already.
        dt = jnp.sum(zimg_bxD * gimg_bxD)
        g = [gimg_bxD, gtxt_bxD]
        for k, others in enumerate(further):
            for other in others:
                dz_bxD = _further_gradients(z[k], t, sides[k], other, **how)
                # A pair of one side is in the gradients of both its rows.
                dt += (0.5 if other.of_batch else 1.0) * jnp.sum(z[k] * dz_bxD)
                g[k] += dz_bxD
        loss = lax.psum(0.5 * jnp.sum(sides[0].loss + sides[1].loss), axes)
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
        return loss / batch, stats, (t * g[0] / batch, t * g[1] / batch, dt / batch)

    rest_specs = lambda axes: (
        None if caption_Bx2 is None else P(axes),
        None if queue is None else Queue.specs(axes),
    )
    loss = fused_value_and_grad(loss_and_grads, mesh, rest_specs=rest_specs)
    return loss(zimg_BxD, ztxt_BxD, t, (caption_Bx2, queue))


class _Side(NamedTuple):
    """One direction of the loss, by row.

    Attributes:
      loss: cross-entropy.
      lse: log-sum-exp of all logits.
      own_p: derivative of `loss` in the logit of an example's own pair.
      share: the target of each positive; None if there is one in each row.
    """

    loss: jax.Array
    lse: jax.Array
    own_p: jax.Array
    share: jax.Array | None


def _side(normaliser: Normaliser, l_b: jax.Array) -> _Side:
    # With d = logsumexp(others) - l, the loss of a row with one positive is softplus(d) and the
    # positive's probability sigmoid(-d). Because it is not in the normaliser, 1 - p keeps its
    # digits however near 1 p is.
    d_b = (normaliser.top - l_b) + jnp.log(normaliser.total)
    loss_b, own_p_b = jax.nn.softplus(d_b), -jax.nn.sigmoid(d_b)
    lse_b = l_b + loss_b
    if normaliser.same is None:
        return _Side(loss_b, lse_b, own_p_b, None)
    share_b = 1 / (1 + normaliser.same)
    loss_b += share_b * (normaliser.same * l_b - normaliser.same_sum)
    return _Side(loss_b, lse_b, own_p_b + share_b * normaliser.same, share_b)


def _normalisers(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    *,
    caption_bx2: jax.Array | None,
    same: SameCaption,
    axes: Axes,
    tile: int,
) -> tuple[Normaliser, Normaliser, NegativeSums]:
    """First pass: the normalisers of this device's rows and columns.

    Returns them, and what `NegativeSums` has on logits, of this device's rows.
    """

    def block(local: Any, texts: Any, shift: jax.Array) -> Any:
        by_row, seen = local
        ztxt_mxD, caption_mx2 = texts
        if caption_bx2 is None:
            *plain, logit_min = by_kernel_on_tpu(
                "softmax_normalisers",
                block_normalisers,
                *(zimg_bxD, ztxt_mxD, t),
                shift=shift,
                tile=tile,
            )
            more, by_col = (Normaliser(*one) for one in plain)
            block_seen = zeros._replace(logit_min=logit_min, logit_max=more.top.max())
        else:
            more, by_col, block_seen = captioned_normalisers(
                *(zimg_bxD, ztxt_mxD, t),
                captions=(caption_bx2, caption_mx2),
                same=same,
                shift=shift,
                tile=tile,
            )
        return (by_row.merge(more), seen.merge(block_seen)), by_col

    compared = caption_bx2 is not None
    zeros = NegativeSums.zeros(kept=compared, same=compared)
    init = (Normaliser.empty(len(zimg_bxD), same=same == "positive"), zeros)
    texts = (ztxt_bxD, caption_bx2)
    (by_row, seen), by_col = all_pairs_scan(block, init, texts, axes, merge=Normaliser.merge)
    return by_row, by_col, seen


def _negatives(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    images: _Side,
    texts: _Side,
    *,
    caption_bx2: jax.Array | None,
    axes: Axes,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """Second pass: the gradients of the embeddings over t, without the part of own pairs."""

    def block(gimg_bxD: jax.Array, cols: Any, shift: jax.Array) -> Any:
        ztxt_mxD, col_m, share_m, caption_mx2 = cols
        arrays = (zimg_bxD, ztxt_mxD, t, images.lse, col_m)
        if caption_bx2 is None:
            dimg_bxD, dtxt_mxD = by_kernel_on_tpu(
                "softmax_gradients", block_gradients, *arrays, shift=shift, tile=tile
            )
        else:
            dimg_bxD, dtxt_mxD = block_gradients(
                *arrays,
                captions=(caption_bx2, caption_mx2),
                shares=(images.share, share_m),
                shift=shift,
                tile=tile,
            )
        return gimg_bxD + dimg_bxD, dtxt_mxD

    gimg_bxD = jnp.zeros(zimg_bxD.shape, jnp.float32)
    return all_pairs_scan(block, gimg_bxD, (ztxt_bxD, texts.lse, texts.share, caption_bx2), axes)


# --- rows that are not the other side of the batch ------------------------------------------------


class _Further(NamedTuple):
    """Rows that images or texts meet in addition to the other side of the batch.

    Attributes:
      of_batch: whether they are the rows themselves, and not stored ones.
    """

    rows: Stored
    of_batch: bool


def _further(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    caption_bx2: jax.Array | None,
    queue: Queue | None,
    same_side: SameSide,
) -> tuple[list[_Further], list[_Further]]:
    """What the images meet, and what the texts meet."""
    stored = [None, None] if queue is None else both_sides(queue)[::-1]  # images meet texts
    further: tuple[list[_Further], list[_Further]] = ([], [])
    sides = zip(further, ("images", "texts"), (zimg_bxD, ztxt_bxD), stored, strict=True)
    for others, name, z_bxD, rows in sides:
        if rows is not None:
            others.append(_Further(rows, of_batch=False))
        if same_side in (name, "both"):
            others.append(_Further(Stored(z_bxD, caption_bx2, None), of_batch=True))
    return further


def _further_normalisers(
    z_bxD: jax.Array,
    t: jax.Array,
    other: _Further,
    *,
    caption_bx2: jax.Array | None,
    same: SameCaption,
    axes: Axes,
    tile: int,
) -> Normaliser:
    """The normalisers of this device's rows over such rows of all devices."""

    def block(by_row: Normaliser, rows: Stored, shift: jax.Array) -> Any:
        more, _, _ = captioned_normalisers(
            *(z_bxD, rows.z_mxD, t),
            captions=None if caption_bx2 is None else (caption_bx2, rows.caption_mx2),
            usable_m=rows.usable_m,
            same=same,
            shift=shift if other.of_batch else NO_POSITIVES,
            tile=tile,
        )
        return by_row.merge(more), ()

    empty = Normaliser.empty(len(z_bxD), same=same == "positive")
    by_row, _ = all_pairs_scan(block, empty, other.rows, axes)
    return by_row


def _further_gradients(
    z_bxD: jax.Array,
    t: jax.Array,
    side: _Side,
    other: _Further,
    *,
    caption_bx2: jax.Array | None,
    axes: Axes,
    tile: int,
) -> jax.Array:
    """The gradient of this device's rows over t, of their pairs with such rows.

    Two rows of one side meet in the normalisers of both, and each has the gradient of both.
    """

    def block(g_bxD: jax.Array, cols: Any, shift: jax.Array) -> Any:
        rows, col_m, share_m = cols
        dz_bxD, _ = block_gradients(
            *(z_bxD, rows.z_mxD, t, side.lse, col_m),
            captions=None if caption_bx2 is None else (caption_bx2, rows.caption_mx2),
            usable_m=rows.usable_m,
            shares=(side.share, share_m),
            shift=shift if other.of_batch else NO_POSITIVES,
            tile=tile,
        )
        return g_bxD + dz_bxD, ()

    cols = (other.rows, *((side.lse, side.share) if other.of_batch else (None, None)))
    g_bxD, _ = all_pairs_scan(block, jnp.zeros(z_bxD.shape, jnp.float32), cols, axes)
    return g_bxD
