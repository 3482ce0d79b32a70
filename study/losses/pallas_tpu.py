"""`tiled.sigmoid_negatives` as one TPU kernel: logits never leave vector memory (VMEM).

A *panel* of images stays in VMEM with its gradient, while all texts stream past it in tiles. A
text tile is read with the gradient that earlier panels have summed, and its gradient is written
back in place. Panels follow one another in a `lax.scan`, so a kernel call visits each text tile
once, and the in-place update needs no ordering between visits.

Traffic to HBM for n images, m texts, panels of S rows and embeddings of `size` bytes per element:
texts `(n / S) * m * D * (size + 8)`, images `n * D * (size + 12)`, no logits. So the panel is as
tall as VMEM allows and the text tile is small. The alternatives cost more: a second sweep for the
texts' gradients is a fourth matmul per tile, and partial sums per panel move the same bytes and
take n / S times the memory.

On chips whose two cores run one program (v4, v5p) the cores split the texts. Each sums its own
gradient of the panel and the two are added at the end; images then cost
`n * D * (2 * size + 20)`.

The kernel has not been timed on a TPU. In libtpu 0.0.42.1's schedules for n = m = 8192, D = 768
in bfloat16 it takes 0.49 (v4), 0.80 (v5e) and 0.75 (v6e) of the instruction bundles of
`tiled.sigmoid_negatives` with the best of its tiles of 256, 512 and 1024. Waiting for memory is
not counted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from study.losses.tiled import BIG, NegativeSums

MIB = 1 << 20
LANES = 128
# (rows of the panel, rows of the tile, columns of the tile): the first that fits is used.
SHAPES = (
    (2048, 512, 512),
    (1024, 256, 512),
    (1024, 256, 256),
    (512, 256, 256),
    (512, 128, 128),
    (128, 128, 128),
)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Properties of a chip: the cores that run one program, and the VMEM bytes of each core."""

    cores: int
    vmem_bytes: int

    @classmethod
    def current(cls) -> Chip:
        """The chip that is compiled for; if it is unknown, one whose kernel runs on all of them."""
        try:
            info = pltpu.get_tpu_info()
        except ValueError:  # tracing outside a mesh, on a machine without a TPU
            return cls(cores=2, vmem_bytes=16 * MIB)
        return cls(cores=info.num_cores, vmem_bytes=info.vmem_capacity_bytes)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Panels of `panel` images, tiles of `rows x cols` logits, text tiles of `cols` rows."""

    panel: int
    rows: int
    cols: int
    cores: int
    vmem_bytes: int

    @classmethod
    def choose(cls, n: int, m: int, dim: int, size: int, tile: int, chip: Chip) -> Tiling:
        """The largest tiling for n images and m texts of `dim` elements that fits the chip.

        Arguments:
          size: bytes per element of the embeddings.
          tile: rows and columns of a tile, at most.

        Raises:
          ValueError: even tiles of 128 x 128 do not fit next to embeddings of this size.
        """
        cap = max(LANES, tile // LANES * LANES)
        limit = chip.vmem_bytes - MIB // 2  # `vmem_bytes` is not exact
        for panel, rows, cols in SHAPES:
            if max(rows, cols) <= cap and vmem_bytes(panel, rows, cols, dim, size) <= limit:
                break
        else:
            raise ValueError(
                f"embeddings of {dim} x {size} bytes do not fit the sigmoid kernel in "
                f"{chip.vmem_bytes // MIB} MiB of VMEM; use a smaller embed_dim or bfloat16"
            )
        # Even out panels and text tiles, so that little of the last one is padding.
        while rows > _round_up(n, LANES):
            rows //= 2
        panel = _round_up(-(-n // -(-n // panel)), rows)
        visits = -(-m // (chip.cores * cols))
        cols = _round_up(-(-m // (chip.cores * visits)), LANES)
        used = vmem_bytes(panel, rows, cols, dim, size)
        return cls(
            panel=panel,
            rows=rows,
            cols=cols,
            cores=chip.cores,
            vmem_bytes=min(used + 4 * MIB, chip.vmem_bytes),
        )


def fits(z_nxD: jax.Array) -> bool:
    """Whether the kernel can run on embeddings of this width and type on the current chip."""
    dtype = z_nxD.dtype
    if dtype not in (jnp.float32, jnp.bfloat16):
        return False
    try:
        Tiling.choose(1, 1, z_nxD.shape[1], dtype.itemsize, LANES, Chip.current())
    except ValueError:
        return False
    return True


def vmem_bytes(panel: int, rows: int, cols: int, dim: int, size: int) -> int:
    """Estimate of the VMEM that one core needs.

    It counts the panel and its gradient once, text tiles and their gradients twice each (double
    buffers in and out), two products and two tiles of logits. libtpu 0.0.42.1 used at most
    0.15 MiB more and 2 MiB less (v4, D = 768 and 1152, float32 and bfloat16).
    """
    dim = _round_up(dim, LANES)
    resident = panel * dim * (size + 4)
    streams = cols * dim * (2 * size + 16)
    return resident + streams + 4 * dim * (rows + cols) + 8 * rows * cols


def sigmoid_negatives(
    zimg_nxD: jax.Array,
    ztxt_mxD: jax.Array,
    t: jax.Array,
    b: jax.Array,
    *,
    diagonal: jax.Array | bool,
    tile: int,
    interpret: bool = False,
) -> tuple[NegativeSums, jax.Array, jax.Array]:
    """`tiled.sigmoid_negatives` by the kernel.

    Arguments:
      zimg_nxD, ztxt_mxD: unit-norm embeddings, float32 or bfloat16. `jax_default_matmul_precision`
        sets the precision of float32 products.
      t, b: temperature as a factor, and bias.
      diagonal: whether row i and column i are the same example, whose pair is then left out.
      tile: rows and columns of logits held at once, at most; at least 128.
      interpret: run the kernel as array code on any device, for tests.

    Returns the sums over negatives, `p @ ztxt` (`nxD`) and `p.T @ zimg` (`mxD`) with
    p = sigmoid(l), in float32. The gradients of the summed loss are t times these.

    Raises:
      ValueError: the embeddings are too wide for the chip's VMEM.
    """
    (n, dim), m, f32 = zimg_nxD.shape, len(ztxt_mxD), jnp.float32
    size = zimg_nxD.dtype.itemsize
    tiling = Tiling.choose(n, m, dim, size, tile, Chip.current())
    zimg_NxD = _padded(zimg_nxD, tiling.panel)
    ztxt_MxD = _padded(ztxt_mxD, tiling.cores * tiling.cols)
    zimg_RxSxD = zimg_NxD.reshape(-1, tiling.panel, dim)
    call = _panel_call(tiling, n, ztxt_MxD, m, interpret)
    learned_2 = jnp.stack([jnp.asarray(t, f32), jnp.asarray(b, f32)])

    def panel(dztxt_MxD: jax.Array, xs: Any) -> Any:
        first, zimg_SxD = xs
        position_2 = jnp.stack([first, jnp.asarray(diagonal, jnp.int32)])
        dztxt_MxD, dzimg_KxSxD, sums = call(learned_2, position_2, zimg_SxD, ztxt_MxD, dztxt_MxD)
        return dztxt_MxD, (dzimg_KxSxD.sum(0), sums)

    first_R = jnp.arange(len(zimg_RxSxD), dtype=jnp.int32) * tiling.panel
    init = jnp.zeros(ztxt_MxD.shape, f32)
    dztxt_MxD, (dzimg_RxSxD, sums) = lax.scan(panel, init, (first_R, zimg_RxSxD))
    loss, db, low, high = (sums[:, :, k] for k in range(4))
    total = NegativeSums(loss.sum(), db.sum(), low.min(), high.max())
    return total, dzimg_RxSxD.reshape(-1, dim)[:n], dztxt_MxD[:m]


def _panel_call(tiling: Tiling, n: int, ztxt_MxD: jax.Array, m: int, interpret: bool) -> Any:
    """The kernel for one panel, as a function of the first five arguments of `_kernel`."""
    (texts, dim), f32 = ztxt_MxD.shape, jnp.float32
    size = ztxt_MxD.dtype.itemsize
    visits = texts // (tiling.cores * tiling.cols)
    scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
    # The panel's blocks do not change during a call, so a second buffer would be wasted.
    single = pl.Buffered(1)
    panel_in = pl.BlockSpec((tiling.panel, dim), lambda k, c: (0, 0), pipeline_mode=single)
    panel_out = pl.BlockSpec((1, tiling.panel, dim), lambda k, c: (k, 0, 0), pipeline_mode=single)
    text = pl.BlockSpec((tiling.cols, dim), lambda k, c: (k * visits + c, 0))
    sums = pl.BlockSpec((1, 4, tiling.cols), lambda k, c: (k, 0, 0))
    return pl.pallas_call(
        functools.partial(
            _kernel, n=n, m=m, rows=tiling.rows, ragged=bool(n % tiling.panel) or texts != m
        ),
        grid=(tiling.cores, visits),
        in_specs=[scalars, scalars, panel_in, text, text],
        out_specs=[text, panel_out, sums],
        out_shape=[
            jax.ShapeDtypeStruct((texts, dim), f32),
            jax.ShapeDtypeStruct((tiling.cores, tiling.panel, dim), f32),
            jax.ShapeDtypeStruct((tiling.cores, 4, tiling.cols), f32),
        ],
        input_output_aliases={4: 0},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=tiling.vmem_bytes
        ),
        cost_estimate=pl.CostEstimate(
            flops=6 * tiling.panel * texts * dim,
            transcendentals=2 * tiling.panel * texts,
            bytes_accessed=texts * dim * (size + 8)
            + tiling.cores * tiling.panel * dim * (size + 4),
        ),
        interpret=interpret,
        name="sigmoid_negatives",
    )


def _kernel(
    learned: Any,
    position: Any,
    zimg: Any,
    ztxt: Any,
    dztxt_before: Any,
    dztxt: Any,
    dzimg: Any,
    sums: Any,
    *,
    n: int,
    m: int,
    rows: int,
    ragged: bool,
) -> None:
    """One text tile with the panel. All references are in VMEM except the scalars.

    Arguments:
      learned: t and b.
      position: number of the panel's first image, and whether the block is on the diagonal.
      dztxt_before, dztxt: gradient of the text tile before and after this panel.
      n, m: images and texts of the block without padding; `ragged` if there is any.
    """
    panel, cols = len(zimg), len(ztxt)
    t, b = learned[0], learned[1]
    first, diagonal = position[0], position[1] != 0
    k, c = pl.program_id(0), pl.program_id(1)
    j0 = (k * pl.num_programs(1) + c) * cols

    @pl.when(c == 0)
    def _() -> None:
        dzimg[...] = jnp.zeros_like(dzimg)
        sums[0, 0:2] = jnp.zeros((2, cols), jnp.float32)
        sums[0, 2:3] = jnp.full((1, cols), BIG, jnp.float32)
        sums[0, 3:4] = jnp.full((1, cols), -BIG, jnp.float32)

    dztxt[...] = dztxt_before[...]
    ztxt_TxD = ztxt[...]
    i_rxT = lax.broadcasted_iota(jnp.int32, (rows, cols), 0)
    j_rxT = lax.broadcasted_iota(jnp.int32, (rows, cols), 1)

    def tile(s: jax.Array, _: None) -> None:
        at = pl.ds(s * rows, rows)
        zimg_rxD, i0 = zimg[at, :], first + s * rows
        l_rxT = t * _product(zimg_rxD, ztxt_TxD, over=(1, 1)) + b
        # Off the diagonal, compare with a difference i - j that no pair of a tile has.
        out_rxT = i_rxT - j_rxT == jnp.where(diagonal, j0 - i0, 2 * max(rows, cols))
        if ragged:
            out_rxT |= (i_rxT >= n - i0) | (j_rxT >= m - j0)
        low_rxT = jnp.where(out_rxT, BIG, l_rxT)
        l_rxT = jnp.where(out_rxT, -BIG, l_rxT)

        e_rxT = jnp.exp(-jnp.abs(l_rxT))
        r_rxT = 1.0 / (1.0 + e_rxT)
        p_rxT = jnp.where(l_rxT > 0, r_rxT, e_rxT * r_rxT)
        # softplus(l) = max(l, 0) + log1p(e), with one logarithm for rows / 8 of them as in
        # `tiled.softplus_and_sigmoid`. The product is at most 2 ** (512 / 8).
        product = e_rxT
        while len(product) > 8:
            half = len(product) // 2
            product = product[:half] + product[half:] * (1.0 + product[:half])
        softplus_T = _over_rows(jnp.sum, jnp.maximum(l_rxT, 0.0))
        sums[0, 0:1] += softplus_T + _over_rows(jnp.sum, jnp.log1p(product))
        sums[0, 1:2] += _over_rows(jnp.sum, p_rxT)
        sums[0, 2:3] = jnp.minimum(sums[0, 2:3], _over_rows(jnp.min, low_rxT))
        sums[0, 3:4] = jnp.maximum(sums[0, 3:4], _over_rows(jnp.max, l_rxT))

        p_rxT = p_rxT.astype(ztxt_TxD.dtype)
        dzimg[0, at, :] += _product(p_rxT, ztxt_TxD, over=(1, 0))
        dztxt[...] += _product(p_rxT, zimg_rxD, over=(0, 0))

    lax.fori_loop(0, panel // rows, tile, None)


def _product(x: jax.Array, y: jax.Array, *, over: tuple[int, int]) -> jax.Array:
    """Matrix product that contracts these axes, with float32 sums."""
    axes = (((over[0],), (over[1],)), ((), ()))
    return lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)


def _over_rows(reduce: Any, x_rxT: jax.Array) -> jax.Array:
    return reduce(x_rxT, axis=0, keepdims=True)


def _padded(z_nxD: jax.Array, multiple: int) -> jax.Array:
    return jnp.pad(z_nxD, ((0, -len(z_nxD) % multiple), (0, 0)))


def _round_up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple
