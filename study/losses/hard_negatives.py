"""Exactly the hardest or the easiest negatives (paper Sec. 4.8).

A negative is as hard as its logit is high, and logits rise with the product x.y whatever t and b
are. So pairs are ranked by a score, their product, negated when the easy ones are kept. To keep
the k highest is to find the k-th highest score. It is found by bisection: an interval that holds
it is halved at a value by whether at least k scores reach the value. Usually some value is reached
by exactly k scores after 15 to 20 halvings, and the search ends there. If scores tie, the interval
shrinks to one float, so the last halvings go by its bits, which sort like floats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from study.config.loss import Negatives
from study.losses.ring import ring_scan
from study.losses.tiled import Axes
from study.losses.tiles import BIG, Tile, dot, from_tiles, tile_scan

# The products of a device's rows with all texts are stored up to this size, 4 * b * B bytes: one
# device with a batch of 8,192, or 64 devices with 65,536. Beyond it every count computes them
# again, tile by tile. On one CPU core with D = 96 the search adds 1.6 ms to the 2.4 of the loss at
# B = 512, and 34 ms to 29 at 2,048, if they are stored; 5.3 and 95 ms if not.
STORED_BYTES = 2**28
# Values are halved this often before bits are: scores are dense in value, not in bits.
VALUE_BITS = 24
# A count of pairs may pass 2**32, and devices have no wider integers: `high * WORD + low`.
WORD = 2**11
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
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    keep_2: jax.Array,
    pairs: Negatives,
    *,
    axes: Axes,
    tile: int,
) -> Threshold:
    """The threshold that keeps exactly `keep_2` negatives, of the batch or of each row.

    Arguments:
      zimg_bxD, ztxt_bxD: this device's rows of the batch.
      keep_2: their number as (high, low), `high * WORD + low`.
      pairs: with `keep` "hard" or "easy"; `per_positive` is not read.
      axes: names of the mesh axes, `()` on one device.
      tile: as in the sweep that uses the threshold. The count is exact if both compute equal
        products to the last bit, so both compute them in the same tiles.
    """
    rows = len(zimg_bxD)
    batch = rows * lax.axis_size(axes)
    by_row = pairs.scope == "row"
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

    bits = STORED_BITS if stored else STREAMED_BITS
    # A product is at most the product of the norms, and rounding adds less than the hundredth.
    norms = [lax.pmax(jnp.max(_squares(z_bxD)), axes) for z_bxD in (zimg_bxD, ztxt_bxD)]
    bound = 1.01 * jnp.sqrt(norms[0] * norms[1]) + 1e-30

    def narrow(search: _Search) -> _Search:
        low_nx1, high_nx1 = search.low, search.high
        part_1xK = jnp.arange(1, 2**bits, dtype=jnp.uint32)[None]
        low, high = _to_float(low_nx1), _to_float(high_nx1)
        by_value_nxK = _to_ordered(low + (high - low) * (part_1xK / 2**bits))
        by_bits_nxK = low_nx1 + part_1xK * jnp.maximum(high_nx1 - low_nx1 >> bits, 1)
        values_nxK = jnp.where(search.passes * bits < VALUE_BITS, by_value_nxK, by_bits_nxK)
        values_nxK = jnp.clip(values_nxK, low_nx1 + 1, high_nx1)
        counts_nxKx2 = count(_to_float(values_nxK))
        words = counts_nxKx2[..., 0], counts_nxKx2[..., 1]
        enough_nxK = (words[0] > keep_2[0]) | ((words[0] == keep_2[0]) & (words[1] >= keep_2[1]))
        # Counts fall as values rise: the last value with enough scores and the first without.
        last_nx1 = jnp.sum(enough_nxK, axis=1, keepdims=True)
        values = jnp.concatenate([low_nx1, values_nxK, high_nx1], axis=1)
        counts = jnp.concatenate([search.reach, counts_nxKx2, search.exceed], axis=1)

        def take(k_nx1: jax.Array) -> tuple[jax.Array, jax.Array]:
            return (
                jnp.take_along_axis(values, k_nx1, axis=1),
                jnp.take_along_axis(counts, k_nx1[..., None], axis=1),
            )

        (low_nx1, reach), (high_nx1, exceed) = take(last_nx1), take(last_nx1 + 1)
        go_on = jnp.any(jnp.any(reach != keep_2, axis=2) & (high_nx1 - low_nx1 > 1))
        if by_row:  # a pass holds collectives, so all devices make as many
            go_on = lax.pmax(go_on.astype(jnp.int32), axes) > 0
        return _Search(low_nx1, high_nx1, reach, exceed, search.passes + 1, go_on)

    shape = (rows if by_row else 1, 1)
    everything_2 = jnp.array(divmod((batch - 1) * (1 if by_row else batch), WORD), jnp.int32)
    search = lax.while_loop(
        lambda search: search.go_on & (search.passes < 64 // bits),  # NaN would go on for ever
        narrow,
        _Search(
            low=jnp.full(shape, _to_ordered(-bound)),
            high=jnp.full(shape, _to_ordered(bound)),
            reach=jnp.broadcast_to(everything_2, (*shape, 2)),
            exceed=jnp.zeros((*shape, 2), jnp.int32),
            passes=jnp.int32(0),
            go_on=jnp.any(everything_2 != keep_2),
        ),
    )
    low, high = _to_float(search.low), _to_float(search.high)
    # Differences in float32 are exact below 2**24.
    exact = jnp.all(search.reach == keep_2, axis=2)
    places = jnp.where(exact, 0.0, _difference(keep_2, search.exceed))
    ties = jnp.where(exact, 1.0, _difference(search.reach, search.exceed))
    return Threshold(
        floor=jnp.where(exact, low, high),
        tie=jnp.where(exact, BIG, low),
        share=places / ties,
        places=places,
    )


class _Search(NamedTuple):
    """An interval of float bits (`_to_ordered`) that holds the k-th score, `nx1`.

    At least k scores reach `low`, namely `reach`; `exceed` reach `high`, fewer than k (`nx1x2`).
    """

    low: jax.Array
    high: jax.Array
    reach: jax.Array
    exceed: jax.Array
    passes: jax.Array
    go_on: jax.Array


def _squares(z_bxD: jax.Array) -> jax.Array:
    return jnp.sum(z_bxD.astype(jnp.float32) ** 2, axis=1)


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


def _two_words(counts_bxK: jax.Array, by_row: bool, axes: Axes) -> jax.Array:
    """Counts of each row, or of the whole batch, as (high, low): `bxKx2` or `1xKx2`."""
    high, low = counts_bxK // WORD, counts_bxK % WORD
    if not by_row:
        high, low = (lax.psum(x.sum(0, keepdims=True), axes) for x in (high, low))
        high, low = high + low // WORD, low % WORD
    return jnp.stack([high, low], axis=2)


def _difference(a_2: jax.Array, b_2: jax.Array) -> jax.Array:
    high, low = jnp.moveaxis((a_2 - b_2).astype(jnp.float32), -1, 0)
    return high * WORD + low


def _to_ordered(x: jax.Array) -> jax.Array:
    """Bits of float32 that sort like floats: negative ones inverted, the sign bit flipped."""
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(2**31))


def _to_float(ordered: jax.Array) -> jax.Array:
    """The inverse of `_to_ordered`."""
    bits = jnp.where(ordered >> 31 == 1, ordered & jnp.uint32(2**31 - 1), ~ordered)
    return lax.bitcast_convert_type(bits, jnp.float32)
