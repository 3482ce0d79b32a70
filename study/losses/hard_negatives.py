"""Finding the hardest or easiest negatives exactly, in bounded memory (paper Sec. 4.8).

A negative is as hard as its logit is high, and logits rise with the product x.y whatever t and b
are, so products are ranked. To keep the k highest is to find the k-th highest product. No product
is stored: a bracket round it is narrowed by counting, over all tiles and devices, how many
products reach each of a few probes. A sample places the first probes and interpolation the next
ones, so that three or four counts find one product among 2**28.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from study.config.pairs import Negatives
from study.losses.ring import around
from study.losses.stats import Axis, devices, dot, here, pmax, psum
from study.losses.tiles import BIG, Tile, sweep, tiled, untiled
from study.rng import mix

# Three counts up to 1023 share an int32, which triples the speed of counting.
_PER_WORD, _BITS = 3, 10
MAX_TILE = 2**_BITS - 1
# Where probes lie about the guess, in standard deviations of it.
_SPREAD = np.array([-4.0, -1.8, -1.0, -0.45, 0.0, 0.45, 1.0, 1.8, 4.0], np.float32)
_SAMPLE = 2**16
_ROW_SAMPLE = 256


class Threshold(NamedTuple):
    """Which scores count: fully from `floor` up, by `share` where they equal `tie`.

    A score is the product x.y of a pair, negated when the easy ones are kept. Shapes `1x1`, or
    `nx1` where each row has its own. `left` is how many places the ties share.
    """

    floor: jax.Array
    tie: jax.Array
    share: jax.Array
    left: jax.Array


class _Count(NamedTuple):
    """A whole number as `high * 2**11 + low`, both int32: B * B passes 2**32."""

    high: jax.Array
    low: jax.Array

    @classmethod
    def of(cls, number: int, shape: tuple[int, ...]) -> _Count:
        high, low = divmod(number, 2**11)
        return cls(jnp.full(shape, high, jnp.int32), jnp.full(shape, low, jnp.int32))

    def minus(self, other: _Count) -> jax.Array:
        """The difference in float32, exact below 2**24."""
        high = (self.high - other.high).astype(jnp.float32)
        return high * 2.0**11 + (self.low - other.low).astype(jnp.float32)

    def reaches(self, other: _Count) -> jax.Array:
        return (self.high > other.high) | (self.high == other.high) & (self.low >= other.low)

    def where(self, mask: jax.Array, other: _Count) -> _Count:
        return _Count(*(jnp.where(mask, a, b) for a, b in zip(self, other, strict=True)))


class _Bracket(NamedTuple):
    """At least `keep` scores reach `low`, fewer reach `high`; both as ordered integers."""

    low: jax.Array
    high: jax.Array
    at_low: _Count
    at_high: _Count
    turn: jax.Array


def threshold(
    zimg_bxD: jax.Array, ztxt_bxD: jax.Array, pairs: Negatives, *, axis: Axis, tile: int
) -> Threshold:
    """The threshold that keeps exactly as many negatives as `pairs` asks for.

    Arguments:
      zimg_bxD, ztxt_bxD: this device's rows of the batch.
      pairs: with `keep` "hard" or "easy".
      axis: mesh axis or axes, or None.
      tile: as in the sweep that will use the threshold, so that products are equal bit for bit.
    """
    rows = len(zimg_bxD)
    batch = rows * devices(axis)
    by_row = pairs.scope == "row"
    keep = int(pairs.per_positive) if by_row else pairs.negatives(batch)
    among = batch - 1 if by_row else batch * (batch - 1)
    shape = (rows, 1) if by_row else (1, 1)
    wanted = _Count.of(keep, shape)
    sign = 1.0 if pairs.keep == "hard" else -1.0

    def settled(bracket: _Bracket) -> jax.Array:
        exact = bracket.at_low.minus(wanted) == 0
        return exact | (bracket.high - bracket.low <= 1)

    def unsettled(bracket: _Bracket) -> jax.Array:
        return psum(jnp.any(~settled(bracket)).astype(jnp.int32), axis) > 0

    def narrowed(bracket: _Bracket, probes: jax.Array) -> _Bracket:
        # A settled row stays as it is: its probes are put where they can only confirm it.
        probes = jnp.clip(probes, bracket.low, bracket.high)
        counts = _reaching(zimg_bxD, ztxt_bxD, _float(probes), sign, axis=axis, tile=tile)
        found = _total(counts, by_row, axis)
        low, high, at_low, at_high, turn = bracket
        for k in range(probes.shape[1]):
            probe, count = probes[:, k : k + 1], _Count(*(c[:, k : k + 1] for c in found))
            enough = count.reaches(wanted)
            up, down = enough & (probe > low), ~enough & (probe < high)
            low, at_low = jnp.where(up, probe, low), count.where(up, at_low)
            high, at_high = jnp.where(down, probe, high), count.where(down, at_high)
        return _Bracket(low, high, at_low, at_high, turn + 1)

    longest = [jnp.max(jnp.sum(z.astype(jnp.float32) ** 2, axis=1)) for z in (zimg_bxD, ztxt_bxD)]
    # No product exceeds the lengths' product, of which this is a little more.
    bound = 1.01 * jnp.sqrt(pmax(longest[0], axis) * pmax(longest[1], axis)) + 1e-30
    start = _Bracket(
        low=jnp.full(shape, _ordered(-bound)),
        high=jnp.full(shape, _ordered(bound)),
        at_low=_Count.of(among, shape),
        at_high=_Count.of(0, shape),
        turn=jnp.int32(0),
    )
    sample = _row_sample if by_row else _batch_sample
    scores = sample(zimg_bxD, ztxt_bxD, sign, axis)
    bracket = narrowed(start, _ordered(_quantiles(scores, keep / among)))
    bracket = lax.while_loop(
        unsettled, lambda br: narrowed(br, _probes(br, wanted, keep, among)), bracket
    )
    exact = bracket.at_low.minus(wanted) == 0
    left = jnp.where(exact, 0.0, wanted.minus(bracket.at_high))
    ties = jnp.where(exact, 1.0, bracket.at_low.minus(bracket.at_high))
    low = _float(bracket.low)
    floor = jnp.where(exact, low, _float(bracket.high))
    return Threshold(floor, jnp.where(exact, BIG, low), left / ties, left)


def _probes(bracket: _Bracket, wanted: _Count, keep: int, among: int) -> jax.Array:
    """Where the threshold is guessed to lie, and either side of it, as ordered integers."""
    low, high, at_low, at_high, turn = bracket
    above, below = at_low.minus(wanted), wanted.minus(at_high)
    # Counts of a tail fall like an exponential, so the shorter tail's logarithm is interpolated.
    if keep <= among // 2:
        near, far = jnp.log1p(above / keep), jnp.log1p(below / jnp.maximum(keep - below, 0.5))
    else:
        rest = among - keep
        far, near = (
            jnp.log1p(below / max(rest, 0.5)),
            jnp.log1p(above / jnp.maximum(rest - above, 0.5)),
        )
    guess = near / jnp.maximum(near + far, 1e-30)
    inside = jnp.maximum(above + below, 1.0)
    deviation = jnp.sqrt(above * below / inside) / inside
    guesses = jnp.clip(guess + (deviation + 1e-4) * _SPREAD, 0.0, 1.0)
    floor, roof = _float(low), _float(high)
    probes = _ordered(floor + guesses * (roof - floor))
    # Now and then even steps through the floats, which narrow any bracket tenfold.
    even = (jnp.arange(len(_SPREAD)) + 1.0) / (len(_SPREAD) + 1.0)
    width = (high - low).astype(jnp.float32)
    steps = low + jnp.minimum(even * width, 2.0**32 - 512).astype(jnp.uint32)
    evenly = (turn % 4 == 0) | (width <= len(_SPREAD) + 1.0)
    last = jnp.maximum(high, low + 2) - 1
    return jnp.clip(jnp.where(evenly, steps, probes), low + 1, last)


def _reaching(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    probes: jax.Array,
    sign: float,
    *,
    axis: Axis,
    tile: int,
) -> jax.Array:
    """How many negatives of each row score at least each probe: int32 `bxK`."""
    count = probes.shape[1]
    words = -(-count // _PER_WORD)
    rows = len(zimg_bxD)
    probes_bxK = jnp.broadcast_to(probes, (rows, count))
    first_row = here(axis) * rows

    def step(sums: Any, _: Any, row: Any, ztxt_TxD: Any, at: Tile) -> Any:
        zimg_TxD, probes_TxK = row
        s_TxT, _ = at.negatives(sign * dot(zimg_TxD, ztxt_TxD.T))
        out = []
        for word in range(words):
            packed = jnp.zeros(s_TxT.shape, jnp.int32)
            for slot, k in enumerate(range(word * _PER_WORD, min(count, (word + 1) * _PER_WORD))):
                packed += (s_TxT >= probes_TxK[:, k : k + 1]).astype(jnp.int32) << (_BITS * slot)
            out.append(jnp.sum(lax.optimization_barrier(packed), axis=1))
        mask = (1 << _BITS) - 1
        found = [(out[k // _PER_WORD] >> (_BITS * (k % _PER_WORD))) & mask for k in range(count)]
        return sums + jnp.stack(found, axis=1), ()

    def block(sums: Any, ztxt: Any, owner: Any) -> Any:
        start = (jnp.zeros((min(tile, rows), count), jnp.int32), ())
        more, _ = sweep(
            step, start, (zimg_bxD, probes_bxK), ztxt, tile=tile, origin=(first_row, owner * rows)
        )
        return sums + untiled(more, rows), ()

    sums, _ = around(block, jnp.zeros((rows, count), jnp.int32), ztxt_bxD, axis)
    return sums


def _total(counts_bxK: jax.Array, by_row: bool, axis: Axis) -> _Count:
    """Counts of rows as they are, or added up over the batch."""
    high, low = counts_bxK >> 11, counts_bxK & (2**11 - 1)
    if not by_row:
        high, low = (psum(x.sum(0, keepdims=True), axis) for x in (high, low))
        high, low = high + (low >> 11), low & (2**11 - 1)
    return _Count(high, low)


def _batch_sample(zimg_bxD: jax.Array, ztxt_bxD: jax.Array, sign: float, axis: Axis) -> jax.Array:
    """Scores of random negatives of all devices, each from within one device: sorted `1xS`."""
    rows = len(zimg_bxD)
    if rows == 1:
        return jnp.linspace(-1.0, 1.0, 64)[None]
    size = max(256, _SAMPLE // devices(axis))

    def scores(k: jax.Array) -> jax.Array:
        i = k % rows
        j = (i + 1 + (mix(k.astype(jnp.uint32)) % (rows - 1)).astype(jnp.int32)) % rows
        return sign * jnp.sum(zimg_bxD[i].astype(jnp.float32) * ztxt_bxD[j])

    s = lax.map(scores, jnp.arange(size), batch_size=1024)
    if axis is not None:
        s = lax.all_gather(s, axis, tiled=True)
    return jnp.sort(s)[None]


def _row_sample(zimg_bxD: jax.Array, ztxt_bxD: jax.Array, sign: float, axis: Axis) -> jax.Array:
    """Scores of each row with its neighbours' texts, sorted: `bxS`."""
    del axis
    rows = len(zimg_bxD)
    size = min(_ROW_SAMPLE, rows)

    def scores(zimg_TxD: jax.Array) -> jax.Array:
        return jnp.sort(sign * dot(zimg_TxD, ztxt_bxD[:size].T), axis=1)

    return untiled(lax.map(scores, tiled(zimg_bxD, min(512, rows))), rows)


def _quantiles(scores: jax.Array, share: float) -> jax.Array:
    """The scores about the place that `share` of all are above."""
    size = scores.shape[1]
    place = size * (1 - share) + _SPREAD * np.sqrt(size * share * (1 - share))
    return scores[:, np.clip(np.round(place), 0, size - 1).astype(int)]


def _ordered(x: jax.Array) -> jax.Array:
    """float32 as uint32 in the same order."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _float(order: jax.Array) -> jax.Array:
    """The inverse of `_ordered`."""
    bits = jnp.where(order >> 31 == 1, order & jnp.uint32(2**31 - 1), ~order)
    return lax.bitcast_convert_type(bits, jnp.float32)
