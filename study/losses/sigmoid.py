"""The pairwise sigmoid loss over all, some or grouped pairs (paper Algorithm 1 and Sec. 4.8)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from study.losses import select
from study.losses.fused import with_gradients
from study.losses.ring import around
from study.losses.stats import LogitStats, dot, mean_of_negatives, pmax, pmin, positives, psum
from study.losses.tiles import BIG, NegativeSums, sigmoid_negatives
from study.pairs import AllPairs, Groups, Negatives, Pairs


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

    Arguments:
      zimg_BxD, ztxt_BxD: unit-norm embeddings, float32 or bfloat16; sums are float32.
      t: temperature as a factor, that is exp(t'); never clamped. b: bias.
      pairs: which pairs count. The sum is divided by B whatever their number.
      key: uint32 scalar; the choice of random negatives is a pure function of (key, i, j).
      mesh: devices that hold the batch in equal row blocks, or None for one device.
      tile: rows and columns of logits held at once.

    Returns the loss and `LogitStats`; differentiable in the first four arguments.
    """

    def sweep(zimg, ztxt, t, b, key, *, axis):
        batch = psum(jnp.asarray(len(zimg)), axis)
        match pairs:
            case AllPairs():
                negatives = _all_negatives(zimg, ztxt, t, b, axis=axis, tile=tile)
            case Negatives():
                negatives = _kept_negatives(zimg, ztxt, t, b, key, pairs=pairs, axis=axis)
            case Groups():
                negatives = _group_negatives(zimg, ztxt, t, b, size=pairs.size, axis=axis)
        loss, db, all_stats, kept_stats, dzimg, dztxt = negatives

        x_b = jnp.sum(zimg.astype(jnp.float32) * ztxt, axis=1)
        l_b = t * x_b + b
        p_b = -jax.nn.sigmoid(-l_b)  # d loss / d logit of a positive
        # Every gradient in t is a sum of p * x.y, and the images' gradient has summed it already.
        dt = psum(jnp.sum(zimg * dzimg) / t + p_b @ x_b, axis)
        loss = psum(loss + jnp.sum(jax.nn.softplus(-l_b)), axis)
        db = psum(db + p_b.sum(), axis)
        dzimg += (t * p_b)[:, None] * ztxt
        dztxt += (t * p_b)[:, None] * zimg
        stats = LogitStats(*positives(l_b, axis), *all_stats, *kept_stats)
        grads = (dzimg / batch, dztxt / batch, dt / batch, db / batch)
        return loss / batch, stats, grads

    return with_gradients(sweep, mesh)(zimg_BxD, ztxt_BxD, t, b, key)


def _all_negatives(zimg, ztxt, t, b, *, axis, tile):
    def block(sums: NegativeSums, dzimg, ztxt, dztxt, diagonal):
        more, di, dt = sigmoid_negatives(zimg, ztxt, t, b, diagonal=diagonal, tile=tile)
        return sums + more, dzimg + di, dztxt + dt

    start = (NegativeSums.zero(), jnp.zeros(zimg.shape, jnp.float32))
    sums, dzimg, dztxt = around(block, start, ztxt, axis)
    stats = (mean_of_negatives(zimg, ztxt, t, b, axis), pmin(sums.min, axis), pmax(sums.max, axis))
    return sums.loss, sums.db, stats, stats, dzimg, dztxt


def _kept_negatives(zimg, ztxt, t, b, key, *, pairs, axis):
    """Rows meet the gathered texts; the threshold is found on counts over all devices."""
    rows = len(zimg)
    first = 0 if axis is None else jax.lax.axis_index(axis) * rows
    ztxt_BxD = ztxt if axis is None else jax.lax.all_gather(ztxt, axis, tiled=True)
    l_bxB = dot(t.astype(zimg.dtype) * zimg, ztxt_BxD.T) + b
    positive_bxB = (first + jnp.arange(rows))[:, None] == jnp.arange(len(ztxt_BxD))[None, :]
    w_bxB = select.weights(l_bxB, positive_bxB, pairs, seed=key, first_row=first, axis=axis)

    p_bxB = w_bxB * jax.nn.sigmoid(l_bxB)
    loss = jnp.sum(w_bxB * jax.nn.softplus(l_bxB))
    kept = w_bxB > 0
    count = psum(w_bxB.sum(), axis)
    kept_stats = (
        psum(jnp.sum(w_bxB * l_bxB), axis) / count,
        pmin(jnp.min(jnp.where(kept, l_bxB, BIG)), axis),
        pmax(jnp.max(jnp.where(kept, l_bxB, -BIG)), axis),
    )
    all_stats = (
        mean_of_negatives(zimg, ztxt, t, b, axis),
        pmin(jnp.min(jnp.where(positive_bxB, BIG, l_bxB)), axis),
        pmax(jnp.max(jnp.where(positive_bxB, -BIG, l_bxB)), axis),
    )
    p = p_bxB.astype(ztxt.dtype)
    dztxt = t * dot(p.T, zimg)
    if axis is not None:
        dztxt = jax.lax.psum_scatter(dztxt, axis, tiled=True)
    return loss, p_bxB.sum(), all_stats, kept_stats, t * dot(p, ztxt_BxD), dztxt


def _group_negatives(zimg, ztxt, t, b, *, size, axis):
    """Each group's g x g logits in one batched product: B * g logits, not B * B."""
    rows, dim = zimg.shape
    if rows % size:
        raise ValueError(
            f"Groups(size={size}) does not divide the {rows} examples that each device holds; "
            "use fewer devices or smaller groups"
        )
    shape = (rows // size, size, dim)
    zimg_Gxgx, ztxt_Gxgx = zimg.reshape(shape), ztxt.reshape(shape)
    f32 = jnp.float32
    l_Gxgxg = jnp.einsum("gid,gjd->gij", t * zimg_Gxgx, ztxt_Gxgx, preferred_element_type=f32) + b
    positive = jnp.eye(size, dtype=bool)
    p = jnp.where(positive, 0.0, jax.nn.sigmoid(l_Gxgxg))
    loss = jnp.sum(jnp.where(positive, 0.0, jax.nn.softplus(l_Gxgxg)))
    total = psum(jnp.sum(jnp.where(positive, 0.0, l_Gxgxg)), axis)
    count = psum(jnp.asarray(rows, f32), axis) * (size - 1)
    stats = (
        total / count,
        pmin(jnp.min(jnp.where(positive, BIG, l_Gxgxg)), axis),
        pmax(jnp.max(jnp.where(positive, -BIG, l_Gxgxg)), axis),
    )
    dzimg = t * jnp.einsum("gij,gjd->gid", p, ztxt_Gxgx, preferred_element_type=f32)
    dztxt = t * jnp.einsum("gij,gid->gjd", p, zimg_Gxgx, preferred_element_type=f32)
    return loss, p.sum(), stats, stats, dzimg.reshape(rows, dim), dztxt.reshape(rows, dim)
