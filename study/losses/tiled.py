"""The tiled one-pass loss: value, statistics and gradients while one tile of logits is held.

Both losses are sums over pairs (image i, text j) whose derivative in a logit is known as soon as
the logit is. So one sweep over tiles of logits can return the loss and its gradients together:

- `fused_value_and_grad` turns such a sweep into a differentiable function, on one device or under
  `shard_map`. Its backward pass only scales; nothing of size B x B is kept for it.
- `pairwise_gradients` is the sweep that both losses use: three matrix products per tile.
- `sigmoid_negatives` is that sweep for the sigmoid loss.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from study.losses.tiles import (
    BIG,
    Tile,
    by_platform,
    dot,
    from_tiles,
    large_tile,
    peeled_scan,
    platform,
    tile_scan,
)

# Names of the mesh axes that hold the batch. Collectives over no axis are the identity, so `()`
# is one device and needs no code of its own.
Axes = tuple[str, ...]

# The `shift` from an image's row to its text's row in a block that has none of its images' texts.
NO_POSITIVES = 1 << 30

# Log-sum-exp as (largest logit, sum of exponentials relative to it): safe at any temperature.
LogSumExp = tuple[jax.Array, jax.Array]


class LogitStats(NamedTuple):
    """Mean, min and max of the logits of three sets of pairs, scalars in float32.

    pos: the positives. neg: all negatives. kept: the negatives that count in the loss (equal to
    `neg` unless `Negatives` or `same_caption` drops some). The right panels of the paper's Fig. 6.

    same_captions: the number of pairs with equal captions, beside an example's own; NaN where
    captions are not compared. Pairs with stored embeddings are in none of these.
    """

    pos_logit_mean: jax.Array
    pos_logit_min: jax.Array
    pos_logit_max: jax.Array
    neg_logit_mean: jax.Array
    neg_logit_min: jax.Array
    neg_logit_max: jax.Array
    kept_logit_mean: jax.Array
    kept_logit_min: jax.Array
    kept_logit_max: jax.Array
    same_captions: jax.Array


def positive_logits(l_b: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, min and max over the positives of all devices."""
    return lax.pmean(l_b.mean(), axes), lax.pmin(l_b.min(), axes), lax.pmax(l_b.max(), axes)


def negative_logit_mean(
    zimg_bxD: jax.Array,
    ztxt_bxD: jax.Array,
    t: jax.Array,
    b: jax.Array | float,
    *,
    group_size: int,
    axes: Axes,
) -> jax.Array:
    """Mean logit of all negatives within groups of consecutive examples, from no logit at all.

    The sum of a group's products is a product of sums: sum_ij x_i.y_j = (sum_i x_i).(sum_j y_j).
    """
    (rows, dim), f32 = zimg_bxD.shape, jnp.float32
    batch = rows * lax.axis_size(axes)

    def sum_by_group(z_bxD: jax.Array) -> jax.Array:
        z_GxD = z_bxD.astype(f32).reshape(-1, min(group_size, rows), dim).sum(1)
        if batch > rows and group_size == batch:
            return lax.psum(z_GxD, axes)
        if group_size > rows:  # groups over several devices
            z_GxD = lax.all_gather(z_GxD, axes, tiled=True)
            z_GxD = z_GxD.reshape(-1, group_size // rows, dim).sum(1)
        return z_GxD

    products = jnp.vdot(sum_by_group(zimg_bxD), sum_by_group(ztxt_bxD))
    if group_size <= rows:
        products = lax.psum(products, axes)
    positives = lax.psum(jnp.sum(zimg_bxD.astype(f32) * ztxt_bxD), axes)
    # Counted in float32: B * B overflows the 32-bit integers that devices have.
    return t * (products - positives) / (f32(batch) * (group_size - 1)) + b


class NegativeSums(NamedTuple):
    """Sums of the sigmoid loss over negatives with logits l, float32 scalars.

    Attributes:
      loss: sum of softplus(l).
      db: sum of sigmoid(l), the derivative of the loss in the bias.
      logit_min, logit_max: over all negatives.
      kept_sum, kept_min, kept_max: of the logits of the negatives that count, if not all do.
      same: how many pairs have equal captions, beside an example's own.
    """

    loss: jax.Array
    db: jax.Array
    logit_min: jax.Array
    logit_max: jax.Array
    kept_sum: Any = None  # arrays like the others, or None
    kept_min: Any = None
    kept_max: Any = None
    same: Any = None

    @classmethod
    def zeros(cls, *, kept: bool = False, same: bool = False) -> NegativeSums:
        """The sums over no pair; `kept` and `same` include the fields of these names."""
        zero, low, high = (jnp.full((), x, jnp.float32) for x in (0, BIG, -BIG))
        own = (zero, low, high) if kept else (None, None, None)
        return cls(zero, zero, low, high, own[0], own[1], own[2], zero if same else None)

    def merge(self, other: NegativeSums) -> NegativeSums:
        """The sums over the pairs of both."""
        return self._by_field(jnp.add, jnp.minimum, jnp.maximum, other)

    def total(self) -> NegativeSums:
        """Scalars from stacked sums."""
        return self._by_field(jnp.sum, jnp.min, jnp.max)

    def over_devices(self, axes: Axes) -> NegativeSums:
        """The sums over all devices of the mesh."""
        add, low, high = (
            functools.partial(collective, axis_name=axes)
            for collective in (lax.psum, lax.pmin, lax.pmax)
        )
        return self._by_field(add, low, high)

    def _by_field(self, add: Any, low: Any, high: Any, *others: NegativeSums) -> NegativeSums:
        reducers = (add, add, low, high, add, low, high, add)
        fields = zip(reducers, self, *others, strict=True)
        reduced: Any = (None if x[0] is None else reduce(*x) for reduce, *x in fields)
        return NegativeSums(*reduced)


# --- value and gradients together -----------------------------------------------------------------

# (zimg_bxD, ztxt_bxD, *scalars, rest, axes=) -> loss, statistics, gradients of all float arguments
LossAndGrads = Callable[..., tuple[jax.Array, LogitStats, tuple[jax.Array, ...]]]


def fused_value_and_grad(
    loss_and_grads: LossAndGrads,
    mesh: Mesh | None,
    *,
    rest_specs: Callable[[Axes], Any] = lambda _: (),
) -> Callable[..., tuple[jax.Array, LogitStats]]:
    """A differentiable `(zimg_BxD, ztxt_BxD, *scalars, rest) -> (loss, stats)`, fused.

    Arguments:
      loss_and_grads: `(zimg_bxD, ztxt_bxD, *scalars, rest, axes=)` to the loss, the statistics and
        the gradients of all float arguments. Every device calls it on its own rows; the loss and
        the gradients of scalars that it returns are already summed over devices. Integer scalars
        (a key) come last and have no gradient, nor has `rest`, a pytree.
      mesh: the devices that hold the batch in equal blocks of rows; None for one device.
      rest_specs: how a mesh with these axes holds `rest`.
    """

    def on_devices(zimg_BxD: jax.Array, ztxt_BxD: jax.Array, *args: Any) -> Any:
        if mesh is None:
            return loss_and_grads(zimg_BxD, ztxt_BxD, *args, axes=())
        if mesh.size == 1:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `by_platform`
                return loss_and_grads(zimg_BxD, ztxt_BxD, *args, axes=())
        *scalars, rest = args
        rows, replicated = P(mesh.axis_names), P()
        learned = sum(jnp.issubdtype(s.dtype, jnp.floating) for s in scalars)
        return jax.shard_map(
            lambda *args: loss_and_grads(*args, axes=mesh.axis_names),
            mesh=mesh,
            in_specs=(rows, rows, *[replicated] * len(scalars), rest_specs(mesh.axis_names)),
            out_specs=(replicated, replicated, (rows, rows, *[replicated] * learned)),
            check_vma=False,
        )(zimg_BxD, ztxt_BxD, *scalars, rest)

    @jax.custom_vjp
    def loss(*args: Any) -> Any:
        value, stats, _ = on_devices(*args)
        return value, stats

    def forward(*args: Any) -> Any:
        value, stats, grads = on_devices(*args)
        # The gradients are the residuals: O(b * D), where logits would be O(b * B).
        residuals = [g.astype(a.dtype) for g, a in zip(grads, args, strict=False)]
        return (value, stats), (*residuals, *[None] * (len(args) - len(grads)))

    def backward(residuals: Any, cotangents: Any) -> tuple[jax.Array | None, ...]:
        dloss, _ = cotangents  # statistics are not differentiable
        return tuple(None if g is None else (dloss * g).astype(g.dtype) for g in residuals)

    loss.defvjp(forward, backward)
    return loss


# --- the sweep that makes the gradients -----------------------------------------------------------


def pairwise_gradients(
    dlogits: Callable[..., tuple[NegativeSums | None, jax.Array]],
    zero_sums: NegativeSums | None,
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    *,
    per_row: Any = (),
    per_col: Any = (),
    origin: tuple[jax.Array | int, jax.Array | int],
    tile: int,
) -> tuple[Any, jax.Array, jax.Array]:
    """Gradients of a block of pairs in one sweep, three matrix products per tile.

    Arguments:
      dlogits: `(x_TxT, tile, per_row, per_col) -> (sums, p_TxT)`: from the products x.y of a tile
        to its sums and p, the derivative of the loss in each logit.
      zero_sums: the sums over no pair; None if `dlogits` returns none.
      per_row, per_col: pytrees with one leading row per image and per text, for `dlogits`.
      origin, tile: as for `tile_scan`. Programs for a GPU take their own tiles, see `peeled_scan`.

    Returns the sums, `p @ ztxt` (`nxD`) and `p.T @ zimg` (`mxD`) in float32: the gradients of the
    embeddings over t.
    """

    def sweep(
        scan: Any, tile: int, dtype: Any, scale: float, zimg_nxD: Any, ztxt_mxD: Any, *rest: Any
    ) -> Any:
        def tile_gradients(zimg_TxD: Any, ztxt_TxD: Any, *args: Any) -> Any:
            sums, p_TxT = dlogits(dot(zimg_TxD, ztxt_TxD.T), *args)
            return sums, (scale * p_TxT).astype(dtype)

        sums, gimg_nxD, gtxt_mxD = gradient_sweep(
            tile_gradients, zero_sums, scan, tile, zimg_nxD, ztxt_mxD, *rest
        )
        return sums, gimg_nxD / scale, gtxt_mxD / scale

    on_gpu = large_tile(len(zimg_nxD), len(ztxt_mxD)), *gpu_products(ztxt_mxD.dtype)
    result: tuple[Any, jax.Array, jax.Array] = by_platform(
        *(zimg_nxD, ztxt_mxD, per_row, per_col, origin),
        gpu=functools.partial(sweep, peeled_scan, *on_gpu),
        default=functools.partial(sweep, tile_scan, tile, ztxt_mxD.dtype, 1.0),
    )
    return result


def by_kernel_on_tpu(
    kernel: str,
    sweep: Callable[..., Any],
    zimg_nxD: jax.Array,
    *arrays: jax.Array,
    shift: jax.Array | int,
    tile: int,
) -> Any:
    """`sweep` of a block, or `pallas_tpu.<kernel>` in a program for a TPU if the block fits it.

    `results/bench/tpu.md` has the instruction bundles of both. Blocks below the kernel's 128 lanes
    would be mostly padding.
    """
    tpu = None
    if platform() in ("tpu", None):
        # Takes 0.14 s to import, which programs for other devices need not wait for.
        from study.losses import pallas_tpu

        if len(zimg_nxD) >= pallas_tpu.LANES and pallas_tpu.fits(zimg_nxD):
            on_chip = getattr(pallas_tpu, kernel)
            tpu = lambda *a: on_chip(*a[:-1], shift=a[-1], tile=tile)
    default = lambda *a: sweep(*a[:-1], shift=a[-1], tile=tile)
    return by_platform(zimg_nxD, *arrays, shift, tpu=tpu, default=default)


def gpu_products(dtype: Any) -> tuple[Any, float]:
    """The type of p, and a factor before it is rounded, for a GPU's products with embeddings.

    Tensor cores are as fast on float16 as on bfloat16, and p has three more bits. Multiplied by
    2**15, its largest value is in range and all above 2e-9 keep these bits.
    """
    return (jnp.float16, 2.0**15) if dtype == jnp.bfloat16 else (dtype, 1.0)


def gradient_sweep(
    tile_gradients: Callable[..., tuple[NegativeSums | None, jax.Array]],
    zero_sums: NegativeSums | None,
    scan: Callable[..., tuple[Any, Any]],
    tile: int,
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    per_row: Any,
    per_col: Any,
    origin: tuple[jax.Array | int, jax.Array | int],
) -> tuple[Any, jax.Array, jax.Array]:
    """`pairwise_gradients` in the order of `scan`.

    Arguments:
      tile_gradients: `(zimg_TxD, ztxt_TxD, tile, per_row, per_col) -> (sums, p_TxT)`; the products
        of p with embeddings are of its type.
    """
    (n, dim), m, f32 = zimg_nxD.shape, len(ztxt_mxD), jnp.float32

    def step(row_carry: Any, gtxt_DxT: jax.Array, row: Any, col: Any, at: Tile) -> Any:
        sums, gimg_TxD = row_carry
        (zimg_TxD, row_extra), (ztxt_TxD, col_extra) = row, col
        tile_sums, p_TxT = tile_gradients(zimg_TxD, ztxt_TxD, at, row_extra, col_extra)
        sums = None if sums is None else sums.merge(tile_sums)
        gimg_TxD += dot(p_TxT, ztxt_TxD.astype(p_TxT.dtype))
        # p is never transposed: the texts' gradient is summed as DxT and transposed at the end.
        return (sums, gimg_TxD), gtxt_DxT + dot(zimg_TxD.astype(p_TxT.dtype).T, p_TxT)

    rows, cols = (zimg_nxD, per_row), (ztxt_mxD, per_col)
    init = (
        (zero_sums, jnp.zeros((min(tile, n), dim), f32)),
        jnp.zeros((dim, min(tile, m)), f32),
    )
    (sums_R, gimg_RxTxD), gtxt_CxDxT = scan(step, init, rows, cols, tile=tile, origin=origin)
    sums = None if sums_R is None else sums_R.total()
    return sums, from_tiles(gimg_RxTxD, n), from_tiles(jnp.swapaxes(gtxt_CxDxT, 1, 2), m)


def sigmoid_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    shift: jax.Array | int,
    tile: int,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """All pairs of a block as negatives of the sigmoid loss.

    Arguments:
      zimg_nxD, ztxt_mxD: unit-norm embeddings, float32 or bfloat16.
      t, b: temperature as a factor, and bias.
      shift: the text of image i is row i + shift, and that pair is left out.
      tile: rows and columns of logits held at once.

    Returns the sums, `p @ ztxt` and `p.T @ zimg`, see `pairwise_gradients`.
    """

    def dlogits(x_TxT: jax.Array, at: Tile, *_: Any) -> tuple[NegativeSums, jax.Array]:
        l_TxT, logit_min = at.negatives(t * x_TxT + b)
        loss, p_TxT, logit_max = softplus_and_sigmoid(l_TxT)
        return NegativeSums(loss, jnp.sum(p_TxT), logit_min, logit_max), p_TxT

    zeros = NegativeSums.zeros()
    return pairwise_gradients(dlogits, zeros, zimg_nxD, ztxt_mxD, origin=(shift, 0), tile=tile)


def softplus_and_sigmoid(l_TxT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sum(softplus(l))`, `sigmoid(l)` and `max(l)` of a tile, safe for logits of any size."""
    sums: tuple[jax.Array, jax.Array, jax.Array] = by_platform(
        l_TxT, gpu=_softplus_and_sigmoid_in_one_pass, default=_softplus_and_sigmoid
    )
    return sums


def _softplus_and_sigmoid_in_one_pass(l_TxT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One kernel of a GPU reads the products of a tile and writes p and the sums of its rows."""
    e_TxT = jnp.exp(-jnp.abs(l_TxT))
    p_TxT = jnp.where(l_TxT > 0, 1.0, e_TxT) / (1.0 + e_TxT)
    return jnp.sum(jnp.maximum(l_TxT, 0.0) + jnp.log1p(e_TxT)), p_TxT, jnp.max(l_TxT)


def _softplus_and_sigmoid(l_TxT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """With few logarithms, and little work where no logit is positive.

    softplus(l) = max(l, 0) + log1p(e) with e = exp(-|l|). The logarithm costs most, so one is
    taken for sixteen logits: the sum of log1p(e) is the log1p of a product less one,
    (1 + e)(1 + f) - 1 = e + f + e f, which is exact to rounding however small e and f are. Sixteen
    factors stay below 2**16.
    """
    l_max = jnp.max(l_TxT)
    # The barriers keep the compiler from computing exp again for each of its three users.
    e_TxT = lax.optimization_barrier(jnp.exp(-jnp.abs(l_TxT)))
    p_TxT = lax.optimization_barrier(jnp.where(l_TxT > 0, 1.0, e_TxT) / (1.0 + e_TxT))
    product = e_TxT
    while product.shape[0] % 2 == 0 and product.size > e_TxT.size // 16:
        e, f = jnp.split(product, 2)
        product = e + f + e * f
    # Most tiles of a trained model have no positive logit, and then sum(max(l, 0)) is 0.
    linear = lax.cond(
        l_max > 0, lambda x: jnp.sum(jnp.maximum(x, 0.0)), lambda _: jnp.zeros(()), l_TxT
    )
    return linear + jnp.sum(jnp.log1p(product)), p_TxT, l_max
