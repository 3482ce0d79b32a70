"""The sigmoid kernel: equal to float64, and compiled for every TPU that it must fit."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.losses.pallas_tpu import Chip, Tiling, fits, sigmoid_negatives, vmem_bytes

MIB = 1 << 20


def embeddings(n, m, dim, dtype):
    """Unit rows of which row i of both agree more than others do, rounded to `dtype`."""
    rng = np.random.default_rng(0)
    zimg, ztxt = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    ztxt[: min(n, m)] += zimg[: min(n, m)]
    return [jnp.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), dtype) for z in (zimg, ztxt)]


def reference(zimg, ztxt, t, b, diagonal):
    zimg, ztxt = (np.asarray(z, np.float64) for z in (zimg, ztxt))
    logits = t * zimg @ ztxt.T + b
    negative = ~np.eye(*logits.shape, dtype=bool) if diagonal else np.ones(logits.shape, bool)
    p = np.where(negative, np.exp(-np.logaddexp(0, -logits)), 0.0)
    loss = np.sum(np.logaddexp(0, logits), where=negative)
    sums = (loss, p.sum(), logits[negative].min(), logits[negative].max())
    return sums, p @ ztxt, p.T @ zimg


@functools.cache
def compiled_kernel(tile, static_diagonal):
    return jax.jit(
        lambda *a, diagonal: sigmoid_negatives(*a, diagonal=diagonal, tile=tile, interpret=True),
        static_argnames="diagonal" if static_diagonal else (),
    )


def kernel(zimg, ztxt, t, b, diagonal, tile=128):
    """`diagonal` is traced as in the ring, except where a test gives a plain bool."""
    fn = compiled_kernel(tile, isinstance(diagonal, bool))
    return fn(zimg, ztxt, jnp.float32(t), jnp.float32(b), diagonal=diagonal)


def close(got, want, tolerance=1e-5):
    got = np.asarray(got, np.float64)
    assert got.shape == np.shape(want)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


# Blocks of one tile; of several panels and text tiles; ragged either way; fewer rows than a tile.
@pytest.mark.parametrize(("n", "m"), [(128, 256), (1100, 700), (5, 300)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernel_equals_float64(n, m, dtype):
    zimg, ztxt = embeddings(n, m, 24, dtype)
    # bfloat16 rounds sigmoid(l) once, by up to 2 ** -9, before it meets the embeddings.
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-9
    for t, b, diagonal in ((10.0, -10.0, True), (120.0, -13.0, True), (120.0, -13.0, False)):
        sums, dzimg, dztxt = kernel(zimg, ztxt, t, b, jnp.asarray(diagonal))
        want, want_dzimg, want_dztxt = reference(zimg, ztxt, t, b, diagonal)
        for got, expected in zip(jax.tree.leaves(sums), want, strict=True):
            close(got, expected)
        assert dzimg.dtype == dztxt.dtype == jnp.float32
        close(dzimg, want_dzimg, tolerance)
        close(dztxt, want_dztxt, tolerance)


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_traced_diagonal_is_a_plain_one(diagonal):
    zimg, ztxt = embeddings(300, 300, 16, jnp.float32)
    plain = kernel(zimg, ztxt, 10.0, -5.0, diagonal)
    traced = kernel(zimg, ztxt, 10.0, -5.0, jnp.asarray(diagonal))
    for got, expected in zip(jax.tree.leaves(traced), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("b", [-300.0, 0.0, 300.0])
def test_logits_where_exp_overflows(b):
    """float32 exp is infinite above 88: neither loss nor gradients may follow it."""
    zimg, ztxt = embeddings(130, 130, 8, jnp.float32)
    sums, *grads = kernel(zimg, ztxt, 200.0, b, True)
    want, *want_grads = reference(zimg, ztxt, 200.0, b, True)
    for got, expected in zip((sums.loss, sums.db, *grads), (*want[:2], *want_grads), strict=True):
        assert np.all(np.isfinite(got))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-30)


def test_products_of_512_factors_stay_finite():
    """The largest tile multiplies 64 factors 1 + e, each 2 where all logits are 0."""
    z = jnp.zeros((512, 8))
    sums, *_ = kernel(z, z, 1.0, 0.0, False, tile=512)
    close(sums.loss, 512 * 512 * np.log(2))


@pytest.mark.parametrize("vmem", [16, 64, 128])
@pytest.mark.parametrize("cores", [1, 2])
def test_tilings_are_legal(cores, vmem):
    chip = Chip(cores=cores, vmem_bytes=vmem * MIB)
    blocks = ((1, 1), (640, 100), (2048, 2048), (2049, 5000))
    for (n, m), tile, dim, size in itertools.product(
        blocks, (1, 128, 300, 512), (64, 768, 1152), (2, 4)
    ):
        tiling = Tiling.choose(n, m, dim, size, tile, chip)
        assert tiling.panel % tiling.rows == 0 == tiling.cols % 128
        assert max(tiling.rows, tiling.cols) <= max(tile, 128)
        # Tiles are halved down to eight rows in the product of a tile's factors.
        assert tiling.rows in (128, 256, 512)
        assert -n % tiling.panel < tiling.rows * -(-n // tiling.panel)
        used = vmem_bytes(tiling.panel, tiling.rows, tiling.cols, dim, size)
        assert used < tiling.vmem_bytes <= chip.vmem_bytes


def test_embeddings_too_wide_for_the_chip_are_refused():
    assert fits(jnp.zeros((1, 1152), jnp.float32))
    assert not fits(jnp.zeros((1, 8192), jnp.float32))
    assert not fits(jnp.zeros((1, 64), jnp.float16))
    with pytest.raises(ValueError, match="use a smaller embed_dim or bfloat16"):
        kernel(jnp.zeros((8, 8192)), jnp.zeros((8, 8192)), 1.0, 0.0, False)


@pytest.mark.slow
def test_kernel_compiles_for_every_chip_and_keeps_no_logits(compiled_for_tpu):
    """v4, v5e, v5p, v6e; D from 64 to 1152; ragged; where the kernel cannot tell the chip."""
    kernels = compiled_for_tpu("kernels")["kernels"]
    assert len(kernels) == 13
    for name in ("v4-8", "v5e-16", "v5p-8", "v6e-16"):
        report = kernels[f"{name} large"]
        between = report["peak_bytes"] - report["argument_bytes"] - report["output_bytes"]
        # All logits would be 256 MiB. What is there is the gradients, at 128 lanes for D = 64.
        assert between <= 32 * MIB


@pytest.mark.slow
def test_lowering_for_a_tpu_takes_the_kernel_and_for_the_cpu_does_not(compiled_for_tpu):
    assert compiled_for_tpu("kernels")["by_platform"] == {"tpu": True, "cpu": False}
