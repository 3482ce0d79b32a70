"""Exactly the hardest or the easiest negatives (paper Sec. 4.8).

A negative is as hard as its logit is high, and logits rise with the product x.y whatever t and b
are. So pairs are ranked by a score, their product, negated when the easy ones are kept. To keep
the k highest is to find the k-th highest score. Floats sort like their bits, so it is found by
bisection on the bits: the next bits are set as long as at least k scores reach the value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from study.config.loss import Negatives
from study.losses.ring import ring_scan
from study.losses.tiled import BIG, Axes, Tile, dot, from_tiles, tile_scan

# The products of a device's rows with all texts are stored up to this size, 4 * b * B bytes: one
# device with a batch of 8,192, or 64 devices with 65,536. Beyond it every count computes them
# again, tile by tile. On one CPU core with D = 96 the search takes 2.7 ms at B = 512 and 0.26 s at
# 4,096 if they are stored (1 and 73 MiB of memory), and 8.4 ms and 0.79 s if not (3 and 4 MiB).
STORED_BYTES = 2**28
# Bits that one count determines. More bits take fewer counts, of 2**bits - 1 values each.
STORED_BITS, STREAMED_BITS = 1, 4


class Threshold(NamedTuple):
    """Which scores count: fully from `floor` up, and `share` of each that equals `tie`.

    Shapes `1x1`, or `bx1` if each row has its own. `places` is how many places the ties share: 0
    if `floor` alone keeps the right number, and then no score equals `tie`.
    """

    floor: jax.Array
    tie: jax.Array
    share: jax.Array
    places: jax.Array


def kth_score(
    zimg_bxD: jax.Array, ztxt_bxD: jax.Array, pairs: Negatives, *, axes: Axes, tile: int
) -> Threshold:
    """The threshold that keeps exactly as many negatives as `pairs` has.

    Arguments:
      zimg_bxD, ztxt_bxD: this device's rows of the batch.
      pairs: with `keep` "hard" or "easy".
      axes: names of the mesh axes, `()` on one device.
      tile: as in the sweep that uses the threshold. The count is exact if both compute equal
        products to the last bit, so both compute them in the same tiles.
    """
    rows = len(zimg_bxD)
    batch = rows * lax.axis_size(axes)
    by_row = pairs.scope == "row"
    keep = int(pairs.per_positive) if by_row else pairs.negatives(batch)
    shape = (rows, 1) if by_row else (1, 1)
    sign = 1.0 if pairs.keep == "hard" else -1.0
    options: Any = {"sign": sign, "axes": axes, "tile": tile}
    stored = 4 * rows * batch <= STORED_BYTES
    scores_bxM = _store(zimg_bxD, ztxt_bxD, **options) if stored else None

    def count(values_nxK: jax.Array) -> jax.Array:
        """The number of scores that reach each value: `nxKx2`, see `_two_words`."""
        values_bxK = jnp.broadcast_to(values_nxK, (rows, values_nxK.shape[1]))
        if scores_bxM is None:
            counts_bxK = _stream(zimg_bxD, ztxt_bxD, values_bxK, **options)
        else:
            counts_bxK = _count(scores_bxM, values_bxK)
        return _two_words(counts_bxK, by_row, axes)

    keep_2 = jnp.array(divmod(keep, _WORD), jnp.int32)
    bits = STORED_BITS if stored else STREAMED_BITS

    def set_bits(turn: jax.Array, ordered_nx1: jax.Array) -> jax.Array:
        shift = (32 - bits - turn * bits).astype(jnp.uint32)
        candidates_nxK = ordered_nx1 + (jnp.arange(1, 2**bits, dtype=jnp.uint32) << shift)
        counts_nxKx2 = count(_to_float(candidates_nxK))
        high, low = counts_nxKx2[..., 0], counts_nxKx2[..., 1]
        enough = (high > keep_2[0]) | ((high == keep_2[0]) & (low >= keep_2[1]))
        # Counts fall as values rise, so the number of candidates with enough is the next digit.
        digit_nx1 = jnp.sum(enough, axis=1, keepdims=True, dtype=jnp.uint32)
        return ordered_nx1 + (digit_nx1 << shift)

    ordered_nx1 = lax.fori_loop(0, 32 // bits, set_bits, jnp.zeros(shape, jnp.uint32))
    kth, above = _to_float(ordered_nx1), _to_float(ordered_nx1 + 1)
    counts_nx2x2 = count(jnp.concatenate([kth, above], axis=1))
    # Differences in float32 are exact below 2**24.
    reach, exceed = counts_nx2x2[:, :1], counts_nx2x2[:, 1:]
    exact = jnp.all(reach == keep_2, axis=2)
    places = jnp.where(exact, 0.0, _difference(keep_2, exceed))
    ties = jnp.where(exact, 1.0, _difference(reach, exceed))
    return Threshold(
        floor=jnp.where(exact, kth, above),
        tie=jnp.where(exact, BIG, kth),
        share=places / ties,
        places=places,
    )


def _count(scores_bxM: jax.Array, values_bxK: jax.Array) -> jax.Array:
    """The number of scores of each row that reach each of the row's values: int32 `bxK`."""

    def one_row(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        scores_M, values_K = row
        reach = [jnp.sum(scores_M >= value, dtype=jnp.int32) for value in values_K]
        return jnp.stack(reach)

    # XLA on CPU writes the comparisons to memory before it sums them; a few rows stay in cache.
    return lax.map(one_row, (scores_bxM, values_bxK), batch_size=64)


def _score_tile(zimg_TxD: jax.Array, ztxt_TxD: jax.Array, sign: float, at: Tile) -> jax.Array:
    return at.negatives(sign * dot(zimg_TxD, ztxt_TxD.T))[0]


def _store(
    zimg_bxD: jax.Array, ztxt_bxD: jax.Array, *, sign: float, axes: Axes, tile: int
) -> jax.Array:
    """Scores of this device's images with all texts, -BIG for positives: `bxM`.

    M is B with each device's texts padded to whole tiles.
    """
    rows, device, devices = len(zimg_bxD), lax.axis_index(axes), lax.axis_size(axes)
    height = min(tile, rows)
    width = -(-rows // height) * height

    def step(scores_TxW: jax.Array, _: Any, zimg_TxD: Any, ztxt_TxD: Any, at: Tile) -> Any:
        s_TxT = _score_tile(zimg_TxD, ztxt_TxD, sign, at)
        return lax.dynamic_update_slice(scores_TxW, s_TxT, (0, at.column)), ()

    def block(scores_bxM: jax.Array, ztxt_bxD: jax.Array, source_device: jax.Array) -> Any:
        init = (jnp.zeros((height, width)), ())
        origin = (device * rows, source_device * rows)
        scores_RxTxW, _ = tile_scan(step, init, zimg_bxD, ztxt_bxD, tile=tile, origin=origin)
        scores_bxW = from_tiles(scores_RxTxW, rows)
        at = (0, source_device * width)
        return lax.dynamic_update_slice(scores_bxM, scores_bxW, at), ()

    scores_bxM, _ = ring_scan(block, jnp.zeros((rows, devices * width)), ztxt_bxD, axes)
    return scores_bxM


def _stream(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    values_bxK: jax.Array,
    *,
    sign: float,
    axes: Axes,
    tile: int,
) -> jax.Array:
    """`_count` of the scores of all texts, tile by tile."""
    (rows, values), device = values_bxK.shape, lax.axis_index(axes)

    def step(counts_TxK: jax.Array, _: Any, row: Any, ztxt_TxD: Any, at: Tile) -> Any:
        zimg_TxD, values_TxK = row
        return counts_TxK + _count(_score_tile(zimg_TxD, ztxt_TxD, sign, at), values_TxK), ()

    def block(counts_bxK: jax.Array, ztxt_bxD: jax.Array, source_device: jax.Array) -> Any:
        init = (jnp.zeros((min(tile, rows), values), jnp.int32), ())
        origin = (device * rows, source_device * rows)
        per_row = (zimg_bxD, values_bxK)
        counts_RxTxK, _ = tile_scan(step, init, per_row, ztxt_bxD, tile=tile, origin=origin)
        return counts_bxK + from_tiles(counts_RxTxK, rows), ()

    init = jnp.zeros((rows, values), jnp.int32)
    return ring_scan(block, init, ztxt_bxD, axes)[0]


# A count of pairs may pass 2**32, and devices have no wider integers: `high * _WORD + low`.
_WORD = 2**11


def _two_words(counts_bxK: jax.Array, by_row: bool, axes: Axes) -> jax.Array:
    """Counts of each row, or of the whole batch, as (high, low): `bxKx2` or `1xKx2`."""
    high, low = counts_bxK // _WORD, counts_bxK % _WORD
    if not by_row:
        high, low = (lax.psum(x.sum(0, keepdims=True), axes) for x in (high, low))
        high, low = high + low // _WORD, low % _WORD
    return jnp.stack([high, low], axis=2)


def _difference(a_2: jax.Array, b_2: jax.Array) -> jax.Array:
    high, low = jnp.moveaxis((a_2 - b_2).astype(jnp.float32), -1, 0)
    return high * _WORD + low


def _to_float(ordered: jax.Array) -> jax.Array:
    """The float32 of bits that sort like floats: negative ones inverted, the sign bit flipped."""
    bits = jnp.where(ordered >> 31 == 1, ordered & jnp.uint32(2**31 - 1), ~ordered)
    return lax.bitcast_convert_type(bits, jnp.float32)
