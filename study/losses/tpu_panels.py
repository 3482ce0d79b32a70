"""The loop that the TPU kernels of both losses share: panels of images, texts that stream past.

A *panel* of images stays in vector memory (VMEM) with its results, while all texts stream past it
in tiles; logits never leave VMEM. A text tile is read with what earlier panels have added up for it
(gradients, or normalisers), and the new sum is written back in place. Panels follow one another in
a `lax.scan`, so a kernel call visits each text tile once, and the in-place update needs no ordering
between visits.

Traffic to HBM for the gradients of n images, m texts, panels of S rows and embeddings of `size`
bytes per element: texts `(n / S) * m * D * (size + 8)`, images `n * D * (size + 12)`, no logits. So
the panel is as tall as VMEM allows and the text tile is small. The alternatives cost more: a second
sweep for the texts' gradients is a fourth matmul per tile, and partial sums per panel move the same
bytes and take n / S times the memory.

On chips whose two cores run one program (v4, v5p) the cores split the texts. Each has its own
results of the panel and the two are combined at the end; images then cost
`n * D * (2 * size + 20)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

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
    def choose(
        cls, n: int, m: int, dim: int, size: int, tile: int, chip: Chip, *, per_image: int = 0
    ) -> Tiling:
        """The largest tiling for n images and m texts of `dim` elements that fits the chip.

        Arguments:
          size: bytes per element of the embeddings.
          tile: rows and columns of a tile, at most.
          per_image: bytes of each image of a panel besides its embedding and its gradient.

        Raises:
          ValueError: even tiles of 128 x 128 do not fit next to embeddings of this size.
        """
        cap = max(LANES, tile // LANES * LANES)
        limit = chip.vmem_bytes - MIB // 2  # `vmem_bytes` is not exact
        for panel, rows, cols in SHAPES:
            needed = vmem_bytes(panel, rows, cols, dim, size, per_image)
            if max(rows, cols) <= cap and needed <= limit:
                break
        else:
            raise ValueError(
                f"embeddings of {dim} x {size} bytes do not fit the TPU kernel of the loss in "
                f"{chip.vmem_bytes // MIB} MiB of VMEM; use a smaller embed_dim or bfloat16"
            )
        # Even out panels and text tiles, so that little of the last one is padding.
        while rows > round_up(n, LANES):
            rows //= 2
        panel = round_up(-(-n // -(-n // panel)), rows)
        visits = -(-m // (chip.cores * cols))
        cols = round_up(-(-m // (chip.cores * visits)), LANES)
        used = vmem_bytes(panel, rows, cols, dim, size, per_image)
        return cls(
            panel=panel,
            rows=rows,
            cols=cols,
            cores=chip.cores,
            vmem_bytes=min(used + 4 * MIB, chip.vmem_bytes),
        )


def vmem_bytes(panel: int, rows: int, cols: int, dim: int, size: int, per_image: int = 0) -> int:
    """Estimate of the VMEM that one core needs.

    It counts the panel and its gradient once, text tiles and their gradients twice each (double
    buffers in and out), two products and two tiles of logits. libtpu 0.0.42.1 used at most
    0.15 MiB more and 2 MiB less (sigmoid; v4, D = 768 and 1152, float32 and bfloat16).
    """
    dim = round_up(dim, LANES)
    resident = panel * (dim * (size + 4) + per_image)
    streams = cols * dim * (2 * size + 16)
    return resident + streams + 4 * dim * (rows + cols) + 8 * rows * cols


class Refs(NamedTuple):
    """What a kernel reads and writes, all in VMEM except `scalars`.

    Attributes:
      scalars: float32, such as the temperature.
      images, texts: of the panel and of the text tile; embeddings first.
      for_texts: result of the text tile, `TxD` or `KxT`, with that of earlier panels.
      for_images: results of the panel, each `1xSxD` or `1xSx128`.
      totals: one row per total, `1xKxT`.
    """

    scalars: Any
    images: Sequence[Any]
    texts: Sequence[Any]
    for_texts: Any
    for_images: Sequence[Any]
    totals: Any


class Logits(NamedTuple):
    """A tile of products.

    Attributes:
      rows: where its images are in the panel.
      x_rxT: products of embeddings.
      out_rxT: which pairs are positives or padding.
    """

    rows: Any
    zimg_rxD: jax.Array
    ztxt_TxD: jax.Array
    x_rxT: jax.Array
    out_rxT: jax.Array


@dataclass(frozen=True, kw_only=True)
class Panels:
    """A kernel for one block of pairs, in panels.

    Attributes:
      body: updates the results with one tile of logits.
      per_image, per_text: initial values of results for each image (128 each, one per lane) and
        for each text; () for gradients of the embeddings, which start at 0.
      totals: initial value of each total over all pairs.
    """

    name: str
    body: Callable[[Logits, Refs], None]
    per_image: tuple[float, ...] = ()
    per_text: tuple[float, ...] = ()
    totals: tuple[float, ...] = ()

    def __call__(
        self,
        tiling: Tiling,
        scalars: Sequence[jax.Array],
        images: Sequence[jax.Array],
        texts: Sequence[jax.Array],
        *,
        shift: jax.Array | int,
        interpret: bool,
    ) -> tuple[Sequence[jax.Array], jax.Array, jax.Array | None]:
        """Runs the kernel on all panels.

        Arguments:
          images: embeddings `nxD`, then arrays `nxK`.
          texts: embeddings `mxD`, then arrays `Kxm`.
          shift: the pair of image i and text i + shift is left out.

        Returns the results of images, `KxnxC` each for K cores; the result of texts, `mxD` or
        `Cxm`; totals `RxKxCxT` of R panels, if there are any.
        """
        (n, _), (m, dim), f32 = images[0].shape, texts[0].shape, jnp.float32
        multiple, of_texts = tiling.cores * tiling.cols, 1 if self.per_text else 0
        images = [pad(a, tiling.panel) for a in images]
        texts = [pad(a, multiple, axis=min(k, 1)) for k, a in enumerate(texts)]
        padded_m = len(texts[0])
        carried = jnp.zeros((padded_m, dim), f32)
        if self.per_text:
            carried = jnp.stack([jnp.full(padded_m, value, f32) for value in self.per_text])
        call = self._call(tiling, images, texts, carried, n, m, interpret)
        scalars_K = jnp.stack([jnp.asarray(s, f32) for s in scalars])

        def panel(carried: jax.Array, xs: Any) -> Any:
            first, panel_images = xs
            position_2 = jnp.stack([first, jnp.asarray(shift, jnp.int32)])
            carried, *results = call(scalars_K, position_2, *panel_images, *texts, carried)
            return carried, results

        images_R = [a.reshape(-1, tiling.panel, a.shape[1]) for a in images]
        first_R = jnp.arange(len(images_R[0]), dtype=jnp.int32) * tiling.panel
        carried, results = lax.scan(panel, carried, (first_R, images_R))
        totals = results.pop() if self.totals else None
        for_images = [
            jnp.swapaxes(a, 0, 1).reshape(tiling.cores, -1, a.shape[-1])[:, :n] for a in results
        ]
        return for_images, lax.slice_in_dim(carried, 0, m, axis=of_texts), totals

    def _call(
        self,
        tiling: Tiling,
        images: Sequence[jax.Array],
        texts: Sequence[jax.Array],
        carried: jax.Array,
        n: int,
        m: int,
        interpret: bool,
    ) -> Callable[..., Any]:
        """The kernel for one panel: (scalars, position, *images, *texts, carried) -> results."""
        (padded_m, dim), f32 = texts[0].shape, jnp.float32
        size = texts[0].dtype.itemsize
        cores, panel, cols = tiling.cores, tiling.panel, tiling.cols
        visits = padded_m // (cores * cols)
        scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
        # The panel's blocks do not change during a call, so a second buffer would be wasted.
        single = pl.Buffered(1)
        text = pl.BlockSpec((cols, dim), lambda k, c: (k * visits + c, 0))

        def image_in(array: jax.Array) -> Any:
            return pl.BlockSpec((panel, array.shape[1]), lambda k, c: (0, 0), pipeline_mode=single)

        def image_out(width: int) -> Any:
            return pl.BlockSpec((1, panel, width), lambda k, c: (k, 0, 0), pipeline_mode=single)

        def per_text(array: jax.Array) -> Any:
            return pl.BlockSpec((len(array), cols), lambda k, c: (0, k * visits + c))

        in_specs = [scalars, scalars, *map(image_in, images), text, *map(per_text, texts[1:])]
        widths = [LANES] * len(self.per_image) or [dim]
        out_specs = [per_text(carried) if self.per_text else text, *map(image_out, widths)]
        out_shape = [jax.ShapeDtypeStruct(carried.shape, f32)]
        out_shape += [jax.ShapeDtypeStruct((cores, panel, width), f32) for width in widths]
        if self.totals:
            block = (1, len(self.totals), cols)
            out_specs.append(pl.BlockSpec(block, lambda k, c: (k, 0, 0)))
            out_shape.append(jax.ShapeDtypeStruct((cores, *block[1:]), f32))
        products, moved = (1, size) if self.per_text else (3, size + 8)
        return pl.pallas_call(
            functools.partial(
                self._kernel,
                inputs=(len(images), len(texts)),
                n=n,
                m=m,
                rows=tiling.rows,
                ragged=bool(n % panel) or padded_m != m,
            ),
            grid=(cores, visits),
            in_specs=[*in_specs, out_specs[0]],
            out_specs=out_specs,
            out_shape=out_shape,
            input_output_aliases={len(in_specs): 0},
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=tiling.vmem_bytes
            ),
            cost_estimate=pl.CostEstimate(
                flops=2 * products * panel * padded_m * dim,
                transcendentals=2 * panel * padded_m,
                bytes_accessed=padded_m * dim * moved + cores * panel * dim * (size + 4),
            ),
            interpret=interpret,
            name=self.name,
        )

    def _kernel(
        self,
        scalars: Any,
        position: Any,
        *refs: Any,
        inputs: tuple[int, int],
        n: int,
        m: int,
        rows: int,
        ragged: bool,
    ) -> None:
        """One text tile with the panel.

        Arguments:
          position: number of the panel's first image, and `shift`.
          refs: images, texts, and the texts' result before and after; then the other results.
          inputs: numbers of the first two.
          n, m: images and texts of the block without padding; `ragged` if there is any.
        """
        images, refs = refs[: inputs[0]], refs[inputs[0] :]
        texts, (before, after, *results) = refs[: inputs[1]], refs[inputs[1] :]
        totals: Any = results.pop() if self.totals else None
        panel, cols = len(images[0]), len(texts[0])
        first, shift = position[0], position[1]
        k, c = pl.program_id(0), pl.program_id(1)
        j0 = (k * pl.num_programs(1) + c) * cols

        @pl.when(c == 0)
        def _() -> None:
            for ref, value in zip(results, self.per_image or (0.0,), strict=True):
                ref[...] = jnp.full(ref.shape, value, jnp.float32)
            for row, value in enumerate(self.totals):
                totals[0, row : row + 1] = jnp.full((1, cols), value, jnp.float32)

        after[...] = before[...]
        out = Refs(scalars, images, texts, after, results, totals)
        ztxt_TxD = texts[0][...]
        i_rxT = lax.broadcasted_iota(jnp.int32, (rows, cols), 0)
        j_rxT = lax.broadcasted_iota(jnp.int32, (rows, cols), 1)

        def tile(s: jax.Array, _: None) -> None:
            at = pl.ds(s * rows, rows)
            zimg_rxD, i0 = images[0][at, :], first + s * rows
            out_rxT = i_rxT - j_rxT == j0 - i0 - shift
            if ragged:
                out_rxT |= (i_rxT >= n - i0) | (j_rxT >= m - j0)
            x_rxT = product(zimg_rxD, ztxt_TxD, over=(1, 1))
            self.body(Logits(at, zimg_rxD, ztxt_TxD, x_rxT, out_rxT), out)

        lax.fori_loop(0, panel // rows, tile, None)


def product(x: jax.Array, y: jax.Array, *, over: tuple[int, int]) -> jax.Array:
    """Matrix product that contracts these axes, with float32 sums."""
    axes = (((over[0],), (over[1],)), ((), ()))
    return lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)


def over_rows(reduce: Any, x_rxT: jax.Array) -> jax.Array:
    return reduce(x_rxT, axis=0, keepdims=True)


def pad(a: jax.Array, multiple: int, axis: int = 0) -> jax.Array:
    widths = [(0, 0)] * a.ndim
    widths[axis] = (0, -a.shape[axis] % multiple)
    return jnp.pad(a, widths)


def round_up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple
