"""The pairwise sigmoid loss over all, some or grouped pairs (paper Algorithm 1 and Sec. 4.8)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from study.config.loss import AllPairs, Groups, Negatives, Pairs, SameCaption, SameSide
from study.losses.hard_negatives import WORD, kth_score
from study.losses.negatives import all_negatives, further_negatives
from study.losses.queue import Queue
from study.losses.random_negatives import random_mask
from study.losses.ring import ring_scan
from study.losses.tiled import (
    Axes,
    LogitStats,
    NegativeSums,
    fused_value_and_grad,
    negative_logit_mean,
    pairwise_gradients,
    positive_logits,
    softplus_and_sigmoid,
)
from study.losses.tiles import BIG, Tile


def sigmoid_loss(
    zimg_BxD: jax.Array,
    ztxt_BxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    pairs: Pairs,
    key: jax.Array,
    keep_2: Any = None,
    same: SameCaption = "negative",
    same_side: SameSide = "none",
    caption_Bx2: jax.Array | None = None,
    queue: Queue | None = None,
    mesh: Mesh | None = None,
    tile: int = 512,
) -> tuple[jax.Array, LogitStats]:
    """`-sum(log_sigmoid(label * (t * x.y + b))) / B` over the chosen pairs.

    The gradients come from the same sweep as the loss. Each device holds a tile of logits and a
    few arrays of its `b x D` at a time, whatever B is. The search for hard or easy negatives also
    holds up to `hard_negatives.STORED_BYTES` of products.

    Arguments:
      zimg_BxD, ztxt_BxD: unit-norm embeddings, float32 or bfloat16; logits and sums are float32.
      t: temperature as a factor, exp(t') in the paper; never clamped.
      b: bias.
      pairs: which pairs count. The sum is divided by B whatever their number.
      key: uint32 scalar; the choice of random negatives is a pure function of (key, i, j).
      keep_2: `count_kept`, which may be traced: then `pairs.per_positive` is not read, and one
        program serves all its values. None: the constant of `pairs`.
      same: what pairs with equal captions are, beside an example's own; needs all pairs.
      same_side: which pairs of one side are negatives too; needs all pairs.
      caption_Bx2: `study.losses.captions.caption_ids`, for `same`; None with same="negative".
      queue: embeddings of earlier steps as further negatives; they need all pairs. Their sum is
        divided by B as well.
      mesh: devices that hold the batch in equal blocks of rows; None for one device.
      tile: rows and columns of logits held at once.

    Returns the loss and `LogitStats`. The loss is differentiable in the first four arguments.

    Raises:
      ValueError: the size of groups neither divides a device's rows nor is a multiple of them.
    """
    if same == "negative":
        caption_Bx2 = None

    def loss_and_grads(
        zimg_bxD: jax.Array,
        ztxt_bxD: jax.Array,
        t: jax.Array,
        b: jax.Array,
        key: jax.Array,
        keep_2: jax.Array,
        rest: tuple[jax.Array | None, Queue | None],
        *,
        axes: Axes,
    ) -> Any:
        rows = len(zimg_bxD)
        batch = rows * lax.axis_size(axes)
        z = (zimg_bxD, ztxt_bxD)
        caption_bx2, queue = rest

        # Negatives: sums over this device's rows, and the gradients of the embeddings over t.
        match pairs:
            case AllPairs():
                sums, gimg_bxD, gtxt_bxD = all_negatives(
                    *z, t, b, caption_bx2=caption_bx2, same=same, axes=axes, tile=tile
                )
            case Groups():
                sums, gimg_bxD, gtxt_bxD = _grouped_pairs(
                    *z, t, b, size=pairs.size, axes=axes, tile=tile
                )
            case Negatives():
                sums, gimg_bxD, gtxt_bxD = _chosen_negatives(
                    *z, t, b, key, keep_2, pairs=pairs, axes=axes, tile=tile
                )

        # Positives: one per row, whose logit needs no matrix product.
        x_b = jnp.sum(zimg_bxD.astype(jnp.float32) * ztxt_bxD, axis=1)
        l_b = t * x_b + b
        p_b = -jax.nn.sigmoid(-l_b)  # derivative of softplus(-l)

        # dt is the sum of p * x.y over all pairs; the images' gradient has summed p * y already.
        dt = jnp.sum(zimg_bxD * gimg_bxD) + p_b @ x_b
        if same_side != "none" or queue is not None:
            more, more_dt, dz = further_negatives(
                *z,
                t,
                b,
                queue,
                same_side=same_side,
                caption_bx2=caption_bx2,
                same=same,
                axes=axes,
                tile=tile,
            )
            dt, gimg_bxD, gtxt_bxD = dt + more_dt, gimg_bxD + dz[0], gtxt_bxD + dz[1]
            sums = sums._replace(loss=sums.loss + more.loss, db=sums.db + more.db)
        dt = lax.psum(dt, axes)
        dzimg_bxD = t * (gimg_bxD + p_b[:, None] * ztxt_bxD)
        dztxt_bxD = t * (gtxt_bxD + p_b[:, None] * zimg_bxD)
        positive_loss = jnp.sum(jax.nn.softplus(-l_b))
        sums = sums._replace(loss=sums.loss + positive_loss, db=sums.db + p_b.sum())
        sums = sums.over_devices(axes)

        group_size = pairs.size if isinstance(pairs, Groups) else batch
        logit_mean = negative_logit_mean(*z, t, b, group_size=group_size, axes=axes)
        kept = negative = (logit_mean, sums.logit_min, sums.logit_max)
        if isinstance(pairs, Negatives):
            count = _word(pairs, batch) * keep_2[0].astype(jnp.float32) + keep_2[1]
            if pairs.scope == "row":
                count *= batch
            # As XLA divides by a constant, so that a constant and an argument give equal bits.
            kept = (sums.kept_sum * (1 / count), sums.kept_min, sums.kept_max)
        elif caption_bx2 is not None:
            count = jnp.float32(batch) * (batch - 1) - sums.same
            kept = (sums.kept_sum / jnp.maximum(count, 1), sums.kept_min, sums.kept_max)
        same_captions = jnp.float32(jnp.nan) if sums.same is None else sums.same
        stats = LogitStats(*positive_logits(l_b, axes), *negative, *kept, same_captions)
        grads = (dzimg_bxD / batch, dztxt_bxD / batch, dt / batch, sums.db / batch)
        return sums.loss / batch, stats, grads

    if keep_2 is None:
        keep_2 = count_kept(pairs, len(zimg_BxD))
    scalars = (t, b, key, jnp.asarray(keep_2))
    rest_specs = lambda axes: (
        None if caption_Bx2 is None else P(axes),
        None if queue is None else Queue.specs(axes),
    )
    loss = fused_value_and_grad(loss_and_grads, mesh, rest_specs=rest_specs)
    return loss(zimg_BxD, ztxt_BxD, *scalars, (caption_Bx2, queue))


def count_kept(pairs: Pairs, batch_size: int) -> np.ndarray:
    """How many negatives of the batch, or of each row, `pairs` keeps, as data of a program.

    Returns:
      int32 (high, low) of `high * word + low`, since the number may pass 2**32. The word is of the
      way in which negatives are chosen. Zeros if all of them count.
    """
    if not isinstance(pairs, Negatives):
        return np.zeros(2, np.int32)
    by_row = pairs.scope == "row"
    count = int(pairs.per_positive) if by_row else pairs.negatives(batch_size)
    return np.array(divmod(count, _word(pairs, batch_size)), np.int32)


def _word(pairs: Negatives, batch_size: int) -> int:
    return batch_size - 1 if pairs.keep == "random" else WORD


# As `all_negatives`, the two below take this device's images and texts, and return the sums over
# the negatives of its images, and the embeddings' gradients over t.


def _grouped_pairs(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    size: int,
    axes: Axes,
    tile: int,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """All pairs within each group: B * size logits, not B * B with most of them masked."""
    rows, dim = zimg_bxD.shape
    if rows % size == 0:  # whole groups on every device, no ring

        def group(z: tuple[jax.Array, jax.Array]) -> Any:
            return all_negatives(*z, t, b, axes=(), tile=tile)

        z = tuple(a.reshape(rows // size, size, dim) for a in (zimg_bxD, ztxt_bxD))
        # Small groups are taken several at a time, up to about a tile of logits.
        at_once = max(1, tile * tile // (size * size))
        sums, gimg, gtxt = lax.map(group, z, batch_size=at_once)
        return sums.total(), gimg.reshape(rows, dim), gtxt.reshape(rows, dim)
    if size % rows == 0:  # a group over several devices: a ring of its own
        return all_negatives(
            zimg_bxD, ztxt_bxD, t, b, axes=axes, tile=tile, group_size=size // rows
        )
    raise ValueError(
        f"loss.pairs.size: groups of {size} cut across the {rows} examples that each device "
        f"holds; use a size that divides {rows} or is a multiple of it"
    )


def _chosen_negatives(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    key: jax.Array,
    keep_2: jax.Array,
    *,
    pairs: Negatives,
    axes: Axes,
    tile: int,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """Some negatives: every logit is computed, and those that are not kept weigh nothing."""
    rows, device = len(zimg_bxD), lax.axis_index(axes)
    batch = rows * lax.axis_size(axes)
    ranked = pairs.keep != "random"
    sign = -1.0 if pairs.keep == "easy" else 1.0
    per_row: Any = ()
    if ranked:
        with jax.named_scope("threshold"):
            threshold = kth_score(zimg_bxD, ztxt_bxD, keep_2, pairs, axes=axes, tile=tile)
        # Pairs that tie with the threshold share the places that are left. They have one logit,
        # so one loss and one derivative.
        tied_logit = t * sign * threshold.tie + b
        tied_p = threshold.share * jax.nn.sigmoid(tied_logit)
        per_row = [jnp.broadcast_to(x, (rows, 1)) for x in (threshold.floor, threshold.tie, tied_p)]

    def dlogits(x_TxT: jax.Array, at: Tile, row: Any, _: Any) -> tuple[NegativeSums, jax.Array]:
        all_TxT, logit_min = at.negatives(t * x_TxT + b)
        if ranked:
            floor_Tx1, tie_Tx1, tied_p_Tx1 = row
            kept_TxT = sign * x_TxT >= floor_Tx1
        else:
            kept_TxT = random_mask(keep_2, batch, key, at.i_Tx1, at.j_1xT, scope=pairs.scope)
        l_TxT = jnp.where(kept_TxT, all_TxT, -BIG)
        kept_TxT = l_TxT > -BIG  # without positives and padding
        loss, p_TxT, kept_max = softplus_and_sigmoid(l_TxT)
        if ranked:
            tied_TxT = (sign * x_TxT == tie_Tx1) & (all_TxT > -BIG)
            p_TxT += jnp.where(tied_TxT, tied_p_Tx1, 0.0)
        tile_sums = NegativeSums(
            loss=loss,
            db=jnp.sum(p_TxT),
            logit_min=logit_min,
            logit_max=jnp.max(all_TxT),
            kept_sum=jnp.sum(jnp.where(kept_TxT, l_TxT, 0.0)),
            kept_min=jnp.min(jnp.where(kept_TxT, l_TxT, BIG)),
            kept_max=kept_max,
        )
        return tile_sums, p_TxT

    zeros = NegativeSums.zeros(kept=True)

    def block(local: Any, ztxt_bxD: jax.Array, source_device: jax.Array) -> Any:
        sums, gimg_bxD = local
        origin = (device * rows, source_device * rows)
        block_sums, dimg_bxD, dtxt_bxD = pairwise_gradients(
            dlogits, zeros, zimg_bxD, ztxt_bxD, per_row=per_row, origin=origin, tile=tile
        )
        return (sums.merge(block_sums), gimg_bxD + dimg_bxD), dtxt_bxD

    init = (zeros, jnp.zeros(zimg_bxD.shape, jnp.float32))
    (sums, gimg_bxD), gtxt_bxD = ring_scan(block, init, ztxt_bxD, axes)
    if ranked:
        # The sweep gave tied pairs their gradient; their loss is added here. One threshold for
        # the whole batch is the same on all devices, so device 0 alone adds its ties.
        per_device = pairs.scope == "row"
        places = threshold.places if per_device else jnp.where(device == 0, threshold.places, 0.0)
        sums = _add_ties(sums, tied_logit, places)
    return sums, gimg_bxD, gtxt_bxD


def _add_ties(sums: NegativeSums, logit_nx1: jax.Array, places_nx1: jax.Array) -> NegativeSums:
    """The sums with `places` more kept negatives of this logit for each threshold."""
    any_nx1 = places_nx1 > 0

    def add(values_nx1: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(any_nx1, places_nx1 * values_nx1, 0.0))

    return sums._replace(
        loss=sums.loss + add(jax.nn.softplus(logit_nx1)),
        kept_sum=sums.kept_sum + add(logit_nx1),
        kept_min=jnp.minimum(sums.kept_min, jnp.min(jnp.where(any_nx1, logit_nx1, BIG))),
        kept_max=jnp.maximum(sums.kept_max, jnp.max(jnp.where(any_nx1, logit_nx1, -BIG))),
    )
