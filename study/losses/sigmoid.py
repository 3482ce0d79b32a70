"""The pairwise sigmoid loss over all, some or grouped pairs (paper Algorithm 1 and Sec. 4.8)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from study.config.pairs import AllPairs, Groups, Negatives, Pairs
from study.losses import pallas_tpu as pallas
from study.losses.fused import with_gradients
from study.losses.hard_negatives import MAX_TILE, threshold
from study.losses.random_negatives import kept_at_random
from study.losses.ring import around
from study.losses.stats import (
    Axis,
    LogitStats,
    devices,
    here,
    mean_of_negatives,
    pmax,
    pmin,
    positives,
    psum,
)
from study.losses.tiles import BIG, Sums, Tile, gradients, sigmoid_negatives, softplus_and_sigmoid


def sigmoid_loss(
    zimg_BxD: jax.Array,
    ztxt_BxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    pairs: Pairs,
    key: jax.Array,
    mesh: Mesh | None = None,
    tile: int = 512,
) -> tuple[jax.Array, LogitStats]:
    """`-sum(log_sigmoid(label * (t * x.y + b))) / B` over the chosen pairs.

    Holds a tile of logits and a few arrays of a device's `b x D` at a time, whatever B is, and
    makes the gradients in the same sweep as the loss.

    Arguments:
      zimg_BxD, ztxt_BxD: unit-norm embeddings, float32 or bfloat16; logits and sums are float32.
      t: temperature as a factor, that is exp(t'); never clamped. b: bias.
      pairs: which pairs count. The sum is divided by B whatever their number.
      key: uint32 scalar; the choice of random negatives is a pure function of (key, i, j).
      mesh: devices that hold the batch in equal row blocks, or None for one device.
      tile: rows and columns of logits held at once.

    Returns the loss and `LogitStats`; differentiable in the first four arguments.

    Raises:
      ValueError: groups and devices cut across each other.
    """

    def sweep(zimg, ztxt, t, b, key, *, axis):
        batch = psum(jnp.asarray(len(zimg)), axis)
        match pairs:
            case AllPairs():
                sums, gimg, gtxt = _ring(zimg, ztxt, t, b, axis=axis, tile=tile)
            case Negatives():
                sums, gimg, gtxt = _kept(zimg, ztxt, t, b, key, pairs=pairs, axis=axis, tile=tile)
            case Groups():
                sums, gimg, gtxt = _groups(zimg, ztxt, t, b, size=pairs.size, axis=axis, tile=tile)
        x_b = jnp.sum(zimg.astype(jnp.float32) * ztxt, axis=1)
        l_b = t * x_b + b
        p_b = -jax.nn.sigmoid(-l_b)  # d loss / d logit of a positive
        # The gradient in t is a sum of p * x.y, and the images' gradient has summed it already.
        dt = psum(jnp.sum(zimg * gimg) + p_b @ x_b, axis)
        loss, db, total, *kept = sums.add
        db = psum(db + p_b.sum(), axis)
        loss = psum(loss + jnp.sum(jax.nn.softplus(-l_b)), axis)
        low, high = [pmin(x, axis) for x in sums.low], [pmax(x, axis) for x in sums.high]
        met = pairs.size if isinstance(pairs, Groups) else batch
        mean = psum(total, axis) / (jnp.float32(batch) * (met - 1))
        negatives = (mean, low[0], high[0])
        if kept:
            mean = psum(kept[0], axis) / pairs.negatives(len(zimg) * devices(axis))
        stats = LogitStats(*positives(l_b, axis), *negatives, mean, low[-1], high[-1])
        dzimg = t * (gimg + p_b[:, None] * ztxt)
        dztxt = t * (gtxt + p_b[:, None] * zimg)
        return loss / batch, stats, (dzimg / batch, dztxt / batch, dt / batch, db / batch)

    return with_gradients(sweep, mesh)(zimg_BxD, ztxt_BxD, t, b, key)


# Each of the three returns, of this device's images with the texts they meet, the weighted sums of
# what `tiles.gradients` returns, and `Sums((loss, db, logits[, kept logits]), lowest, highest)`.


def _ring(
    zimg: jax.Array, ztxt: jax.Array, t: Any, b: Any, *, axis: Axis, tile: int, span: Any = None
) -> tuple[Sums, jax.Array, jax.Array]:
    """All pairs of the batch, or of each run of `span` neighbouring devices."""
    me = here(axis)

    def block(local: Any, ztxt: jax.Array, owner: jax.Array) -> Any:
        sums, gimg, texts = local
        more, gi, gt = _sweep(zimg, ztxt, t, b, owner == me, tile)
        return (sums + more, gimg + gi, texts + ztxt.sum(0, dtype=jnp.float32)), gt

    none = Sums.of_none(2, 1, 1)
    start = (none, jnp.zeros(zimg.shape, jnp.float32), jnp.zeros(zimg.shape[1], jnp.float32))
    (sums, gimg, texts_D), gtxt = around(block, start, ztxt, axis, span=span)
    # The sum of all logits needs none of them: a sum of products is a product of sums.
    images_D = zimg.sum(0, dtype=jnp.float32)
    products = images_D @ texts_D - jnp.sum(zimg.astype(jnp.float32) * ztxt)
    met = len(zimg) * (span or devices(axis))
    logits = t * products + b * (jnp.float32(len(zimg)) * (met - 1))
    return Sums((*sums.add, logits), sums.low, sums.high), gimg, gtxt


def _sweep(
    zimg: jax.Array, ztxt: jax.Array, t: Any, b: Any, diagonal: jax.Array, tile: int
) -> tuple[Sums, jax.Array, jax.Array]:
    """One block of negatives, by the kernel where the program is for a TPU and it fits there.

    libtpu schedules the kernel at 0.49 to 0.85 of the sweep's instructions (D = 768, v4, v5e,
    v6e; blocks of 2,048 to 32,768). Blocks below its 128 lanes would be mostly padding.
    """
    kernel: dict[str, Any] = {}
    if len(zimg) >= pallas.LANES and pallas.fits(zimg):
        kernel["tpu"] = lambda *a: pallas.sigmoid_negatives(*a[:4], diagonal=a[4], tile=tile)
    return lax.platform_dependent(
        *(zimg, ztxt, t, b, diagonal),
        **kernel,
        default=lambda *a: sigmoid_negatives(*a[:4], diagonal=a[4], tile=tile),
    )


def _groups(
    zimg: jax.Array, ztxt: jax.Array, t: Any, b: Any, *, size: int, axis: Axis, tile: int
) -> tuple[Sums, jax.Array, jax.Array]:
    """All pairs within each group: B * size logits, not B * B with most of them masked."""
    rows, dim = zimg.shape
    if rows % size == 0:

        def group(z: tuple[jax.Array, jax.Array]) -> Any:
            return _ring(*z, t, b, axis=None, tile=tile)

        z = tuple(a.reshape(rows // size, size, dim) for a in (zimg, ztxt))
        # Small groups are taken several at a time, up to about a tile of logits.
        sums, gimg, gtxt = lax.map(group, z, batch_size=max(1, tile * tile // (size * size)))
        return sums.total(), gimg.reshape(rows, dim), gtxt.reshape(rows, dim)
    if size % rows == 0:
        return _ring(zimg, ztxt, t, b, axis=axis, tile=tile, span=size // rows)
    raise ValueError(
        f"loss.pairs.size: groups of {size} cut across the {rows} examples that each device "
        f"holds; use a size that divides {rows} or is a multiple of it"
    )


def _kept(
    zimg: jax.Array,
    ztxt: jax.Array,
    t: Any,
    b: Any,
    key: jax.Array,
    *,
    pairs: Negatives,
    axis: Axis,
    tile: int,
) -> tuple[Sums, jax.Array, jax.Array]:
    """All pairs are met, and those that are not kept weigh nothing."""
    tile, rows = min(tile, MAX_TILE), len(zimg)
    me = here(axis)
    batch = rows * devices(axis)
    ranked = pairs.keep != "random"
    sign = -1.0 if pairs.keep == "easy" else 1.0
    per_row: Any = ()
    if ranked:
        found = threshold(zimg, ztxt, pairs, axis=axis, tile=tile)
        # Pairs that tie have one logit, so one loss and one weight.
        tied_logit = t * sign * found.tie + b
        of_tie = found.share * jax.nn.sigmoid(tied_logit)
        per_row = [jnp.broadcast_to(x, (rows, 1)) for x in (found.floor, found.tie, of_tie)]

    def weigh(x_TxT: jax.Array, at: Tile, of_row: Any, _: Any) -> tuple[Sums, jax.Array]:
        all_TxT, low = at.negatives(t * x_TxT + b)
        if ranked:
            floor, tie, of_tie = of_row
            kept_TxT = sign * x_TxT >= floor
        else:
            kept_TxT = kept_at_random(pairs, batch, key, at.i_Tx1, at.j_1xT)
        l_TxT = jnp.where(kept_TxT, all_TxT, -BIG)
        kept_TxT = l_TxT > -BIG
        loss, p_TxT, kept_high = softplus_and_sigmoid(l_TxT)
        if ranked:
            p_TxT += jnp.where((sign * x_TxT == tie) & (all_TxT > -BIG), of_tie, 0.0)
        sums = (loss, jnp.sum(p_TxT), jnp.sum(jnp.where(kept_TxT, l_TxT, 0.0)))
        lows = (low, jnp.min(jnp.where(kept_TxT, l_TxT, BIG)))
        return Sums(sums, lows, (jnp.max(all_TxT), kept_high)), p_TxT

    none = Sums.of_none(3, 2, 2)

    def block(local: Any, ztxt: jax.Array, owner: jax.Array) -> Any:
        sums, gimg = local
        origin = (me * rows, owner * rows)
        more, gi, gt = gradients(weigh, none, zimg, ztxt, per_row=per_row, origin=origin, tile=tile)
        return (sums + more, gimg + gi), gt

    start = (none, jnp.zeros(zimg.shape, jnp.float32))
    (sums, gimg), gtxt = around(block, start, ztxt, axis)
    loss, db, kept_logits = sums.add
    (low, kept_low), (high, kept_high) = sums.low, sums.high
    if ranked:
        # Of a threshold for the whole batch, one device counts the ties.
        left = found.left if pairs.scope == "row" else jnp.where(me == 0, found.left, 0.0)
        some = left > 0
        loss += jnp.sum(jnp.where(some, left * jax.nn.softplus(tied_logit), 0.0))
        kept_logits += jnp.sum(jnp.where(some, left * tied_logit, 0.0))
        kept_low = jnp.minimum(kept_low, jnp.min(jnp.where(some, tied_logit, BIG)))
        kept_high = jnp.maximum(kept_high, jnp.max(jnp.where(some, tied_logit, -BIG)))
    mean = mean_of_negatives(zimg, ztxt, t, b, axis)
    logits = mean * jnp.float32(rows) * (batch - 1)
    return Sums((loss, db, logits, kept_logits), (low, kept_low), (high, kept_high)), gimg, gtxt
